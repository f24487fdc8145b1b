//! HAR 1.2, as much of it as a recording needs: types, reading with errors that name the entry, appending.
//!
//! Source: the HAR 1.2 specification (<http://www.softwareishard.com/blog/har-12-spec/>); names that begin with an
//! underscore are for whoever writes the file.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use crate::clock::Timestamp;

/// One call, or one callback.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry {
    /// When it was sent.
    #[serde(rename = "startedDateTime", with = "iso")]
    pub started: Timestamp,
    /// Until its answer was there, in milliseconds.
    #[serde(default)]
    pub time: f64,
    /// What was sent.
    pub request: Request,
    /// What came back.
    pub response: Response,
    /// Nothing is known of caches.
    #[serde(default)]
    cache: Nothing,
    /// How the time was spent.
    #[serde(default)]
    pub timings: Timings,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// What the entry is about; absent in recordings that others have made.
    #[serde(default, rename = "_kiegate", skip_serializing_if = "Option::is_none")]
    pub note: Option<Note>,
}

impl Entry {
    /// A request without an answer.
    pub(super) fn new(started: Timestamp, request: Request, note: Note) -> Self {
        let (response, cache, timings) =
            (Response::new(0, Vec::new(), Content::default()), Nothing {}, Timings::default());
        Self { started, time: 0.0, request, response, cache, timings, comment: None, note: Some(note) }
    }
}

/// An object without members.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Nothing {}

/// What was sent.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Request {
    /// In capitals.
    pub method: String,
    /// Whole, without the key.
    pub url: String,
    #[serde(default = "http", rename = "httpVersion")]
    version: String,
    #[serde(default)]
    cookies: Vec<Value>,
    /// In their order.
    #[serde(default)]
    pub headers: Vec<Pair>,
    /// Of the URL, decoded.
    #[serde(default, rename = "queryString")]
    pub query: Vec<Pair>,
    /// The body; absent if there was none, or it was not kept.
    #[serde(default, rename = "postData", skip_serializing_if = "Option::is_none")]
    pub body: Option<Posted>,
    #[serde(default = "unknown", rename = "headersSize")]
    headers_size: i64,
    /// In bytes; -1 where it is not known.
    #[serde(default = "unknown", rename = "bodySize")]
    pub body_size: i64,
}

impl Request {
    /// A request without headers and body.
    pub fn new(method: &str, url: String) -> Self {
        let query = url.split_once('?').map_or("", |(_, query)| query);
        let query = form_urlencoded::parse(query.as_bytes());
        let query = query.map(|(name, value)| Pair { name: name.into(), value: value.into() }).collect();
        Self {
            method: method.to_owned(),
            url,
            version: http(),
            query,
            headers_size: -1,
            body_size: -1,
            ..Self::default()
        }
    }
}

/// What came back.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Response {
    /// 0 where no answer came.
    pub status: u16,
    /// The status in words.
    #[serde(default, rename = "statusText")]
    pub status_text: String,
    #[serde(default = "http", rename = "httpVersion")]
    version: String,
    #[serde(default)]
    cookies: Vec<Value>,
    /// In their order.
    #[serde(default)]
    pub headers: Vec<Pair>,
    /// The body.
    pub content: Content,
    #[serde(default, rename = "redirectURL")]
    redirect: String,
    #[serde(default = "unknown", rename = "headersSize")]
    headers_size: i64,
    #[serde(default = "unknown", rename = "bodySize")]
    body_size: i64,
}

impl Response {
    /// A response with that status and body.
    pub fn new(status: u16, headers: Vec<Pair>, content: Content) -> Self {
        let text = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
        Self {
            status,
            status_text: text.unwrap_or_default().to_owned(),
            version: http(),
            headers,
            body_size: content.size,
            content,
            headers_size: -1,
            ..Self::default()
        }
    }
}

/// A header, or a parameter of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// The body of a request.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Posted {
    /// Its content type.
    #[serde(default, rename = "mimeType")]
    pub mime: String,
    /// As text.
    #[serde(default)]
    text: String,
    #[serde(default)]
    params: Vec<Value>,
    /// `base64` where the text stands for bytes.
    #[serde(default, rename = "_encoding", skip_serializing_if = "Option::is_none")]
    encoding: Option<String>,
}

impl Posted {
    /// A body of that type.
    pub fn new(mime: &str, text: String) -> Self {
        Self { mime: mime.to_owned(), text, params: Vec::new(), encoding: None }
    }

    /// A body of that type that is no text.
    pub(super) fn of_bytes(mime: &str, bytes: &[u8]) -> Self {
        Self { encoding: Some("base64".to_owned()), ..Self::new(mime, BASE64.encode(bytes)) }
    }

    /// The bytes.
    ///
    /// # Errors
    /// Text that does not stand for bytes, though it says so.
    fn bytes(&self) -> Result<Vec<u8>, String> {
        bytes_of(&self.text, self.encoding.as_deref())
    }
}

/// The body of a response.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Content {
    /// In bytes, as it came.
    #[serde(default)]
    pub size: i64,
    /// Its content type.
    #[serde(default, rename = "mimeType")]
    pub mime: String,
    /// As text; absent if it was not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `base64` where the text stands for bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

impl Content {
    /// The bytes; `None` if they were not kept.
    ///
    /// # Errors
    /// Text that does not stand for bytes, though it says so.
    fn bytes(&self) -> Result<Option<Vec<u8>>, String> {
        self.text.as_ref().map(|text| bytes_of(text, self.encoding.as_deref())).transpose()
    }
}

fn bytes_of(text: &str, encoding: Option<&str>) -> Result<Vec<u8>, String> {
    match encoding {
        None | Some("") => Ok(text.to_owned().into_bytes()),
        Some("base64") => BASE64.decode(text).map_err(|error| format!("no base64: {error}")),
        Some(other) => Err(format!("the encoding \"{other}\" is not known; there is base64")),
    }
}

/// How the time was spent, in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Timings {
    #[serde(default)]
    send: f64,
    /// Until the head of the answer was there.
    #[serde(default)]
    pub wait: f64,
    /// Until all of it was.
    #[serde(default)]
    pub receive: f64,
}

impl Timings {
    /// Waited and received for so long.
    pub fn new(wait: f64, receive: f64) -> Self {
        Self { send: 0.0, wait, receive }
    }
}

/// What an entry is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// A call of ours, or one that came in.
    #[serde(default)]
    pub kind: Kind,
    /// The operation; of a callback the one that started the task.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// The model that the request names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Which task of the recording it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<u32>,
    /// How long after the call that started the task, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Bodies that were there and are not kept: `request`, `response`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub omitted: Vec<String>,
    /// The answer broke off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
    /// Under which circumstances a simulator acted; absent where it was the real API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub simulated: Option<Circumstances>,
}

/// What decided what a simulator did, and cannot be seen from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Circumstances {
    /// Things happened in the order of these numbers.
    pub order: u64,
    /// The number of the moment when it was asked for: what lies between was under way at the same time.
    pub since: u64,
    /// When it acted, by real time.
    #[serde(with = "iso")]
    pub at: Timestamp,
    /// Whose sandbox it was; absent where there was no good key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<String>,
    /// The host that was asked, which result links begin with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The outcome that was asked for in the head of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The delay that was asked for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<String>,
    /// What became of the answer on its way, as it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Who called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// We called the API.
    #[default]
    Exchange,
    /// The API called back.
    Callback,
    /// A simulator was steered.
    Control,
}

fn http() -> String {
    "HTTP/1.1".to_owned()
}

const fn unknown() -> i64 {
    -1
}

/// Times as text.
mod iso {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::clock::Timestamp;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over references")]
    pub(super) fn serialize<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = String::deserialize(deserializer)?;
        Timestamp::parse_rfc3339(&text)
            .ok_or_else(|| D::Error::custom(format!("{text:?} is no time such as 2026-11-01T12:00:00.000Z")))
    }
}

/// Why a file is no recording.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", .file.display())]
pub struct Damaged {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, and where.
    pub what: String,
}

/// What a file has.
#[derive(Debug, Default)]
pub(super) struct Sheets {
    /// In their order.
    pub(super) entries: Vec<Entry>,
    /// How the simulator was at first that is recorded; `None` where it was the real API.
    pub(super) simulator: Option<Value>,
}

/// Reads the file at `path`.
///
/// # Errors
/// It cannot be read, or is no HAR; the message names the entry, counted from 1, and the field.
pub(super) fn read(path: &Path) -> Result<Sheets, Damaged> {
    let damaged = |what: String| Damaged { file: path.to_owned(), what };
    let text = std::fs::read(path).map_err(|error| damaged(format!("cannot be read: {error}")))?;
    parse(&text).map_err(damaged)
}

/// The bytes of an entry's answer; `None` where they were not kept. They have been read once, so they can be.
pub(super) fn content(entry: &Entry) -> Option<Vec<u8>> {
    entry.response.content.bytes().ok().flatten()
}

/// The bytes of an entry's request; `None` where there were none, or they were not kept. They have been read once, so they
/// can be.
pub(super) fn posted(entry: &Entry) -> Option<Vec<u8>> {
    entry.request.body.as_ref()?.bytes().ok()
}

fn parse(text: &[u8]) -> Result<Sheets, String> {
    let document: Document = serde_json::from_slice(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => format!("no HAR: {error}"),
        _ => format!("no JSON: {error}"),
    })?;
    let Log { version, note, entries } = document.log;
    if !version.is_empty() && !version.starts_with("1.") {
        return Err(format!("no HAR that can be read: log.version is {version:?}, and 1.2 is known"));
    }
    let numbered = (1..).zip(entries.0);
    let read = numbered.map(|(number, value)| entry(value).map_err(|what| format!("entry {number}: {what}")));
    Ok(Sheets { entries: read.collect::<Result<_, _>>()?, simulator: note.simulator })
}

fn entry(value: Value) -> Result<Entry, String> {
    let entry: Entry = serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        if path == "." { error.inner().to_string() } else { format!("{path}: {}", error.inner()) }
    })?;
    let status = entry.response.status;
    if status != 0 && !(100..1000).contains(&status) {
        return Err(format!("response.status: {status} is no HTTP status"));
    }
    if entry.request.method.parse::<http::Method>().is_err() {
        return Err(format!("request.method: {:?} is no HTTP method", entry.request.method));
    }
    entry.request.url.parse::<http::Uri>().map_err(|error| format!("request.url: {error}"))?;
    entry.response.content.bytes().map_err(|what| format!("response.content: {what}"))?;
    let posted = entry.request.body.as_ref().map(Posted::bytes).transpose();
    posted.map_err(|what| format!("request.postData: {what}"))?;
    Ok(entry)
}

#[derive(Deserialize)]
struct Document {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    version: String,
    #[serde(default, rename = "_kiegate")]
    note: Whole,
    entries: Entries,
}

/// What a recording says of itself as a whole.
#[derive(Default, Deserialize)]
struct Whole {
    simulator: Option<Value>,
}

/// The entries as they are; where one is no JSON, the error says which.
struct Entries(Vec<Value>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Entries;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("a list of entries")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Entries, A::Error> {
                let mut entries = Vec::new();
                loop {
                    let place = |error| A::Error::custom(format!("entry {}: {error}", entries.len() + 1));
                    match items.next_element().map_err(place)? {
                        Some(entry) => entries.push(entry),
                        None => return Ok(Entries(entries)),
                    }
                }
            }
        }
        deserializer.deserialize_seq(Counting)
    }
}

/// What stands after the last entry.
const END: &str = "\n]}}\n";

/// A file to which entries are added. Between two of them it is whole, so whoever is killed leaves a recording.
#[derive(Debug)]
pub(super) struct Sheet {
    file: File,
    /// Where the next entry goes.
    end: u64,
    is_empty: bool,
}

impl Sheet {
    /// Begins the file at `path`, which must not be there yet; a recording of a simulator says how that was at first.
    pub(super) fn create(path: &Path, simulator: Option<&Value>) -> io::Result<Self> {
        let mut file = File::options().write(true).create_new(true).open(path)?;
        let creator = json!({"name": "kiegate", "version": env!("CARGO_PKG_VERSION")});
        let note = simulator.map(|simulator| json!({"simulator": simulator}));
        let note = note.map_or_else(String::new, |note| format!("\"_kiegate\":{note},"));
        let head = format!("{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},{note}\"entries\":[");
        file.write_all(format!("{head}{END}").as_bytes())?;
        Ok(Self { file, end: head.len() as u64, is_empty: true })
    }

    /// Adds an entry, in one write.
    pub(super) fn append(&mut self, entry: &str) -> io::Result<()> {
        let comma = if self.is_empty { "" } else { "," };
        let text = format!("{comma}\n{entry}{END}");
        self.file.seek(SeekFrom::Start(self.end))?;
        self.file.write_all(text.as_bytes())?;
        self.end += (text.len() - END.len()) as u64;
        self.is_empty = false;
        Ok(())
    }

    /// Sees to it that what was written survives the machine, too.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"startedDateTime":"2026-11-01T12:00:00.5Z","request":{"method":"GET","url":"https://x.test/a?b=c"},
        "response":{"status":200,"content":{"text":"{}"}}}"#;

    fn document(entries: &[&str]) -> String {
        format!(r#"{{"log":{{"version":"1.2","entries":[{}]}}}}"#, entries.join(","))
    }

    #[test]
    fn what_others_have_written_is_read() {
        let Sheets { entries, simulator } = parse(document(&[WHOLE, WHOLE]).as_bytes()).unwrap();
        assert_eq!(simulator, None);
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].started.to_rfc3339(), "2026-11-01T12:00:00.500Z");
        assert_eq!(content(&entries[0]).unwrap(), b"{}");
    }

    #[test]
    fn a_damaged_file_names_the_entry_and_the_field() {
        let check = |text: &str, expected: &str| {
            let what = parse(text.as_bytes()).unwrap_err();
            assert!(what.starts_with(expected), "{what}");
        };
        let second = |from: &str, to: &str| document(&[WHOLE, &WHOLE.replace(from, to)]);
        check("", "no JSON: EOF while parsing");
        check("[]", "no HAR: ");
        check(r#"{"log":{}}"#, "no HAR: missing field `entries`");
        check(r#"{"log":{"version":"2.0","entries":[]}}"#, "no HAR that can be read: log.version is \"2.0\"");
        check(&second("\"GET\"", "7"), "entry 2: request.method: invalid type: integer `7`");
        check(&second("\"GET\"", "\"G T\""), "entry 2: request.method: \"G T\" is no HTTP method");
        check(&second("200", "2000"), "entry 2: response.status: 2000 is no HTTP status");
        check(
            &second("2026-11-01T12:00:00.5Z", "yesterday"),
            "entry 2: startedDateTime: \"yesterday\" is no time",
        );
        check(&second("\"content\":", "\"contents\":"), "entry 2: response: missing field `content`");
        check(
            &second(r#""text":"{}""#, r#""text":"?","encoding":"base64""#),
            "entry 2: response.content: no base64",
        );
        check(&second("https://x.test/a?b=c", "http://[x"), "entry 2: request.url: ");
        let torn = document(&[WHOLE, WHOLE]);
        check(&torn[..torn.len() - 60], "no HAR: entry 2: EOF while parsing");
    }

    #[test]
    fn a_file_is_whole_after_every_entry() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.har");
        let mut sheet = Sheet::create(&path, None).unwrap();
        for count in 0..3 {
            assert_eq!(read(&path).unwrap().entries.len(), count);
            sheet.append(&WHOLE.replace('\n', "")).unwrap();
        }
        sheet.sync().unwrap();
        assert_eq!(read(&path).unwrap().entries.len(), 3);
        assert!(Sheet::create(&path, None).is_err(), "nothing that was paid for is written over");
    }

    #[test]
    fn how_a_simulator_was_at_first_stands_at_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.har");
        let beginning = json!({"credits": 5});
        Sheet::create(&path, Some(&beginning)).unwrap();
        assert_eq!(read(&path).unwrap().simulator, Some(beginning));
    }
}
