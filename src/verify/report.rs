//! What was found, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::compare::Difference;
use crate::catalogue::Catalogue;
use crate::record::{Broken, Called};

/// What was found in a recording.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Its file.
    pub recording: String,
    /// Tasks, and versions of their results.
    pub lifecycles: Vec<Checked>,
    /// Calls that are about no task of the recording.
    pub calls: Vec<Checked>,
    /// Calls without a whole answer. Of a simulator's recording the answer is compared as far as it came.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub broken: Vec<Checked>,
    /// Callbacks of a simulator that belong to no lifecycle, by address and task.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub strays: Vec<Checked>,
    /// How a simulator was steered, which was done again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Checked>,
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
    /// How often somebody asked how far it is.
    pub questions: usize,
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
        self.all().all(|checked| checked.drift.is_empty())
    }

    fn all(&self) -> impl Iterator<Item = &Checked> {
        let beside = self.broken.iter().chain(&self.strays).chain(&self.controls);
        self.lifecycles.iter().chain(&self.calls).chain(beside)
    }
}

/// How much was compared, in all recordings together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Tasks, and versions of their results.
    pub lifecycles: usize,
    /// Questions how far those are.
    pub questions: usize,
    /// Other calls.
    pub calls: usize,
    /// Calls without a whole answer, which was compared as far as it came.
    pub broken: usize,
    /// Callbacks.
    pub callbacks: usize,
    /// How often the simulator was steered as it had been.
    pub controls: usize,
    /// How many lifecycles, calls and others drift.
    pub drifting: usize,
    /// How many could not be compared, by the reason.
    pub not_compared: BTreeMap<String, usize>,
}

impl Totals {
    /// Of these.
    pub fn of(reports: &[Report]) -> Self {
        let mut totals = Self::default();
        for report in reports {
            let compared = |all: &[Checked]| all.iter().filter(|checked| checked.skipped.is_none()).count();
            totals.lifecycles += compared(&report.lifecycles);
            totals.calls += compared(&report.calls);
            totals.broken += compared(&report.broken);
            totals.controls += compared(&report.controls);
            for checked in report.all() {
                totals.drifting += usize::from(!checked.drift.is_empty());
                match &checked.skipped {
                    None => {
                        totals.questions += checked.questions;
                        totals.callbacks += checked.callbacks;
                    }
                    Some(why) => {
                        let count = 1 + checked.questions + checked.callbacks;
                        *totals.not_compared.entry(why.clone()).or_default() += count;
                    }
                }
            }
        }
        totals
    }
}

impl Display for Totals {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let Self { lifecycles, questions, calls, broken, callbacks, controls, drifting, not_compared } = self;
        write!(
            out,
            "compared: {lifecycles} lifecycles with {questions} questions, {calls} other calls, {callbacks} callbacks"
        )?;
        if *broken > 0 {
            write!(out, ", {broken} calls whose answer broke off")?;
        }
        if *controls > 0 {
            write!(out, "; {controls} times steered")?;
        }
        writeln!(out, "; {drifting} drift")?;
        for (why, count) in not_compared {
            writeln!(out, "not compared: {count}: {why}")?;
        }
        Ok(())
    }
}

impl Checked {
    /// Of that call; nothing is found yet.
    pub(super) fn of(catalogue: &Catalogue, call: &Called) -> Self {
        let operation = match call.asked.operation {
            Some(operation) => catalogue.operation(operation).id.clone(),
            None => format!("{} {}", call.method, call.target.split('?').next().unwrap_or_default()),
        };
        let label =
            call.asked.operation.map(|operation| catalogue.model_label(operation, &call.asked.request));
        let model = label.filter(|label| *label != "other").map(str::to_owned);
        Self { place: short(&call.place).to_owned(), operation, model, ..Self::default() }
    }

    /// Of a call without a whole answer, which is nothing to go by.
    pub(super) fn broken(catalogue: &Catalogue, broken: &Broken) -> Self {
        Self { skipped: Some(broken.why.clone()), ..Self::of(catalogue, &broken.call) }
    }

    /// Of so many callbacks to an address.
    pub(super) fn of_callbacks(url: &str, count: usize, drift: Vec<Difference>) -> Self {
        Self {
            place: url.to_owned(),
            operation: "callback".to_owned(),
            callbacks: count,
            drift,
            ..Self::default()
        }
    }
}

/// `entry 3`, of `session.har: entry 3`.
pub(super) fn short(place: &str) -> &str {
    place.rsplit(": ").next().unwrap_or(place)
}

pub(super) fn name_of(what: &str, call: &Called) -> String {
    format!("{what} ({})", short(&call.place))
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "{}", self.recording)?;
        let is_news = |checked: &&Checked| !checked.drift.is_empty() || checked.skipped.is_some();
        let beside = self.broken.iter().chain(&self.strays).chain(&self.controls);
        for checked in self.lifecycles.iter().chain(&self.calls).chain(beside.filter(is_news)) {
            write!(out, "{checked}")?;
        }
        let drifting = |all: &[Checked]| all.iter().filter(|checked| !checked.drift.is_empty()).count();
        let skipped = self.all().filter(|checked| checked.skipped.is_some()).count();
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
        let verdict = match (self.drift.is_empty(), &self.skipped) {
            (false, _) => "DRIFT",
            (true, Some(_)) => "skipped",
            (true, None) => "ok",
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
