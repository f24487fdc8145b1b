//! What a sandbox can be told about itself: how fast, how reliable, how strict.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::plan::Pace;
use crate::clock::parse_duration;

/// Whether the number in the body is also the HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpStatus {
    /// As recorded from the live API: mostly 200, whatever the body says.
    Wire,
    /// The body's number.
    Real,
}

/// How a sandbox behaves. Changes hold for what comes after them: a task's plan is never revised.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// How long work takes.
    pub pace: Pace,
    /// Where all draws begin.
    pub seed: u64,
    /// How long an answer takes, shortest and longest.
    pub latency: (Duration, Duration),
    /// Share of tasks that fail, 0 to 1.
    pub failure_rate: f64,
    /// Whether creates above the account's quota are refused.
    pub emulate_quota: bool,
    /// Which HTTP status a refusal has.
    pub http_status: HttpStatus,
    /// Who asks for a task more often is told so by the verdict.
    pub min_poll: Duration,
    /// So many calls are remembered.
    pub journal: usize,
}

/// More calls than this no sandbox remembers.
const MOST_CALLS: usize = 100_000;

impl Default for Settings {
    fn default() -> Self {
        Self {
            pace: Pace::Fast,
            seed: 42,
            latency: (Duration::ZERO, Duration::ZERO),
            failure_rate: 0.0,
            emulate_quota: false,
            http_status: HttpStatus::Wire,
            min_poll: Duration::from_secs(1),
            journal: MOST_CALLS,
        }
    }
}

impl Settings {
    /// What they are called.
    pub(super) const NAMES: [&str; 8] =
        ["pace", "seed", "latency", "failure_rate", "emulate_quota", "http_status", "min_poll", "journal"];

    /// As the control API shows them.
    pub(super) fn to_json(&self) -> Value {
        let (shortest, longest) = (self.latency.0.as_millis(), self.latency.1.as_millis());
        let latency =
            if shortest == longest { format!("{shortest}ms") } else { format!("{shortest}ms..{longest}ms") };
        let http_status = match self.http_status {
            HttpStatus::Wire => "wire",
            HttpStatus::Real => "real",
        };
        json!({
            "pace": self.pace,
            "seed": self.seed,
            "latency": latency,
            "failure_rate": self.failure_rate,
            "emulate_quota": self.emulate_quota,
            "http_status": http_status,
            "min_poll": format!("{}ms", self.min_poll.as_millis()),
            "journal": self.journal,
        })
    }

    /// With the settings in `changes` put in; the others stay.
    ///
    /// # Errors
    /// The first that cannot be understood, in words that name it.
    pub(super) fn changed(&self, changes: &Map<String, Value>) -> Result<Self, String> {
        let mut settings = self.clone();
        for (key, value) in changes {
            let taken = match key.as_str() {
                "pace" => serde_json::from_value(value.clone()).ok().map(|pace| settings.pace = pace),
                "seed" => value.as_u64().map(|seed| settings.seed = seed),
                "latency" => {
                    let range = value.as_str().and_then(|text| parse_range(text, LONGEST_LATENCY));
                    range.map(|latency| settings.latency = latency)
                }
                "failure_rate" => {
                    let share = value.as_f64().filter(|share| (0.0..=1.0).contains(share));
                    share.map(|share| settings.failure_rate = share)
                }
                "emulate_quota" => value.as_bool().map(|emulate| settings.emulate_quota = emulate),
                "http_status" => {
                    let status = match value.as_str() {
                        Some("wire") => Some(HttpStatus::Wire),
                        Some("real") => Some(HttpStatus::Real),
                        _ => None,
                    };
                    status.map(|status| settings.http_status = status)
                }
                "min_poll" => {
                    let span = value.as_str().and_then(parse_duration);
                    span.map(|span| settings.min_poll = span)
                }
                "journal" => {
                    let most = value.as_u64().and_then(|most| usize::try_from(most).ok());
                    most.filter(|most| *most <= MOST_CALLS).map(|most| settings.journal = most)
                }
                _ => {
                    return Err(format!("unknown setting \"{key}\"; there are {}", Self::NAMES.join(", ")));
                }
            };
            taken.ok_or_else(|| format!("{key}: {} is not {}", value, expected(key)))?;
        }
        Ok(settings)
    }
}

fn expected(key: &str) -> &'static str {
    match key {
        "pace" => "one of \"instant\", \"fast\", \"realistic\"",
        "seed" => "a whole number from 0",
        "latency" => "a duration such as \"50ms\" or a range such as \"50ms..200ms\", 60 s at most",
        "failure_rate" => "a number from 0 to 1",
        "emulate_quota" => "true or false",
        "journal" => "a number of calls from 0 to 100000",
        "min_poll" => "a duration such as \"1s\"",
        _ => "\"wire\" or \"real\"",
    }
}

/// No sandbox lets all of its answers take longer.
const LONGEST_LATENCY: Duration = Duration::from_mins(1);

/// Reads `50ms` or `50ms..200ms`, neither above `most`.
pub(super) fn parse_range(text: &str, most: Duration) -> Option<(Duration, Duration)> {
    let (low, high) = text.split_once("..").unwrap_or((text, text));
    let range = (parse_duration(low)?, parse_duration(high)?);
    (range.0 <= range.1 && range.1 <= most).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_change_one_by_one_and_say_what_is_wrong() {
        let change = |changes: Value| Settings::default().changed(changes.as_object().unwrap());
        let changed = change(json!({"pace": "instant", "latency": "5ms..1s"})).unwrap();
        assert_eq!(changed.pace, Pace::Instant);
        assert_eq!(changed.latency, (Duration::from_millis(5), Duration::from_secs(1)));
        assert_eq!(changed.to_json()["latency"], "5ms..1000ms");
        assert_eq!(changed.seed, 42);
        assert_eq!(
            change(json!({"failure_rate": 2})).unwrap_err(),
            "failure_rate: 2 is not a number from 0 to 1"
        );
        assert!(change(json!({"speed": 1})).unwrap_err().starts_with("unknown setting \"speed\""));
        assert!(change(json!({"latency": "2h"})).is_err());
    }
}
