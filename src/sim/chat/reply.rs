//! What the model says to a request: the one place where it is decided whether text or tool calls come, and how it ends.
//!
//! Pure: the same request and draws give the same reply.

use serde_json::{Value, json};

use super::ask::{Ask, Choice, Format, Tool, tokens};
use super::sample::sample;
use super::words;
use crate::clock::Draw;
use crate::sim::outcome::Speech;

/// More choices than this are not made for one request.
const MOST_CHOICES: u64 = 128;

/// What the model says, and what it thought before.
#[derive(Debug, PartialEq)]
pub(super) struct Reply {
    /// Empty if it did not think.
    pub(super) thoughts: String,
    /// One or more.
    pub(super) choices: Vec<Said>,
}

/// One answer: text, or calls.
#[derive(Debug, PartialEq)]
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
    let calls = calls(ask, speech)?;
    let count = ask.count.clamp(1, MOST_CHOICES);
    let thoughts = if thinks { words::thoughts(&ask.prompt, &mut draw) } else { String::new() };
    // Thoughts count as part of the answer; they leave it at least half of what it may have.
    let thoughts = cut(thoughts, most.map(|most| most / 2)).0;
    let left = most.map(|most| most.saturating_sub(tokens(thoughts.len())).max(1));
    let said = |draw: &mut Draw| {
        if !calls.is_empty() {
            return Said { text: String::new(), calls: calls.clone(), ending: Ending::Tools };
        }
        let text = speech.text.clone().unwrap_or_else(|| text(ask, draw));
        let (text, sequence) = stopped(text, &ask.stops);
        let (text, too_long) = cut(text, left);
        let ending = if too_long { Ending::Length } else { sequence.map_or(Ending::Stop, Ending::Sequence) };
        Said { text, calls: Vec::new(), ending }
    };
    let choices = (0..count).map(|_| said(&mut draw)).collect();
    Ok(Reply { thoughts, choices })
}

/// The calls that are wished for, or else forced. What tools gave back is answered with text.
fn calls(ask: &Ask, speech: &Speech) -> Result<Vec<ToolCall>, String> {
    let call = |tool: &Tool| ToolCall { name: tool.name.clone(), arguments: arguments(tool, &ask.prompt) };
    let most = if ask.one_call { 1 } else { usize::MAX };
    if !speech.tools.is_empty() {
        let wished = speech.tools.iter().take(most).map(|name| Ok(call(offered(ask, name)?)));
        return wished.collect();
    }
    if speech.text.is_some() || !ask.results.is_empty() {
        return Ok(Vec::new());
    }
    let forced = match &ask.choice {
        Choice::Auto | Choice::None => None,
        Choice::Any => ask.tools.first(),
        Choice::Named(name) => ask.tools.iter().find(|tool| tool.name == *name),
    };
    Ok(forced.map(call).into_iter().collect())
}

fn offered<'a>(ask: &'a Ask, name: &str) -> Result<&'a Tool, String> {
    ask.tools.iter().find(|tool| tool.name == name).ok_or_else(|| {
        let names: Vec<&str> = ask.tools.iter().map(|tool| tool.name.as_str()).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!("tool:{name}: the request offers no such tool; there are {known}")
    })
}

fn arguments(tool: &Tool, prompt: &str) -> Value {
    let arguments = sample(&tool.parameters, &words::plain(prompt));
    if arguments.is_object() { arguments } else { json!({}) }
}

fn text(ask: &Ask, draw: &mut Draw) -> String {
    let prose = words::prose(&ask.prompt, &ask.results, draw);
    match &ask.format {
        Format::Text => prose,
        Format::Json => json!({"answer": prose}).to_string(),
        Format::Schema(schema) => sample(schema, &words::plain(&ask.prompt)).to_string(),
    }
}

/// `text` up to the first of the texts that end it, and which that is.
fn stopped(mut text: String, stops: &[String]) -> (String, Option<String>) {
    let found = stops.iter().filter_map(|stop| Some((text.find(stop.as_str())?, stop)));
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
}
