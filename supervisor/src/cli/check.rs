//! `check`: prints what this host offers and lacks.

use std::io::Write;
use std::path::Path;

use serde::Serialize;

use super::CliError;
use super::args::Output;
use super::table::Table;
use crate::check::{Report, Row, State, Subject, check as check_host};

/// # Errors
/// [`CliError::CannotRun`] if anything is lacking.
pub(super) fn check(
    config: Option<&Path>,
    output: Output,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let report = check_host(Subject::load(config));
    match output {
        Output::Json => json(&report, out)?,
        Output::Table => write!(out, "{}", table(&report))?,
    }
    if report.can_run() { Ok(()) } else { Err(CliError::CannotRun(names(report.lacking()))) }
}

/// The names of rows, to be put into a message.
pub(super) fn names<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    rows.map(|row| row.name).collect::<Vec<_>>().join(", ")
}

fn json(report: &Report, out: &mut impl Write) -> Result<(), CliError> {
    #[derive(Serialize)]
    struct Page<'a> {
        can_run: bool,
        rows: &'a [Row],
    }
    super::show::json(out, &Page { can_run: report.can_run(), rows: &report.rows })
}

/// What a lack means stands below what was found.
fn table(report: &Report) -> Table {
    let mut table = Table::new(&["NAME", "STATE", "FOUND"]);
    for row in &report.rows {
        table.row(vec![row.name.into(), word(row.state).into(), row.found.clone()]);
        if !row.meaning.is_empty() {
            table.row(vec![String::new(), String::new(), format!("-> {}", row.meaning)]);
        }
    }
    table
}

fn word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Degraded => "degraded",
        State::Lacking => "lacking",
        State::Unknown => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_is_shown_with_its_meaning() {
        let row = |name, state, meaning: &str| Row {
            name,
            state,
            found: "this".into(),
            meaning: meaning.into(),
        };
        let rows = vec![row("overlay", State::Ok, ""), row("loop", State::Lacking, "do that")];
        let report = Report { rows };
        let text = "NAME     STATE    FOUND\noverlay  ok       this\nloop     lacking  this\n\
                    \x20                 -> do that\n";
        assert_eq!(table(&report).to_string(), text);
        let mut page = Vec::new();
        json(&report, &mut page).unwrap();
        let page: serde_json::Value = serde_json::from_slice(&page).unwrap();
        assert_eq!(page["can_run"], false);
        assert_eq!(page["rows"][1]["state"], "lacking");
        assert_eq!(page["rows"][1]["meaning"], "do that");
        assert_eq!(names(report.lacking()), "loop");
    }
}
