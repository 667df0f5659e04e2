//! YAML text as a tree that remembers lines.
//!
//! Bounded: text, depth and number of nodes; aliases and tags are refused, so
//! that a small text cannot grow. Never here: what a field means.

use saphyr_parser::{Event, Parser, ScalarStyle};

/// Bytes of one template or `version.yaml`.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Levels of nesting: Kubernetes' own objects need about 12.
const DEPTH_MAX: usize = 32;
/// Scalars, lists and maps in one text.
const NODES_MAX: usize = 50_000;

/// A value and the line that it begins on, counted from 1.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    pub line: usize,
    pub value: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the text; keys are unique.
    Map(Vec<(String, Node)>),
}

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct YamlError {
    pub line: usize,
    pub what: String,
}

/// All documents of a text; empty documents are left out.
///
/// # Errors
/// The first thing that is not YAML, or beyond a bound.
pub fn parse(text: &str) -> Result<Vec<Node>, YamlError> {
    if text.len() > TEXT_BYTES_MAX {
        let what = format!("{} bytes, where at most {TEXT_BYTES_MAX} are allowed", text.len());
        return Err(YamlError { line: 1, what });
    }
    read(text).map_err(|error| YamlError { line: line_of(&error, text), ..error })
}

/// Of a tab the parser tells where the value before it began.
fn line_of(error: &YamlError, text: &str) -> usize {
    if !error.what.contains("tab") {
        return error.line;
    }
    let indented = |line: &str| line.trim_start_matches(' ').starts_with('\t');
    let mut lines = text.lines().zip(1..).skip(error.line.saturating_sub(1));
    lines.find(|(line, _)| indented(line)).map_or(error.line, |(_, number)| number)
}

fn read(text: &str) -> Result<Vec<Node>, YamlError> {
    let mut reader = Reader { parser: Parser::new_from_str(text), nodes: 0 };
    let mut documents = Vec::new();
    while let Some((event, line)) = reader.next()? {
        match event {
            Event::DocumentStart(_) => {
                let node = reader.node(DEPTH_MAX)?;
                if node.value != Value::Null {
                    documents.push(node);
                }
            }
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
            Event::Alias(_)
            | Event::Scalar(..)
            | Event::SequenceStart(..)
            | Event::SequenceEnd
            | Event::MappingStart(..)
            | Event::MappingEnd => return Err(error(line, "content outside of a document")),
        }
    }
    Ok(documents)
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Option<(Event<'a>, usize)>, YamlError> {
        match self.parser.next_event() {
            None => Ok(None),
            Some(Ok((event, span))) => Ok(Some((event, span.start.line()))),
            Some(Err(scan)) => Err(error(scan.marker().line(), scan.info())),
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, usize), YamlError> {
        self.next()?.ok_or_else(|| error(0, "the text ends too early"))
    }

    fn node(&mut self, depth: usize) -> Result<Node, YamlError> {
        let (event, line) = self.event()?;
        self.node_of(event, line, depth)
    }

    fn node_of(&mut self, event: Event<'a>, line: usize, depth: usize) -> Result<Node, YamlError> {
        self.nodes += 1;
        if depth == 0 {
            return Err(error(line, &format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if self.nodes > NODES_MAX {
            return Err(error(line, &format!("more than {NODES_MAX} values")));
        }
        let value = match event {
            Event::Scalar(text, style, _, None) => scalar(&text, style),
            Event::SequenceStart(_, None) => self.list(depth)?,
            Event::MappingStart(_, None) => self.map(depth)?,
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                return Err(error(line, "tags (`!...`) are not supported"));
            }
            Event::Alias(_) => {
                return Err(error(line, "aliases (`*...`) are not supported: write the value out"));
            }
            Event::DocumentEnd
            | Event::DocumentStart(_)
            | Event::StreamStart
            | Event::StreamEnd
            | Event::SequenceEnd
            | Event::MappingEnd
            | Event::Nothing => return Err(error(line, "a value is missing")),
        };
        Ok(Node { line, value })
    }

    fn list(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(items)),
                (event, line) => items.push(self.node_of(event, line, depth - 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        loop {
            let (event, line) = self.event()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, _, _, None) => text.into_owned(),
                _ => return Err(error(line, "a key must be plain text")),
            };
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(error(line, &format!("`{key}` is there twice")));
            }
            let value = self.node(depth - 1)?;
            // A key's line is what a person looks for, also of a long value.
            entries.push((key, Node { line, ..value }));
        }
    }
}

/// The core schema of YAML 1.2 for plain scalars; quoted ones are text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    if let Some(int) = integer(text) {
        return Value::Int(int);
    }
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b))
        && text.bytes().any(|b| b.is_ascii_digit());
    match text.parse::<f64>() {
        Ok(float) if numeric => Value::Float(float),
        _ => Value::Text(text.to_owned()),
    }
}

fn integer(text: &str) -> Option<i64> {
    if let Some(octal) = text.strip_prefix("0o") {
        return i64::from_str_radix(octal, 8).ok();
    }
    if let Some(hex) = text.strip_prefix("0x") {
        return i64::from_str_radix(hex, 16).ok();
    }
    // YAML 1.1, which Kubernetes reads, has `0644` as octal: the habit for modes.
    if text.len() > 1 && text.starts_with('0') && text.bytes().all(|b| (b'0'..b'8').contains(&b)) {
        return i64::from_str_radix(text, 8).ok();
    }
    text.parse().ok()
}

fn error(line: usize, what: &str) -> YamlError {
    YamlError { line, what: what.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Value {
        parse(text).unwrap().remove(0).value
    }

    #[test]
    fn scalars_have_the_types_of_the_core_schema() {
        for (text, value) in [
            ("a", Value::Text("a".into())),
            ("'8080'", Value::Text("8080".into())),
            ("8080", Value::Int(8080)),
            ("0644", Value::Int(0o644)),
            ("0.5", Value::Float(0.5)),
            ("true", Value::Bool(true)),
            ("1.2.3", Value::Text("1.2.3".into())),
            ("500m", Value::Text("500m".into())),
            ("-c", Value::Text("-c".into())),
        ] {
            assert_eq!(one(text), value, "{text}");
        }
    }

    #[test]
    fn keys_keep_their_lines() {
        let Value::Map(entries) = one("a: 1\nb:\n  - x\n") else { panic!("a map") };
        let lines: Vec<_> = entries.iter().map(|(key, node)| (key.as_str(), node.line)).collect();
        assert_eq!(lines, [("a", 1), ("b", 2)]);
    }

    #[test]
    fn what_could_grow_or_mislead_is_refused() {
        let deep = "[".repeat(40) + &"]".repeat(40);
        let wide = "- x\n".repeat(60_000);
        for (text, why) in [
            ("a: &x 1\nb: *x", "aliases"),
            ("a: !!binary x", "tags"),
            ("a: 1\na: 2", "twice"),
            (&*deep, "nested"),
            (&*wide, "more than"),
            ("a: [1", ""),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.what.contains(why), "{error}");
        }
        assert_eq!(parse("---\n---\na: 1\n").unwrap().len(), 1);
    }
}
