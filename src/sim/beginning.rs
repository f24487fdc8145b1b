//! What every sandbox of a simulator begins with, as a recording of it says that, and back.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::settings::Settings;
use super::upload::Room;
use crate::ids::Credits;

/// What a sandbox begins with, and begins with again after a reset.
#[derive(Clone, Debug, PartialEq)]
pub struct Beginning {
    /// How it behaves.
    pub settings: Settings,
    /// Its balance.
    pub credits: Credits,
    /// How much may be uploaded.
    pub room: Room,
}

/// The same as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    settings: Map<String, Value>,
    credits: Credits,
    upload_space: u64,
    upload_space_per_key: u64,
}

impl Beginning {
    /// As a recording has it.
    pub fn to_json(&self) -> Value {
        let Value::Object(settings) = self.settings.to_json() else { return Value::Null };
        let (credits, Room { total: upload_space, each: upload_space_per_key }) = (self.credits, self.room);
        let written = Written { settings, credits, upload_space, upload_space_per_key };
        serde_json::to_value(written).unwrap_or_default()
    }

    /// Reads what [`Beginning::to_json`] made.
    ///
    /// # Errors
    /// What cannot be understood, in words that name it.
    pub fn read(json: &Value) -> Result<Self, String> {
        let written = Written::deserialize(json).map_err(|error| error.to_string())?;
        let settings = Settings::default().changed(&written.settings)?;
        let room = Room { total: written.upload_space, each: written.upload_space_per_key };
        Ok(Self { settings, credits: written.credits, room })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{HttpStatus, Pace};
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written() {
        let settings = Settings {
            pace: Pace::Realistic,
            seed: 7,
            latency: (Duration::from_millis(50), Duration::from_millis(200)),
            failure_rate: 0.25,
            emulate_quota: true,
            http_status: HttpStatus::Real,
            min_poll: Duration::from_millis(1500),
            journal: 10,
        };
        let room = Room { total: 1000, each: 10 };
        let beginning = Beginning { settings, credits: Credits::whole(12), room };
        let json = beginning.to_json();
        assert_eq!(Beginning::read(&json), Ok(beginning));
        let mut other = json.clone();
        other["settings"]["pace"] = "slow".into();
        assert!(Beginning::read(&other).unwrap_err().starts_with("pace: "));
        assert!(Beginning::read(&Value::Null).is_err());
    }
}
