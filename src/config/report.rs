//! What reading a file has to say besides the settings: problems, notices, and what became of each key.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with a file, found in one go.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub struct ConfigErrors {
    /// The file, if the text came from one.
    pub file: Option<PathBuf>,
    /// Never empty. In the order in which the file is read.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Like `namespaces.payproc.processor.url`; empty if it is about the file as a whole.
    pub path: String,
    /// Counted from 1. That of the nearest key above, where the key itself is missing.
    pub line: Option<usize>,
    /// What is wrong: continues a sentence that begins with the path.
    pub wrong: String,
    /// What to write instead.
    pub instead: String,
}

/// What became of the file: for the log at start, and for `check-config`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// What a user should know although the service starts.
    pub notices: Vec<Notice>,
    /// Every key that the file holds, in its order.
    pub keys: Vec<KeyReport>,
}

/// One thing a user should know.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// The key that it is about.
    pub path: String,
    /// Counted from 1.
    pub line: Option<usize>,
    /// Continues a sentence that begins with the path.
    pub text: String,
}

/// A key of the file and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyReport {
    /// Like `namespaces.payproc.processor.url`.
    pub path: String,
    /// Counted from 1.
    pub line: Option<usize>,
    /// What became of it.
    pub became: Became,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Became {
    /// It means what it always meant.
    Used,
    /// It is used, with another meaning than in the original: a notice says which.
    UsedDifferently,
    /// It has no meaning here.
    Ignored,
}

// === impl Problem ===

impl Problem {
    pub(super) fn new(
        path: impl Into<String>,
        line: Option<usize>,
        wrong: impl Into<String>,
        instead: impl Into<String>,
    ) -> Self {
        Problem { path: path.into(), line, wrong: wrong.into(), instead: instead.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.path, self.line)?;
        write!(f, "{}; {}", self.wrong, self.instead)
    }
}

// === impl Notice ===

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        place(f, &self.path, self.line)?;
        f.write_str(&self.text)
    }
}

fn place(f: &mut fmt::Formatter<'_>, path: &str, line: Option<usize>) -> fmt::Result {
    if let Some(line) = line {
        write!(f, "line {line}: ")?;
    }
    if path.is_empty() {
        return Ok(());
    }
    write!(f, "{path} ")
}

// === impl ConfigErrors ===

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}", file.display())?,
            None => f.write_str("the configuration")?,
        }
        match self.problems.len() {
            1 => f.write_str(" has an error:")?,
            n => write!(f, " has {n} errors:")?,
        }
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

// === impl Became ===

impl fmt::Display for Became {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Became::Used => "used",
            Became::UsedDifferently => "used differently",
            Became::Ignored => "ignored",
        })
    }
}
