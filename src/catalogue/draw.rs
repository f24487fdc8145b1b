//! The random values that a task has for life: which kinds there are, and their values from a stream of draws.

use base64::Engine as _;
use serde::Deserialize;
use serde_json::Value;

use super::Shape;
use crate::clock::Draw;

/// A random value that a task has for life.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrawKind {
    /// A UUID.
    Uuid,
    /// A whole number between two, both included.
    Integer(u64, u64),
    /// So many bytes as base64.
    Base64(usize),
    /// So many bytes in hexadecimal.
    Hex(usize),
    /// So many decimal digits.
    Digits(usize),
    /// A number between two, with two decimals.
    Number(f64, f64),
    /// One of these.
    Choice(Vec<Value>),
    /// So many values of a kind.
    List(usize, Box<DrawKind>),
    /// A UUID by which other calls may name what this task has made.
    Id,
}

impl DrawKind {
    /// The value that comes next in `draw`.
    pub fn value(&self, draw: &mut Draw) -> Value {
        let mut bytes = |count: &usize| -> Vec<u8> { (0..*count).map(|_| draw.bytes::<1>()[0]).collect() };
        match self {
            DrawKind::Uuid | DrawKind::Id => draw.uuid().into(),
            DrawKind::Integer(low, high) => draw.integer(*low, *high).into(),
            DrawKind::Base64(count) => {
                base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes(count)).into()
            }
            DrawKind::Hex(count) => {
                bytes(count).iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
            }
            DrawKind::Digits(count) => (0..*count)
                .map(|_| char::from(b'0' + u8::try_from(draw.integer(0, 9)).unwrap_or(0)))
                .collect::<String>()
                .into(),
            DrawKind::Number(low, high) => {
                let number = low + (high - low) * draw.fraction();
                ((number * 100.0).round() / 100.0).into()
            }
            DrawKind::Choice(choices) => {
                let last = (choices.len() as u64).saturating_sub(1);
                usize::try_from(draw.integer(0, last))
                    .ok()
                    .and_then(|index| choices.get(index))
                    .cloned()
                    .unwrap_or_default()
            }
            DrawKind::List(count, of) => (0..*count).map(|_| of.value(draw)).collect(),
        }
    }

    /// What its values look like.
    pub fn shape(&self) -> Shape {
        match self {
            Self::Uuid | Self::Id | Self::Base64(_) | Self::Hex(_) | Self::Digits(_) => {
                Shape::of_type("string")
            }
            Self::Integer(..) => Shape::of_type("integer"),
            Self::Number(..) => Shape::of_type("number"),
            Self::Choice(choices) => Shape::one_of(choices),
            Self::List(_, of) => Shape::list([of.shape()]),
        }
    }
}
