//! All fields as a table: for `docs/FIELDS.md`, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::place::Treatment;
use super::shapes;

const HEADER: &str = "# Fields of templates

What becomes of each field of Kubernetes' objects (v1.30) in a template:

- *honoured*: does what it does in a cluster;
- *no effect*: taken, since it can do nothing here;
- *refused*: `version create` and `template check` say so, with file and line.
  Some are taken with the one value that asks for nothing.

A field that is not listed is refused too. `wherry-cloud template fields` prints
this page; with `-o json` it is a list for programs.
";

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    pub kind: &'static str,
    pub field: &'static str,
    /// `honoured`, `no effect` or `refused`.
    pub treatment: &'static str,
    /// The value that is taken all the same.
    pub except: Option<&'static str>,
    /// Why it has no effect, or what to do instead.
    pub hint: Option<&'static str>,
}

/// All fields of all kinds, in the order of [`shapes::ALL`].
#[must_use]
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for shape in shapes::ALL {
        rows.extend(shape.all().map(|field| {
            let (treatment, except, hint) = match field.treatment {
                Treatment::Honoured => ("honoured", None, None),
                Treatment::NoEffect(why) => ("no effect", None, Some(why)),
                Treatment::Refused(hint) => ("refused", None, Some(hint)),
                Treatment::RefusedExcept { value, hint } => ("refused", Some(value), Some(hint)),
            };
            Row { kind: shape.kind, field: field.name, treatment, except, hint }
        }));
    }
    rows
}

/// The page.
#[must_use]
pub fn markdown() -> String {
    let mut text = HEADER.to_owned();
    let mut kind = "";
    for row in rows() {
        if row.kind != kind {
            kind = row.kind;
            // Writing to a String cannot fail.
            let _ =
                write!(text, "\n## {kind}\n\n| field | | why, or what instead |\n|---|---|---|\n");
        }
        let except = row.except.map(|value| if value.is_empty() { "\"\"" } else { value });
        let except = except.map(|value| format!(", except `{value}`")).unwrap_or_default();
        let (field, treatment, hint) = (row.field, row.treatment, row.hint.unwrap_or_default());
        let _ = writeln!(text, "| `{field}` | {treatment}{except} | {hint} |");
    }
    text
}
