//! A logger on stderr: time, level, process, text. The environment variable
//! `WHERRY_LOG` chooses the level.
//!
//! Never here: files, rotation, filters by module beyond keeping libraries
//! quiet. What keeps the node's stderr is the init system's affair.

use std::io::Write;
use std::str::FromStr;

use log::{LevelFilter, Log, Metadata, Record};

use crate::clock;

/// `error`, `warn`, `info`, `debug`, `trace` or `off`.
pub const LEVEL_VARIABLE: &str = "WHERRY_LOG";
/// A line longer than this is cut: errors of libraries can be pages long.
const LINE_BYTES_MAX: usize = 4096;
const OWN_TARGETS: &str = "wherry";
/// Their failures come back as values. Their warnings are about what we do on
/// purpose: hide the cgroups from them, and reap before them.
const RUNTIME_TARGETS: [&str; 2] = ["libcgroups", "libcontainer"];

#[derive(Debug)]
struct Stderr {
    process: &'static str,
}

/// Starts logging for this process, named `process` in each line. A second
/// call changes nothing.
pub fn init(process: &'static str) {
    let asked = std::env::var(LEVEL_VARIABLE).unwrap_or_default();
    let level = LevelFilter::from_str(&asked).unwrap_or(LevelFilter::Info);
    if log::set_boxed_logger(Box::new(Stderr { process })).is_ok() {
        log::set_max_level(level);
    }
    if !asked.is_empty() && LevelFilter::from_str(&asked).is_err() {
        log::warn!("{LEVEL_VARIABLE}={asked}: not a level; use error, warn, info, debug or trace");
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let (target, level) = (metadata.target(), metadata.level());
        if RUNTIME_TARGETS.iter().any(|runtime| target.starts_with(runtime)) {
            return level <= log::Level::Error;
        }
        // Libraries say at `info` what people need not know.
        target.starts_with(OWN_TARGETS) || level <= log::Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let line = line(&clock::millis_text(clock::wall_now().millis()), self.process, record);
        // With stderr gone there is nobody to tell.
        let _ = std::io::stderr().lock().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}

fn line(time: &str, process: &str, record: &Record<'_>) -> String {
    let level = record.level().as_str().to_ascii_lowercase();
    let mut line = format!("{time} {level:<5} {process}: {}", record.args());
    // One record is one line, whatever a message contains.
    line = line.replace('\n', " | ");
    if line.len() > LINE_BYTES_MAX {
        let mut end = LINE_BYTES_MAX;
        while !line.is_char_boundary(end) {
            end -= 1;
        }
        line.truncate(end);
        line.push('…');
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_one_bounded_line() {
        let text = format!("one\ntwo{}", "ä".repeat(LINE_BYTES_MAX));
        let args = format_args!("{text}").to_string();
        let line = line(
            "T",
            "launcher",
            &Record::builder().level(log::Level::Warn).args(format_args!("{args}")).build(),
        );
        assert!(line.starts_with("T warn  launcher: one | twoä"), "{line}");
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.len() < LINE_BYTES_MAX + 8);
    }
}
