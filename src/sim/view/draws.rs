//! The random values that a task has for life.

use base64::Engine as _;
use serde_json::Value;

use crate::catalogue::DrawKind;
use crate::clock::Draw;

/// The value of a draw of this kind.
pub(in crate::sim) fn value(kind: &DrawKind, draw: &mut Draw) -> Value {
    let mut bytes = |count: &usize| -> Vec<u8> { (0..*count).map(|_| draw.bytes::<1>()[0]).collect() };
    match kind {
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
        DrawKind::List(count, of) => (0..*count).map(|_| value(of, draw)).collect(),
    }
}
