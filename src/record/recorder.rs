//! Writes down what goes to the live API and what comes from it, while it happens; or to a simulator, with what steers that.
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
use super::har::{Circumstances, Content, Entry, Kind, Note, Posted, Request, Response, Sheet, Timings};
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
    /// It is a simulator's recording, and no live API's.
    is_simulated: bool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    sheet: Sheet,
    lifecycles: u32,
    /// How much has happened, where a simulator acts.
    happened: u64,
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
    /// What a simulator hears beyond that; `None` where it is the live API that answers.
    pub steering: Option<Steering>,
}

/// What a request to a simulator means beyond what the API would read in it.
#[derive(Clone, Debug, Default)]
pub struct Steering {
    /// Whose sandbox it is about.
    pub sandbox: Option<String>,
    /// Which host it asks.
    pub host: Option<String>,
    /// The outcome that its head asks for.
    pub outcome: Option<String>,
    /// The delay that its head asks for.
    pub delay: Option<String>,
    /// It is no call of the API but steers the simulator.
    pub is_control: bool,
}

/// A callback on its way.
#[derive(Debug)]
pub struct Calling {
    recorder: Arc<Recorder>,
    entry: Entry,
    is_written: bool,
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
        Self::begin(path, catalogue, clock, redactor, None)
    }

    /// Begins the file at `path`, which will tell of a simulator that is like `beginning` at first. With what steers it
    /// noted beside what it says, the same can be made to happen again.
    ///
    /// # Errors
    /// As [`Recorder::create`].
    pub fn of_simulator(
        path: &Path,
        catalogue: Arc<Catalogue>,
        clock: Clock,
        redactor: Redactor,
        beginning: &Value,
    ) -> io::Result<Self> {
        Self::begin(path, catalogue, clock, redactor, Some(beginning))
    }

    fn begin(
        path: &Path,
        catalogue: Arc<Catalogue>,
        clock: Clock,
        redactor: Redactor,
        beginning: Option<&Value>,
    ) -> io::Result<Self> {
        let sheet = Sheet::create(path, beginning)?;
        let (path, is_simulated) = (path.to_owned(), beginning.is_some());
        let state = State { sheet, lifecycles: 0, happened: 0, begun: HashMap::new(), is_broken: false };
        Ok(Self { path, catalogue, clock, redactor, is_simulated, state: Mutex::new(state) })
    }

    /// Whether it is a simulator that is recorded.
    pub fn is_of_simulator(&self) -> bool {
        self.is_simulated
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
        let Sent { operation, base, method, uri, keys, headers, body, steering } = sent;
        let body = *body;
        self.redactor.learn(keys, uri.query().unwrap_or_default());
        let at = self.clock.now();
        let target = target_without_key(uri);
        let asked = Asked::read(&self.catalogue, method, &target, body);
        let url = self.redactor.text(&format!("{}{target}", base.trim_end_matches('/')));
        let mut request = Request::new(method.as_str(), url);
        request.headers = self.redactor.headers(headers);
        let mut note = Note { operation: (*operation).to_owned(), ..Note::default() };
        if let Some(steering) = steering {
            note.kind = if steering.is_control { Kind::Control } else { Kind::Exchange };
            note.simulated = Some(self.circumstances(steering));
        }
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

    /// The next thing that happens, now.
    fn circumstances(&self, steering: &Steering) -> Circumstances {
        let wished = |text: &Option<String>| text.as_ref().map(|text| self.redactor.text(text));
        let (order, at) = (self.next(), self.clock.now());
        Circumstances {
            order,
            since: order,
            at,
            sandbox: steering.sandbox.clone(),
            host: steering.host.clone(),
            outcome: wished(&steering.outcome),
            delay: wished(&steering.delay),
            fault: None,
        }
    }

    fn next(&self) -> u64 {
        let mut state = self.state();
        state.happened += 1;
        state.happened
    }

    fn posted(&self, headers: &HeaderMap, bytes: &[u8], note: &mut Note) -> Option<Posted> {
        let mime = mime(headers);
        let posted = match std::str::from_utf8(bytes) {
            _ if bytes.len() > LARGEST => None,
            Ok(text) => Some(Posted::new(mime, self.redactor.body(mime, text))),
            Err(_) if self.is_simulated && self.redactor.is_clean(bytes) => {
                Some(Posted::of_bytes(mime, bytes))
            }
            Err(_) => None,
        };
        if posted.is_none() {
            note.omitted.push("request".to_owned());
        }
        posted
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
        let Some(begun) = self.called_about(url, body) else { return };
        let mut entry = self.callback(url, headers, body, Some(begun));
        entry.response = Response::new(status, Vec::new(), Content::default());
        self.write(&entry);
    }

    /// A simulator calls back at `url`; what comes of it will be told.
    pub fn calling(self: &Arc<Self>, url: &str, headers: &HeaderMap, body: &[u8]) -> Calling {
        let mut entry = self.callback(url, headers, body, self.called_about(url, body));
        if let Some(note) = &mut entry.note {
            note.simulated = Some(self.circumstances(&Steering::default()));
        }
        Calling { recorder: Arc::clone(self), entry, is_written: false }
    }

    fn callback(&self, url: &str, headers: &HeaderMap, body: &[u8], begun: Option<Begun>) -> Entry {
        let at = self.clock.now();
        let mut note = Note { kind: Kind::Callback, ..Note::default() };
        if let Some(begun) = begun {
            begun.write(&mut note, at);
        }
        let mut request = Request::new("POST", self.redactor.text(url));
        request.headers = self.redactor.headers(headers);
        request.body_size = size(body.len());
        request.body = self.posted(headers, body, &mut note);
        Entry::new(at, request, note)
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

impl Calling {
    /// It was answered with a status, or not, and why.
    pub fn answered(mut self, answer: &Result<u16, String>) {
        match answer {
            Ok(status) => self.entry.response = Response::new(*status, Vec::new(), Content::default()),
            Err(why) => self.entry.comment = Some(self.recorder.redactor.text(why)),
        }
        self.write();
    }

    fn write(&mut self) {
        if !self.is_written {
            self.is_written = true;
            self.recorder.write(&self.entry);
        }
    }
}

impl Drop for Calling {
    /// Nobody waits for the answer any more.
    fn drop(&mut self) {
        self.write();
    }
}

impl Exchange {
    /// The head of the answer has come.
    pub fn head(&mut self) {
        self.waited = self.began.elapsed();
        let (order, at) = (self.recorder.next(), self.recorder.clock.now());
        let note = self.entry.note.as_mut().filter(|note| note.kind != Kind::Control);
        // It is now that a simulator has acted: of two that answer side by side the slower one may have been asked first.
        if let Some(circumstances) = note.and_then(|note| note.simulated.as_mut()) {
            (circumstances.order, circumstances.at) = (order, at);
        }
    }

    /// What is to become of the answer on its way, by its name.
    pub fn mishap(&mut self, fault: String) {
        if let Some(circumstances) = &mut self.note().simulated {
            circumstances.fault = Some(fault);
        }
    }

    /// The body of a request that streamed has passed whole.
    pub fn brought(&mut self, headers: &HeaderMap, body: &[u8]) {
        let recorder = Arc::clone(&self.recorder);
        let mut note = self.entry.note.take().unwrap_or_default();
        note.omitted.retain(|what| what != "request");
        self.entry.request.body_size = size(body.len());
        self.entry.request.body = recorder.posted(headers, body, &mut note).filter(|_| !body.is_empty());
        self.entry.note = Some(note);
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
