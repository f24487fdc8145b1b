//! What can be wrong with a configuration, and where.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// Where a setting was written. In the order in which problems are listed: the file top to bottom, then the
/// environment, then the flags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Nowhere: what holds when nothing is said.
    Defaults,
    /// The file as a whole: it cannot be read, or it says nothing.
    WholeFile(Arc<Path>),
    /// A place in the file.
    File {
        /// The file's name as it was given.
        path: Arc<Path>,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
    },
    /// The environment variable of this name.
    Environment(String),
    /// The command line's flag of this name, with its dashes.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => out.write_str("configuration"),
            Self::WholeFile(path) => write!(out, "{}", path.display()),
            Self::File { path, line, .. } => write!(out, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => out.write_str(name),
        }
    }
}

/// Whether a setting is wrong, or right and too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProblemKind {
    /// It can never be taken.
    Invalid,
    /// It is understood, and refused because nothing would obey it yet.
    NotAvailableYet,
}

/// One thing that keeps a configuration from being used. Prints as one line: place, key, what, hint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// The dotted path of the key, list items by number from 0 (`tenant[0].id`); empty if it is about no key.
    pub key: String,
    /// What is wrong. Never shows a secret.
    pub what: String,
    /// What to write instead, where that can be told.
    pub hint: Option<String>,
    /// Wrong, or too early.
    pub kind: ProblemKind,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.place)?;
        if !self.key.is_empty() {
            write!(out, "{}: ", self.key)?;
        }
        out.write_str(&self.what)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(out, "; {hint}"))
    }
}

/// Why a configuration is refused: every problem it has, in the order of their places. Prints a line for
/// each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<Problem>,
}

impl ConfigError {
    /// Sorts `problems`, of which there is at least one.
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        Self { problems }
    }

    /// All of them, sorted by place.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            write!(out, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}
