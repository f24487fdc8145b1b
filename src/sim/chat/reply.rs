//! What the model says to a request: the one place where it is decided whether text or tool calls come, and how it ends.
//!
//! Pure: the same request and draws give the same reply.
//!
//! A reply is bounded whatever is asked for or wished: all choices share 4 MiB, and what is made up after a schema is
//! 1 MiB at most. A text that is too long is cut as by the length that the request allows; calls for which there is no
//! room are left out; made-up values end where their budget does, so they stay whole JSON.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::ask::{Ask, Choice, Format, Tool, tokens};
use super::budget::Budget;
use super::hints::Hints;
use super::sample::sample;
use super::words;
use crate::clock::Draw;
use crate::sim::outcome::Speech;

/// More choices than this are not made for one request.
const MOST_CHOICES: u64 = 128;
/// More calls than this are not made in one choice.
const MOST_CALLS: usize = 128;
/// All choices together are no longer than this, in bytes.
const MOST_SAID: usize = 4 << 20;
/// Values made up for one request are no longer than this together, in bytes of JSON.
const MOST_SAMPLED: usize = 1 << 20;
/// What a call weighs beside its name and arguments, in bytes: its id, and the events that it comes in.
const CALL_WEIGHT: usize = 1024;
/// No more texts that end an answer than this are looked for.
const MOST_STOPS: usize = 16;

/// What the model says, and what it thought before.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// Empty if it did not think.
    pub(super) thoughts: String,
    /// One or more.
    pub(super) choices: Vec<Said>,
}

/// One answer: text, or calls.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) calls: Vec<ToolCall>,
    pub(super) ending: Ending,
}

/// A tool that the model wants to be run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolCall {
    pub(super) name: String,
    pub(super) arguments: Value,
}

/// Why an answer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// All is said.
    Stop,
    /// It became too long.
    Length,
    /// One of the texts that end it was about to come.
    Sequence(String),
    /// Tools are to be run.
    Tools,
}

impl Said {
    /// How long it is, in tokens.
    pub(super) fn tokens(&self) -> u64 {
        let call = |call: &ToolCall| call.name.len() + call.arguments.to_string().len();
        tokens(self.text.len()) + self.calls.iter().map(|one| tokens(call(one))).sum::<u64>()
    }
}

/// What the model says to `ask`: what `speech` wants, what the request forces, or some text.
///
/// `thinks` tells whether it thinks first, `most` how long the answer is at most, in tokens.
///
/// # Errors
/// A tool was wished for that the request does not offer, in words.
pub(super) fn choose(
    ask: &Ask,
    speech: &Speech,
    thinks: bool,
    most: Option<u64>,
    mut draw: Draw,
) -> Result<Reply, String> {
    let count = ask.count.clamp(1, MOST_CHOICES);
    let maker = Maker::new(ask, MOST_SAID / usize::try_from(count).unwrap_or(1));
    let calls = maker.calls(speech)?;
    let prompt = maker.prompt.as_str();
    let thoughts = if thinks { words::thoughts(prompt, &mut draw) } else { String::new() };
    // Thoughts count as part of the answer; they leave it at least half of what it may have.
    let thoughts = cut(thoughts, most.map(|most| most / 2)).0;
    let left = most.map(|most| most.saturating_sub(tokens(thoughts.len())).max(1));
    let same = if calls.is_empty() {
        maker.given_text(speech).map(|text| maker.said(text, left))
    } else {
        Some(Said { text: String::new(), calls, ending: Ending::Tools })
    };
    let choice = |_| same.clone().unwrap_or_else(|| maker.said(maker.prose(&mut draw), left));
    let choices = (0..count).map(choice).collect();
    Ok(Reply { thoughts, choices })
}

/// Makes the choices of one reply.
struct Maker<'a> {
    ask: &'a Ask,
    /// The plain beginning of the prompt.
    prompt: String,
    hints: Hints,
    /// How long each choice is at most, in bytes.
    share: usize,
    /// For all made-up values together.
    budget: Budget,
}

impl<'a> Maker<'a> {
    fn new(ask: &'a Ask, share: usize) -> Self {
        let prompt = words::plain(&ask.prompt);
        Self {
            ask,
            hints: Hints::of(&prompt),
            prompt,
            share,
            budget: Budget::of(MOST_SAMPLED.min(share / 2)),
        }
    }

    /// The calls that are wished for, or else forced. What tools gave back is answered with text.
    fn calls(&self, speech: &Speech) -> Result<Vec<ToolCall>, String> {
        let most = if self.ask.one_call { 1 } else { MOST_CALLS };
        let wished = speech.tools.iter().take(most).map(|name| offered(self.ask, name));
        let mut tools = wished.collect::<Result<Vec<&Tool>, String>>()?;
        if tools.is_empty() && speech.text.is_none() && self.ask.results.is_empty() {
            tools.extend(self.forced());
        }
        Ok(self.calls_of(&tools))
    }

    fn forced(&self) -> Option<&'a Tool> {
        match &self.ask.choice {
            Choice::Auto | Choice::None => None,
            Choice::Any => self.ask.tools.first(),
            Choice::Named(name) => self.ask.tools.iter().find(|tool| tool.name == *name),
        }
    }

    /// Calls of `tools`, as many as there is room for. Those of the same tool have the same arguments.
    fn calls_of(&self, tools: &[&Tool]) -> Vec<ToolCall> {
        let mut room = self.share;
        let mut known: HashMap<&str, (Value, usize)> = HashMap::new();
        let mut calls = Vec::new();
        for tool in tools {
            let (arguments, length) = known.entry(&tool.name).or_insert_with(|| {
                let arguments = self.arguments(tool);
                let length = arguments.to_string().len();
                (arguments, length)
            });
            let Some(left) = room.checked_sub(tool.name.len() + *length + CALL_WEIGHT) else { break };
            room = left;
            calls.push(ToolCall { name: tool.name.clone(), arguments: arguments.clone() });
        }
        calls
    }

    fn arguments(&self, tool: &Tool) -> Value {
        let arguments = sample(&tool.parameters, &self.hints, &self.budget);
        if arguments.is_object() { arguments } else { json!({}) }
    }

    /// The text that all choices have, if there is one: what is wished for, or a value that fits a schema.
    fn given_text(&self, speech: &Speech) -> Option<String> {
        match (&speech.text, &self.ask.format) {
            // One byte more than there is room for, so that the cut is seen.
            (Some(text), _) => Some(text[..text.ceil_char_boundary(self.share + 1)].to_owned()),
            (None, Format::Schema(schema)) => Some(sample(schema, &self.hints, &self.budget).to_string()),
            (None, Format::Text | Format::Json) => None,
        }
    }

    fn prose(&self, draw: &mut Draw) -> String {
        let prose = words::prose(&self.prompt, &self.ask.results, draw);
        if self.ask.format == Format::Json { json!({"answer": prose}).to_string() } else { prose }
    }

    /// `text` up to where it must end: `most` is in tokens.
    fn said(&self, text: String, most: Option<u64>) -> Said {
        let (text, sequence) = stopped(text, &self.ask.stops);
        let room = most.unwrap_or(u64::MAX).min(self.share as u64 / 4);
        let (text, too_long) = cut(text, Some(room));
        let ending = if too_long { Ending::Length } else { sequence.map_or(Ending::Stop, Ending::Sequence) };
        Said { text, calls: Vec::new(), ending }
    }
}

fn offered<'a>(ask: &'a Ask, name: &str) -> Result<&'a Tool, String> {
    ask.tools.iter().find(|tool| tool.name == name).ok_or_else(|| {
        let names: Vec<&str> = ask.tools.iter().map(|tool| tool.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!("tool:{name}: the request offers no such tool; there are {known}")
    })
}

/// `text` up to the first of the texts that end it, and which that is.
fn stopped(mut text: String, stops: &[String]) -> (String, Option<String>) {
    let found = stops.iter().take(MOST_STOPS).filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
    match found.min_by_key(|(at, _)| *at) {
        Some((at, stop)) => {
            text.truncate(at);
            (text, Some(stop.clone()))
        }
        None => (text, None),
    }
}

/// As much of `text` as `most` tokens hold, and whether something is missing.
fn cut(mut text: String, most: Option<u64>) -> (String, bool) {
    let room = most.and_then(|most| usize::try_from(most.saturating_mul(4)).ok());
    match room.filter(|room| *room < text.len()) {
        Some(room) => {
            text.truncate(text.floor_char_boundary(room));
            (text, true)
        }
        None => (text, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        let parameters =
            json!({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}});
        let tool = |name: &str| Tool { name: name.into(), parameters: parameters.clone() };
        Ask {
            prompt: "What is the weather in Beijing today?".into(),
            tools: vec![tool("weather"), tool("news")],
            ..Ask::default()
        }
    }

    fn reply(ask: &Ask, speech: &Speech, most: Option<u64>) -> Reply {
        choose(ask, speech, false, most, Draw::new(&[b"x"])).unwrap()
    }

    fn names(reply: &Reply) -> Vec<&str> {
        reply.choices[0].calls.iter().map(|call| call.name.as_str()).collect()
    }

    #[test]
    fn tools_are_called_when_wished_for_or_forced() {
        let nothing = Speech::default();
        assert!(names(&reply(&ask(), &nothing, None)).is_empty());
        let forced = reply(&Ask { choice: Choice::Any, ..ask() }, &nothing, None);
        assert_eq!(names(&forced), ["weather"]);
        assert_eq!(forced.choices[0].calls[0].arguments, json!({"city": "Beijing"}));
        assert_eq!(forced.choices[0].ending, Ending::Tools);
        let named = Ask { choice: Choice::Named("news".into()), ..ask() };
        assert_eq!(names(&reply(&named, &nothing, None)), ["news"]);
        let wish = Speech { tools: vec!["news".into(), "weather".into()], text: None };
        assert_eq!(names(&reply(&ask(), &wish, None)), ["news", "weather"]);
        assert_eq!(names(&reply(&Ask { one_call: true, ..ask() }, &wish, None)), ["news"]);
        let wrong = Speech { tools: vec!["taxi".into()], text: None };
        let told = choose(&ask(), &wrong, false, None, Draw::new(&[b"x"])).unwrap_err();
        assert_eq!(told, "tool:taxi: the request offers no such tool; there are weather, news");
        let answered = Ask { results: vec!["sunny, 21 °C".into()], choice: Choice::Any, ..ask() };
        let answered = reply(&answered, &nothing, None);
        assert!(answered.choices[0].text.contains("sunny, 21 °C"), "{answered:?}");
    }

    #[test]
    fn an_answer_ends_where_it_must() {
        let wish = Speech { text: Some("one two three four".into()), tools: Vec::new() };
        let said = |ask: &Ask, most| reply(ask, &wish, most).choices.remove(0);
        assert_eq!(said(&ask(), None).ending, Ending::Stop);
        let short = said(&ask(), Some(2));
        assert_eq!((short.text.as_str(), short.tokens(), short.ending), ("one two ", 2, Ending::Length));
        let stops = Ask { stops: vec!["four".into(), "three".into()], ..ask() };
        let stopped = said(&stops, None);
        assert_eq!((stopped.text.as_str(), stopped.ending), ("one two ", Ending::Sequence("three".into())));
        assert_eq!(cut("日本".into(), Some(1)), ("日".into(), true));
    }

    /// Found by a review: each of these took up to a minute, or gigabytes.
    #[test]
    fn a_reply_is_bounded_whatever_is_wished_for() {
        let tool =
            |name: String| Tool { name, parameters: json!({"properties": {"a": {"minLength": 1_000_000}}}) };
        let tools: Vec<Tool> = (0..300).map(|number| tool(format!("t{number}"))).collect();
        let names: Vec<String> = tools.iter().map(|tool| tool.name.clone()).collect();
        let wish = |tools: Vec<String>, text: Option<String>| Speech { text, tools };
        let stops: Vec<String> = (0..20_000).map(|number| format!("stop {number}")).collect();
        let results = vec!["\u{1}".repeat(1000); 20_000];
        let schema = json!({"type": "array", "minItems": 1000, "items": {"const": "x".repeat(100_000)}});
        let nothing = Speech::default();
        let long = "word \u{1}".repeat(1_700_000);
        let cases = [
            (Ask { tools: tools.clone(), ..Ask::default() }, wish(vec!["t1".into(); 20_000], None)),
            (Ask { tools: tools.clone(), ..Ask::default() }, wish(names, None)),
            (Ask { stops: stops.clone(), ..Ask::default() }, wish(Vec::new(), Some(long.clone()))),
            (Ask { results, stops, ..Ask::default() }, nothing.clone()),
            (Ask { prompt: long.clone(), ..Ask::default() }, nothing.clone()),
            (Ask { prompt: long, format: Format::Json, ..Ask::default() }, nothing.clone()),
            (Ask { format: Format::Schema(schema), ..Ask::default() }, nothing.clone()),
            (Ask { tools: vec![tool("n".repeat(5 << 20))], choice: Choice::Any, ..Ask::default() }, nothing),
        ];
        for (number, (ask, speech)) in cases.into_iter().enumerate() {
            for count in [1, 7, 128] {
                let ask = Ask { count, ..ask.clone() };
                let began = tokio::time::Instant::now();
                let reply = reply(&ask, &speech, None);
                let lasted = began.elapsed();
                assert!(lasted < std::time::Duration::from_secs(2), "{number}, {count} choices: {lasted:?}");
                assert_eq!(reply.choices.len() as u64, count);
                let length: u64 = reply.choices.iter().map(Said::tokens).sum();
                assert!(length * 4 <= MOST_SAID as u64, "{number}: {length} tokens");
                let text = &reply.choices[0].text;
                let is_json = ask.format == Format::Text || serde_json::from_str::<Value>(text).is_ok();
                assert!(is_json, "{number}, {count} choices: {} bytes", text.len());
            }
        }
    }

    #[test]
    fn a_wished_text_that_is_too_long_is_cut_and_says_so() {
        let speech = |length: usize| Speech { text: Some("x".repeat(length)), tools: Vec::new() };
        let said = |length: usize| reply(&ask(), &speech(length), None).choices.remove(0);
        assert_eq!((said(MOST_SAID).text.len(), said(MOST_SAID).ending), (MOST_SAID, Ending::Stop));
        assert_eq!((said(MOST_SAID + 1).text.len(), said(MOST_SAID + 1).ending), (MOST_SAID, Ending::Length));
    }
}
