//! What was found, for people and for machines.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::compare::Difference;

/// What was found in a recording.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its file.
    pub recording: String,
    /// Tasks, and versions of their results.
    pub lifecycles: Vec<Checked>,
    /// Calls that are about no task of the recording.
    pub calls: Vec<Checked>,
}

/// What was found of a task, or a call.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Checked {
    /// `session.har: entry 3`.
    pub place: String,
    /// The operation's id, or method and path.
    pub operation: String,
    /// The model, where one is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What the simulator was told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wish: Option<String>,
    /// The states that were recorded, in their order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// How many callbacks were recorded.
    pub callbacks: usize,
    /// Why it was not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Where the simulator behaves in another way.
    pub drift: Vec<Difference>,
}

impl Report {
    /// Whether nothing differs.
    pub fn is_ok(&self) -> bool {
        self.lifecycles.iter().chain(&self.calls).all(|checked| checked.drift.is_empty())
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.recording)?;
        for checked in self.lifecycles.iter().chain(&self.calls) {
            write!(out, "{checked}")?;
        }
        let drifting = |all: &[Checked]| all.iter().filter(|checked| !checked.drift.is_empty()).count();
        let skipped =
            self.lifecycles.iter().chain(&self.calls).filter(|checked| checked.skipped.is_some()).count();
        write!(
            out,
            "  {} of {} lifecycles and {} of {} other calls drift",
            drifting(&self.lifecycles),
            self.lifecycles.len(),
            drifting(&self.calls),
            self.calls.len()
        )?;
        if skipped > 0 { writeln!(out, "; {skipped} could not be compared") } else { writeln!(out) }
    }
}

impl Display for Checked {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let verdict = match (&self.skipped, self.drift.is_empty()) {
            (Some(_), _) => "skipped",
            (None, true) => "ok",
            (None, false) => "DRIFT",
        };
        write!(out, "  {verdict:<8}{}", self.operation)?;
        if let Some(model) = self.model.as_ref().filter(|model| !self.operation.contains(model.as_str())) {
            write!(out, " {model}")?;
        }
        write!(out, " ({})", self.place)?;
        if !self.states.is_empty() {
            write!(out, ": {}", self.states.join(" → "))?;
        }
        match self.callbacks {
            0 => {}
            1 => write!(out, ", 1 callback")?,
            many => write!(out, ", {many} callbacks")?,
        }
        writeln!(out, "{}", self.skipped.as_ref().map_or_else(String::new, |why| format!(": {why}")))?;
        for Difference { of, what, recorded, simulated } in &self.drift {
            writeln!(out, "            {of}: {what}: recorded {recorded}, simulated {simulated}")?;
        }
        Ok(())
    }
}
