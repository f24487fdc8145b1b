//! How a connection misbehaves: asked for here, done by whoever holds the socket.
//!
//! The simulator has no socket. It makes the answer as always and marks it with a [`Fault`], an extension of the response.

use std::time::Duration;

use crate::clock::parse_duration;

/// What becomes of an answer on its way. The call has been done by then: a create has made its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection is reset (TCP RST) in the place of an answer.
    Reset,
    /// Nothing comes, and the connection stays open.
    Hang,
    /// The connection ends without a byte.
    Empty,
    /// The connection ends in the midst of the body.
    Truncate,
    /// What comes is no HTTP.
    Garbage,
    /// The body comes in drops, over so long a time.
    Slow(Duration),
}

/// How long a slow body takes where nobody says it.
const SLOW: Duration = Duration::from_secs(10);
/// The longest that it takes.
const SLOWEST: Duration = Duration::from_mins(10);

impl Fault {
    /// Reads what stands behind `fault:`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        Ok(match (name, rest) {
            ("reset", "") => Self::Reset,
            ("hang", "") => Self::Hang,
            ("empty", "") => Self::Empty,
            ("truncate", "") => Self::Truncate,
            ("garbage", "") => Self::Garbage,
            ("slow", "") => Self::Slow(SLOW),
            ("slow", span) => {
                let span = parse_duration(span).filter(|span| *span <= SLOWEST);
                Self::Slow(span.ok_or("fault:slow: takes a duration up to \"10m\", such as \"5s\"")?)
            }
            _ => {
                return Err(format!(
                    "unknown fault \"{text}\"; there are reset, hang, empty, truncate, garbage, slow, slow:<duration>"
                ));
            }
        })
    }

    /// Its name, as it is asked for.
    pub fn name(self) -> String {
        match self {
            Self::Reset => "fault:reset".to_owned(),
            Self::Hang => "fault:hang".to_owned(),
            Self::Empty => "fault:empty".to_owned(),
            Self::Truncate => "fault:truncate".to_owned(),
            Self::Garbage => "fault:garbage".to_owned(),
            Self::Slow(span) => format!("fault:slow:{}ms", span.as_millis()),
        }
    }
}
