//! strace's output, read: which system call began and returned where in the order of all threads.

use std::collections::HashMap;

/// One system call on a file descriptor.
#[derive(Debug)]
pub struct Syscall {
    pub name: String,
    /// The file or socket behind the descriptor.
    pub target: String,
    /// Everything behind the descriptor, as strace shows it.
    pub data: String,
    pub result: i64,
    /// Lines of the output, which is in the order of events.
    pub entered: usize,
    pub returned: usize,
}

pub struct Trace(Vec<Syscall>);

// === impl Trace ===

impl Trace {
    pub fn read(output: &str) -> Self {
        let mut unfinished: HashMap<&str, (usize, String)> = HashMap::new();
        let mut calls = Vec::new();
        for (line, text) in output.lines().enumerate() {
            let Some((thread, text)) = text.split_once(' ') else { continue };
            let text = text.trim_start();
            if let Some(begun) = text.strip_suffix("<unfinished ...>") {
                unfinished.insert(thread, (line, begun.trim_end().to_owned()));
            } else if let Some(resumed) = text.strip_prefix("<... ") {
                let (_, rest) = resumed.split_once(" resumed>").unwrap_or_else(|| panic!("line {line}: {text}"));
                // strace may have begun to look between the two.
                if let Some((entered, begun)) = unfinished.remove(thread) {
                    calls.extend(Syscall::read(&(begun + rest), entered, line));
                }
            } else {
                calls.extend(Syscall::read(text, line, line));
            }
        }
        assert!(!calls.is_empty(), "strace saw nothing");
        Self(calls)
    }

    /// The first successful write that holds `data`, to a target that is meant.
    pub fn first_write(&self, data: &str, meant: impl Fn(&str) -> bool) -> Option<&Syscall> {
        let writes = self.0.iter().filter(|it| !matches!(it.name.as_str(), "fdatasync" | "fsync") && it.result > 0);
        writes.filter(|it| meant(&it.target)).find(|it| it.data.contains(data))
    }

    /// The successful syncs of a file.
    pub fn syncs(&self, target: &str) -> impl Iterator<Item = &Syscall> {
        let syncs = self.0.iter().filter(|it| matches!(it.name.as_str(), "fdatasync" | "fsync") && it.result == 0);
        syncs.filter(move |it| it.target == target)
    }
}

// === impl Syscall ===

impl Syscall {
    /// None for what is no finished call on a named descriptor: exits, signals, calls cut off by the end.
    fn read(text: &str, entered: usize, returned: usize) -> Option<Self> {
        let (name, rest) = text.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(") = ").or_else(|| {
            // The column of results is padded with blanks.
            let (arguments, result) = rest.rsplit_once(" = ")?;
            Some((arguments.trim_end().strip_suffix(')')?, result))
        })?;
        let result = result.split_whitespace().next()?.parse().ok()?;
        let (_, rest) = arguments.split_once('<')?;
        let (target, data) = rest.split_once(">, ").unwrap_or((rest.strip_suffix('>').unwrap_or(rest), ""));
        let (target, data) = (target.to_owned(), data.to_owned());
        Some(Self { name: name.to_owned(), target, data, result, entered, returned })
    }
}
