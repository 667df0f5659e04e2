//! `wherry-crash PLAN.json`: makes the disk as hundreds of power cuts may
//! leave it, checks each, and prints the outcome as JSON. Run as root.
//! `wherry-crash PLAN.json STATE IMAGE`: makes one of these disks, to look at.

use std::env::args_os;
use std::ffi::OsString;
use std::path::Path;

use anyhow::{Context, Result, bail};
use wherry_tests::power::crash::{Plan, show, work};

fn main() -> Result<()> {
    let words: Vec<OsString> = args_os().skip(1).collect();
    let read =
        |file: &OsString| -> Result<Plan> { Ok(serde_json::from_slice(&std::fs::read(file)?)?) };
    match words.as_slice() {
        [plan] => {
            println!("{}", serde_json::to_string(&work(&read(plan)?)?)?);
            Ok(())
        }
        [plan, state, image] => {
            let state = state.to_str().context("a number")?.parse()?;
            show(&read(plan)?, state, Path::new(image))
        }
        _ => bail!("usage: wherry-crash PLAN.json [STATE IMAGE]"),
    }
}
