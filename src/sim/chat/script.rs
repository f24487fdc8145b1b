//! A stream of events: written piece by piece while it is sent, so that a thousand open streams cost little more than
//! their texts.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use serde_json::Value;
use tokio::time::Sleep;

/// What is to be sent, in its order.
#[derive(Debug, Default)]
pub(super) struct Script(VecDeque<Piece>);

/// A part of a script.
#[derive(Debug)]
pub(super) enum Piece {
    /// One event.
    Event(String),
    /// A text, a bit of it in each event between the same two parts.
    Deltas {
        before: String,
        text: String,
        /// How much of the text has been sent, in bytes.
        sent: usize,
        after: String,
    },
}

/// The event called `name` with `data`.
pub(super) fn event(name: Option<&str>, data: &Value) -> Piece {
    Piece::Event(line(name, data))
}

/// As many events as `text` has bits, each with one of them at the pointer `at` of `data`.
pub(super) fn deltas(name: Option<&str>, mut data: Value, at: &str, text: &str) -> Piece {
    let filled = line(name, &data);
    let mut markers = (0_u32..).map(|number| format!("@{number}@"));
    let marker = markers.find(|marker| !filled.contains(marker)).unwrap_or_default();
    if let Some(place) = data.pointer_mut(at) {
        *place = marker.as_str().into();
    }
    let line = line(name, &data);
    let (before, after) = line.split_once(&Value::from(marker).to_string()).unwrap_or((&line, ""));
    Piece::Deltas { before: before.to_owned(), text: text.to_owned(), sent: 0, after: after.to_owned() }
}

/// The first bit of `text`, and the rest.
pub(super) fn first_bit(text: &str) -> (&str, &str) {
    text.split_at(bit(text))
}

fn line(name: Option<&str>, data: &Value) -> String {
    let name = name.map(|name| format!("event: {name}\n")).unwrap_or_default();
    format!("{name}data: {data}\n\n")
}

impl Script {
    pub(super) fn add(&mut self, piece: Piece) {
        self.0.push_back(piece);
    }

    /// How many events are left.
    pub(super) fn left(&self) -> usize {
        let events = |piece: &Piece| match piece {
            Piece::Event(_) => 1,
            Piece::Deltas { text, sent, .. } => {
                let mut rest = &text[*sent..];
                let mut count = 0;
                while !rest.is_empty() {
                    rest = &rest[bit(rest)..];
                    count += 1;
                }
                count
            }
        };
        self.0.iter().map(events).sum()
    }
}

impl Iterator for Script {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        loop {
            match self.0.front_mut()? {
                Piece::Deltas { before, text, sent, after } if *sent < text.len() => {
                    let (bit, _) = first_bit(&text[*sent..]);
                    *sent += bit.len();
                    return Some(format!("{before}{}{after}", Value::from(bit)).into());
                }
                Piece::Deltas { .. } => drop(self.0.pop_front()),
                Piece::Event(event) => {
                    let event = std::mem::take(event);
                    self.0.pop_front();
                    return Some(event.into());
                }
            }
        }
    }
}

/// Where the first bit of `text` ends: after a word or two with the space behind, or after 24 characters.
fn bit(text: &str) -> usize {
    const SHORTEST: usize = 6;
    const LONGEST: usize = 24;
    let mut spaced = false;
    for (count, (at, character)) in text.char_indices().enumerate() {
        if count == LONGEST || spaced && count >= SHORTEST {
            return at;
        }
        spaced = character.is_whitespace();
    }
    text.len()
}

/// A script as the body of an answer.
pub(super) struct Events {
    script: Script,
    /// The pause between two events.
    gap: Duration,
    pause: Option<Pin<Box<Sleep>>>,
    /// One has just been given out.
    gave: bool,
}

impl Events {
    pub(super) fn new(script: Script, gap: Duration) -> Self {
        Self { script, gap, pause: None, gave: false }
    }
}

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(context));
            self.pause = None;
        } else if std::mem::take(&mut self.gave) {
            // The server flushes what it has when there is nothing more at once: each event leaves by itself.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(event) = self.script.next() else { return Poll::Ready(None) };
        if self.gap.is_zero() {
            self.gave = true;
        } else {
            self.pause = Some(Box::pin(tokio::time::sleep(self.gap)));
        }
        Poll::Ready(Some(Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn all(script: Script) -> Vec<String> {
        script.map(|event| String::from_utf8(event.to_vec()).unwrap()).collect()
    }

    #[test]
    fn a_text_comes_bit_by_bit_and_whole() {
        let text = "A lamp, a \"quoted\" word,\nand an extraordinarilylongwordwithoutanyspaceinit. 日本語";
        let mut script = Script::default();
        script.add(deltas(Some("bit"), json!({"n": "@0@", "text": ""}), "/text", text));
        script.add(event(None, &json!({"end": true})));
        let count = script.left();
        let events = all(script);
        assert_eq!(events.len(), count);
        assert_eq!(events.last().unwrap(), "data: {\"end\":true}\n\n");
        let joined: String = events[..count - 1]
            .iter()
            .map(|event| {
                let data = event.strip_prefix("event: bit\ndata: ").unwrap().strip_suffix("\n\n").unwrap();
                let data: Value = serde_json::from_str(data).unwrap();
                data["text"].as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(joined, text);
        assert!(count > 5);
    }

    /// Each event once copied all that was still to come: this took minutes.
    #[test]
    fn a_long_text_costs_no_more_than_its_length() {
        let mut script = Script::default();
        script.add(deltas(None, json!({"text": ""}), "/text", &"word ".repeat(800_000)));
        let began = tokio::time::Instant::now();
        assert_eq!(script.count(), 400_000);
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }

    #[test]
    fn an_empty_text_is_no_event() {
        let mut script = Script::default();
        script.add(deltas(None, json!({"text": ""}), "/text", ""));
        assert_eq!((script.left(), script.next()), (0, None));
    }
}
