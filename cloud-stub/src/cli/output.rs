//! Values as JSON, or as tables for people.

use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;
use wherry_bundle::message::Transfer;

use super::client::CliError;
use super::{Output, time};

/// Between two columns.
const GAP: &str = "  ";

/// Prints `value` as it was asked for.
pub(super) fn print<T: Serialize>(
    output: Output,
    value: &T,
    table: impl FnOnce(&T) -> String,
) -> Result<(), CliError> {
    match output {
        Output::Json => line(&to_json(value)?),
        Output::Table => text(&table(value)),
    }
}

/// Prints a line; nobody reading any more is no error.
pub(super) fn line(line: &str) -> Result<(), CliError> {
    text(&format!("{line}\n"))
}

pub(super) fn text(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => Ok(result?),
    }
}

fn to_json<T: Serialize>(value: &T) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|error| io::Error::other(error).into())
}

/// Rows under their headings, in columns as wide as need be.
pub(super) fn table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> String {
    let headings = headings.map(str::to_owned);
    let lines = || std::iter::once(&headings).chain(rows);
    let width =
        |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for line in lines() {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let missing = width(column).saturating_sub(cell.chars().count());
            format!("{}{}", plain(cell), " ".repeat(missing))
        });
        text += cells.collect::<Vec<_>>().join(GAP).trim_end();
        text.push('\n');
    }
    text
}

/// `NAME: value` lines.
pub(super) fn fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let line = |(name, value): &(&str, String)| {
        format!("{name}:{}{GAP}{}\n", " ".repeat(width - name.len()), plain(value))
    };
    fields.iter().map(line).collect()
}

/// What a node said may not move the cursor.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A list in one cell; `-` when it is empty.
pub(super) fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() { "-".into() } else { items.join(",") }
}

/// Bytes in a unit that leaves few digits.
pub(super) fn size(bytes: u64) -> String {
    match bytes {
        0..10_240 => format!("{bytes} B"),
        10_240..10_485_760 => format!("{} KiB", bytes >> 10),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// How far a transfer is; `-` when there is none.
pub(super) fn progress(transfer: Option<&Transfer>) -> String {
    let Some(transfer) = transfer else { return "-".into() };
    let left = transfer.seconds_left.map_or("stalled".into(), |seconds| {
        format!("{} left", time::short(Duration::from_secs(seconds)))
    });
    format!(
        "{} % of {}, {}/s, {left}",
        transfer.percent(),
        size(transfer.bytes_total),
        size(transfer.bytes_per_second)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [["a".into(), "long\x1b[1m".into()], ["bbb".into(), "é".into()]];
        let text = table(["NAME", "X"], &rows);
        assert_eq!(text, "NAME  X\na     long [1m\nbbb   é\n");
        assert_eq!(fields(&[("a", "1".into()), ("long", "2".into())]), "a:     1\nlong:  2\n");
        assert_eq!(list(Vec::<String>::new()), "-");
        assert_eq!(list(["a", "b"]), "a,b");
    }
    #[test]
    fn a_transfer_in_a_few_words() {
        let mut transfer = Transfer {
            bytes_done: 30 << 20,
            bytes_total: 120 << 20,
            bytes_per_second: 500 << 10,
            seconds_left: Some(184),
            ..Transfer::default()
        };
        assert_eq!(progress(Some(&transfer)), "25 % of 120 MiB, 500 KiB/s, 3m left");
        (transfer.bytes_per_second, transfer.seconds_left) = (0, None);
        assert_eq!(progress(Some(&transfer)), "25 % of 120 MiB, 0 B/s, stalled");
        assert_eq!(progress(None), "-");
    }
}
