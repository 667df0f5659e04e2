//! Walking a YAML tree: where one is, what may be there, what was wrong.
//!
//! Every problem of a text is collected, with file, line and full path;
//! reading goes on after each. Never here: what a field means.

use std::cell::RefCell;
use std::fmt;

use serde::{Deserialize, Serialize};
use wherry_bundle::Name;
use wherry_bundle::model::is_relative_path;

use super::yaml::{Node, Value, YamlError};
use super::{nearest, others};

/// Something wrong with a text that a person wrote.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    pub file: String,
    /// From 1; 0 when it is about the whole file.
    pub line: usize,
    /// Such as `spec.template.spec.containers[0].image`; may be empty.
    pub path: String,
    #[serde(rename = "problem")]
    pub what: String,
    /// What to do instead.
    pub hint: Option<String>,
}

impl Problem {
    /// About a whole file.
    #[must_use]
    pub fn whole(file: &str, what: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, path: String::new(), what: what.into(), hint: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, path, what, hint } = self;
        match (*line, path.is_empty()) {
            (0, true) => write!(f, "{file}: {what}")?,
            (0, false) => write!(f, "{file}: {path}: {what}")?,
            (_, true) => write!(f, "{file}:{line}: {what}")?,
            (_, false) => write!(f, "{file}:{line}: {path}: {what}")?,
        }
        hint.as_ref().map_or(Ok(()), |hint| write!(f, ": {hint}"))
    }
}

/// Problems found so far; shared by all who read.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

/// More would not be read.
pub const PROBLEMS_MAX: usize = 200;

impl Problems {
    pub fn add(&self, problem: Problem) {
        if !self.is_full() {
            self.0.borrow_mut().push(problem);
        }
    }

    /// Whether no other is noted.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= PROBLEMS_MAX
    }

    /// Notes that `file` as a whole is not YAML.
    pub fn add_yaml(&self, file: &str, error: YamlError) {
        self.add(Problem { line: error.line, ..Problem::whole(file, error.what) });
    }

    /// The result, if nothing was wrong.
    ///
    /// # Errors
    /// All problems, ordered by file and line.
    pub fn result<T>(self, value: T) -> Result<T, Vec<Problem>> {
        let mut list = self.0.into_inner();
        list.sort();
        list.dedup();
        if list.is_empty() { Ok(value) } else { Err(list) }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.0.borrow().len()
    }
}

/// What may stand in a map: the one list that reading and documentation use.
#[derive(Debug)]
pub struct Shape {
    /// As Kubernetes calls it, such as `PodSpec`.
    pub kind: &'static str,
    pub fields: &'static [Field],
}

impl Shape {
    /// Its own fields, and those of [`others`].
    pub fn all(&self) -> impl Iterator<Item = &'static Field> + use<> {
        self.fields.iter().chain(others::of(self.kind))
    }
}

/// A field, and what becomes of it. Any field that a [`Shape`] does not list
/// is refused.
#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub treatment: Treatment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    Honoured,
    /// Accepted since it can have no effect here: why.
    NoEffect(&'static str),
    /// Refused: what to do instead.
    Refused(&'static str),
    /// Refused, but for the one value that asks for nothing: tools write it out.
    RefusedExcept {
        value: &'static str,
        hint: &'static str,
    },
}

/// A [`Field`] that is honoured.
#[must_use]
pub const fn honoured(name: &'static str) -> Field {
    Field { name, treatment: Treatment::Honoured }
}

/// A [`Field`] that is accepted without effect.
#[must_use]
pub const fn no_effect(name: &'static str, why: &'static str) -> Field {
    Field { name, treatment: Treatment::NoEffect(why) }
}

/// A [`Field`] that is refused with a hint.
#[must_use]
pub const fn refused(name: &'static str, hint: &'static str) -> Field {
    Field { name, treatment: Treatment::Refused(hint) }
}

/// A [`Field`] that is refused with a hint, unless it is `value`.
#[must_use]
pub const fn refused_except(name: &'static str, value: &'static str, hint: &'static str) -> Field {
    Field { name, treatment: Treatment::RefusedExcept { value, hint } }
}

const NOT_SUPPORTED: &str = "not supported";

/// A value in a text, and how to speak of it.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    file: &'a str,
    path: String,
    node: &'a Node,
    problems: &'a Problems,
}

/// A map whose keys were checked against its [`Shape`].
#[derive(Clone, Debug)]
pub struct Object<'a> {
    place: Place<'a>,
    entries: &'a [(String, Node)],
}

impl<'a> Place<'a> {
    #[must_use]
    pub fn root(file: &'a str, node: &'a Node, problems: &'a Problems) -> Self {
        Self { file, path: String::new(), node, problems }
    }

    pub fn problem(&self, what: impl Into<String>) {
        self.tell(what.into(), None);
    }

    /// A problem, and what to do instead.
    pub fn refuse(&self, what: impl Into<String>, hint: impl Into<String>) {
        self.tell(what.into(), Some(hint.into()));
    }

    fn tell(&self, what: String, hint: Option<String>) {
        self.problems.add(Problem {
            file: self.file.to_owned(),
            line: self.node.line,
            path: self.path.clone(),
            what,
            hint,
        });
    }

    /// Such as `web.yaml:3`.
    #[must_use]
    pub fn at(&self) -> String {
        format!("{}:{}", self.file, self.node.line)
    }

    #[must_use]
    pub fn value(&self) -> &'a Value {
        &self.node.value
    }

    /// The map here, all of its keys checked; every key that is not honoured
    /// is a problem of its own.
    #[must_use]
    pub fn object(&self, shape: &Shape) -> Option<Object<'a>> {
        let Value::Map(entries) = &self.node.value else {
            self.problem("must be a map of fields");
            return None;
        };
        for (key, node) in entries {
            let at = self.field(key, node);
            match shape.all().find(|field| field.name == key).map(|field| field.treatment) {
                // Null is as good as absent.
                Some(_) if node.value == Value::Null => {}
                Some(Treatment::Honoured | Treatment::NoEffect(_)) => {}
                Some(Treatment::RefusedExcept { value, .. }) if at.is(value) => {}
                Some(Treatment::Refused(hint) | Treatment::RefusedExcept { hint, .. }) => {
                    at.refuse(NOT_SUPPORTED, hint);
                }
                // A hint takes time, of which a hostile text has no more.
                None if self.problems.is_full() => {}
                None => at.refuse(NOT_SUPPORTED, nearest::hint(shape, key)),
            }
        }
        Some(Object { place: self.clone(), entries })
    }

    /// A map with keys of a person's own choice.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, Self)> {
        match &self.node.value {
            Value::Map(entries) => {
                entries.iter().map(|(key, node)| (key.clone(), self.field(key, node))).collect()
            }
            Value::Null => Vec::new(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::List(_) => {
                self.problem("must be a map");
                Vec::new()
            }
        }
    }

    #[must_use]
    pub fn items(&self) -> Vec<Self> {
        match &self.node.value {
            Value::List(_) => self.find_items().collect(),
            Value::Null => Vec::new(),
            Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::Text(_) | Value::Map(_) => {
                self.problem("must be a list");
                Vec::new()
            }
        }
    }

    #[must_use]
    pub fn text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) => return Some(text.clone()),
            Value::Int(_) | Value::Float(_) | Value::Bool(_) => {
                self.refuse("must be text", "put it in quotes");
            }
            Value::Null | Value::List(_) | Value::Map(_) => self.problem("must be text"),
        }
        None
    }

    /// A list of texts.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        self.items().iter().filter_map(Self::text).collect()
    }

    #[must_use]
    pub fn name(&self) -> Option<Name> {
        let text = self.text()?;
        Name::new(&text).map_err(|error| self.problem(error.to_string())).ok()
    }

    /// See [`is_relative_path`].
    #[must_use]
    pub fn relative_path(&self) -> Option<String> {
        let path = self.text()?;
        if !is_relative_path(&path) {
            self.problem("must be a plain relative path");
        }
        Some(path)
    }

    #[must_use]
    pub fn bool(&self) -> Option<bool> {
        if let Value::Bool(value) = self.node.value {
            return Some(value);
        }
        self.problem("must be true or false");
        None
    }

    /// A whole number within bounds.
    #[must_use]
    pub fn int<T: TryFrom<i64>>(&self, min: i64, max: i64) -> Option<T> {
        if let Value::Int(value) = self.node.value
            && (min..=max).contains(&value)
            && let Ok(value) = T::try_from(value)
        {
            return Some(value);
        }
        self.problem(format!("must be a whole number from {min} to {max}"));
        None
    }

    /// The text of a scalar of any type, for quantities.
    #[must_use]
    pub fn scalar_text(&self) -> Option<String> {
        match &self.node.value {
            Value::Text(text) => Some(text.clone()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(value.to_string()),
            Value::Null | Value::Bool(_) | Value::List(_) | Value::Map(_) => {
                self.problem("must be a quantity, such as 500m or 64Mi");
                None
            }
        }
    }

    /// Whether it is `value`, as a person writes it.
    fn is(&self, value: &str) -> bool {
        match &self.node.value {
            Value::Bool(found) => found.to_string() == value,
            Value::Int(found) => found.to_string() == value,
            Value::Text(found) => found == value,
            Value::Map(entries) => entries.is_empty() && value == "{}",
            Value::Null | Value::Float(_) | Value::List(_) => false,
        }
    }

    /// A field, if this is a map that has it. It and the next two never tell
    /// a problem.
    #[must_use]
    pub fn find(&self, key: &str) -> Option<Self> {
        let Value::Map(entries) = &self.node.value else { return None };
        let (key, node) = entries.iter().find(|(known, _)| known == key)?;
        Some(self.field(key, node))
    }

    /// All fields, if this is a map.
    pub fn find_entries(&self) -> impl Iterator<Item = (&'a str, Self)> + use<'a> {
        let entries: &[_] = if let Value::Map(entries) = &self.node.value { entries } else { &[] };
        let place = self.clone();
        entries.iter().map(move |(key, node)| (key.as_str(), place.field(key, node)))
    }

    /// All items, if this is a list.
    pub fn find_items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let items: &[_] = if let Value::List(items) = &self.node.value { items } else { &[] };
        let place = self.clone();
        items.iter().enumerate().map(move |(i, node)| place.item(i, node))
    }

    fn item(&self, i: usize, node: &'a Node) -> Self {
        Self { path: format!("{}[{i}]", self.path), node, ..self.clone() }
    }

    fn field(&self, key: &str, node: &'a Node) -> Self {
        let path =
            if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Self { path, node, ..self.clone() }
    }
}

impl<'a> Object<'a> {
    #[must_use]
    pub fn place(&self) -> &Place<'a> {
        &self.place
    }

    /// A field that may be absent; an explicit null is absent.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<Place<'a>> {
        let (key, node) = self.entries.iter().find(|(known, _)| known == key)?;
        (node.value != Value::Null).then(|| self.place.field(key, node))
    }

    /// What `read` makes of a field; `Some(None)` if it is absent.
    #[must_use]
    pub fn optional<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Place<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.get(key).map_or(Some(None), |place| read(&place).map(Some))
    }

    /// A field that must be there.
    #[must_use]
    pub fn require(&self, key: &str) -> Option<Place<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.place.problem(format!("`{key}` is missing"));
        }
        found
    }
}
