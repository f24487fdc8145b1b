//! Which recorded answer is due: the live API played from a recording.
//!
//! Pure: time is passed in. A task follows its recording by the clock, however often it is asked for. The same create
//! takes the next recorded task each time, and the last again and again; a task that is played once more gets an id of
//! its own.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::asked::{Asked, Role};
use super::lifecycle::{Answer, Called, Lifecycle, Recording, Told};
use crate::catalogue::Catalogue;
use crate::clock::{Timestamp, digest};

/// A recording, to be found in.
#[derive(Debug)]
pub struct Library {
    catalogue: Arc<Catalogue>,
    recording: Recording,
    /// Lifecycles by what starts them, in recorded order.
    starts: HashMap<String, Vec<usize>>,
    /// Calls by what they ask for, in recorded order; those of which the body was not kept, by the rest.
    calls: HashMap<String, Vec<usize>>,
}

/// How far somebody is in the recording who has it played.
#[derive(Debug, Default)]
pub struct Progress {
    /// How often a request has come, by what it asks for.
    came: HashMap<String, usize>,
    /// How often a lifecycle was begun.
    begun: HashMap<usize, u32>,
    /// What is under way: by the id that the client has for it, or the print of its request.
    running: HashMap<String, Running>,
    /// Ids that the client has for recorded ones.
    names: Vec<Name>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    lifecycle: usize,
    since: Timestamp,
}

/// An id that stands for a recorded one.
#[derive(Clone, Debug)]
struct Name {
    fresh: String,
    recorded: String,
}

/// A request of somebody who has a recording played.
#[derive(Debug)]
pub struct Asking {
    method: Method,
    target: String,
    body: Option<Bytes>,
    asked: Asked,
}

/// What is answered, and what is to be called back later.
#[derive(Debug)]
pub struct Played {
    /// The answer.
    pub answer: Answer,
    /// Since now.
    pub callbacks: Vec<Callback>,
}

/// A callback that is to be sent.
#[derive(Debug)]
pub struct Callback {
    /// The task that it is about, as the client knows it.
    pub task: String,
    /// Where to.
    pub url: String,
    /// How long from now.
    pub after: Duration,
    /// JSON.
    pub body: Bytes,
}

/// A request of which there is no recording.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotRecorded(String);

impl Library {
    /// Makes `recording` ready to be played.
    pub fn new(catalogue: Arc<Catalogue>, recording: Recording) -> Self {
        let mut starts: HashMap<String, Vec<usize>> = HashMap::new();
        let mut calls: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, lifecycle) in recording.lifecycles.iter().enumerate() {
            starts.entry(found_by(&catalogue, &lifecycle.start)).or_default().push(index);
        }
        for (index, call) in recording.calls.iter().enumerate() {
            calls.entry(found_by(&catalogue, call)).or_default().push(index);
        }
        Self { catalogue, recording, starts, calls }
    }

    /// Reads a request; a body that is `None` streams, and is not looked at.
    pub fn read(&self, method: &Method, target: &str, body: Option<Bytes>) -> Asking {
        let asked = Asked::read(&self.catalogue, method, target, body.as_deref());
        Asking { method: method.clone(), target: target.to_owned(), body, asked }
    }

    /// Whether anybody may ask that, without a key.
    pub fn is_open(&self, asking: &Asking) -> bool {
        asking.asked.operation.is_some_and(|operation| self.catalogue.operation(operation).open)
    }

    /// The answer to `asking`, at `now`, for somebody who is so far.
    ///
    /// # Errors
    /// There is none in the recording.
    pub fn play(
        &self,
        progress: &mut Progress,
        asking: &Asking,
        now: Timestamp,
    ) -> Result<Played, NotRecorded> {
        let role = asking.asked.role(&self.catalogue);
        let named: Vec<Name> =
            progress.names.iter().filter(|name| asking.says(&name.fresh)).cloned().collect();
        // The recording knows its own ids only.
        let meant = if named.is_empty() { asking.asked.clone() } else { asking.meant(self, &named) };
        let running = match &role {
            Role::Asks(id) => progress.running.get(id),
            Role::Starts { anew: false } => progress.running.get(asking.asked.print()),
            _ => None,
        };
        if let Some(running) = running {
            return self.look(running, &meant, &named, now);
        }
        if let Role::Starts { anew } = role {
            return self.start(progress, asking, &meant, anew, named, now);
        }
        let call = next(&mut progress.came, &self.calls, &meant);
        let call = call.map(|index| &self.recording.calls[index]);
        answer(call.ok_or_else(|| self.nothing_like(&meant))?, &named)
    }

    fn start(
        &self,
        progress: &mut Progress,
        asking: &Asking,
        meant: &Asked,
        anew: bool,
        mut named: Vec<Name>,
        now: Timestamp,
    ) -> Result<Played, NotRecorded> {
        let index = next(&mut progress.came, &self.starts, meant).ok_or_else(|| self.nothing_like(meant))?;
        let lifecycle = &self.recording.lifecycles[index];
        let times = progress.begun.entry(index).or_default();
        *times += 1;
        let mut key = asking.asked.print().to_owned();
        if let Some(recorded) = &lifecycle.task {
            key.clone_from(recorded);
            if *times > 1 {
                key = another(recorded, *times);
                let name = Name { fresh: key.clone(), recorded: recorded.clone() };
                progress.names.push(name.clone());
                named.push(name);
            }
        }
        if !anew || lifecycle.task.is_some() {
            progress.running.insert(key.clone(), Running { lifecycle: index, since: now });
        }
        let mut played = answer(&lifecycle.start, &named)?;
        if let Some(url) = asking.asked.callback(&self.catalogue) {
            let callback = |told: &Told| Callback {
                task: if lifecycle.task.is_some() { key.clone() } else { String::new() },
                url: url.to_owned(),
                after: told.after,
                body: renamed(&told.body, &named),
            };
            played.callbacks = lifecycle.callbacks.iter().map(callback).collect();
        }
        Ok(played)
    }

    /// The answer to a question how far something is: the last one that was recorded by that time of its life, or else the
    /// first.
    fn look(
        &self,
        running: &Running,
        meant: &Asked,
        named: &[Name],
        now: Timestamp,
    ) -> Result<Played, NotRecorded> {
        let Lifecycle { start, anew, looks, .. } = &self.recording.lifecycles[running.lifecycle];
        let age = now.saturating_since(running.since);
        let mut same = looks.iter().filter(|seen| seen.call.asked.operation == meant.operation);
        let first = if *anew { same.clone().next().map(|seen| &seen.call) } else { Some(start) };
        let latest = same.by_ref().take_while(|seen| seen.after <= age).last().map(|seen| &seen.call);
        let never = || {
            let what = format!("in the recording nobody asked how far this task is: {}", start.place);
            NotRecorded(what)
        };
        answer(latest.or(first).ok_or_else(never)?, named)
    }

    /// What to say of a request that was not recorded: what comes nearest.
    fn nothing_like(&self, meant: &Asked) -> NotRecorded {
        let starts = self.recording.lifecycles.iter().map(|lifecycle| &lifecycle.start);
        let calls = starts.chain(&self.recording.calls);
        let alike = calls.filter(|call| meant.operation.is_some() && call.asked.operation == meant.operation);
        let differing = alike.map(|call| {
            let mut places = Vec::new();
            differ(&call.asked.request, &meant.request, "", &mut places);
            (places, &call.place)
        });
        let nearest = differing.min_by_key(|(places, _)| places.len());
        let mut text = "this was not recorded".to_owned();
        if let Some(operation) = meant.operation {
            let id = &self.catalogue.operation(operation).id;
            text = format!("this call of {id} was not recorded");
        }
        if let Some((places, place)) = nearest {
            let shown: Vec<&str> = places.iter().take(3).map(String::as_str).collect();
            let _ = write!(text, "; the nearest is {place}, which differs at {}", shown.join(", "));
        } else if meant.operation.is_some() {
            text.push_str(", nor was any other of it");
        }
        NotRecorded(text)
    }
}

/// The place of what was recorded for `meant`, in its turn; the last one repeats.
fn next(
    came: &mut HashMap<String, usize>,
    recorded: &HashMap<String, Vec<usize>>,
    meant: &Asked,
) -> Option<usize> {
    let prints = [meant.print(), meant.rough_print()];
    let (print, places) = prints.into_iter().find_map(|print| Some((print, recorded.get(print)?)))?;
    let times = came.entry(print.to_owned()).or_default();
    let place = places.get(*times).or(places.last()).copied();
    *times += 1;
    place
}

/// A recorded answer, for a client that has other ids.
fn answer(call: &Called, named: &[Name]) -> Result<Played, NotRecorded> {
    let kept = call.answer.body.as_ref();
    let body =
        kept.ok_or_else(|| NotRecorded(format!("the answer was not kept in the recording: {}", call.place)))?;
    let answer = Answer { body: Some(renamed(body, named)), ..call.answer.clone() };
    Ok(Played { answer, callbacks: Vec::new() })
}

/// What a recorded call is found by. What streams is not looked at, kept or not.
fn found_by(catalogue: &Catalogue, call: &Called) -> String {
    let is_read = call.asked.operation.is_some_and(|operation| !catalogue.operation(operation).takes_form());
    if is_read && call.body.is_some() {
        call.asked.print().to_owned()
    } else {
        call.asked.rough_print().to_owned()
    }
}

impl Asking {
    fn says(&self, id: &str) -> bool {
        let in_body = || self.body.as_ref().is_some_and(|body| find(body, id.as_bytes()).is_some());
        self.target.contains(id) || in_body()
    }

    /// The same with the recording's own ids.
    fn meant(&self, library: &Library, named: &[Name]) -> Asked {
        let mut target = self.target.clone();
        let mut body = self.body.clone();
        for Name { fresh, recorded } in named {
            target = target.replace(fresh, recorded);
            body = body.map(|body| replaced(&body, fresh, recorded));
        }
        Asked::read(&library.catalogue, &self.method, &target, body.as_deref())
    }
}

/// What a recorded body says to a client that has other ids.
fn renamed(body: &Bytes, named: &[Name]) -> Bytes {
    named.iter().fold(body.clone(), |body, name| replaced(&body, &name.recorded, &name.fresh))
}

fn replaced(text: &Bytes, from: &str, to: &str) -> Bytes {
    let (mut changed, mut rest) = (Vec::new(), &text[..]);
    while let Some(at) = find(rest, from.as_bytes()) {
        changed.extend_from_slice(&rest[..at]);
        changed.extend_from_slice(to.as_bytes());
        rest = &rest[at + from.len()..];
    }
    if changed.is_empty() && rest.len() == text.len() {
        return text.clone();
    }
    changed.extend_from_slice(rest);
    changed.into()
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    if part.is_empty() {
        return None;
    }
    text.windows(part.len()).position(|window| window == part)
}

/// An id of the form of `id`, for the time that its task is played for the `times`th time: what stands before the last
/// underscore stays, as do all signs that are neither letters nor digits.
fn another(id: &str, times: u32) -> String {
    let start = id.rfind('_').map_or(0, |at| at + 1);
    let is_hex = id[start..].bytes().all(|sign| !sign.is_ascii_alphabetic() || sign.is_ascii_hexdigit());
    let letters = if is_hex { 6 } else { 26 };
    let mut drawn = Vec::new();
    let draw = |(index, sign): (usize, char)| {
        if index % 32 == 0 {
            drawn = digest(&[id.as_bytes(), &times.to_le_bytes(), &index.to_le_bytes()]).to_vec();
        }
        let byte = drawn[index % 32];
        match sign {
            '0'..='9' => char::from(b'0' + byte % 10),
            'a'..='z' => char::from(b'a' + byte % letters),
            'A'..='Z' => char::from(b'A' + byte % letters),
            other => other,
        }
    };
    let end: String = id[start..].chars().enumerate().map(draw).collect();
    format!("{}{end}", &id[..start])
}

/// Where two values differ, as JSON pointers.
fn differ(one: &Value, other: &Value, at: &str, places: &mut Vec<String>) {
    match (one, other) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                let null = Value::Null;
                let value = |of: &serde_json::Map<String, Value>| of.get(name).unwrap_or(&null).clone();
                differ(&value(one), &value(other), &format!("{at}/{name}"), places);
            }
        }
        _ if one == other => {}
        _ => places.push(if at.is_empty() { "its body".to_owned() } else { at.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_its_own_looks_like_the_recorded_one() {
        let check = |id: &str, like: &str| {
            let fresh = another(id, 2);
            assert_ne!(fresh, id);
            assert_ne!(fresh, another(id, 3));
            let form = |id: &str| {
                id.replace(|sign: char| sign.is_ascii_digit(), "0")
                    .replace(|sign: char| sign.is_ascii_lowercase(), "a")
            };
            assert_eq!(form(&fresh), like, "{fresh}");
        };
        check("one_task_abc123", "aaa_aaaa_aaa000");
        assert!(another("one_task_abc123", 2).starts_with("one_task_"));
        check("4f1c-9", "0a0a-0");
        assert!(another(&"ab".repeat(40), 2).bytes().all(|sign| sign.is_ascii_hexdigit()));
    }

    #[test]
    fn an_id_is_replaced_wherever_it_stands() {
        let text = Bytes::from("a 12 b 12");
        assert_eq!(replaced(&text, "12", "345"), "a 345 b 345");
        assert_eq!(replaced(&text, "x", "345"), text);
        assert_eq!(replaced(&Bytes::from("12"), "12", ""), "");
    }
}
