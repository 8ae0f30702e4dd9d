//! The file as a tree whose nodes know their place: merge keys applied, every map key a text.

use yaml_serde::Value as Yaml;

use super::lines::Lines;
use super::report::Problem;

/// A node of the file and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) path: Vec<String>,
    pub(super) line: Option<usize>,
    pub(super) value: Value,
}

/// What stands there. `${VAR}` is still in the texts: only what is really read needs its variables.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the file; keys that came by a merge are behind the map's own.
    Map(Vec<(String, Node)>),
}

struct Builder {
    lines: Lines,
    problems: Vec<Problem>,
}

/// Reads a file's text as a tree whose root is a map.
pub(super) fn read(text: &str) -> Result<Node, Vec<Problem>> {
    let yaml: Yaml = yaml_serde::from_str(text).map_err(|error| {
        let line = error.location().map(|at| at.line());
        vec![Problem::new("", line, format!("is not readable as YAML: {error}"), "mend the YAML")]
    })?;
    let mut builder = Builder { lines: Lines::of(text), problems: Vec::new() };
    let mut root = builder.node(Vec::new(), yaml);
    if !builder.problems.is_empty() {
        return Err(builder.problems);
    }
    match root.value {
        Value::Map(_) => {}
        Value::Null => root.value = Value::Map(Vec::new()),
        _ => {
            let wrong = format!("the file holds {}", root.value.describe());
            let instead = "write a map of keys, beginning with `namespaces:` and `storage:`";
            return Err(vec![Problem::new("", Some(1), wrong, instead)]);
        }
    }
    Ok(root)
}

/// A path as people write it: `namespaces.payproc.processor.url`, `kafka.main.endpoints[0].host`.
pub(super) fn show(path: &[String]) -> String {
    let mut shown = String::new();
    for segment in path {
        if !shown.is_empty() && !segment.starts_with('[') {
            shown.push('.');
        }
        shown.push_str(segment);
    }
    shown
}

// === impl Value ===

impl Value {
    /// The value in the words of an error message.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Int(value) => format!("the number {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Text(value) => format!("`{value}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        }
    }
}

// === impl Builder ===

impl Builder {
    fn node(&mut self, path: Vec<String>, yaml: Yaml) -> Node {
        let line = self.lines.line(&path);
        let value = match yaml {
            Yaml::Null => Value::Null,
            Yaml::Bool(value) => Value::Bool(value),
            Yaml::Number(number) => match number.as_i64() {
                Some(value) => Value::Int(value),
                None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Yaml::String(value) => Value::Text(value),
            Yaml::Sequence(items) => {
                let item = |(n, yaml)| {
                    let mut path = path.clone();
                    path.push(format!("[{n}]"));
                    self.node(path, yaml)
                };
                Value::List(items.into_iter().enumerate().map(item).collect())
            }
            Yaml::Mapping(map) => Value::Map(self.map(&path, line, map)),
            Yaml::Tagged(tagged) => {
                let wrong = format!("has the YAML tag {}", tagged.tag);
                self.problem(&path, line, wrong, "leave the tag out");
                Value::Null
            }
        };
        Node { path, line, value }
    }

    fn map(&mut self, path: &[String], line: Option<usize>, map: yaml_serde::Mapping) -> Vec<(String, Node)> {
        let mut entries: Vec<(String, Node)> = Vec::new();
        let mut merges = Vec::new();
        for (key, value) in map {
            let name = match key {
                Yaml::String(name) if name == "<<" => {
                    merges.push(value);
                    continue;
                }
                Yaml::String(name) => name,
                Yaml::Number(number) => number.to_string(),
                Yaml::Bool(value) => value.to_string(),
                _ => {
                    self.problem(path, line, "has a key that is no text", "write a name");
                    continue;
                }
            };
            let mut below = path.to_vec();
            below.push(name.clone());
            entries.push((name, self.node(below, value)));
        }
        for merge in merges {
            let sources = match merge {
                Yaml::Sequence(sources) => sources,
                one => vec![one],
            };
            for source in sources {
                let Yaml::Mapping(source) = source else {
                    let wrong = "merges (`<<`) something that is no map";
                    self.problem(path, line, wrong, "name an anchor of a map, like `<<: *defaults`");
                    continue;
                };
                // The map's own keys win over merged ones, and earlier sources over later ones.
                for (name, node) in self.map(path, line, source) {
                    if entries.iter().all(|(known, _)| *known != name) {
                        entries.push((name, node));
                    }
                }
            }
        }
        entries
    }

    fn problem(&mut self, path: &[String], line: Option<usize>, wrong: impl Into<String>, instead: &str) {
        let problem = Problem::new(show(path), line, wrong, instead);
        self.problems.push(problem);
    }
}
