//! The files that a sandbox has uploaded, by where its host keeps them. Plain data; a file goes when its time is over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::spool::Stored;
use crate::clock::Timestamp;

/// An uploaded file as it is given back.
pub(in crate::sim) struct Upload {
    pub(in crate::sim) stored: Arc<Stored>,
    /// What it is served as.
    pub(in crate::sim) content_type: Box<str>,
}

/// All uploads of a sandbox.
#[derive(Default)]
pub(in crate::sim) struct Shelf {
    by_path: HashMap<Arc<str>, (Arc<Upload>, Timestamp)>,
    /// When which path goes.
    leaving: BTreeSet<(Timestamp, Arc<str>)>,
    /// How many names were made up.
    names: u64,
}

impl Shelf {
    /// Puts a file at `path` until some time; one that was there before goes.
    pub(in crate::sim) fn put(&mut self, path: &str, upload: Upload, until: Timestamp) {
        let path: Arc<str> = path.into();
        let old = self.by_path.insert(Arc::clone(&path), (Arc::new(upload), until));
        if let Some((_, until)) = old {
            self.leaving.remove(&(until, Arc::clone(&path)));
        }
        self.leaving.insert((until, path));
    }

    /// The file at `path`, if it is there at `now`.
    pub(in crate::sim) fn get(&self, path: &str, now: Timestamp) -> Option<Arc<Upload>> {
        let (upload, until) = self.by_path.get(path)?;
        (now < *until).then(|| Arc::clone(upload))
    }

    /// Lets go of what nobody can have any more at `now`.
    pub(in crate::sim) fn expire(&mut self, now: Timestamp) {
        while self.leaving.first().is_some_and(|(until, _)| *until <= now) {
            let gone = self.leaving.pop_first().and_then(|(_, path)| self.by_path.remove(&path));
            drop(gone);
        }
    }

    /// When the next file goes.
    pub(in crate::sim) fn next_leaves(&self) -> Option<Timestamp> {
        self.leaving.first().map(|(until, _)| *until)
    }

    /// All files that are there at `now`, by path.
    pub(in crate::sim) fn all(&self, now: Timestamp) -> Vec<(Arc<str>, Arc<Upload>, Timestamp)> {
        let here = self.by_path.iter().filter(|(_, (_, until))| now < *until);
        let mut all: Vec<_> =
            here.map(|(path, (upload, until))| (Arc::clone(path), Arc::clone(upload), *until)).collect();
        all.sort_unstable_by(|(one, ..), (other, ..)| one.cmp(other));
        all
    }

    /// How many names were made up.
    pub(in crate::sim) fn names(&self) -> u64 {
        self.names
    }

    /// So many names were made up before.
    pub(in crate::sim) fn set_names(&mut self, names: u64) {
        self.names = names;
    }

    /// The number of the next name that is made up.
    pub(in crate::sim) fn next_name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }
}
