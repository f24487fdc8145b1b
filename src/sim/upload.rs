//! Files that clients bring: as base64, in a form, by URL. Where they lie, what they are called, what the answer says.
//!
//! `naming` is pure, `form` reads what can be large, `spool` owns the files on disk, `shelf` what a sandbox has of
//! them, `placeholder` stands for what a URL names. Bodies and texts come from the catalogue. They are given back by
//! [`download`](super::download).

mod form;
mod naming;
mod placeholder;
mod shelf;
mod spool;

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::Value;
use tokio::task::spawn_blocking;

pub(super) use form::{Brought, discard};
pub(super) use shelf::{Shelf, Upload};
pub use spool::{Room, Spool};
pub(super) use spool::{Share, Stored};

use super::Sim;
use super::download::{Source, path_of};
use super::http::{Answer, Call, Refused};
use super::sandbox::Sandbox;
use super::task::SandboxId;
use crate::catalogue::{Found, Scope, Template, UploadFrom, UploadKind};
use crate::clock::{Draw, Timestamp};
use crate::media;
use form::FormError;
use naming::UNKNOWN_TYPE;
use spool::SpoolError;

/// What the reason for an upload without room is called in `X-Kiegate-Error`.
const NO_ROOM: &str = "upload_space";
/// What need not be escaped in the path of an address.
const IN_PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The body of a request broke off.
pub(super) struct BrokenOff;

/// A file that is there, and what is known of it.
struct Taken {
    stored: Stored,
    /// The type that its sender gave it.
    declared: Option<String>,
    /// The type to take where no name says better.
    guessed: Option<String>,
    /// The extension of its own name.
    extension: Option<String>,
}

impl Sim {
    /// Reads the form of an upload whose file is in `part`, and keeps the file.
    pub(super) async fn receive_form(
        &self,
        kind: &UploadKind,
        part: &str,
        headers: &HeaderMap,
        body: axum::body::Body,
        sandbox: &Sandbox,
    ) -> Result<(Result<Value, Refused>, Option<Brought>), BrokenOff> {
        match form::read(headers, body, part, &self.parts().spool, &sandbox.share).await {
            Ok(form) => Ok((Ok(Value::Object(form.fields)), form.file)),
            Err(FormError::Malformed) => Ok((Err(kind.unreadable.into()), None)),
            Err(FormError::Spool(error)) => Ok((Err(no_room(kind, &error)), None)),
            Err(FormError::BrokenOff) => Err(BrokenOff),
        }
    }
}

/// The uploaded file of a sandbox at a path below `/_media/<sandbox>/`.
pub(super) fn find(sandbox: &Sandbox, path: &str, now: Timestamp) -> Option<Arc<Upload>> {
    let path = percent_decode_str(path).decode_utf8().ok()?;
    sandbox.world().shelf.get(&path, now)
}

impl Call<'_> {
    /// Takes in the file of an upload, `brought` if it came in a form, and tells where it can be had.
    pub(super) async fn upload(
        &self,
        kind: &UploadKind,
        answer: &Template,
        brought: Option<Brought>,
    ) -> Answer {
        self.check_request()?;
        let text = |pointer: &str| self.request.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let wished = Some(text(&kind.name_at)).filter(|name| !name.is_empty()).map(naming::file_name);
        let taken = match (&kind.from, brought) {
            (UploadFrom::Base64(field), _) => self.decode(kind, text(&format!("/{field}"))).await?,
            (UploadFrom::Url(field), _) => {
                self.fetch(kind, text(&format!("/{field}")), wished.as_deref()).await?
            }
            (UploadFrom::Part(_), Some(Brought { stored, name, content_type })) => Taken {
                stored,
                guessed: naming::type_of_name(&name).map(str::to_owned),
                extension: naming::extension(&name).map(str::to_owned),
                declared: content_type,
            },
            (UploadFrom::Part(_), None) => return Err(kind.unreadable.into()),
        };
        let by_name = || wished.as_deref().and_then(naming::type_of_name).map(str::to_owned);
        let content_type = taken.declared.or_else(by_name).or(taken.guessed);
        let content_type = content_type.unwrap_or_else(|| UNKNOWN_TYPE.to_owned());
        let extension =
            taken.extension.unwrap_or_else(|| naming::extension_of_type(&content_type).to_owned());
        let scope = self.put(kind, taken.stored, wished, content_type, extension);
        self.sim.drive(&self.sandbox);
        Ok(answer.to_json(&scope))
    }

    /// Puts a file onto the sandbox's shelf; gives what can be said of it.
    fn put(
        &self,
        kind: &UploadKind,
        stored: Stored,
        wished: Option<String>,
        content_type: String,
        extension: String,
    ) -> UploadScope {
        let sandbox = self.sandbox.id;
        let mut world = self.sandbox.world();
        let at = world.clock.at(self.sim.real_now());
        let mut scope = UploadScope {
            at,
            size: stored.size(),
            content_type,
            extension,
            folder: naming::folder(
                self.request.pointer(&kind.folder_at).and_then(Value::as_str).unwrap_or_default(),
            ),
            account: account_number(sandbox),
            ..UploadScope::default()
        };
        scope.name = wished.unwrap_or_else(|| {
            let (seed, number) = (world.settings.seed.to_le_bytes(), world.shelf.next_name().to_le_bytes());
            scope.token = naming::token(&mut Draw::new(&[&seed, sandbox.bytes(), b"upload", &number]));
            naming::file_name(&kind.made_up.to_text(&scope))
        });
        scope.path = kind.stored_as.to_text(&scope);
        let escaped = utf8_percent_encode(&scope.path, IN_PATH);
        scope.url = format!("{}/_media/{sandbox}/{escaped}", self.origin);
        let upload = Upload { stored: Arc::new(stored), content_type: scope.content_type.as_str().into() };
        world.shelf.put(&scope.path, upload, at + kind.kept);
        scope
    }

    /// The file that `text` is as base64, or as a data URL.
    async fn decode(&self, kind: &UploadKind, text: &str) -> Result<Taken, Refused> {
        let (declared, data) = naming::data_url(text).ok_or(kind.unreadable)?;
        let data = data.to_owned();
        let decoded = spawn_blocking(move || STANDARD.decode(data)).await;
        let bytes = decoded.ok().and_then(Result::ok).ok_or(kind.unreadable)?;
        let stored = self.keep(kind, bytes.into()).await?;
        Ok(Taken { stored, declared, guessed: None, extension: None })
    }

    /// The file that `url` leads to: one of our own, or what stands for one from elsewhere.
    async fn fetch(&self, kind: &UploadKind, url: &str, wished: Option<&str>) -> Result<Taken, Refused> {
        let name = naming::name_in_url(url);
        let extension = naming::extension(&name).map(str::to_owned);
        let own = path_of(url).is_some_and(|path| path.starts_with("/_media/"));
        let (stored, guessed) = if own {
            let source = self.sim.own_file(url).ok_or(kind.unreadable)?;
            let content_type = source.content_type().to_owned();
            (self.take_over(kind, source).await?, Some(content_type))
        } else {
            let of_name = wished.and_then(naming::type_of_name).or_else(|| naming::type_of_name(&name));
            let content_type = of_name.unwrap_or(UNKNOWN_TYPE);
            let end = wished.and_then(naming::extension).or(extension.as_deref()).unwrap_or_default();
            let (url, end) = (url.to_owned(), end.to_owned());
            let made = spawn_blocking(move || placeholder::file(&url, content_type, &end)).await;
            (self.keep(kind, made.map_err(|_| kind.unreadable)?).await?, of_name.map(str::to_owned))
        };
        Ok(Taken { stored, declared: None, guessed, extension })
    }

    /// The very bytes of one of our own files.
    async fn take_over(&self, kind: &UploadKind, source: Source) -> Result<Stored, Refused> {
        match source {
            Source::Drawn(spec, _) => {
                let drawn = spawn_blocking(move || media::render(&spec)).await;
                self.keep(kind, drawn.map_err(|_| kind.unreadable)?).await
            }
            Source::Uploaded(upload) => {
                let copied = self.sim.parts().spool.copy(&self.sandbox.share, Arc::clone(&upload.stored));
                copied.await.map_err(|error| no_room(kind, &error))
            }
        }
    }

    async fn keep(&self, kind: &UploadKind, bytes: Bytes) -> Result<Stored, Refused> {
        let kept = self.sim.parts().spool.keep(&self.sandbox.share, bytes).await;
        kept.map_err(|error| no_room(kind, &error))
    }
}

/// A file that cannot be kept: the real server would fail in some way of its own, so a header tells that it is ours.
fn no_room(kind: &UploadKind, error: &SpoolError) -> Refused {
    tracing::warn!(
        "{error}{}",
        std::error::Error::source(error).map_or_else(String::new, |why| format!(": {why}"))
    );
    Refused::Ours(kind.no_space, NO_ROOM)
}

/// The number of the account that a sandbox plays, as it stands in paths: six digits.
fn account_number(sandbox: SandboxId) -> u64 {
    Draw::new(&[b"account number", sandbox.bytes()]).integer(100_000, 999_999)
}

/// What can be said of an upload.
#[derive(Default)]
struct UploadScope {
    at: Timestamp,
    token: String,
    extension: String,
    folder: String,
    name: String,
    path: String,
    url: String,
    size: u64,
    content_type: String,
    account: u64,
}

impl Scope for UploadScope {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let [root, field] = path else { return Found::Missing };
        match (&**root, &**field) {
            ("upload", "at") => self.at.into(),
            ("upload", "token") => Found::Str(&self.token),
            ("upload", "extension") => Found::Str(&self.extension),
            ("upload", "folder") => Found::Str(&self.folder),
            ("upload", "name") => Found::Str(&self.name),
            ("upload", "path") => Found::Str(&self.path),
            ("upload", "url") => Found::Str(&self.url),
            ("upload", "size") => Found::Integer(self.size.try_into().unwrap_or(i64::MAX)),
            ("upload", "type") => Found::Str(&self.content_type),
            ("account", "number") => Found::Integer(self.account.try_into().unwrap_or(i64::MAX)),
            _ => Found::Missing,
        }
    }
}
