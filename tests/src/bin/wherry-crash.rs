//! `wherry-crash PLAN.json`: makes the disk as hundreds of power cuts may
//! leave it, checks each, and prints the outcome as JSON. Run as root.
//! `wherry-crash PLAN.json STATE IMAGE`: makes one of these disks, to look at,
//! says what was told by then, and checks a copy; exits 1 if something is
//! wrong with it.
//! `wherry-crash --look`: checks one mounted disk, for itself.

use std::env::args_os;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use wherry_tests::power::crash::{Plan, show, work};
use wherry_tests::power::look::{WORD, answer};

fn main() -> Result<ExitCode> {
    let words: Vec<OsString> = args_os().skip(1).collect();
    let read =
        |file: &OsString| -> Result<Plan> { Ok(serde_json::from_slice(&std::fs::read(file)?)?) };
    match words.as_slice() {
        [word] if word == WORD => answer()?,
        [plan] => println!("{}", serde_json::to_string(&work(&read(plan)?)?)?),
        [plan, state, image] => {
            let state = state.to_str().context("a number")?.parse()?;
            let failure = show(&read(plan)?, state, Path::new(image))?;
            println!("{failure:#?}");
            return Ok(ExitCode::from(u8::from(!failure.findings.is_empty())));
        }
        _ => bail!("usage: wherry-crash PLAN.json [STATE IMAGE]"),
    }
    Ok(ExitCode::SUCCESS)
}
