//! The words that a simulated model finds: short, plausible, about what was said to it.

use crate::clock::Draw;

const OPENINGS: [&str; 5] = [
    "You asked: “{}”.",
    "About “{}”:",
    "Thank you for your message, “{}”.",
    "Here is a short answer to “{}”.",
    "On “{}”, briefly:",
];

const THOUGHTS: [&str; 3] = [
    "The user says “{}”. A short and friendly answer will do.",
    "The message is “{}”. I take it word for word and keep the answer brief.",
    "What is wanted here: “{}”. The main point first, then one detail.",
];

const BODIES: [&str; 6] = [
    "The short version is that it depends on what matters most to you, and a small first step usually shows which way to go.",
    "Three things are worth knowing: where you start, what you want in the end, and how you will notice that you are there.",
    "The simplest way that works is often the best one, so begin there and refine it once you see the result.",
    "There is more than one good answer, and the one that fits is the one you can check yourself.",
    "Most of it is easier than it looks once the parts are taken one at a time.",
    "The main idea holds in almost every case, and the exceptions show themselves early.",
];

const CLOSINGS: [&str; 4] = [
    "Tell me if you would like more detail.",
    "I can go into any part of it.",
    "Shall I give an example?",
    "That is all there is to it for now.",
];

/// No more of a prompt than this, in bytes, is taken up in an answer.
const MOST_PROMPT: usize = 4096;
/// No more results of tools than this are told.
const MOST_RESULTS: usize = 16;

/// The beginning of `prompt` without directives to the simulator.
pub(super) fn plain(prompt: &str) -> String {
    let mut pieces = prompt.split("[[mock:");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        text.push_str(piece.split_once("]]").map_or(piece, |(_, after)| after));
    }
    let text = text.trim();
    text[..text.floor_char_boundary(MOST_PROMPT)].to_owned()
}

/// What is thought before an answer to the plain `prompt`.
pub(super) fn thoughts(prompt: &str, draw: &mut Draw) -> String {
    one_of(&THOUGHTS, draw).replace("{}", &quote(prompt, 80))
}

/// An answer to the plain `prompt`, or to what tools gave back.
pub(super) fn prose(prompt: &str, results: &[String], draw: &mut Draw) -> String {
    if !results.is_empty() {
        let results: Vec<String> =
            results.iter().take(MOST_RESULTS).map(|result| quote(result, 200)).collect();
        let asked = if prompt.is_empty() {
            String::new()
        } else {
            format!(" That answers “{}”.", quote(prompt, 120))
        };
        return format!("Here is what I found: {}.{asked} {}", results.join("; "), one_of(&CLOSINGS, draw));
    }
    if prompt.is_empty() {
        return "Hello! How can I help you today?".to_owned();
    }
    let opening = one_of(&OPENINGS, draw).replace("{}", &quote(prompt, 120));
    format!("{opening} {} {}", one_of(&BODIES, draw), one_of(&CLOSINGS, draw))
}

fn one_of<'t>(texts: &[&'t str], draw: &mut Draw) -> &'t str {
    let last = texts.len().saturating_sub(1) as u64;
    usize::try_from(draw.integer(0, last))
        .ok()
        .and_then(|index| texts.get(index))
        .copied()
        .unwrap_or_default()
}

/// `text` on one line, with at most `most` characters.
pub(super) fn quote(text: &str, most: usize) -> String {
    let mut line = String::new();
    // Each word has a character or more.
    for word in text.split_whitespace().take(most + 1) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(most + 1));
    }
    match line.char_indices().nth(most) {
        Some((at, _)) => format!("{}…", line[..at].trim_end()),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_speaks_of_what_was_said() {
        let mut draw = Draw::new(&[b"1"]);
        let answer = prose(&plain("Why is the sky\nblue? [[mock:tool:x]]"), &[], &mut draw);
        assert!(answer.contains("“Why is the sky blue?”"), "{answer}");
        assert!(!answer.contains("[["), "{answer}");
        assert!(prose("x", &["42".into()], &mut draw).contains("found: 42."));
        assert_eq!(quote("a long text", 6), "a long…");
        assert_eq!(plain("[[mock:text:hi]] there [[mock:"), "there");
    }
}
