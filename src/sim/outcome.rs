//! How a simulated call or task shall go: what a test asks for, in words.
//!
//! A wish comes in the header `X-Mock-Outcome` (several, separated by commas), with `X-Mock-Delay` beside it, or as
//! a directive in any text of the body, such as its prompt: `[[mock:fail:content_policy]]`. The header wins.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::fault::Fault;
use super::plan::Ending;
use super::rules::Effect;
use crate::catalogue::{Catalogue, ErrorEntry, ErrorIx, OperationIx};
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
    /// What a chat model says.
    pub(super) speech: Speech,
    /// It came in the header.
    pub(super) by_header: bool,
    /// How the connection misbehaves.
    pub(super) fault: Option<Fault>,
    /// Members of the task's result that have these values.
    pub(super) result: Option<Arc<Map<String, Value>>>,
}

/// What a chat model says; nothing of it means: what it likes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Speech {
    /// This text.
    pub(super) text: Option<String>,
    /// It calls these tools.
    pub(super) tools: Vec<String>,
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
    /// They arrive before the create is answered.
    pub(super) early: bool,
    /// How much later than they should they leave, in milliseconds.
    pub(super) late_ms: u32,
}

/// All words that a wish can begin with, for messages and the control API.
pub(super) const VOCABULARY: [&str; 16] = [
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
    "callback:early",
    "fault:reset|hang|empty|truncate|garbage|slow[:<duration>]",
    "text:<what a chat model says>",
    "tool:<tool that a chat model calls>",
];

impl Wish {
    /// Whether the headers say how the call ends, so that nothing else does.
    pub(super) fn stands_in(headers: &HeaderMap) -> bool {
        headers.contains_key("x-mock-outcome")
    }

    /// Reads what is asked for: by headers, else by the `rule` that was chosen, else by the directives in the texts of
    /// `request`. A rule that does not decide how the call ends leaves that to a directive.
    ///
    /// # Errors
    /// A wish that cannot be understood, in words for the one who sent it.
    pub(super) fn read(headers: &HeaderMap, rule: Option<&Effect>, request: &Value) -> Result<Self, String> {
        let mut wish = Self::default();
        if let Some(value) = headers.get("x-mock-outcome") {
            let value = value.to_str().map_err(|_| "X-Mock-Outcome is not plain text".to_owned())?;
            wish.by_header = true;
            for part in wishes(value) {
                wish.add(part).map_err(|what| format!("X-Mock-Outcome: {what}"))?;
            }
        } else if let Some(rule) = rule.filter(|rule| rule.decides) {
            wish = rule.wish.clone();
        } else {
            let mut texts = Vec::new();
            collect_texts(request, &mut texts);
            for directive in texts.into_iter().flat_map(directives) {
                wish.add(directive).map_err(|what| format!("[[mock:{directive}]]: {what}"))?;
            }
            if let Some(rule) = rule {
                wish.delay = rule.wish.delay;
                wish.result.clone_from(&rule.wish.result);
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
            ("text", text) => self.speech.text = Some(text.to_owned()),
            ("tool", name) if !name.is_empty() => self.speech.tools.push(name.to_owned()),
            ("fault", fault) => self.fault = Some(Fault::parse(fault)?),
            _ => return Err(format!("unknown outcome \"{text}\"; there are {}", VOCABULARY.join(", "))),
        }
        Ok(())
    }
}

impl Wish {
    /// Whether it says more than how the connection misbehaves.
    pub(super) fn changes_the_call(&self) -> bool {
        *self != Self { fault: self.fault, ..Self::default() }
    }
}

impl WishedEnding {
    /// The ending of a task of `operation` with this `input`.
    ///
    /// # Errors
    /// An error that the operation does not know, or a fallback that it does not have, in words.
    pub(super) fn ending(
        &self,
        catalogue: &Catalogue,
        operation: OperationIx,
        input: &Value,
    ) -> Result<Ending, String> {
        let fallback = catalogue.operation(operation).task().and_then(|task| task.fallback.as_ref());
        match self {
            Self::Stall => Ok(Ending::Stall),
            Self::Success => Ok(Ending::Success { fallback: false }),
            Self::Fallback { succeeds } => {
                let none = || format!("fallback: {} has no fallback", catalogue.operation(operation).id);
                let fallback = fallback.ok_or_else(none)?;
                let allowed = *succeeds && fallback.allowed_when.accepts(input);
                Ok(if allowed {
                    Ending::Success { fallback: true }
                } else {
                    Ending::Fail(fallback.default_error)
                })
            }
            Self::Fail(id) => {
                let mut known = catalogue.errors_of(operation).filter(|(_, error)| error.fails);
                match known.find(|(_, error)| error.id == *id) {
                    Some((error, _)) => Ok(failed_with(catalogue, operation, error, input)),
                    None => Err(unknown_error(catalogue, operation, "fail", id, |error| error.fails)),
                }
            }
        }
    }
}

/// How a task ends whose primary model fails with `error`: the backup model may come in.
pub(super) fn failed_with(
    catalogue: &Catalogue,
    operation: OperationIx,
    error: ErrorIx,
    input: &Value,
) -> Ending {
    let fallback = catalogue.operation(operation).task().and_then(|task| task.fallback.as_ref());
    let rescued =
        fallback.is_some_and(|rules| rules.errors.contains(&error) && rules.allowed_when.accepts(input));
    if rescued { Ending::Success { fallback: true } } else { Ending::Fail(error) }
}

/// What to say of an error id or code that an operation does not have.
pub(super) fn unknown_error(
    catalogue: &Catalogue,
    operation: OperationIx,
    word: &str,
    wanted: &str,
    fits: impl Fn(&ErrorEntry) -> bool,
) -> String {
    let known = catalogue.errors_of(operation).filter(|(_, error)| fits(error));
    let names: Vec<&str> = known.map(|(_, error)| error.id.as_str()).collect();
    format!(
        "{word}:{wanted}: no such error for {}; there are {}",
        catalogue.operation(operation).id,
        names.join(", ")
    )
}

/// The outcome's name, as a wish would spell it.
pub(super) fn name(catalogue: &Catalogue, ending: Ending) -> String {
    match ending {
        Ending::Success { fallback: false } => "success".to_owned(),
        Ending::Success { fallback: true } => "fallback:success".to_owned(),
        Ending::Fail(error) => format!("fail:{}", catalogue.error(error).id),
        Ending::Stall => "stall".to_owned(),
    }
}

impl CallbackFaults {
    /// As they are asked for.
    pub(super) fn names(&self) -> Vec<String> {
        let late = (self.late_ms > 0).then(|| format!("late:{}ms", self.late_ms));
        let named = [
            (self.drop, "drop"),
            (self.duplicate, "duplicate"),
            (self.bad_signature, "badsig"),
            (self.reorder, "reorder"),
            (self.early, "early"),
        ];
        named.into_iter().filter(|(is, _)| *is).map(|(_, name)| name.to_owned()).chain(late).collect()
    }

    pub(super) fn add(&mut self, fault: &str) -> Result<(), String> {
        match fault.split_once(':').unwrap_or((fault, "")) {
            ("drop", "") => self.drop = true,
            ("duplicate", "") => self.duplicate = true,
            ("badsig", "") => self.bad_signature = true,
            ("reorder", "") => self.reorder = true,
            ("early", "") => self.early = true,
            ("late", by) => {
                let by = parse_duration(by).and_then(|by| u32::try_from(by.as_millis()).ok());
                self.late_ms = by.ok_or("callback:late: takes a duration such as \"30s\"")?;
            }
            _ => {
                return Err(format!(
                    "unknown callback fault \"{fault}\"; there are drop, duplicate, late:<duration>, badsig, reorder, early"
                ));
            }
        }
        Ok(())
    }
}

/// The wishes in a header: commas stand between them, but a text goes on to the end.
pub(super) fn wishes(header: &str) -> impl Iterator<Item = &str> {
    let text = if header.starts_with("text:") {
        Some(0)
    } else {
        header.find(",text:").or_else(|| header.find(", text:"))
    };
    let (before, text) = header.split_at(text.unwrap_or(header.len()));
    let text = text.trim_start_matches(',').trim();
    before.split(',').map(str::trim).chain([text]).filter(|part| !part.is_empty())
}

/// All texts in a request but the address that it wants to be called back at.
fn collect_texts<'a>(value: &'a Value, texts: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => texts.push(text),
        Value::Array(items) => items.iter().for_each(|item| collect_texts(item, texts)),
        Value::Object(members) => {
            members
                .iter()
                .filter(|(name, _)| *name != "callBackUrl")
                .for_each(|(_, value)| collect_texts(value, texts));
        }
        _ => {}
    }
}

/// The insides of all `[[mock:…]]` in `text`.
fn directives(text: &str) -> impl Iterator<Item = &str> {
    text.split("[[mock:").skip(1).filter_map(|rest| rest.split_once("]]").map(|(inside, _)| inside.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: Option<&str>, prompt: &str) -> Result<Wish, String> {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert("x-mock-outcome", header.parse().unwrap());
        }
        Wish::read(
            &headers,
            None,
            &serde_json::json!({"input": {"prompt": prompt}, "callBackUrl": "http://x/[[mock:http:500]]"}),
        )
    }

    #[test]
    fn the_header_wins_over_a_directive() {
        let wish = read(Some("fail:nsfw, callback:late:2s"), "x [[mock:stall]]").unwrap();
        assert_eq!(wish.ending, Some(WishedEnding::Fail("nsfw".into())));
        assert_eq!(wish.callbacks.late_ms, 2000);
        let wish = read(None, "x [[mock:stall]] [[mock:callback:badsig]]").unwrap();
        assert_eq!(wish.ending, Some(WishedEnding::Stall));
        assert!(wish.callbacks.bad_signature);
        assert_eq!(read(None, "no directive [[mock:").unwrap(), Wish::default());
        let speech = read(Some("tool:news, text:Yes, well"), "").unwrap().speech;
        assert_eq!(speech, Speech { text: Some("Yes, well".into()), tools: vec!["news".into()] });
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
