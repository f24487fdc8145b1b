//! Reading a form with a file in it, of any size in little memory: the file goes to the spool as it comes.
//!
//! The parts may stand in any order. As for a web form, a part with a file name is a file and one without is a field;
//! of several of one name the first counts. What a stranger can make large (heads of parts, fields, their number) is
//! bounded here, the whole by the caller.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http::HeaderMap;
use http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, EXPECT};
use multer::{Field, Multipart};
use serde_json::{Map, Value};

use super::naming;
use super::spool::{Share, Spool, SpoolError, Stored};

/// The longest field, in bytes.
const LONGEST_FIELD: usize = 64 * 1024;
/// What may come before a part or as its head, in bytes.
const LONGEST_HEAD: u64 = 64 * 1024;
/// The most parts.
const MOST_PARTS: usize = 64;
/// What is read of a body that nobody wants, in bytes and time, so that its sender hears the answer.
const MOST_DISCARDED: usize = 64 * 1024 * 1024;
const DISCARD_FOR: Duration = Duration::from_secs(5);

/// A file that came in a form.
pub(in crate::sim) struct Brought {
    pub(super) stored: Stored,
    /// As the part calls it; never a name on the disk.
    pub(super) name: String,
    /// As the part says, if that is a media type.
    pub(super) content_type: Option<String>,
}

/// What a form holds.
pub(super) struct Form {
    /// Its fields, and the name of its file under that of the part.
    pub(super) fields: Map<String, Value>,
    pub(super) file: Option<Brought>,
}

/// Why there is no form.
pub(super) enum FormError {
    /// The body broke off, or was cut off: nobody is there to read an answer, or somebody else gives it.
    BrokenOff,
    /// What came is no form, or one beyond the bounds.
    Malformed,
    /// The file cannot be kept.
    Spool(SpoolError),
}

/// Reads the form in `body`, with the file in its part `wanted`. Whatever comes of it, the body has been read to its
/// end, or as far as it is worth.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    wanted: &str,
    spool: &Spool,
    share: &Arc<Share>,
) -> Result<Form, FormError> {
    let mut paced = Paced::new(body.into_data_stream());
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let form = match multer::parse_boundary(content_type) {
        Ok(boundary) => {
            let since_head = Arc::clone(&paced.since_head);
            let parts = Multipart::new(&mut paced, boundary);
            read_parts(parts, &since_head, wanted, spool, share).await
        }
        Err(_) => Err(FormError::Malformed),
    };
    paced.since_head.store(0, Ordering::Relaxed);
    match discard_rest(paced).await {
        Ok(()) => form,
        Err(BodyBroke) => Err(FormError::BrokenOff),
    }
}

async fn read_parts(
    mut parts: Multipart<'_>,
    since_head: &AtomicU64,
    wanted: &str,
    spool: &Spool,
    share: &Arc<Share>,
) -> Result<Form, FormError> {
    let mut form = Form { fields: Map::new(), file: None };
    for _ in 0..MOST_PARTS {
        since_head.store(1, Ordering::Relaxed);
        let Some(mut part) = parts.next_field().await.map_err(|error| FormError::of(&error))? else {
            return Ok(form);
        };
        since_head.store(0, Ordering::Relaxed);
        let name = part.name().unwrap_or_default().to_owned();
        match file_name(&part) {
            Some(file_name) if name == wanted && form.file.is_none() => {
                form.file = keep(part, file_name, spool, share).await?;
                if let Some(file) = &form.file {
                    form.fields.insert(name, file.name.as_str().into());
                }
            }
            Some(_) => while part.chunk().await.map_err(|error| FormError::of(&error))?.is_some() {},
            None => {
                let text = read_field(part).await?;
                if name != wanted {
                    form.fields.entry(name).or_insert(text.into());
                }
            }
        }
    }
    Err(FormError::Malformed)
}

/// What a part calls its file; some clients say so in the extended form, `filename*=UTF-8''…`, alone.
fn file_name(part: &Field<'_>) -> Option<String> {
    let extended = || naming::extended_file_name(part.headers().get(CONTENT_DISPOSITION)?.to_str().ok()?);
    part.file_name().map(str::to_owned).or_else(extended)
}

/// Takes a file in. One without name and bytes is what a web form sends when no file was chosen: it is none.
async fn keep(
    mut part: Field<'_>,
    name: String,
    spool: &Spool,
    share: &Arc<Share>,
) -> Result<Option<Brought>, FormError> {
    let content_type = part.content_type().and_then(|kind| naming::bare_type(kind.as_ref()));
    let mut incoming = spool.begin(share).await.map_err(FormError::Spool)?;
    while let Some(bytes) = part.chunk().await.map_err(|error| FormError::of(&error))? {
        incoming.write(&bytes).await.map_err(FormError::Spool)?;
    }
    let stored = incoming.finish().await.map_err(FormError::Spool)?;
    let chosen = !name.is_empty() || stored.size() > 0;
    Ok(chosen.then_some(Brought { stored, name, content_type }))
}

/// The text of a field; what is no UTF-8 in it is replaced.
async fn read_field(mut part: Field<'_>) -> Result<String, FormError> {
    let mut text = Vec::new();
    while let Some(bytes) = part.chunk().await.map_err(|error| FormError::of(&error))? {
        if text.len() + bytes.len() > LONGEST_FIELD {
            return Err(FormError::Malformed);
        }
        text.extend_from_slice(&bytes);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl FormError {
    fn of(error: &multer::Error) -> Self {
        match error {
            multer::Error::StreamReadFailed(cause) if !cause.is::<HeadTooLong>() => Self::BrokenOff,
            _ => Self::Malformed,
        }
    }
}

/// Reads and forgets a body that nobody wants, within bounds. A client that asks before it sends gets its answer first.
pub(in crate::sim) async fn discard(headers: &HeaderMap, body: Body) {
    if !headers.contains_key(EXPECT) {
        let _ = discard_rest(Paced::new(body.into_data_stream())).await;
    }
}

/// The body broke off before its end.
struct BodyBroke;

/// Reads and forgets what is left, within bounds.
async fn discard_rest(mut rest: Paced) -> Result<(), BodyBroke> {
    let all = async {
        let mut length = 0;
        while let Some(bytes) = rest.next().await {
            length += bytes.map_err(|_| BodyBroke)?.len();
            if length > MOST_DISCARDED {
                break;
            }
        }
        Ok(())
    };
    tokio::time::timeout(DISCARD_FOR, all).await.unwrap_or(Ok(()))
}

/// A body that gives one piece at a time. The parser takes all that a stream has at once, however much that is; this
/// one pretends after each piece that the next is yet to come. And it ends when the head of a part does not.
struct Paced {
    body: BodyDataStream,
    rested: bool,
    /// Bytes given since a head began, and one; zero outside of heads.
    since_head: Arc<AtomicU64>,
}

/// The head of a part, or what stands before the first, does not end.
#[derive(Debug, thiserror::Error)]
#[error("the head of a part is too long")]
struct HeadTooLong;

impl Paced {
    fn new(body: BodyDataStream) -> Self {
        Self { body, rested: true, since_head: Arc::default() }
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.rested {
            self.rested = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let since_head = self.since_head.load(Ordering::Relaxed);
        if since_head > LONGEST_HEAD {
            return Poll::Ready(Some(Err(HeadTooLong.into())));
        }
        let polled = self.body.poll_next_unpin(context);
        if let Poll::Ready(Some(Ok(bytes))) = &polled {
            self.rested = false;
            if since_head > 0 {
                self.since_head.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
        }
        polled.map(|item| item.map(|piece| piece.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::spool::Room;
    use super::*;

    /// Reads `body`, sent in pieces of `piece` bytes, as a form whose boundary is `b`.
    async fn parse(body: &str, piece: usize) -> Result<Form, FormError> {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path(), Room { total: 1 << 30, each: 1 << 30 });
        let pieces: Vec<_> = body.as_bytes().chunks(piece).map(Bytes::copy_from_slice).collect();
        let stream = futures_util::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "multipart/form-data; boundary=b".parse().unwrap());
        read(&headers, Body::from_stream(stream), "file", &spool, &Arc::default()).await
    }

    const FILE: &str = "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\
                        content-type: text/plain\r\n\r\nhello\r\n";
    const FIELD: &str = "--b\r\ncontent-disposition: form-data; name=\"uploadPath\"\r\n\r\ndocs\r\n";
    const END: &str = "--b--\r\n";

    #[tokio::test]
    async fn the_order_of_the_parts_and_the_size_of_the_pieces_are_all_one() {
        for body in [format!("{FILE}{FIELD}{END}"), format!("a preamble\r\n{FIELD}{FILE}{END}and more")] {
            for piece in [1, 7, 4096] {
                let form = parse(&body, piece).await.unwrap_or_else(|_| panic!("{body} by {piece}"));
                assert_eq!(
                    (&form.fields["uploadPath"], &form.fields["file"]),
                    (&"docs".into(), &"a.txt".into())
                );
                let file = form.file.unwrap();
                assert_eq!((file.stored.size(), file.content_type.as_deref()), (5, Some("text/plain")));
            }
        }
    }

    #[tokio::test]
    async fn the_first_of_a_name_counts_and_only_a_file_is_a_file() {
        let field = FIELD.replace("uploadPath", "file");
        let other = FIELD.replace("docs", "other");
        let nameless = FILE.replace("a.txt", "").replace("hello", "");
        let form = parse(&format!("{field}{nameless}{FILE}{FIELD}{other}{END}"), 50).await.ok().unwrap();
        assert_eq!((&form.fields["file"], &form.fields["uploadPath"]), (&"a.txt".into(), &"docs".into()));
        let form = parse(&format!("{field}{FIELD}{END}"), 50).await.ok().unwrap();
        assert!(form.file.is_none() && !form.fields.contains_key("file"));
    }

    #[tokio::test]
    async fn what_is_no_form_or_too_much_of_one_is_refused() {
        let long_field = FIELD.replace("docs", &"x".repeat(LONGEST_FIELD + 1));
        let long_head = FIELD.replace("form-data;", &format!("form-data; x=\"{}\";", "x".repeat(200_000)));
        for (what, body) in [
            ("nothing", String::new()),
            ("no boundary in it", "hello".into()),
            ("cut off in a field", FIELD[..FIELD.len() - 4].into()),
            ("cut off in the file", FILE[..FILE.len() - 4].into()),
            ("without an end", format!("{FILE}{FIELD}")),
            ("a field too long", format!("{FILE}{long_field}{END}")),
            ("a head too long", format!("{FILE}{long_head}{END}")),
            ("a preamble too long", format!("{}{FILE}{FIELD}{END}", "x".repeat(200_000))),
            ("too many parts", format!("{}{FILE}{END}", FIELD.repeat(MOST_PARTS + 1))),
        ] {
            assert!(matches!(parse(&body, 1000).await, Err(FormError::Malformed)), "{what}");
        }
    }
}
