//! Bytes of what is flashed, as it is and compressed as images are.

use std::path::Path;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use wherry_rig::Arch;
use wherry_tests::images::static_binary;
use wherry_tests::run::{both, output, tool};

/// Of each static binary.
pub fn measure() -> Result<Value> {
    let mut sizes = serde_json::Map::new();
    for arch in Arch::ALL {
        sizes.insert(arch.to_string(), size(arch.name(), &static_binary(arch, "wherry")?)?);
    }
    Ok(Value::Object(sizes))
}

fn size(name: &str, path: &Path) -> Result<Value> {
    let bytes = std::fs::metadata(path)?.len();
    let xz = compressed(path, "xz", &["--stdout", "-9", "--extreme"])?;
    let zstd = compressed(path, "zstd", &["--quiet", "--stdout", "-19"])?;
    println!(
        "size ({name}): {:.2} MB, {:.2} MB by xz, {:.2} MB by zstd",
        bytes as f64 / 1e6,
        xz as f64 / 1e6,
        zstd as f64 / 1e6
    );
    Ok(json!({ "bytes": bytes, "xz_bytes": xz, "zstd_bytes": zstd }))
}

fn compressed(path: &Path, program: &str, words: &[&str]) -> Result<usize> {
    let output = output(tool(program, words.iter().copied()).arg(path))?;
    ensure!(output.status.success(), "{program}: {}", both(&output));
    Ok(output.stdout.len())
}
