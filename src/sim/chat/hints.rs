//! What a prompt tells of the values that are wanted: names, numbers, addresses in it. Read once for each answer.

use super::words::quote;

/// No more numbers of a prompt than this are of use.
const MOST_NUMBERS: usize = 64;

/// A prompt, taken to pieces.
pub(super) struct Hints {
    /// Itself, in small letters.
    pub(super) lower: String,
    /// Its beginning.
    quote: String,
    proper_name: Option<String>,
    pub(super) numbers: Vec<f64>,
    pub(super) address: Option<String>,
    pub(super) url: Option<String>,
}

impl Hints {
    pub(super) fn of(prompt: &str) -> Self {
        let word = |fits: fn(&str) -> bool| {
            let mut words = prompt
                .split_whitespace()
                .map(|word| word.trim_matches(|sign: char| "<>()\"',.;!?".contains(sign)));
            words.find(|word| fits(word)).map(str::to_owned)
        };
        Self {
            lower: prompt.to_lowercase(),
            quote: quote(prompt, 80),
            proper_name: proper_name(prompt),
            numbers: numbers(prompt).take(MOST_NUMBERS).collect(),
            address: word(is_address),
            url: word(|word| word.starts_with("http://") || word.starts_with("https://")),
        }
    }

    /// What the prompt may mean by `name`.
    pub(super) fn guess(&self, name: &str) -> String {
        const WHOLE: [&str; 14] = [
            "query",
            "question",
            "prompt",
            "text",
            "message",
            "input",
            "content",
            "topic",
            "title",
            "summary",
            "answer",
            "description",
            "expression",
            "request",
        ];
        let lower = name.to_lowercase();
        let is_whole = WHOLE.iter().any(|word| lower.contains(word)) || lower == "q";
        let guess = self.proper_name.as_deref().filter(|_| !is_whole).unwrap_or(&self.quote);
        let guess = if guess.is_empty() { name } else { guess };
        if guess.is_empty() { "text".into() } else { guess.to_owned() }
    }
}

fn numbers(prompt: &str) -> impl Iterator<Item = f64> {
    let words = prompt.split(|sign: char| !sign.is_ascii_digit() && sign != '.' && sign != '-');
    let numbers = words.filter_map(|word| word.trim_end_matches('.').parse::<f64>().ok());
    numbers.filter(|number| number.is_finite())
}

fn is_address(word: &str) -> bool {
    word.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
}

/// A name in `prompt`: the first words with capitals that do not begin a sentence.
fn proper_name(prompt: &str) -> Option<String> {
    let mut begins = true;
    let mut found: Vec<&str> = Vec::new();
    for word in prompt.split_whitespace() {
        let bare = word.trim_matches(|sign: char| !sign.is_alphanumeric());
        let is_name = bare.chars().next().is_some_and(char::is_uppercase) && bare.chars().count() > 1;
        if is_name && !begins {
            found.push(bare);
        } else if !found.is_empty() {
            break;
        }
        let ends = word.ends_with(['.', '!', '?', ':', ',']);
        if ends && !found.is_empty() {
            break;
        }
        begins = ends && !word.ends_with(',');
    }
    (!found.is_empty()).then(|| found.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_sentences() {
        let check = |prompt: &str, expected: Option<&str>| {
            assert_eq!(proper_name(prompt).as_deref(), expected, "{prompt}");
        };
        check("What is the weather in Beijing today?", Some("Beijing"));
        check("Weather. Now in San Francisco, CA!", Some("San Francisco"));
        check("tell me a joke", None);
    }

    #[test]
    fn numbers_and_addresses_are_found() {
        let hints = Hints::of("Send 3 letters, or -4.5, to <a@example.com> (see https://example.com/x).");
        assert_eq!(hints.numbers, [3.0, -4.5]);
        assert_eq!(hints.address.as_deref(), Some("a@example.com"));
        assert_eq!(hints.url.as_deref(), Some("https://example.com/x"));
    }
}
