//! Recordings read as stories: each task from its create to its last callback, and the calls that are about none.
//!
//! What belongs together is found out from the bodies, so that recordings of others can be read, too; only which task a
//! callback is about, the recording itself says best.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};
use serde_json::Value;

use super::asked::{Asked, Role};
use super::har::{self, Circumstances, Damaged, Entry, Kind, Note, Sheets};
use super::redact::REDACTED;
use crate::catalogue::{Catalogue, Known};
use crate::clock::Timestamp;
use crate::wire;

/// Headers of an answer that are about its way here, or would be wrong the next time.
const PASSING_HEADERS: [&str; 14] = [
    "age",
    "alt-svc",
    "cf-ray",
    "connection",
    "content-encoding",
    "content-length",
    "date",
    "etag",
    "keep-alive",
    "report-to",
    "set-cookie",
    "trailer",
    "transfer-encoding",
    "vary",
];

/// What the files of a recording tell.
#[derive(Clone, Debug, Default)]
pub struct Recording {
    /// By when they began.
    pub lifecycles: Vec<Lifecycle>,
    /// What is about no task of the recording, in its order.
    pub calls: Vec<Called>,
    /// How the simulator was steered that is recorded, in the order of that.
    pub controls: Vec<Called>,
    /// Callbacks of a simulator that belong to none of the lifecycles.
    pub strays: Vec<Told>,
    /// Calls that were not answered whole, and why: nothing to go by, unless a simulator shall do the same again.
    pub broken: Vec<Broken>,
    /// How the simulator was at first that is recorded; `None` where it was the real API.
    pub simulator: Option<Value>,
}

/// A call without a whole answer.
#[derive(Clone, Debug)]
pub struct Broken {
    /// What there is of it.
    pub call: Called,
    /// What became of the answer.
    pub why: String,
}

/// A task, or another version of its result, from its beginning on.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    /// The call that started it.
    pub start: Called,
    /// The task that the answer named; `None` for a version, and where it was refused.
    pub task: Option<String>,
    /// Each such call starts another one.
    pub anew: bool,
    /// Questions how far it is, in their order.
    pub looks: Vec<Seen>,
    /// What it called back, in the order of arrival.
    pub callbacks: Vec<Told>,
}

/// A call, some time after a task began.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Since the task began.
    pub after: Duration,
    /// The call.
    pub call: Called,
}

/// A callback.
#[derive(Clone, Debug)]
pub struct Told {
    /// Since the task began.
    pub after: Duration,
    /// Where to.
    pub url: String,
    /// JSON.
    pub body: Bytes,
    /// The status that it was answered with; 0 where there was no answer.
    pub status: u16,
    /// Nobody has recorded it; it follows from what the task's record said.
    pub is_derived: bool,
    /// As of [`Called`].
    pub circumstances: Option<Circumstances>,
}

/// A call as it was recorded.
#[derive(Clone, Debug)]
pub struct Called {
    /// `session.har: entry 3`.
    pub place: String,
    /// When.
    pub at: Timestamp,
    /// How it was sent.
    pub method: Method,
    /// Path and query.
    pub target: String,
    /// As they were sent, but for keys.
    pub headers: Vec<(String, String)>,
    /// Of its body.
    pub content_type: String,
    /// What it asked for.
    pub asked: Asked,
    /// `None` if it was not kept.
    pub body: Option<Bytes>,
    /// What came back.
    pub answer: Answer,
    /// Under which circumstances, where a simulator was called.
    pub circumstances: Option<Circumstances>,
}

/// An answer as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// But for those that are about the connection.
    pub headers: Vec<(String, String)>,
    /// `None` if it was not kept.
    pub body: Option<Bytes>,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        self.body.as_ref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or_default()
    }
}

impl Recording {
    /// Reads the file at `path`, or all files in it whose names end in `.har`.
    ///
    /// # Errors
    /// A file that cannot be read or is no recording; the message names file, entry and field.
    pub fn read(catalogue: &Catalogue, path: &Path) -> Result<Self, Damaged> {
        let mut all = Self::default();
        for file in Self::files(path)? {
            let read = Self::read_file(catalogue, &file)?;
            all.lifecycles.extend(read.lifecycles);
            all.calls.extend(read.calls);
            all.controls.extend(read.controls);
            all.strays.extend(read.strays);
            all.broken.extend(read.broken);
            all.simulator = all.simulator.or(read.simulator);
        }
        Ok(all)
    }

    /// Reads the file at `path`, and nothing else.
    ///
    /// # Errors
    /// As [`Recording::read`].
    pub fn read_file(catalogue: &Catalogue, path: &Path) -> Result<Self, Damaged> {
        Ok(Self::of(catalogue, path, &har::read(path)?))
    }

    /// The file at `path`, or all files in it whose names end in `.har`, in the order of those.
    ///
    /// # Errors
    /// The folder cannot be read, or there is none.
    pub fn files(path: &Path) -> Result<Vec<PathBuf>, Damaged> {
        let damaged = |what: String| Damaged { file: path.to_owned(), what };
        if !path.is_dir() {
            return Ok(vec![path.to_owned()]);
        }
        let listed = std::fs::read_dir(path).map_err(|error| damaged(format!("cannot be read: {error}")))?;
        let files = listed.filter_map(|file| Some(file.ok()?.path()));
        let mut files: Vec<_> =
            files.filter(|file| file.extension().is_some_and(|end| end == "har")).collect();
        files.sort();
        if files.is_empty() {
            return Err(damaged("there is no file in it whose name ends in .har".to_owned()));
        }
        Ok(files)
    }

    /// What these entries of a file tell.
    fn of(catalogue: &Catalogue, file: &Path, Sheets { entries, simulator }: &Sheets) -> Self {
        let told = Self { simulator: simulator.clone(), ..Self::default() };
        let mut reader = Reader { catalogue, told, begun: HashMap::new(), numbers: HashMap::new() };
        let mut numbered: Vec<_> = (1..).zip(entries).collect();
        let order = |entry: &Entry| Some(entry.note.as_ref()?.simulated.as_ref()?.order);
        numbered.sort_by_key(|(_, entry)| (order(entry), entry.started));
        for (number, entry) in numbered {
            let name = file.file_name().unwrap_or(file.as_os_str()).to_string_lossy();
            reader.take(format!("{name}: entry {number}"), entry);
        }
        for lifecycle in &mut reader.told.lifecycles {
            lifecycle.derive_callbacks(catalogue);
        }
        reader.told
    }
}

/// Puts entries to where they belong.
struct Reader<'c> {
    catalogue: &'c Catalogue,
    told: Recording,
    /// By the id of a task, or the print of a version: the place of its lifecycle.
    begun: HashMap<String, usize>,
    /// By the number that the recording gives it.
    numbers: HashMap<u32, usize>,
}

impl Reader<'_> {
    fn take(&mut self, place: String, entry: &Entry) {
        let note = entry.note.clone().unwrap_or_default();
        if note.kind == Kind::Callback {
            return self.take_callback(&note, entry);
        }
        let Some(call) = called(self.catalogue, place, entry, &note) else { return };
        if entry.note.is_none() && call.asked.operation.is_none() {
            return;
        }
        if note.kind == Kind::Control {
            return self.told.controls.push(call);
        }
        // No answer, or half of one, is nothing to go by.
        if entry.response.status == 0 || note.cut {
            let why = match &entry.comment {
                _ if note.cut => "its answer broke off".to_owned(),
                Some(comment) => format!("it was not answered: {comment}"),
                None => "it was not answered".to_owned(),
            };
            return self.told.broken.push(Broken { call, why });
        }
        match call.asked.role(self.catalogue) {
            Role::Starts { anew } => {
                let known = self.begun.get(call.asked.print()).copied().filter(|_| !anew);
                match known {
                    Some(lifecycle) => self.look(lifecycle, note.after_ms, call),
                    None => self.begin(anew, note.lifecycle, call),
                }
            }
            Role::Asks(id) if self.begun.contains_key(&id) => self.look(self.begun[&id], note.after_ms, call),
            _ => self.told.calls.push(call),
        }
    }

    fn begin(&mut self, anew: bool, number: Option<u32>, start: Called) {
        let place = self.told.lifecycles.len();
        let operation = start.asked.operation;
        let answer = start.answer.json();
        let task =
            operation.filter(|_| anew).and_then(|operation| self.catalogue.task_id(operation, &answer));
        let task = task.map(str::to_owned);
        self.begun.extend(task.clone().map(|id| (id, place)));
        if !anew {
            self.begun.insert(start.asked.print().to_owned(), place);
        }
        self.numbers.extend(number.map(|number| (number, place)));
        let lifecycle = Lifecycle { start, task, anew, looks: Vec::new(), callbacks: Vec::new() };
        self.told.lifecycles.push(lifecycle);
    }

    fn look(&mut self, lifecycle: usize, after_ms: Option<u64>, call: Called) {
        let lifecycle = &mut self.told.lifecycles[lifecycle];
        let after =
            after_ms.map_or_else(|| call.at.saturating_since(lifecycle.start.at), Duration::from_millis);
        lifecycle.looks.push(Seen { after, call });
    }

    fn take_callback(&mut self, note: &Note, entry: &Entry) {
        let Some(posted) = har::posted(entry) else { return };
        let body: Value = serde_json::from_slice(&posted).unwrap_or_default();
        let mut told = Told {
            after: Duration::ZERO,
            url: entry.request.url.clone(),
            body: posted.into(),
            status: entry.response.status,
            is_derived: false,
            circumstances: note.simulated.clone(),
        };
        let by_id = || self.begun.get(wire::task_id(&body)?);
        let place = note.lifecycle.and_then(|number| self.numbers.get(&number)).or_else(by_id);
        let Some(place) = place else {
            self.told.strays.extend(Some(told).filter(|told| told.circumstances.is_some()));
            return;
        };
        let lifecycle = &mut self.told.lifecycles[*place];
        let since = || entry.started.saturating_since(lifecycle.start.at);
        told.after = note.after_ms.map_or_else(since, Duration::from_millis);
        lifecycle.callbacks.push(told);
    }
}

impl Lifecycle {
    /// Where the API could not call back, what it would have said is made of what it answered.
    fn derive_callbacks(&mut self, catalogue: &Catalogue) {
        let (Some(operation), Some(id), true) =
            (self.start.asked.operation, &self.task, self.callbacks.is_empty())
        else {
            return;
        };
        let model = self.start.asked.model(catalogue);
        let mut stages = Vec::new();
        for Seen { after, call } in &self.looks {
            let request = &self.start.asked.request;
            let known = Known { operation, model, request, id, created: self.start.at, now: call.at };
            for (stage, body) in catalogue.callbacks_from_record(known, &call.answer.json()) {
                if !stages.contains(&stage) {
                    stages.push(stage);
                    self.callbacks.push(Told {
                        after: *after,
                        url: String::new(),
                        body: body.into(),
                        status: 200,
                        is_derived: true,
                        circumstances: None,
                    });
                }
            }
        }
    }
}

/// The call of an entry; `None` if it is to no path.
fn called(catalogue: &Catalogue, place: String, entry: &Entry, note: &Note) -> Option<Called> {
    let request = &entry.request;
    let method: Method = request.method.parse().ok()?;
    let target = request.url.parse::<Uri>().ok()?.path_and_query()?.as_str().to_owned();
    let is_omitted = note.omitted.iter().any(|what| what == "request");
    let is_gone = is_omitted || (request.body.is_none() && request.body_size > 0);
    let body = (!is_gone).then(|| har::posted(entry).map_or_else(Bytes::new, Bytes::from));
    let asked = Asked::read(catalogue, &method, &target, body.as_deref());
    let headers =
        entry.response.headers.iter().map(|pair| (pair.name.to_ascii_lowercase(), pair.value.clone()));
    let headers =
        headers.filter(|(name, _)| !name.starts_with(':') && !PASSING_HEADERS.contains(&name.as_str()));
    let answer = Answer {
        status: entry.response.status,
        headers: headers.collect(),
        body: har::content(entry).map(Bytes::from),
    };
    let content_type = request.body.as_ref().map_or_else(String::new, |body| body.mime.clone());
    let sent = request.headers.iter().filter(|pair| pair.value != REDACTED);
    let headers = sent.map(|pair| (pair.name.clone(), pair.value.clone())).collect();
    let (at, circumstances) = (entry.started, note.simulated.clone());
    Some(Called { place, at, method, target, headers, content_type, asked, body, answer, circumstances })
}
