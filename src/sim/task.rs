//! A simulated task as plain data: its id, what was decided of it, which callback is due.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value};

use super::outcome::CallbackFaults;
use super::plan::{Ending, Plan};
use crate::catalogue::{Catalogue, Lifecycle, ModelIx, OperationIx, ResultKind, TaskKind};
use crate::clock::{Timestamp, digest, hex};
use crate::ids::Credits;

pub(super) use crate::wire::fingerprint;

/// Which sandbox: derived from the bearer token, which it does not give away. A request extension, it stands for the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SandboxId([u8; 12]);

impl SandboxId {
    /// The sandbox of `token`.
    pub fn of(token: &str) -> Self {
        let digest = digest(&[b"sandbox", token.as_bytes()]);
        Self(std::array::from_fn(|index| digest[index]))
    }

    /// The sandbox of whoever sends `headers`; `None` without a key.
    pub fn of_caller(headers: &HeaderMap) -> Option<Self> {
        super::bearer(headers).map(Self::of)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for SandboxId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex(&self.0))
    }
}

/// A task's id: 32 hexadecimal digits on the wire, as recorded from the real API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TaskKey([u8; 16]);

impl TaskKey {
    /// The id that belongs to `parts`.
    pub(super) fn derive(parts: &[&[u8]]) -> Self {
        let digest = digest(parts);
        Self(std::array::from_fn(|index| digest[index]))
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        parse_hex(text).map(Self)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key of the upgrade that `operation` makes of a file of this task: the same for every call.
    pub(super) fn upgraded(&self, operation: &str, index: usize) -> Self {
        Self::derive(&[b"upgrade", self.bytes(), operation.as_bytes(), &index.to_le_bytes()])
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&hex(&self.0))
    }
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A simulated task: what was decided when it was created.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) operation: OperationIx,
    pub(super) model: Option<ModelIx>,
    pub(super) plan: Plan,
    /// The request, completed with defaults, as compact JSON.
    pub(super) input: Box<str>,
    /// Where its result links lead in callbacks: the host by which it was created.
    pub(super) origin: Arc<str>,
    pub(super) parent: Option<TaskKey>,
    /// Which of its parent's ids it was asked for by, by position.
    pub(super) chosen: u8,
    /// Ids by which other calls may name it, beside its own.
    pub(super) ids: Box<[Box<str>]>,
    pub(super) price: Credits,
    pub(super) callbacks: CallbackFaults,
    /// Members of its result that a test has given values.
    pub(super) result: Option<Arc<Map<String, Value>>>,
    /// What it comes to, once it has ended.
    pub(super) worth: Worth,
    /// What the files of the task that it goes on from look like; they may build on it.
    pub(super) inherits: Box<[Shape]>,
}

/// The lifecycle's name for an `ending`; `running` for one that never comes.
pub(super) fn ending_name(catalogue: &Catalogue, ending: Ending) -> &str {
    match ending {
        Ending::Success { .. } => "success",
        Ending::Fail(error) => &catalogue.error(error).ending,
        Ending::Stall => "running",
    }
}

/// What a task comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Worth {
    /// A result, which is paid for.
    Result,
    /// Nothing; the price is given back.
    Nothing,
}

impl Worth {
    /// What an `ending` of this `lifecycle` comes to.
    pub(super) fn of(catalogue: &Catalogue, lifecycle: &Lifecycle, ending: Ending) -> Self {
        let kept = match ending {
            Ending::Success { .. } => true,
            Ending::Fail(error) => {
                lifecycle.ending(&catalogue.error(error).ending).is_some_and(|end| end.with_result)
            }
            Ending::Stall => false,
        };
        if kept { Self::Result } else { Self::Nothing }
    }
}

/// What a result file looks like: all that a task which goes on from it needs to know.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// The name that the catalogue gives to files of this kind.
    pub(super) slot: Box<str>,
    /// In pixels.
    pub(super) width: u32,
    /// In pixels.
    pub(super) height: u32,
    /// How long it plays.
    pub(super) duration: Duration,
}

impl Task {
    pub(super) fn kind<'c>(&self, catalogue: &'c Catalogue) -> &'c TaskKind {
        catalogue.operation(self.operation).task().expect("only operations that make tasks are put into one")
    }

    /// The model's name as a metric may show it: from the catalogue, never from a request.
    pub(super) fn model_label<'c>(&self, catalogue: &'c Catalogue) -> &'c str {
        match self.model {
            Some(model) => &catalogue.model(model).name,
            None => {
                catalogue.model_label(self.operation, &serde_json::from_str(&self.input).unwrap_or_default())
            }
        }
    }

    /// The files that it makes, by name.
    pub(super) fn results<'c>(&self, catalogue: &'c Catalogue) -> &'c [(String, ResultKind)] {
        self.model.map_or(&self.kind(catalogue).results, |model| &catalogue.model(model).results)
    }

    pub(super) fn lifecycle<'c>(&self, catalogue: &'c Catalogue) -> &'c Lifecycle {
        catalogue.lifecycle(self.operation, self.model)
    }
}

/// A callback that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Due {
    pub(super) at: Timestamp,
    pub(super) task: TaskKey,
    /// Which of the task kind's callbacks.
    pub(super) stage: u8,
    /// 0 for the first try.
    pub(super) attempt: u8,
    /// The second of a pair that a fault asked for.
    pub(super) duplicate: bool,
}

/// A task and the nearest of those it goes on from, taken out of the sandbox so that no lock is held while a body is written.
#[derive(Clone)]
pub(super) struct Lineage {
    pub(super) key: TaskKey,
    pub(super) task: Arc<Task>,
    pub(super) parent: Option<Box<Lineage>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_survive_the_wire() {
        let key = TaskKey::derive(&[b"x"]);
        assert_eq!(TaskKey::parse(&key.to_string()), Some(key));
        assert_eq!(TaskKey::parse(&key.to_string().to_uppercase()), None);
        assert_eq!(TaskKey::parse("task_123"), None);
        let sandbox = SandboxId::of("demo");
        assert_eq!(SandboxId::parse(&sandbox.to_string()), Some(sandbox));
        assert_ne!(sandbox, SandboxId::of("demo2"));
    }
}
