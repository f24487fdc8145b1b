//! How much may be made for one answer: schemas to look at, and bytes to write.
//!
//! What is spent is gone. With nothing left all makers stop where they are, so that what they made is short, and may
//! break its schema, but is whole JSON.

use std::cell::Cell;

use serde_json::{Map, Value};

/// More schemas than this are not looked at.
const MOST_STEPS: u32 = 20_000;
/// What any value costs beside its text: a number, and the signs around it.
const VALUE: usize = 32;

/// What is left to be spent.
pub(super) struct Budget {
    steps: Cell<u32>,
    bytes: Cell<usize>,
}

impl Budget {
    /// Of so many bytes of JSON.
    pub(super) fn of(bytes: usize) -> Self {
        Self { steps: Cell::new(MOST_STEPS), bytes: Cell::new(bytes) }
    }

    /// Bytes that can still be paid for.
    pub(super) fn left(&self) -> usize {
        self.bytes.get()
    }

    /// Takes a step, if there are any left.
    pub(super) fn step(&self) -> bool {
        let left = self.steps.get().checked_sub(1);
        self.steps.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Pays for `cost` bytes that are written or read; whoever cannot, loses what there was.
    pub(super) fn pay(&self, cost: usize) -> bool {
        let left = self.left().checked_sub(cost);
        self.bytes.set(left.unwrap_or(0));
        left.is_some()
    }

    /// Pays for one more value.
    pub(super) fn value(&self) -> bool {
        self.pay(VALUE)
    }

    /// Pays for one more member of an object.
    pub(super) fn member(&self, name: &str) -> bool {
        self.value() && self.text(name).len() == name.len()
    }

    /// As much of `text` as can be paid for, in the length that JSON gives it.
    pub(super) fn text<'t>(&self, text: &'t str) -> &'t str {
        let mut left = self.left();
        for (at, sign) in text.char_indices() {
            let Some(rest) = left.checked_sub(spelled(sign)) else {
                self.bytes.set(0);
                return &text[..at];
            };
            left = rest;
        }
        self.bytes.set(left);
        text
    }

    /// As much of `value` as can be paid for.
    pub(super) fn copy(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.text(text).into(),
            Value::Array(items) => {
                items.iter().take_while(|_| self.value()).map(|item| self.copy(item)).collect()
            }
            Value::Object(members) => {
                let paid = members.iter().take_while(|(name, _)| self.member(name));
                paid.map(|(name, value)| (name.clone(), self.copy(value))).collect::<Map<_, _>>().into()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// How many bytes JSON needs for `sign`.
fn spelled(sign: char) -> usize {
    match sign {
        '"' | '\\' | '\n' | '\r' | '\t' => 2,
        sign if sign < ' ' => 6,
        sign => sign.len_utf8(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_copy_is_as_long_as_what_is_left() {
        let value = json!({"a": ["\u{1}\"é", 1.5, null], "b": {"c": "x".repeat(1000)}});
        let cut = |bytes: usize| Budget::of(bytes).copy(&value);
        assert_eq!(cut(10_000), value);
        for bytes in 0..1200 {
            let length = cut(bytes).to_string().len();
            assert!(length <= bytes + 2, "{length} of {bytes}");
        }
        assert_eq!(cut(32 + 1 + 32 + 8), json!({"a": ["\u{1}\""]}));
        assert_eq!(cut(0), json!({}));
    }
}
