//! Which files a catalogue is made of, and what their text says before it is checked.
//!
//! The compiled-in ones can be overridden from a folder. What they say together is for the other files of this folder.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path as FilePath;

use serde::de::DeserializeOwned;

use super::Loader;
use crate::catalogue::raw::{RawFamily, RawModel, RawShared};

/// The compiled-in files: name below `fixtures/` and text.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/fixtures.rs"));

/// The files that a catalogue is made of.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name below the root (`catalogue/runway.json`) to text.
    files: BTreeMap<String, std::borrow::Cow<'static, str>>,
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `catalogue/runway.json`, perhaps with a line.
    pub file: String,
    /// Where in the file, in words or as a path; may be empty.
    pub at: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.file)?;
        if !self.at.is_empty() {
            write!(out, "{}: ", self.at)?;
        }
        out.write_str(&self.what)
    }
}

impl Source {
    /// What is compiled in.
    pub fn embedded() -> Self {
        Self { files: EMBEDDED.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect() }
    }

    /// What is compiled in, with the files below `folder` in the place of their namesakes or beside them.
    ///
    /// # Errors
    /// Folders or files that cannot be read.
    pub fn with_overrides(folder: &FilePath) -> Result<Self, Vec<Problem>> {
        let mut source = Self::embedded();
        let mut problems = Vec::new();
        if folder.is_dir() {
            source.add_folder(folder, "", &mut problems);
        } else {
            let what = "is not a folder; it should hold catalogue/*.json and models/<vendor>/*.json".into();
            problems.push(Problem { file: folder.display().to_string(), at: String::new(), what });
        }
        if problems.is_empty() { Ok(source) } else { Err(problems) }
    }

    /// Puts a file in, as if it stood below the root; for tests.
    #[must_use]
    pub fn with_file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.into(), text.to_owned().into());
        self
    }

    fn add_folder(&mut self, folder: &FilePath, prefix: &str, problems: &mut Vec<Problem>) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return problems.push(unreadable(folder, &error)),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                self.add_folder(&path, &format!("{name}/"), problems);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                match std::fs::read_to_string(&path) {
                    Ok(text) => drop(self.files.insert(name, text.into())),
                    Err(error) => problems.push(unreadable(&path, &error)),
                }
            }
        }
    }
}

fn unreadable(path: &FilePath, error: &std::io::Error) -> Problem {
    Problem { file: path.display().to_string(), at: String::new(), what: format!("cannot be read: {error}") }
}

#[derive(Default)]
pub(super) struct RawFiles {
    pub(super) shared: Option<RawShared>,
    pub(super) families: Vec<(String, RawFamily)>,
    pub(super) models: Vec<(String, RawModel)>,
}

impl Loader {
    pub(super) fn read_files(&mut self, source: &Source) -> RawFiles {
        let mut raw = RawFiles::default();
        for (name, text) in &source.files {
            if name == "catalogue/shared.json" {
                raw.shared = self.parse(name, text);
            } else if name.starts_with("catalogue/") {
                raw.families.extend(self.parse(name, text).map(|family| (name.clone(), family)));
            } else if name.starts_with("models/") {
                raw.models.extend(self.parse(name, text).map(|model| (name.clone(), model)));
            } else {
                self.problem(name, "", "does not stand below catalogue/ or models/".into());
            }
        }
        raw
    }

    fn parse<T: DeserializeOwned>(&mut self, name: &str, text: &str) -> Option<T> {
        serde_json::from_str(text)
            .map_err(|error| {
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default().to_owned();
                self.problem(&format!("{name}:{}", error.line()), "", what);
            })
            .ok()
    }
}
