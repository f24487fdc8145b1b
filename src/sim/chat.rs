//! Chat: a language model's part, played in four dialects.
//!
//! In reading order: `ask` (what a request asks for, whichever dialect it is in), `reply` (what is said to that: the one
//! place where text or tool calls are decided), `words` and `sample` (where text and values come from; `view`, `hints`
//! and `pattern` help it, `budget` bounds it), `openai`, `responses`, `anthropic`, `gemini` (how a dialect reads requests
//! and writes answers and events), `script` (how events are sent). All of that is pure; here it is tied to a sandbox:
//! draws, credits, the clock.
//!
//! An answer is made at once and on the event loop, so how much it may be is bounded: `reply` says how.
//!
//! Tokens are estimated: four bytes of text are one, a picture or another file counts what the catalogue says.

mod anthropic;
mod ask;
mod budget;
mod gemini;
mod hints;
mod openai;
mod pattern;
mod reply;
mod responses;
mod sample;
mod script;
mod view;
mod words;

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use super::Event;
use super::http::{Call, Refused};
use super::outcome::{CallbackFaults, Speech, Wish, WishedEnding};
use super::plan::Pace;
use super::task::{TaskKey, fingerprint};
use crate::catalogue::{Chat, Dialect, Found, Scope, Template, Thinks};
use crate::clock::{Draw, Timestamp};
use crate::ids::Credits;
pub(super) use ask::Ask;
use reply::{Ending, Reply, Said};
use script::{Events, Script};

/// No wish delays an answer for longer, in real time: time for a client to give up that waits ten minutes.
const LONGEST_DELAY: Duration = Duration::from_mins(15);

/// All that an answer is written from.
struct Answer<'a> {
    ask: &'a Ask,
    reply: Reply,
    id: String,
    /// As answers name it.
    model: &'a str,
    created: Timestamp,
    usage: Usage,
    credits: Credits,
    /// Whether events tell thoughts where the request is silent about them.
    shows_thoughts: bool,
    draws: Draws,
}

/// Tokens.
#[derive(Clone, Copy, Debug)]
struct Usage {
    input: u64,
    thinking: u64,
    /// Of the answer, thoughts aside.
    spoken: u64,
}

impl Usage {
    /// All that the model made.
    fn output(self) -> u64 {
        self.thinking + self.spoken
    }

    fn total(self) -> u64 {
        self.input + self.output()
    }
}

/// Where an answer's ids come from.
#[derive(Clone, Copy)]
struct Draws(TaskKey);

impl Draws {
    fn stream(self, purpose: &str) -> Draw {
        Draw::new(&[self.0.bytes(), b"chat", purpose.as_bytes()])
    }

    /// So many letters and digits.
    fn letters(self, purpose: &str, count: usize) -> String {
        const SIGNS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        let mut draw = self.stream(purpose);
        let sign = |_| usize::try_from(draw.integer(0, 61)).map_or('0', |index| char::from(SIGNS[index]));
        (0..count).map(sign).collect()
    }
}

impl Answer<'_> {
    fn letters(&self, purpose: &str, count: usize) -> String {
        self.draws.letters(purpose, count)
    }

    /// The first choice; dialects with only one take this.
    fn first(&self) -> &Said {
        &self.reply.choices[0]
    }

    /// The thoughts, if they are to be told. Answers in one piece tell them only to who asks.
    fn told_thoughts(&self, in_events: bool) -> Option<&str> {
        let told = self.ask.shows_thoughts.unwrap_or(in_events && self.shows_thoughts);
        Some(self.reply.thoughts.as_str()).filter(|thoughts| told && !thoughts.is_empty())
    }

    fn said(&self, dialect: Dialect) -> Value {
        match dialect {
            Dialect::OpenaiChat => openai::choices(self),
            Dialect::Responses => responses::output(self),
            Dialect::Anthropic => anthropic::content(self),
            Dialect::Gemini => gemini::candidates(self),
        }
    }

    fn events(&self, dialect: Dialect) -> Script {
        match dialect {
            Dialect::OpenaiChat => openai::events(self),
            Dialect::Responses => responses::events(self),
            Dialect::Anthropic => anthropic::events(self),
            Dialect::Gemini => gemini::events(self),
        }
    }

    /// Why it ended, in the dialect's words.
    fn finish(&self, dialect: Dialect) -> &'static str {
        let said = self.first();
        match dialect {
            Dialect::OpenaiChat => openai::finish(&said.ending),
            Dialect::Responses => responses::status(said),
            Dialect::Anthropic => anthropic::stop_reason(&said.ending),
            Dialect::Gemini => gemini::finish(&said.ending),
        }
    }
}

/// What `request` asks for; anything may stand in it.
pub(super) fn read(chat: &Chat, request: &Value) -> Ask {
    match chat.dialect {
        Dialect::OpenaiChat => openai::read(request, chat.search.as_deref()),
        Dialect::Responses => responses::read(request),
        Dialect::Anthropic => anthropic::read(request),
        Dialect::Gemini => gemini::read(request),
    }
}

/// The text in which directives count, and at which rules look: the last that the user said, and no earlier one, or each
/// turn of a conversation would obey them again.
pub(super) fn said(ask: &Ask) -> &str {
    &ask.prompt
}

/// Answers in the model's place a request that came to `path`; `body` is the form of an answer in one piece.
pub(super) async fn answer(
    call: &Call<'_>,
    path: &str,
    ask: &Ask,
    (chat, body): (&Chat, &Template),
) -> Result<Response, Refused> {
    call.begin()?;
    call.check_request()?;
    let speech = speech(&call.wish, ask).map_err(Refused::BadWish)?;
    let answer = decide(call, ask, chat, &speech)?;
    let by_path = chat.stream_default && !chat.whole_at.iter().any(|whole| whole == path);
    if ask.stream.unwrap_or(by_path) {
        let script = answer.events(chat.dialect);
        let gap = gap(call, chat, &script);
        let mut response = Response::new(Body::new(Events::new(script, gap)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        return Ok(response);
    }
    if let Some(delay) = delay(call) {
        call.sim.pause(delay).await;
    }
    let mut response = Response::new(Body::from(body.to_json(&AnswerScope { answer: &answer, chat })));
    if let Some(text) = &chat.content_type {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(text).expect("load checks it"));
    }
    Ok(response)
}

/// What the test wants to be said. A tool that the prompt wishes for is called once: its result is answered with text.
fn speech(wish: &Wish, ask: &Ask) -> Result<Speech, String> {
    let succeeds = wish.ending.as_ref().is_none_or(|ending| *ending == WishedEnding::Success);
    if !succeeds || wish.callbacks != CallbackFaults::default() {
        return Err("a chat has no task and no callback: there are text:<text>, tool:<name>, \
                    reject:<code or error id> and http:<status>"
            .into());
    }
    let mut speech = wish.speech.clone();
    if !wish.by_header && !ask.results.is_empty() {
        speech.tools.clear();
    }
    Ok(speech)
}

/// How long the answer shall take, in real time.
fn delay(call: &Call<'_>) -> Option<Duration> {
    call.wish.delay.map(|delay| delay.min(LONGEST_DELAY))
}

/// The pause between two events: spread over the delay that was wished for, or the pace's.
fn gap(call: &Call<'_>, chat: &Chat, script: &Script) -> Duration {
    match (delay(call), call.settings.pace) {
        _ if call.sim.is_held() => Duration::ZERO,
        (Some(delay), _) => delay / u32::try_from(script.left()).unwrap_or(u32::MAX).max(1),
        (None, Pace::Realistic) => chat.tokens.event_gap,
        (None, _) => Duration::ZERO,
    }
}

/// Decides what is said, and takes its price.
fn decide<'a>(
    call: &'a Call<'_>,
    ask: &'a Ask,
    chat: &'a Chat,
    speech: &Speech,
) -> Result<Answer<'a>, Refused> {
    let requested = chat.requested(&call.request);
    let print = fingerprint(&call.request, "");
    let (key, created) =
        call.with_world(|world, now| (world.new_key(call.sandbox.id, &call.operation.id, &print), now));
    let draws = Draws(key);
    let thinks = match chat.thinks {
        Thinks::Always => true,
        Thinks::Asked => ask.thinks,
        Thinks::Never => false,
    };
    let most = ask.most.or(chat.max_tokens);
    let reply = reply::choose(ask, speech, thinks, most, draws.stream("reply")).map_err(Refused::BadWish)?;
    let usage = Usage {
        input: ask.weight.tokens(chat.tokens.per_file).max(1),
        thinking: ask::tokens(reply.thoughts.len()),
        spoken: reply.choices.iter().map(Said::tokens).sum(),
    };
    let credits = chat.price(requested, usage.input, usage.output()).unwrap_or_default();
    if !call.with_world(|world, _| world.pay(credits)) {
        return Err(call.insufficient());
    }
    call.tell(&Event::ChatAnswered {
        owner: &call.sandbox.owner,
        operation: &call.operation.id,
        model: call.sim.catalogue().model_label(call.index, &call.request),
        credits,
    });
    let mut answer = Answer {
        ask,
        reply,
        id: String::new(),
        model: chat.shown_name(requested),
        created,
        usage,
        credits,
        shows_thoughts: chat.shows_thoughts,
        draws,
    };
    answer.id = chat.id.to_text(&AnswerScope { answer: &answer, chat });
    Ok(answer)
}

/// What an answer in one piece, and its id, may be made of.
struct AnswerScope<'a> {
    answer: &'a Answer<'a>,
    chat: &'a Chat,
}

impl Scope for AnswerScope<'_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        let Self { answer, chat } = self;
        let names: Vec<&str> = path.iter().map(|part| &**part).collect();
        let count = |count: u64| Found::Integer(i64::try_from(count).unwrap_or(i64::MAX));
        match names.as_slice() {
            ["draw", "uuid"] => Found::Text(answer.draws.stream("uuid").uuid()),
            ["draw", "hex"] => Found::Text(crate::clock::hex(&answer.draws.stream("hex").bytes::<12>())),
            ["draw", "hex_long"] => Found::Text(crate::clock::hex(&answer.draws.stream("hex").bytes::<25>())),
            ["draw", "letters"] => Found::Text(answer.letters("id", 22)),
            ["draw", "word"] => Found::Text(answer.letters("id", 7).to_lowercase()),
            ["chat", "id"] => Found::Str(&answer.id),
            ["chat", "model"] => Found::Str(answer.model),
            ["chat", "created"] => answer.created.into(),
            ["chat", "stamp"] => {
                Found::Text(answer.created.to_iso_seconds().chars().filter(char::is_ascii_digit).collect())
            }
            ["chat", "credits"] => answer.credits.into(),
            ["chat", "said"] => Found::Value(answer.said(chat.dialect)),
            ["chat", "finish"] => Found::Str(answer.finish(chat.dialect)),
            ["chat", "incomplete"] => match responses::incomplete(answer.first()) {
                Value::Null => Found::Null,
                reason => Found::Value(reason),
            },
            ["chat", "ending"] => Found::Str(match &answer.first().ending {
                Ending::Stop => "stop",
                Ending::Length => "length",
                Ending::Sequence(_) => "sequence",
                Ending::Tools => "tools",
            }),
            ["chat", "stop_sequence"] => match &answer.first().ending {
                Ending::Sequence(text) => Found::Str(text),
                _ => Found::Null,
            },
            ["usage", "input"] => count(answer.usage.input),
            ["usage", "output"] => count(answer.usage.output()),
            ["usage", "spoken"] => count(answer.usage.spoken),
            ["usage", "thinking"] if answer.usage.thinking > 0 => count(answer.usage.thinking),
            ["usage", "thinking"] => Found::Null,
            ["usage", "thinking_details"] if answer.usage.thinking > 0 => {
                Found::Value(serde_json::json!({"reasoning_tokens": answer.usage.thinking}))
            }
            ["usage", "total"] => count(answer.usage.total()),
            _ => Found::Missing,
        }
    }
}
