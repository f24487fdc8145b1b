//! A body that reports when it has been sent, or abandoned.

use axum::body::Body;
use bytes::Bytes;

use crate::heard::{End, Heard, Listener};

/// What is told of a body once it is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The number that an envelope `{"code": …` begins with.
    pub code: Option<u16>,
    /// Bytes handed on.
    pub bytes: u64,
    /// Whether all of it was handed on.
    pub complete: bool,
}

/// `body`, which calls `then` once: at its end, or when it is dropped before.
pub fn observed(body: Body, then: impl FnOnce(Report) + Send + Unpin + 'static) -> Body {
    Body::new(Heard::new(body, Reporter { report: Report::default(), started: false, then: Some(then) }))
}

struct Reporter<F> {
    report: Report,
    started: bool,
    then: Option<F>,
}

impl<F: FnOnce(Report) + Send + Unpin + 'static> Listener for Reporter<F> {
    fn piece(&mut self, piece: &Bytes) {
        if !self.started {
            self.report.code = envelope_code(piece);
            self.started = true;
        }
        self.report.bytes += piece.len() as u64;
    }

    fn end(&mut self, how: End) {
        self.report.complete = how == End::Whole;
        if let Some(then) = self.then.take() {
            then(self.report);
        }
    }
}

/// The number in a body that begins with `{"code":`, as the upstream's envelopes do; those of uploads say before that
/// whether it went well.
fn envelope_code(start: &[u8]) -> Option<u16> {
    let inside = start.trim_ascii_start().strip_prefix(b"{")?;
    let verdicts: [&[u8]; 2] = [b"\"success\":true,", b"\"success\":false,"];
    let after = verdicts.iter().find_map(|verdict| inside.strip_prefix(*verdict));
    let rest = after.unwrap_or(inside).strip_prefix(b"\"code\":")?;
    let digits = rest.trim_ascii_start();
    let end = digits.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(digits.len());
    let number = std::str::from_utf8(&digits[..end]).ok().filter(|number| !number.is_empty())?;
    // A larger one is no code of the API.
    Some(number.parse().unwrap_or(u16::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_body_reports_its_code_and_its_end() {
        let (told, heard) = channel();
        let body =
            observed(Body::from(r#"{"code":422,"msg":"x"}"#), move |report| told.send(report).unwrap());
        body.collect().await.unwrap();
        assert_eq!(heard.recv().unwrap(), Report { code: Some(422), bytes: 22, complete: true });
        assert!(heard.recv().is_err(), "it reports once");
    }

    #[test]
    fn an_abandoned_body_reports_too() {
        let (told, heard) = channel();
        drop(observed(Body::from("x"), move |report| told.send(report).unwrap()));
        assert_eq!(heard.recv().unwrap(), Report { code: None, bytes: 0, complete: false });
    }

    #[test]
    fn only_envelopes_have_codes() {
        assert_eq!(envelope_code(b"{\"code\": 200,\"msg\":\"success\"}"), Some(200));
        assert_eq!(envelope_code(b"{\"success\":false,\"code\":400,\"msg\":\"x\"}"), Some(400));
        assert_eq!(envelope_code(b"{\"success\":true,\"data\":200}"), None);
        assert_eq!(envelope_code(b"{\"code\":\"x\"}"), None);
        assert_eq!(envelope_code(b"{\"code\":99999999}"), Some(u16::MAX), "it is one that nobody knows");
    }
}
