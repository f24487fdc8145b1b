//! Writes down what goes to the live API and what comes from it, while it happens.
//!
//! An entry is written when its answer is over, before the last of it is passed on: what a client has seen is in the file.
//! Writing takes some microseconds and is done on the spot, so nothing is lost in a queue when the process ends. Bodies that
//! are large, or no text, are noted and not kept.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Uri};
use serde_json::Value;
use tokio::time::Instant;

use super::asked::{Asked, Role};
use super::har::{Content, Entry, Kind, Note, Posted, Request, Response, Sheet, Timings};
use super::redact::Redactor;
use crate::catalogue::Catalogue;
use crate::clock::{Clock, Timestamp};
use crate::wire;

/// The largest body that is kept, in bytes.
pub(super) const LARGEST: usize = 10 * 1024 * 1024;
/// So many tasks are followed at once; beyond that all begin anew.
const MOST_FOLLOWED: usize = 100_000;

/// Writes a recording.
#[derive(Debug)]
pub struct Recorder {
    path: PathBuf,
    catalogue: Arc<Catalogue>,
    clock: Clock,
    redactor: Redactor,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sheet: Sheet,
    lifecycles: u32,
    /// By what names them: the id of a task, the print of a version, the address that is called back.
    begun: HashMap<String, Begun>,
    /// It cannot be written, which was told.
    is_broken: bool,
}

/// A lifecycle that has begun.
#[derive(Clone, Copy, Debug)]
struct Begun {
    number: u32,
    at: Timestamp,
    /// It is a task, and no version of a result.
    is_task: bool,
}

impl Begun {
    fn write(self, note: &mut Note, at: Timestamp) {
        note.lifecycle = Some(self.number);
        note.after_ms = u64::try_from(at.saturating_since(self.at).as_millis()).ok();
    }
}

/// A request that is about to be sent.
pub struct Sent<'a> {
    /// The operation's id; `other` for what is none.
    pub operation: &'a str,
    /// How addresses on that host begin.
    pub base: &'a str,
    /// How it is sent.
    pub method: &'a Method,
    /// Path and query.
    pub uri: &'a Uri,
    /// Where its key stands.
    pub keys: &'a HeaderMap,
    /// Those that the API gets.
    pub headers: &'a HeaderMap,
    /// `None` if it streams, and is not kept.
    pub body: Option<&'a [u8]>,
}

/// A request on its way, of which the answer is awaited.
#[derive(Debug)]
pub struct Exchange {
    recorder: Arc<Recorder>,
    entry: Entry,
    asked: Asked,
    began: Instant,
    waited: Duration,
    is_written: bool,
}

/// Where a run that writes to `path` writes: `path` itself, or, where that is a folder, a file in it that is named by the
/// time `now`.
pub fn file_for(path: &Path, now: Timestamp) -> PathBuf {
    let name = || now.to_rfc3339().replace([':', '.'], "-");
    if path.is_dir() { path.join(format!("kiegate-{}.har", name())) } else { path.to_owned() }
}

impl Recorder {
    /// Begins the file at `path`.
    ///
    /// # Errors
    /// It is there already, or cannot be written.
    pub fn create(
        path: &Path,
        catalogue: Arc<Catalogue>,
        clock: Clock,
        redactor: Redactor,
    ) -> io::Result<Self> {
        let sheet = Sheet::create(path)?;
        let state = State { sheet, lifecycles: 0, begun: HashMap::new(), is_broken: false };
        Ok(Self { path: path.to_owned(), catalogue, clock, redactor, state: Mutex::new(state) })
    }

    /// Where it writes.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is about to be sent.
    pub fn sent(self: &Arc<Self>, sent: &Sent<'_>) -> Exchange {
        let Sent { operation, base, method, uri, keys, headers, body } = *sent;
        self.redactor.learn(keys, uri.query().unwrap_or_default());
        let at = self.clock.now();
        let target = target_without_key(uri);
        let asked = Asked::read(&self.catalogue, method, &target, body);
        let url = self.redactor.text(&format!("{}{target}", base.trim_end_matches('/')));
        let mut request = Request::new(method.as_str(), url);
        request.headers = self.redactor.headers(headers);
        let mut note = Note { operation: operation.to_owned(), ..Note::default() };
        match body {
            Some([]) => request.body_size = 0,
            Some(bytes) => {
                request.body_size = size(bytes.len());
                request.body = self.posted(headers, bytes, &mut note);
            }
            None => note.omitted.push("request".to_owned()),
        }
        if let Some(known) = asked.operation.filter(|_| !asked.request.is_null()) {
            let label = self.catalogue.model_label(known, &asked.request);
            note.model = Some(label.to_owned()).filter(|label| label != "other");
        }
        if let Some(begun) = self.follow(&asked, at) {
            begun.write(&mut note, at);
        }
        let entry = Entry::new(at, request, note);
        Exchange {
            recorder: Arc::clone(self),
            entry,
            asked,
            began: self.clock.instant(),
            waited: Duration::ZERO,
            is_written: false,
        }
    }

    fn posted(&self, headers: &HeaderMap, bytes: &[u8], note: &mut Note) -> Option<Posted> {
        let mime = mime(headers);
        let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= LARGEST);
        if text.is_none() {
            note.omitted.push("request".to_owned());
        }
        text.map(|text| Posted::new(mime, self.redactor.body(mime, text)))
    }

    /// The lifecycle that a request begins or is about.
    fn follow(&self, asked: &Asked, at: Timestamp) -> Option<Begun> {
        let role = asked.role(&self.catalogue);
        let mut state = self.state();
        match role {
            Role::Starts { anew } => {
                let print = asked.print();
                if let Some(begun) = state.begun.get(print).copied().filter(|_| !anew) {
                    return Some(begun);
                }
                state.lifecycles += 1;
                let begun = Begun { number: state.lifecycles, at, is_task: anew };
                if state.begun.len() > MOST_FOLLOWED {
                    state.begun.clear();
                }
                if !anew {
                    state.begun.insert(print.to_owned(), begun);
                }
                state.begun.extend(asked.callback(&self.catalogue).map(|url| (url.to_owned(), begun)));
                Some(begun)
            }
            Role::Asks(id) => state.begun.get(&id).copied(),
            Role::Other => None,
        }
    }

    /// The API has called back at `url`, and was answered with `status`. If that belongs to no task of this recording, it is
    /// not written down.
    pub fn called_back(&self, url: &str, headers: &HeaderMap, body: &[u8], status: u16) {
        let at = self.clock.now();
        let Some(begun) = self.called_about(url, body) else { return };
        let mut note = Note { kind: Kind::Callback, ..Note::default() };
        begun.write(&mut note, at);
        let mut request = Request::new("POST", self.redactor.text(url));
        request.headers = self.redactor.headers(headers);
        request.body_size = size(body.len());
        request.body = self.posted(headers, body, &mut note);
        let mut entry = Entry::new(at, request, note);
        entry.response = Response::new(status, Vec::new(), Content::default());
        self.write(&entry);
    }

    /// The lifecycle that a callback is about: by its address, unless that serves several, of which the body names one.
    fn called_about(&self, url: &str, body: &[u8]) -> Option<Begun> {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let state = self.state();
        let by_address = state.begun.get(url).copied();
        let by_id = wire::task_id(&body).and_then(|id| state.begun.get(id)).copied();
        match (by_address, by_id) {
            (Some(at), Some(named)) if at.is_task && at.number != named.number => Some(named),
            (Some(at), _) => Some(at),
            (None, named) => named,
        }
    }

    fn write(&self, entry: &Entry) {
        let text = match serde_json::to_string(entry) {
            Ok(text) => text,
            Err(error) => return tracing::error!("an entry of the recording cannot be written: {error}"),
        };
        let mut state = self.state();
        match state.sheet.append(&text) {
            Ok(()) => state.is_broken = false,
            Err(error) if !state.is_broken => {
                state.is_broken = true;
                tracing::error!("{} cannot be written, and lacks entries: {error}", self.path.display());
            }
            Err(_) => {}
        }
    }

    /// Everything so far survives the machine, too.
    pub fn sync(&self) {
        if let Err(error) = self.state().sheet.sync() {
            tracing::error!("{} cannot be written to the end: {error}", self.path.display());
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.sync();
    }
}

impl Exchange {
    /// The head of the answer has come.
    pub fn head(&mut self) {
        self.waited = self.began.elapsed();
    }

    /// The answer is over. Of a `body` that is `None`, only the `size` is known; what is not `complete` broke off.
    pub fn answered(
        mut self,
        status: u16,
        headers: &HeaderMap,
        body: Option<&[u8]>,
        size_of: u64,
        complete: bool,
    ) {
        let recorder = Arc::clone(&self.recorder);
        let mime = mime(headers);
        let text = body.and_then(|bytes| std::str::from_utf8(bytes).ok());
        if text.is_none() {
            self.note().omitted.push("response".to_owned());
        }
        self.note().cut = !complete;
        if let (Some(operation), Some(text), Some(note)) = (self.asked.operation, text, &self.entry.note)
            && let Ok(answer) = serde_json::from_str(text)
            && let Some(id) = recorder.catalogue.task_id(operation, &answer)
            && let (Role::Starts { anew: true }, Some(number)) =
                (self.asked.role(&recorder.catalogue), note.lifecycle)
        {
            let begun = Begun { number, at: self.entry.started, is_task: true };
            recorder.state().begun.insert(id.to_owned(), begun);
        }
        let content = Content {
            size: i64::try_from(size_of).unwrap_or(-1),
            mime: mime.to_owned(),
            text: text.map(|text| recorder.redactor.body(mime, text)),
            encoding: None,
        };
        self.entry.response = Response::new(status, recorder.redactor.headers(headers), content);
        self.end();
    }

    /// There will be no answer.
    pub fn unanswered(mut self, why: &str) {
        self.head();
        self.entry.comment = Some(self.recorder.redactor.text(why));
        self.end();
    }

    fn note(&mut self) -> &mut Note {
        self.entry.note.get_or_insert_default()
    }

    /// Writes it down.
    fn end(&mut self) {
        self.is_written = true;
        let millis = |span: Duration| (span.as_secs_f64() * 1e6).round() / 1e3;
        let whole = self.began.elapsed();
        self.entry.time = millis(whole);
        self.entry.timings = Timings::new(millis(self.waited), millis(whole.saturating_sub(self.waited)));
        self.recorder.write(&self.entry);
    }
}

impl Drop for Exchange {
    /// Nobody waits for the answer any more. It has been asked for all the same.
    fn drop(&mut self) {
        if !self.is_written {
            self.entry.comment = Some("nobody waited for the answer".to_owned());
            self.end();
        }
    }
}

/// Path and query of `uri`, without a parameter `key`.
fn target_without_key(uri: &Uri) -> String {
    let query = uri.query().unwrap_or_default();
    let rest: Vec<&str> =
        query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("key=")).collect();
    if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{}", uri.path(), rest.join("&")) }
}

fn mime(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(-1)
}
