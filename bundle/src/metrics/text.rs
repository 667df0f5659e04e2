//! Prometheus' text format, version 0.0.4: comments of a family once, then all
//! of its lines, whichever node they are of.
//!
//! Source: "Exposition formats" of Prometheus' documentation.

use std::fmt::{self, Write};

use super::Metrics;
use super::families::{FAMILIES, Family};

/// For the header of an answer over HTTP.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// What every line of one node has: empty on the node itself.
pub type Labels = Vec<(&'static str, String)>;

/// All families that have lines, of all `nodes`, one after the other.
#[must_use]
pub fn render(nodes: &[(Labels, &Metrics)]) -> String {
    let mut text = String::new();
    FAMILIES.iter().for_each(|family| family.write(nodes, &mut text));
    text
}

impl Family {
    /// Its comments and lines; nothing if no node has any.
    pub fn write(&self, nodes: &[(Labels, &Metrics)], text: &mut String) {
        let mut lines = String::new();
        for (labels, metrics) in nodes {
            let mut samples = Samples { name: self.name, labels, text: &mut lines };
            (self.samples)(metrics, &mut samples);
        }
        if !lines.is_empty() {
            comments(self.name, self.kind, self.help, text);
            text.push_str(&lines);
        }
    }
}

/// `# HELP` and `# TYPE`.
pub fn comments(name: &str, kind: Kind, help: &str, text: &mut String) {
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
    };
    for part in ["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n"] {
        text.push_str(part);
    }
}

/// Takes the lines of one family and one node.
#[derive(Debug)]
pub struct Samples<'a> {
    name: &'a str,
    labels: &'a Labels,
    text: &'a mut String,
}

impl<'a> Samples<'a> {
    /// For lines that are not of a [`Metrics`].
    pub fn new(name: &'a str, labels: &'a Labels, text: &'a mut String) -> Self {
        Self { name, labels, text }
    }

    pub fn line(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) {
        self.text.push_str(self.name);
        let own = self.labels.iter().map(|(name, value)| (*name, value.as_str()));
        let mut separator = '{';
        for (name, value) in own.chain(labels.iter().copied()) {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(value, self.text);
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        // Writing to a String does not fail.
        let _ = writeln!(self.text, " {}", value.into());
    }

    /// No line if there is no value.
    pub fn maybe(&mut self, labels: &[(&str, &str)], value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.line(labels, value);
        }
    }
}

/// A label's value: the backslash, the quote and the line feed.
fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
}

/// A number, exact: so many units of ten to the minus `decimals`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    is_negative: bool,
    units: u64,
    decimals: u8,
}

impl Value {
    #[must_use]
    pub fn hundredths(units: u32) -> Self {
        Self { is_negative: false, units: units.into(), decimals: 2 }
    }

    #[must_use]
    pub fn thousandths(units: u64) -> Self {
        Self { is_negative: false, units, decimals: 3 }
    }

    #[must_use]
    pub fn signed_thousandths(units: i32) -> Self {
        Self { is_negative: units < 0, units: units.unsigned_abs().into(), decimals: 3 }
    }

    #[must_use]
    pub fn ten_thousandths(units: u16) -> Self {
        Self { is_negative: false, units: units.into(), decimals: 4 }
    }

    #[must_use]
    pub fn millionths(units: u64) -> Self {
        Self { is_negative: false, units, decimals: 6 }
    }
}

impl From<u64> for Value {
    fn from(units: u64) -> Self {
        Self { is_negative: false, units, decimals: 0 }
    }
}

impl From<u32> for Value {
    fn from(units: u32) -> Self {
        u64::from(units).into()
    }
}

impl From<bool> for Value {
    fn from(is: bool) -> Self {
        u64::from(is).into()
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = 10_u64.pow(self.decimals.into());
        let (whole, part) = (self.units / scale, self.units % scale);
        let sign = if self.is_negative { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if part > 0 {
            write!(f, ".{part:0width$}", width = self.decimals.into())?;
        }
        Ok(())
    }
}
