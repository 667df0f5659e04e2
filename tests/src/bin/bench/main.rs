//! `make bench`: what Wherry costs, with peers beside it. Figures go into
//! `target/reports/`; goals are in SPECIFICATION.md.
//!
//! One report a module. Arguments name those to make (`start`); none: all.

mod delta;
mod flood;
mod footprint;
mod gateway;
mod process;
mod program;
mod rolling;
mod spread;
mod start;

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::Value;

/// Makes the contents of a report.
type Measure = fn() -> Result<Value>;

/// In the order in which they are made.
const REPORTS: [(&str, Measure); 5] = [
    ("start", start::measure),
    ("rolling", rolling::measure),
    ("delta", delta::measure),
    ("logs", flood::measure),
    ("footprint", footprint::measure),
];

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let Some(word) = words.iter().find(|word| REPORTS.iter().all(|(name, _)| name != word)) {
        bail!("there is no report `{word}`; there are {:?}", REPORTS.map(|(name, _)| name));
    }
    for (name, measure) in REPORTS {
        if words.is_empty() || words.iter().any(|word| word == name) {
            report(name, &measure()?)?;
        }
    }
    Ok(())
}

fn report(name: &str, figures: &Value) -> Result<()> {
    let path = Path::new("target/reports").join(format!("{name}.json"));
    std::fs::create_dir_all("target/reports")?;
    std::fs::write(&path, serde_json::to_string_pretty(figures)? + "\n")?;
    println!("  -> {}", path.display());
    Ok(())
}
