//! Holds a file against the table of keys: what is unknown, what is refused, what a user should be told.

use super::keys::{self, Fate};
use super::report::{Became, KeyReport, Notice, Problem, Report};
use super::tree::{self, Node, Value};

/// What the table had to say about a file.
#[derive(Default)]
pub(super) struct Checked {
    pub(super) problems: Vec<Problem>,
    pub(super) report: Report,
}

/// Names further from a known one than this are no slip of the hand.
const LIKE_ENOUGH: f64 = 0.7;

/// Walks the whole file.
pub(super) fn check(root: &Node) -> Checked {
    let mut checked = Checked::default();
    checked.below(root);
    checked
}

// === impl Checked ===

impl Checked {
    fn below(&mut self, node: &Node) {
        match &node.value {
            Value::Map(entries) => {
                for (name, entry) in entries {
                    self.key(name, entry);
                }
            }
            Value::List(items) => items.iter().for_each(|item| self.below(item)),
            _ => {}
        }
    }

    fn key(&mut self, name: &str, node: &Node) {
        // Where names are free, `x-` may begin one like any other: `find` has a row for it.
        if name.starts_with("x-") && keys::find(&node.path).is_none() {
            self.became(node, Became::Ignored);
            return;
        }
        let Some(key) = keys::find(&node.path) else {
            self.unknown(name, node);
            return;
        };
        match &key.fate {
            Fate::Used => self.became(node, Became::Used),
            Fate::Differently(how) => {
                self.notice(node, format!("is used differently: {how}"));
                self.became(node, Became::UsedDifferently);
            }
            Fate::Ignored(why) => {
                self.notice(node, format!("is ignored: {why}"));
                self.became(node, Became::Ignored);
                return;
            }
            Fate::Refused(harmless, wrong, instead) => {
                if harmless(&node.value) {
                    self.became(node, Became::Ignored);
                } else {
                    let path = tree::show(&node.path);
                    let problem = Problem::new(path, node.line, *wrong, *instead);
                    self.problems.push(problem);
                }
                return;
            }
        }
        if keys::has_below(&node.path) {
            self.below(node);
        }
    }

    fn unknown(&mut self, name: &str, node: &Node) {
        // A path of an unknown key has a parent, if only the root.
        let parent = &node.path[..node.path.len() - 1];
        let names = keys::names_below(parent).unwrap_or_default();
        let nearest = names
            .iter()
            // One slip of the finger makes short names look less alike than they are.
            .map(|known| match strsim::damerau_levenshtein(known, name) {
                1 => (1.0, known),
                _ => (strsim::jaro_winkler(known, name), known),
            })
            .filter(|(likeness, _)| *likeness >= LIKE_ENOUGH)
            .max_by(|(a, _), (b, _)| a.total_cmp(b));
        let instead = match nearest {
            Some((_, known)) => format!("write `{known}`, or leave it out"),
            None => "leave it out, or begin its name with `x-` if it is a note of your own".to_owned(),
        };
        let path = tree::show(&node.path);
        let problem = Problem::new(path, node.line, "is no key that exists", instead);
        self.problems.push(problem);
    }

    fn notice(&mut self, node: &Node, text: String) {
        self.report.notices.push(Notice { path: tree::show(&node.path), line: node.line, text });
    }

    fn became(&mut self, node: &Node, became: Became) {
        self.report.keys.push(KeyReport { path: tree::show(&node.path), line: node.line, became });
    }
}
