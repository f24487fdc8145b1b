//! A text that matches a regular expression.

use regex_syntax::hir::{Class, ClassUnicodeRange, Hir, HirKind, Repetition};

use super::budget::Budget;

/// Longer patterns than this, in bytes, are not looked at: a few of their signs can stand for long tables.
const LONGEST: usize = 1024;
/// What a byte of a pattern costs: reading it is more work than writing it.
const READING: usize = 64;

/// A text that matches `pattern`, of `least` characters where the pattern leaves it open; none if nothing does, or if
/// `budget` is too small for it.
pub(super) fn matching(pattern: &str, least: usize, budget: &Budget) -> Option<String> {
    if pattern.len() > LONGEST || !budget.pay(pattern.len() * READING) {
        return None;
    }
    let hir = regex_syntax::parse(pattern).ok()?;
    let mut written = Written { text: String::new(), chars: 0, budget };
    written.add(&hir, least)?;
    Some(written.text)
}

struct Written<'b> {
    text: String,
    chars: usize,
    budget: &'b Budget,
}

impl Written<'_> {
    fn add(&mut self, hir: &Hir, least: usize) -> Option<()> {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) => Some(()),
            HirKind::Literal(literal) => self.push(std::str::from_utf8(&literal.0).ok()?, 1),
            HirKind::Class(class) => self.push(of_class(class)?.encode_utf8(&mut [0; 4]), 1),
            HirKind::Capture(capture) => self.add(&capture.sub, least),
            HirKind::Concat(parts) => parts.iter().try_for_each(|part| self.add(part, least)),
            HirKind::Alternation(choices) => self.add(choices.first()?, least),
            HirKind::Repetition(repetition) => self.repeat(repetition, least),
        }
    }

    /// What is repeated is written once and copied, so repetitions within repetitions cost no more than their text.
    fn repeat(&mut self, repetition: &Repetition, least: usize) -> Option<()> {
        let usual = repetition.min.max(repetition.max.unwrap_or(1).min(1)) as usize;
        let most = repetition.max.map_or(usize::MAX, |most| most as usize);
        let missing = least.saturating_sub(self.chars);
        if most == 0 || usual == 0 && missing == 0 {
            return Some(());
        }
        let mut one = Written { text: String::new(), chars: 0, budget: self.budget };
        one.add(&repetition.sub, 0)?;
        let open = if one.chars == 0 { 0 } else { missing.div_ceil(one.chars) };
        self.push(&one.text, usual.max(open).min(most))
    }

    /// Adds `part` so many times, or nothing where that is too much.
    fn push(&mut self, part: &str, times: usize) -> Option<()> {
        let bytes = part.len().checked_mul(times).filter(|bytes| *bytes <= self.budget.left())?;
        self.budget.pay(bytes);
        self.text.push_str(&part.repeat(times));
        self.chars += part.chars().count() * times;
        Some(())
    }
}

/// A letter or digit of the class, or else any sign of it.
fn of_class(class: &Class) -> Option<char> {
    match class {
        Class::Unicode(class) => {
            let contains =
                |sign: char| class.iter().any(|range| (range.start()..=range.end()).contains(&sign));
            // The ranges are in order: the first that has a sign to print has the least.
            let printed = |range: &ClassUnicodeRange| {
                let sign = range.start().max(' ');
                (sign <= range.end().min('~')).then_some(sign)
            };
            let usual = ['a', '1', 'A'].into_iter().find(|sign| contains(*sign));
            let printed = usual.or_else(|| class.iter().find_map(printed));
            printed.or_else(|| class.iter().next().map(ClassUnicodeRange::start))
        }
        Class::Bytes(class) => class.iter().next().map(|range| char::from(range.start())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_written_or_left() {
        let check = |pattern: &str, least: usize, expected: Option<&str>| {
            assert_eq!(matching(pattern, least, &Budget::of(4096)).as_deref(), expected, "{pattern}");
        };
        check("^(ab){2}c?$", 0, Some("ababc"));
        check("a*b", 5, Some("aaaaab"));
        check("(a{2}){3}", 0, Some("aaaaaa"));
        check("(?:^)*x{0}y", 3, Some("y"));
        check("[^ -~]|z", 0, Some("\0"));
        check("[!-)]{2}", 0, Some("!!"));
        check("((((a{1000}){1000}){1000}){1000})", 0, None);
        check("((a{500}){500}){500}", 0, None);
        check(&"a".repeat(LONGEST + 1), 0, None);
        check("(", 0, None);
    }
}
