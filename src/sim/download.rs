//! `/_media`: the result files of simulated tasks and the files that clients uploaded, with ranges and validators, as a
//! file server would give them.

use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use http::header::{
    ACCEPT_RANGES, ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_RANGE, RANGE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_range_header::parse_range_header;
use moka::sync::Cache;
use serde_json::Value;
use sha2::Sha256;

use super::Sim;
use super::sandbox::Sandbox;
use super::task::{SandboxId, TaskKey};
use super::upload::{self, Upload};
use super::view::{Setting, View};
use crate::clock::{Timestamp, hex};
use crate::{media, wire};

/// Rendered files that are kept for the next request, in bytes.
const KEPT: u64 = 16 * 1024 * 1024;

/// Files drawn lately, by address.
#[derive(Clone)]
pub(super) struct Rendered(Cache<String, Bytes>);

impl Default for Rendered {
    fn default() -> Self {
        let size = |name: &String, bytes: &Bytes| u32::try_from(name.len() + bytes.len()).unwrap_or(u32::MAX);
        Self(Cache::builder().weigher(size).max_capacity(KEPT).build())
    }
}

/// An address of a result: `/_media/<sandbox>/<task>/<file>`.
pub(super) struct Address<'a> {
    pub(super) sandbox: SandboxId,
    pub(super) task: TaskKey,
    pub(super) file: &'a str,
}

impl<'a> Address<'a> {
    /// Reads the path of a result's address.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let (sandbox, rest) = path.strip_prefix("/_media/")?.split_once('/')?;
        let (task, file) = rest.split_once('/')?;
        Some(Self { sandbox: SandboxId::parse(sandbox)?, task: TaskKey::parse(task)?, file })
    }
}

/// Where the bytes of a file come from.
pub(super) enum Source {
    /// A result: drawn, and served as that type.
    Drawn(media::Spec, &'static str),
    /// Brought by a client.
    Uploaded(Arc<Upload>),
}

impl Source {
    /// What it is served as.
    pub(super) fn content_type(&self) -> &str {
        match self {
            Self::Drawn(_, content_type) => content_type,
            Self::Uploaded(upload) => &upload.content_type,
        }
    }
}

/// The path of an absolute URL, without its query.
pub(super) fn path_of(url: &str) -> Option<&str> {
    let after_scheme = url.split_once("://")?.1;
    let path = &after_scheme[after_scheme.find('/')?..];
    path.split(['?', '#']).next()
}

impl Sim {
    /// Answers a request below `/_media`. Drawing a large picture takes a while and happens off the event loop.
    pub(super) async fn download(&self, parts: &http::request::Parts) -> Response {
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return plain(StatusCode::METHOD_NOT_ALLOWED, &[(ALLOW, "GET, HEAD")]);
        }
        let path = parts.uri.path();
        let Some((sandbox, now)) = self.sandbox_of(path) else {
            return plain(StatusCode::NOT_FOUND, &[]);
        };
        if !link_is_good(path, parts.uri.query().unwrap_or_default(), now) {
            return plain(StatusCode::FORBIDDEN, &[]);
        }
        let found = self.find(&sandbox, path, now);
        if let (Some(Source::Drawn(..)), Some(address), &Method::GET) =
            (&found, Address::parse(path), &parts.method)
        {
            sandbox.world().fetched.insert(address.task);
        }
        match found {
            None => plain(StatusCode::NOT_FOUND, &[]),
            Some(Source::Drawn(spec, content_type)) => {
                let (rendered, path) = (self.0.rendered.clone(), path.to_owned());
                let draw = move || rendered.0.get_with(path, || media::render(&spec));
                match tokio::task::spawn_blocking(draw).await {
                    Ok(bytes) => serve(&parts.method, &parts.headers, &bytes, content_type),
                    Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, &[]),
                }
            }
            Some(Source::Uploaded(upload)) => serve_upload(&parts.method, &parts.headers, &upload).await,
        }
    }

    /// The sandbox that a path below `/_media` leads into, and what time it is there.
    fn sandbox_of(&self, path: &str) -> Option<(Arc<Sandbox>, Timestamp)> {
        let (sandbox, _) = path.strip_prefix("/_media/")?.split_once('/')?;
        let sandbox = self.existing(SandboxId::parse(sandbox)?)?;
        let now = sandbox.world().clock.at(self.real_now());
        Some((sandbox, now))
    }

    /// The file at a path below `/_media`, if it is one of `sandbox`.
    fn find(&self, sandbox: &Arc<Sandbox>, path: &str, now: Timestamp) -> Option<Source> {
        let (_, inside) = path.strip_prefix("/_media/")?.split_once('/')?;
        if let Some(upload) = upload::find(sandbox, inside, now) {
            return Some(Source::Uploaded(upload));
        }
        let address = Address::parse(path).filter(|address| address.sandbox == sandbox.id)?;
        self.find_file(sandbox, &address, now).map(|(spec, content_type)| Source::Drawn(spec, content_type))
    }

    /// The file behind one of our own URLs, of whatever sandbox, while it can be had.
    pub(super) fn own_file(&self, url: &str) -> Option<Source> {
        let path = path_of(url)?;
        let (sandbox, now) = self.sandbox_of(path)?;
        let query = url.split_once('?').map_or("", |(_, query)| query.split('#').next().unwrap_or_default());
        link_is_good(path, query, now).then(|| self.find(&sandbox, path, now))?
    }

    /// What to draw for an address, if its task has succeeded and still keeps its files.
    fn find_file(
        &self,
        sandbox: &Arc<Sandbox>,
        address: &Address<'_>,
        now: Timestamp,
    ) -> Option<(media::Spec, &'static str)> {
        self.with_view(sandbox, address.task, now, |view| {
            let file = view.files().iter().find(|file| file.name == address.file)?;
            let ended = view.task().plan.ends()?;
            if !view.has_file(file) || file.kept.is_some_and(|kept| now > ended + kept) {
                return None;
            }
            Some((file.spec(view), file.format.content_type()))
        })?
    }

    /// Whether `url` is the address of a file of this sandbox, and a result of `task` if one is named.
    pub(super) fn gave_out(
        &self,
        sandbox: &Arc<Sandbox>,
        url: &str,
        task: Option<TaskKey>,
        now: Timestamp,
    ) -> bool {
        let Some(path) = path_of(url) else { return false };
        let of_sandbox = self.sandbox_of(path).is_some_and(|(of, _)| of.id == sandbox.id);
        let of_task =
            task.is_none_or(|task| Address::parse(path).is_some_and(|address| address.task == task));
        of_sandbox && of_task && self.find(sandbox, path, now).is_some()
    }

    fn with_view<T>(
        &self,
        sandbox: &Arc<Sandbox>,
        task: TaskKey,
        now: Timestamp,
        then: impl FnOnce(&View<'_>) -> T,
    ) -> Option<T> {
        let lineage = sandbox.world().lineage(task)?;
        let setting = Setting {
            catalogue: self.catalogue(),
            sandbox: sandbox.id,
            now,
            origin: "",
            request: &Value::Null,
        };
        Some(then(&View::new(setting, &lineage)))
    }

    /// `url` as a link that works for a while, in the form of a presigned one.
    pub(super) fn presign(&self, url: &str, now: Timestamp) -> String {
        let lives = self.catalogue().shared().link_lives.as_secs();
        let path = path_of(url).unwrap_or_default();
        let signature = link_signature(path, now.seconds(), lives);
        let bare = url.split(['?', '#']).next().unwrap_or_default();
        format!("{bare}?X-Amz-Date={}&X-Amz-Expires={lives}&X-Amz-Signature={signature}", now.seconds())
    }
}

/// What makes a link hard to prolong. No secret: the files are made up, and the same requests must give the same links.
fn link_signature(path: &str, seconds: i64, lives: u64) -> String {
    let mut mac =
        Hmac::<Sha256>::new_from_slice(b"kiegate simulated link").expect("HMAC takes keys of any length");
    mac.update(format!("{path}\n{seconds}\n{lives}").as_bytes());
    hex(&mac.finalize().into_bytes())
}

/// An address without a signature is good; one with a signature must be signed right and not be too old.
fn link_is_good(path: &str, query: &str, now: Timestamp) -> bool {
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let Some(signature) = value("X-Amz-Signature") else { return true };
    let signed = value("X-Amz-Date").and_then(|date| date.parse::<i64>().ok());
    let lives = value("X-Amz-Expires").and_then(|lives| lives.parse::<u64>().ok());
    let (Some(signed), Some(lives)) = (signed, lives) else { return false };
    let expires = signed.saturating_add(lives.try_into().unwrap_or(i64::MAX));
    signature == link_signature(path, signed, lives) && now.seconds() <= expires
}

fn plain(status: StatusCode, headers: &[(http::HeaderName, &'static str)]) -> Response {
    let mut response = Response::new(Body::from(format!("{status}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// A drawn file as the client asked for it.
fn serve(method: &Method, headers: &HeaderMap, file: &Bytes, content_type: &str) -> Response {
    let etag = format!("\"{}\"", hex(&crate::clock::digest(&[file])[..12]));
    let (mut response, part) = head(method, headers, &etag, file.len() as u64, content_type);
    if let Some(part) = part {
        let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        *response.body_mut() = Body::from(file.slice(index(part.start)..index(part.end)));
    }
    response
}

/// An uploaded file as the client asked for it, read from disk as it goes out.
async fn serve_upload(method: &Method, headers: &HeaderMap, upload: &Upload) -> Response {
    let etag = format!("\"{}\"", upload.stored.id());
    let (mut response, part) = head(method, headers, &etag, upload.stored.size(), &upload.content_type);
    let Some(part) = part else { return response };
    match Arc::clone(&upload.stored).read(part).await {
        Ok(body) => {
            *response.body_mut() = body;
            response
        }
        Err(error) => {
            tracing::warn!("an uploaded file cannot be read: {error}");
            plain(StatusCode::NOT_FOUND, &[])
        }
    }
}

/// The answer without its body, and the part of the file that is to follow: all, a range, or nothing for a HEAD, an
/// impossible range, or a client that has it already (RFC 9110, sections 13 and 14).
fn head(
    method: &Method,
    headers: &HeaderMap,
    etag: &str,
    length: u64,
    content_type: &str,
) -> (Response, Option<Range<u64>>) {
    let mut response = Response::new(Body::empty());
    let out = response.headers_mut();
    out.insert(ETAG, HeaderValue::from_str(etag).expect("hex digits in quotes"));
    out.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=3600"));
    // Uploads are given back as what their client called them; a browser shall not guess further.
    out.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let text = |name: http::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if wire::is_known(headers, etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return (response, None);
    }
    out.insert(CONTENT_TYPE, HeaderValue::from_str(content_type).expect("a media type is visible ASCII"));
    let range_counts = *method == Method::GET && text(IF_RANGE).is_none_or(|tag| tag == etag);
    let range = text(RANGE).filter(|_| range_counts).and_then(|range| requested(range, length));
    let (status, part) = match range {
        None => (StatusCode::OK, 0..length),
        Some(Ok(range)) => {
            let content_range = format!("bytes {}-{}/{length}", range.start(), range.end());
            out.insert(CONTENT_RANGE, HeaderValue::from_str(&content_range).expect("digits"));
            (StatusCode::PARTIAL_CONTENT, *range.start()..*range.end() + 1)
        }
        Some(Err(())) => {
            out.insert(CONTENT_RANGE, HeaderValue::from_str(&format!("bytes */{length}")).expect("digits"));
            *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
            return (response, None);
        }
    };
    out.insert(CONTENT_LENGTH, HeaderValue::from(part.end - part.start));
    *response.status_mut() = status;
    (response, (*method == Method::GET).then_some(part))
}

/// The range that a `Range` header asks for: nothing if it is to be ignored (not in bytes, malformed, or several
/// ranges), an error if it lies outside of the file.
fn requested(header: &str, length: u64) -> Option<Result<RangeInclusive<u64>, ()>> {
    let parsed = parse_range_header(header).ok()?;
    // Of nothing there is no part; the crate's answer would be a byte that is not there.
    if length == 0 {
        return Some(Err(()));
    }
    match parsed.validate(length) {
        Ok(ranges) => <[_; 1]>::try_from(ranges).ok().map(|[range]| Ok(range)),
        Err(_) => Some(Err(())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(
        method: &Method,
        headers: &[(&str, &str)],
        status: u16,
        length: Option<&str>,
        range: Option<&str>,
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        let response = serve(method, &map, &Bytes::from_static(b"0123456789"), "video/mp4");
        let text =
            |name| response.headers().get(name).map(|value: &HeaderValue| value.to_str().unwrap().to_owned());
        assert_eq!(response.status().as_u16(), status, "{headers:?}");
        assert_eq!(text(CONTENT_LENGTH).as_deref(), length, "{headers:?}");
        assert_eq!(text(CONTENT_RANGE).as_deref(), range, "{headers:?}");
    }

    #[test]
    fn ranges_and_validators_are_heard() {
        let etag = serve(&Method::GET, &HeaderMap::new(), &Bytes::from_static(b"0123456789"), "video/mp4");
        let etag = etag.headers()[ETAG].to_str().unwrap().to_owned();
        check(&Method::GET, &[], 200, Some("10"), None);
        check(&Method::HEAD, &[], 200, Some("10"), None);
        check(&Method::GET, &[("range", "bytes=2-4")], 206, Some("3"), Some("bytes 2-4/10"));
        check(&Method::GET, &[("range", "bytes=-3")], 206, Some("3"), Some("bytes 7-9/10"));
        check(&Method::GET, &[("range", "bytes=5-")], 206, Some("5"), Some("bytes 5-9/10"));
        check(&Method::GET, &[("range", "bytes=0-0,2-3")], 200, Some("10"), None);
        check(&Method::GET, &[("range", "bytes=10-")], 416, None, Some("bytes */10"));
        check(&Method::GET, &[("range", "lines=1-2")], 200, Some("10"), None);
        check(&Method::GET, &[("range", "bytes=2-4"), ("if-range", "\"other\"")], 200, Some("10"), None);
        check(
            &Method::GET,
            &[("range", "bytes=2-4"), ("if-range", &etag)],
            206,
            Some("3"),
            Some("bytes 2-4/10"),
        );
        check(&Method::GET, &[("if-none-match", &format!("\"x\", W/{etag}"))], 304, None, None);
    }

    #[test]
    fn a_presigned_link_dies() {
        let (path, signed) = ("/_media/a/b/c.mp4", 1000);
        let query = format!(
            "X-Amz-Date=1000&X-Amz-Expires=1200&X-Amz-Signature={}",
            link_signature(path, signed, 1200)
        );
        let good =
            |seconds: i64, query: &str| link_is_good(path, query, Timestamp::from_millis(seconds * 1000));
        assert!(good(2200, &query));
        assert!(!good(2201, &query));
        assert!(!good(1000, &query.replace("1200", "9200")));
        assert!(good(99_999, ""));
    }
}
