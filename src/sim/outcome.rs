//! How a simulated call or task shall go: what a test asks for, in words.
//!
//! A wish comes in the header `X-Mock-Outcome` (several, separated by commas), with `X-Mock-Delay` beside it, or as
//! a directive in any text of the request: `[[mock:fail:content_policy]]`. The header wins.

use std::time::Duration;

use http::HeaderMap;

use crate::clock::parse_duration;

/// What is asked for; nothing of it means: let it succeed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wish {
    /// How the task ends.
    pub(super) ending: Option<WishedEnding>,
    /// The call is refused with the error of that id or code.
    pub(super) reject: Option<String>,
    /// The call is answered with that HTTP status and no JSON.
    pub(super) http: Option<u16>,
    /// How the task's callbacks go wrong.
    pub(super) callbacks: CallbackFaults,
    /// How long the task takes.
    pub(super) delay: Option<Duration>,
}

/// An ending by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum WishedEnding {
    Success,
    Fail(String),
    Stall,
    /// The primary model fails with an error that brings the backup model in, which then succeeds or fails.
    Fallback {
        succeeds: bool,
    },
}

/// What goes wrong with a task's callbacks.
#[expect(clippy::struct_excessive_bools, reason = "faults are independent of each other, not states")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CallbackFaults {
    pub(super) drop: bool,
    pub(super) duplicate: bool,
    pub(super) bad_signature: bool,
    pub(super) reorder: bool,
    /// How much later than they should they leave, in milliseconds.
    pub(super) late_ms: u32,
}

/// All words that a wish can begin with, for messages and the control API.
pub(super) const VOCABULARY: [&str; 12] = [
    "success",
    "fail:<error id>",
    "reject:<code or error id>",
    "http:<status>",
    "stall",
    "fallback:success",
    "fallback:fail",
    "callback:drop",
    "callback:duplicate",
    "callback:late:<duration>",
    "callback:badsig",
    "callback:reorder",
];

impl Wish {
    /// Reads headers and, where they are silent, the directive in `text`.
    ///
    /// # Errors
    /// A wish that cannot be understood, in words for the one who sent it.
    pub(super) fn read(headers: &HeaderMap, text: &str) -> Result<Self, String> {
        let mut wish = Self::default();
        match headers.get("x-mock-outcome") {
            Some(value) => {
                let value = value.to_str().map_err(|_| "X-Mock-Outcome is not plain text".to_owned())?;
                for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
                    wish.add(part).map_err(|what| format!("X-Mock-Outcome: {what}"))?;
                }
            }
            None => {
                for directive in directives(text) {
                    wish.add(directive).map_err(|what| format!("[[mock:{directive}]]: {what}"))?;
                }
            }
        }
        if let Some(value) = headers.get("x-mock-delay") {
            let delay = value.to_str().ok().and_then(parse_duration);
            let hint = "X-Mock-Delay must be a duration such as \"2s\", \"1500ms\" or \"5m\"";
            wish.delay = Some(delay.ok_or_else(|| hint.to_owned())?);
        }
        Ok(wish)
    }

    /// Adds one wish, `fail:content_policy` for instance.
    pub(super) fn add(&mut self, text: &str) -> Result<(), String> {
        let (word, rest) = text.split_once(':').map_or((text, ""), |(word, rest)| (word, rest.trim()));
        match (word, rest) {
            ("success", "") => self.ending = Some(WishedEnding::Success),
            ("stall", "") => self.ending = Some(WishedEnding::Stall),
            ("fallback", "success") => self.ending = Some(WishedEnding::Fallback { succeeds: true }),
            ("fallback", "fail") => self.ending = Some(WishedEnding::Fallback { succeeds: false }),
            ("fail", id) if !id.is_empty() => self.ending = Some(WishedEnding::Fail(id.to_owned())),
            ("reject", id) if !id.is_empty() => self.reject = Some(id.to_owned()),
            ("http", status) => {
                let status = status.parse().ok().filter(|status| (200..600).contains(status));
                self.http = Some(status.ok_or("http: takes a status from 200 to 599")?);
            }
            ("callback", fault) => self.callbacks.add(fault)?,
            ("fault", _) => return Err("socket faults are not available yet".into()),
            _ => return Err(format!("unknown outcome \"{text}\"; there are {}", VOCABULARY.join(", "))),
        }
        Ok(())
    }
}

impl CallbackFaults {
    fn add(&mut self, fault: &str) -> Result<(), String> {
        match fault.split_once(':').unwrap_or((fault, "")) {
            ("drop", "") => self.drop = true,
            ("duplicate", "") => self.duplicate = true,
            ("badsig", "") => self.bad_signature = true,
            ("reorder", "") => self.reorder = true,
            ("late", by) => {
                let by = parse_duration(by).and_then(|by| u32::try_from(by.as_millis()).ok());
                self.late_ms = by.ok_or("callback:late: takes a duration such as \"30s\"")?;
            }
            _ => {
                return Err(format!(
                    "unknown callback fault \"{fault}\"; there are drop, duplicate, late:<duration>, badsig, reorder"
                ));
            }
        }
        Ok(())
    }
}

/// The insides of all `[[mock:…]]` in `text`.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    text.split("[[mock:").skip(1).filter_map(|rest| rest.split_once("]]").map(|(inside, _)| inside.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: Option<&str>, text: &str) -> Result<Wish, String> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("x-mock-outcome", header.parse().unwrap());
        }
        Wish::read(&headers, text)
    }

    #[test]
    fn the_header_wins_over_a_directive() {
        let wish = read(Some("fail:nsfw, callback:late:2s"), r#"{"prompt":"x [[mock:stall]]"}"#).unwrap();
        assert_eq!(wish.ending, Some(WishedEnding::Fail("nsfw".into())));
        assert_eq!(wish.callbacks.late_ms, 2000);
        let wish = read(None, r#"{"prompt":"x [[mock:stall]] [[mock:callback:badsig]]"}"#).unwrap();
        assert_eq!(wish.ending, Some(WishedEnding::Stall));
        assert!(wish.callbacks.bad_signature);
        assert_eq!(read(None, "no directive [[mock:").unwrap(), Wish::default());
    }

    #[test]
    fn what_is_not_understood_is_said() {
        assert!(
            read(Some("explode"), "").unwrap_err().starts_with("X-Mock-Outcome: unknown outcome \"explode\"")
        );
        assert!(read(Some("http:99"), "").is_err());
        assert!(read(Some("callback:late:soon"), "").is_err());
        assert!(read(None, "[[mock:fail:]]").unwrap_err().starts_with("[[mock:fail:]]: unknown outcome"));
    }
}
