//! What is measured: the static programs of this machine's architecture, as
//! `make static` builds them for gateways; `WHERRY_PROGRAM` names another
//! `wherry`.

use std::env::consts::ARCH;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wherry_bundle::Digest;
use wherry_tests::images::static_binary;
use wherry_tests::run::{run, tool};

/// The node's program.
///
/// # Errors
/// It is not there, or it is not static: then it is not what ships.
pub fn wherry() -> Result<PathBuf> {
    match std::env::var_os("WHERRY_PROGRAM") {
        Some(path) => checked(PathBuf::from(path).canonicalize()?),
        None => checked(static_binary(ARCH.parse()?, "wherry")?),
    }
}

/// The launcher alone, of the same sources: see `wherry-launcher`.
///
/// # Errors
/// As [`wherry`].
pub fn launcher() -> Result<PathBuf> {
    checked(static_binary(ARCH.parse()?, "wherry-launcher")?)
}

/// For a report: which file it was.
pub fn named(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path)?;
    println!("measures {}, {} bytes", path.display(), bytes.len());
    Ok(json!({ "bytes": bytes.len(), "sha256": Digest::of(&bytes).hex() }))
}

fn checked(path: PathBuf) -> Result<PathBuf> {
    let headers = run(tool("readelf", ["--wide", "--program-headers"]).arg(&path))?;
    let is_static = !headers.contains("program interpreter");
    ensure!(is_static, "{} is not static: what ships is (`make static`)", path.display());
    Ok(path)
}
