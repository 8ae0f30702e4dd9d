//! On which line of the file a key stands.
//!
//! The YAML parser gives no positions for a text that it could read, and an error without a line is hard to find in a
//! file of a thousand. So this reads the layout of block style YAML, roughly: where it is mistaken (flow style, text
//! over several lines) a line is missing or that of the key above, and nothing else depends on it.

use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Lines(HashMap<Vec<String>, usize>);

struct Frame {
    column: usize,
    is_item: bool,
    name: String,
}

// === impl Lines ===

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let mut lines = Lines::default();
        let mut stack: Vec<Frame> = Vec::new();
        let mut items: HashMap<Vec<String>, usize> = HashMap::new();
        let mut block_text_below: Option<usize> = None;
        for (number, line) in text.lines().enumerate() {
            let mut rest = line.trim_start_matches(' ');
            let mut column = line.len() - rest.len();
            if rest.trim().is_empty() || rest.starts_with('#') {
                continue;
            }
            if block_text_below.is_some_and(|owner| column > owner) {
                continue;
            }
            block_text_below = None;
            while let Some(after) = rest.strip_prefix("- ") {
                while stack.last().is_some_and(|f| f.column > column || (f.column == column && f.is_item)) {
                    stack.pop();
                }
                let count = items.entry(path(&stack)).or_default();
                stack.push(Frame { column, is_item: true, name: format!("[{count}]") });
                *count += 1;
                lines.note(&stack, number);
                rest = after.trim_start_matches(' ');
                column = line.len() - rest.len();
            }
            let Some((name, value)) = key(rest) else {
                continue;
            };
            while stack.last().is_some_and(|f| f.column >= column) {
                stack.pop();
            }
            stack.push(Frame { column, is_item: false, name });
            lines.note(&stack, number);
            if value.starts_with(['|', '>']) {
                block_text_below = Some(column);
            }
        }
        lines
    }

    /// The line of a key, counted from 1, or of the nearest key above it that was found.
    pub(super) fn line(&self, path: &[String]) -> Option<usize> {
        (1..=path.len()).rev().find_map(|n| self.0.get(&path[..n]).copied())
    }

    fn note(&mut self, stack: &[Frame], number: usize) {
        self.0.entry(path(stack)).or_insert(number + 1);
    }
}

fn path(stack: &[Frame]) -> Vec<String> {
    stack.iter().map(|frame| frame.name.clone()).collect()
}

/// Splits `key: value`.
fn key(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''));
    let (name, rest) = match quote {
        Some(quote) => text[1..].split_once(quote)?,
        None => {
            let end = text.find(": ").or(text.trim_end().strip_suffix(':').map(str::len))?;
            text.split_at(end)
        }
    };
    let value = rest.trim_start().strip_prefix(':')?;
    Some((name.trim().to_owned(), value.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_in_maps_lists_and_behind_block_text() {
        let text = "\
# a comment
a: 1
b:
  c: |
    d: not a key
  'e f': 2
  list:
  - host: x
    port: 1
  -   host: y
g: {h: 1}
";
        let lines = Lines::of(text);
        let table: &[(&[&str], Option<usize>)] = &[
            (&["a"], Some(2)),
            (&["b", "c"], Some(4)),
            (&["b", "d"], Some(3)),
            (&["b", "e f"], Some(6)),
            (&["b", "list", "[0]", "port"], Some(9)),
            (&["b", "list", "[1]", "host"], Some(10)),
            (&["g", "h"], Some(11)),
            (&["z"], None),
        ];
        for (path, line) in table {
            let path: Vec<String> = path.iter().map(|s| (*s).to_owned()).collect();
            assert_eq!(lines.line(&path), *line, "{path:?}");
        }
    }
}
