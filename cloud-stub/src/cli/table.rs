//! What people read: columns, and lists of facts.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

/// How a reading command prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

/// Prints `value` as JSON, or what `table` makes of it.
///
/// # Errors
/// The other end of a pipe is gone.
pub fn print<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<()> {
    let text = match output {
        Output::Json => serde_json::to_string_pretty(value)? + "\n",
        Output::Table => table(value),
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

/// Rows below a head, in columns as wide as they need to be.
#[must_use]
pub fn columns<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let rows: Vec<[String; N]> = std::iter::once(head.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// Facts, one a line; empty ones are left out.
#[must_use]
pub fn facts<const N: usize>(facts: [(&str, String); N]) -> String {
    let width = facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default() + 1;
    let shown = facts.iter().filter(|(_, value)| !value.is_empty());
    shown.map(|(name, value)| format!("{:width$} {value}\n", format!("{name}:"))).collect()
}

/// Things in one cell.
#[must_use]
pub fn list<T: std::fmt::Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

/// How long ago `millis` (since 1970) was.
#[must_use]
pub fn ago(millis: Option<u64>) -> String {
    let Some(millis) = millis else { return "never".into() };
    let seconds = crate::clock::now_millis().saturating_sub(millis) / 1000;
    match seconds {
        0..60 => format!("{seconds}s ago"),
        60..3600 => format!("{}m ago", seconds / 60),
        3600..86_400 => format!("{}h ago", seconds / 3600),
        _ => format!("{}d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["a".to_owned(), "1".to_owned()], ["longer".to_owned(), String::new()]];
        assert_eq!(columns(["NAME", "N"], rows), "NAME    N\na       1\nlonger\n");
        assert_eq!(facts([("a", "1".into()), ("bbb", String::new())]), "a:   1\n");
    }
}
