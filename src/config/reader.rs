//! Typed reading of the tree. A value that is wrong is noted, its default goes on: all errors are found in one go.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::report::{Notice, Problem};
use super::tree::{self, Node, Value};
use super::{duration, size};

/// Looks up a variable of the environment.
pub(super) type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// What is collected while sections are read.
pub(super) struct Reading<'e> {
    env: Env<'e>,
    found: RefCell<Found>,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) problems: Vec<Problem>,
    pub(super) notices: Vec<Notice>,
    /// Every path that was asked for, there or not: what the table of keys promises must be asked for.
    pub(super) asked: BTreeSet<Vec<String>>,
}

/// A map of the file, or the place where one could be.
#[derive(Clone)]
pub(super) struct Section<'a> {
    node: Option<&'a Node>,
    path: Vec<String>,
    line: Option<usize>,
    reading: &'a Reading<'a>,
}

/// A value of the file whose shape is its reader's business.
pub(super) struct Item<'a> {
    pub(super) value: &'a Value,
    place: Section<'a>,
}

// === impl Reading ===

impl<'e> Reading<'e> {
    pub(super) fn new(env: Env<'e>) -> Self {
        Reading { env, found: RefCell::default() }
    }

    pub(super) fn section<'a>(&'a self, root: &'a Node) -> Section<'a> {
        Section { node: Some(root), path: Vec::new(), line: None, reading: self }
    }

    pub(super) fn finish(self) -> Found {
        self.found.into_inner()
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// The name under which this stands.
    pub(super) fn name(&self) -> &str {
        self.path.last().map_or("", String::as_str)
    }

    /// Whether the file holds it.
    pub(super) fn is_there(&self) -> bool {
        self.node.is_some()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.entries().iter().any(|(name, _)| name == key)
    }

    pub(super) fn entries(&self) -> &'a [(String, Node)] {
        match self.node.map(|node| &node.value) {
            Some(Value::Map(entries)) => entries,
            _ => &[],
        }
    }

    /// The section below a key. One that is not there, or empty, has only defaults.
    pub(super) fn section(&self, key: &str) -> Section<'a> {
        let section = self.place(key);
        match section.node.map(|node| &node.value) {
            None | Some(Value::Map(_) | Value::Null) => {}
            Some(other) => {
                section.wrong(format!("is {}", other.describe()), "write a map of keys");
            }
        }
        section
    }

    /// The sections below this one, in the order of the file.
    pub(super) fn sections(&self) -> Vec<Section<'a>> {
        let names = self.entries().iter().map(|(name, _)| name.as_str());
        names.map(|name| self.section(name)).collect()
    }

    /// The section below a key that may say `disabled` (then None) instead.
    pub(super) fn unless_disabled(&self, key: &str) -> Option<Section<'a>> {
        let section = self.place(key);
        match section.node.map(|node| &node.value) {
            Some(Value::Text(text)) if text == "disabled" => return None,
            None | Some(Value::Map(_) | Value::Null) => {}
            Some(other) => {
                section.wrong(format!("is {}", other.describe()), "write `disabled`, or a map of keys");
            }
        }
        Some(section)
    }

    /// The sections that are the items of a list.
    pub(super) fn list(&self, key: &str) -> Vec<Section<'a>> {
        let place = self.place(key);
        let items = match place.node.map(|node| &node.value) {
            None => return Vec::new(),
            Some(Value::List(items)) => items,
            Some(other) => {
                place.wrong(format!("is {}", other.describe()), "write a list (`- ...`)");
                return Vec::new();
            }
        };
        let section = |node: &'a Node| Section {
            node: Some(node),
            path: node.path.clone(),
            line: node.line,
            reading: self.reading,
        };
        items.iter().map(section).collect()
    }

    /// A value that is there, for a reader that takes more than one shape.
    pub(super) fn item(&self, key: &str) -> Option<Item<'a>> {
        let place = self.place(key);
        let value = &place.node?.value;
        if matches!(value, Value::Null) {
            place.wrong("has no value", "write one, or leave the key out");
            return None;
        }
        Some(Item { value, place })
    }

    pub(super) fn text(&self, key: &str) -> Option<String> {
        self.item(key)?.text()
    }

    pub(super) fn required_text(&self, key: &str, instead: &str) -> String {
        self.require(key, instead);
        self.text(key).unwrap_or_default()
    }

    /// Notes an error if the key is not there.
    pub(super) fn require(&self, key: &str, instead: &str) {
        let place = self.place(key);
        if !place.is_there() {
            place.wrong("is missing", instead);
        }
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> bool {
        let Some(item) = self.item(key) else {
            return default;
        };
        match item.value {
            Value::Bool(value) => *value,
            _ => item.refuse("write true or false").unwrap_or(default),
        }
    }

    /// A whole number within bounds.
    pub(super) fn number<T: TryFrom<i64>>(&self, key: &str, default: T, bounds: RangeInclusive<i64>) -> T {
        self.maybe_number(key, bounds).unwrap_or(default)
    }

    pub(super) fn maybe_number<T: TryFrom<i64>>(&self, key: &str, bounds: RangeInclusive<i64>) -> Option<T> {
        self.item(key)?.number(bounds)
    }

    /// A number, whole or not, within bounds.
    pub(super) fn fraction(&self, key: &str, default: f64, bounds: RangeInclusive<f64>) -> f64 {
        let Some(item) = self.item(key) else {
            return default;
        };
        let value = match item.value {
            Value::Int(value) => *value as f64,
            Value::Float(value) => *value,
            _ => f64::NAN,
        };
        if bounds.contains(&value) {
            return value;
        }
        let instead = format!("write a number from {} to {}", bounds.start(), bounds.end());
        item.refuse(&instead).unwrap_or(default)
    }

    pub(super) fn duration(&self, key: &str, default: Duration) -> Duration {
        let item = self.item(key);
        item.and_then(|item| item.duration()).unwrap_or(default)
    }

    /// A duration that must not be zero in milliseconds, because something would then spin.
    pub(super) fn pause(&self, key: &str, default: Duration) -> Duration {
        let value = self.duration(key, default);
        if value < Duration::from_millis(1) {
            let what = if value.is_zero() { "is zero" } else { "is less than 1ms" };
            self.place(key).wrong(what, "write a duration of at least 1ms");
            return default;
        }
        value
    }

    /// A duration or `infinity` (None).
    pub(super) fn duration_or_infinity(&self, key: &str, default: Option<Duration>) -> Option<Duration> {
        let Some(item) = self.item(key) else {
            return default;
        };
        let Some(text) = item.text_as(INSTEAD_OF_INFINITY) else {
            return default;
        };
        if text.eq_ignore_ascii_case(duration::INFINITY) {
            return None;
        }
        let parsed = duration::parse(&text);
        if parsed.is_none() {
            item.refuse::<()>(INSTEAD_OF_INFINITY);
        }
        parsed.or(default)
    }

    pub(super) fn size(&self, key: &str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        let read = || {
            let item = self.item(key)?;
            let text = item.text_as(size::HOW)?;
            let Some(value) = size::parse(&text) else {
                return item.refuse(size::HOW);
            };
            if bounds.contains(&value) {
                return Some(value);
            }
            let (least, most) = (size::format(*bounds.start()), size::format(*bounds.end()));
            item.refuse(&format!("write a size from {least} to {most}"))
        };
        read().unwrap_or(default)
    }

    pub(super) fn percent(&self, key: &str) -> Option<u8> {
        let item = self.item(key)?;
        let text = item.text_as(size::HOW_PERCENT)?;
        size::percent(&text).or_else(|| item.refuse(size::HOW_PERCENT))
    }

    /// One of a few names.
    pub(super) fn choice<T: Copy>(&self, key: &str, default: T, choices: &[(&str, T)]) -> T {
        self.item(key).and_then(|item| item.choice(choices)).unwrap_or(default)
    }

    /// Notes an error about the section itself.
    pub(super) fn wrong(&self, wrong: impl Into<String>, instead: impl Into<String>) {
        let problem = Problem::new(tree::show(&self.path), self.line, wrong, instead);
        self.reading.found.borrow_mut().problems.push(problem);
    }

    /// Notes an error about a key of the section.
    pub(super) fn wrong_key(&self, key: &str, wrong: impl Into<String>, instead: &str) {
        self.place(key).wrong(wrong, instead);
    }

    pub(super) fn notice_key(&self, key: &str, text: impl Into<String>) {
        let place = self.place(key);
        self.reading.found.borrow_mut().notices.push(Notice {
            path: tree::show(&place.path),
            line: place.line,
            text: text.into(),
        });
    }

    fn place(&self, key: &str) -> Section<'a> {
        let node = self.entries().iter().find(|(name, _)| name == key);
        let node = node.map(|(_, node)| node);
        let mut path = self.path.clone();
        path.push(key.to_owned());
        self.reading.found.borrow_mut().asked.insert(path.clone());
        Section { node, path, line: node.and_then(|node| node.line).or(self.line), reading: self.reading }
    }
}

const INSTEAD_OF_INFINITY: &str =
    "write `infinity`, or digits and a unit of W, D, H, M (minutes), S, MS, MU (microseconds), like 30s";

// === impl Item ===

impl<'a> Item<'a> {
    /// A text with its variables filled in.
    pub(super) fn text(&self) -> Option<String> {
        self.text_as("write a text (numbers in quotes)")
    }

    fn text_as(&self, instead: &str) -> Option<String> {
        let Value::Text(text) = self.value else {
            return self.refuse(instead);
        };
        match interpolate(text, self.place.reading.env) {
            Ok(text) => Some(text),
            Err((wrong, instead)) => {
                self.place.wrong(wrong, instead);
                None
            }
        }
    }

    pub(super) fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Option<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let instead = format!("write one of: {}", names.join(", "));
        let text = self.text_as(&instead)?;
        let chosen = choices.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, value)| *value).or_else(|| self.refuse(&instead))
    }

    /// A text that no message may show.
    pub(super) fn secret(&self) -> Option<String> {
        if matches!(self.value, Value::Text(_)) {
            return self.text();
        }
        self.place.wrong("is no text", "write it in quotes");
        None
    }

    pub(super) fn number<T: TryFrom<i64>>(&self, bounds: RangeInclusive<i64>) -> Option<T> {
        let number = match self.value {
            Value::Int(value) if bounds.contains(value) => T::try_from(*value).ok(),
            _ => None,
        };
        number.or_else(|| {
            let (least, most) = (bounds.start(), bounds.end());
            self.refuse(&format!("write a whole number from {least} to {most}"))
        })
    }

    pub(super) fn duration(&self) -> Option<Duration> {
        let text = self.text_as(duration::HOW)?;
        duration::parse(&text).or_else(|| self.refuse(duration::HOW))
    }

    /// The items of a list of durations.
    pub(super) fn durations(&self) -> Option<Vec<Duration>> {
        let Value::List(items) = self.value else {
            return self.refuse("write a list of durations, like [1s, 10s, 1m]");
        };
        let item = |node: &'a Node| Item {
            value: &node.value,
            place: Section {
                node: Some(node),
                path: node.path.clone(),
                line: node.line.or(self.place.line),
                reading: self.place.reading,
            },
        };
        items.iter().map(|node| item(node).duration()).collect()
    }

    /// Notes that the value won't do.
    pub(super) fn refuse<T>(&self, instead: &str) -> Option<T> {
        let wrong = format!("is {}", self.value.describe());
        self.place.wrong(wrong, instead);
        None
    }

    pub(super) fn wrong(&self, wrong: impl Into<String>, instead: &str) {
        self.place.wrong(wrong, instead);
    }
}

/// Fills in `${VAR}`. The error says what is wrong and what to write instead.
fn interpolate(text: &str, env: Env<'_>) -> Result<String, (String, String)> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        result.push_str(before);
        let Some((name, behind)) = after.split_once('}') else {
            return Err(("has a `${` without its `}`".to_owned(), "write `${VARIABLE}`".to_owned()));
        };
        let Some(value) = env(name) else {
            return Err((
                format!("needs the environment variable {name}, which is not set"),
                format!("set {name} (it may be empty), or write the value itself"),
            ));
        };
        result.push_str(&value);
        rest = behind;
    }
    result.push_str(rest);
    Ok(result)
}
