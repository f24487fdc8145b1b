//! Values that depend on a request: prices, sizes, durations, as tables in the catalogue.

use serde_json::{Map, Value};

use crate::ids::Credits;

/// A value taken from a request, perhaps by way of a table; or one that is always the same.
///
/// In the files: a plain value, or `{"from": "/quality", "map": {"basic": 2048, "high": 4096}, "else": 2048}`.
/// Without `map` the field's own value counts. `else` stands in for an absent field or one that the map lacks.
#[derive(Debug, Clone)]
pub enum Pick {
    /// Always this.
    Always(Value),
    /// By a field of the request.
    From {
        /// JSON pointer into the request.
        pointer: String,
        /// The field's text to the value.
        map: Option<Map<String, Value>>,
        /// If nothing else fits.
        otherwise: Option<Value>,
    },
}

impl Pick {
    /// Reads it from a file's JSON.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(source: &Value) -> Result<Self, String> {
        let Some(members) = source.as_object() else { return Ok(Self::Always(source.clone())) };
        if let Some(key) = members.keys().find(|key| !["from", "map", "else"].contains(&key.as_str())) {
            return Err(format!("unknown key \"{key}\"; a pick has from, map and else"));
        }
        let pointer = members.get("from").and_then(Value::as_str).unwrap_or_default();
        if !pointer.starts_with('/') {
            return Err("\"from\" must be a JSON pointer such as \"/quality\"".into());
        }
        let map = match members.get("map") {
            None => None,
            Some(Value::Object(map)) => Some(map.clone()),
            Some(_) => return Err("\"map\" must be an object".into()),
        };
        Ok(Self::From { pointer: pointer.into(), map, otherwise: members.get("else").cloned() })
    }

    /// The value for `request`.
    pub fn value<'a>(&'a self, request: &'a Value) -> Option<&'a Value> {
        match self {
            Self::Always(value) => Some(value),
            Self::From { pointer, map, otherwise } => {
                let field = request.pointer(pointer);
                let picked = match map {
                    None => field.filter(|value| !value.is_null()),
                    Some(map) => field.and_then(|value| map.get(&*plain_text(value))),
                };
                picked.or(otherwise.as_ref())
            }
        }
    }

    /// The value as a number; text such as `"10"` counts.
    pub fn number(&self, request: &Value) -> Option<f64> {
        let value = self.value(request)?;
        value.as_f64().or_else(|| value.as_str()?.parse().ok())
    }

    /// The value as text.
    pub fn text(&self, request: &Value) -> Option<String> {
        self.value(request).map(|value| plain_text(value).into_owned())
    }
}

/// A scalar as the text a person would write: strings without quotes.
fn plain_text(value: &Value) -> std::borrow::Cow<'_, str> {
    value.as_str().map_or_else(|| value.to_string().into(), Into::into)
}

/// What a task costs: the first rate whose conditions hold, times a quantity.
#[derive(Debug, Clone)]
pub struct Price {
    /// In the order of the file.
    pub rates: Vec<Rate>,
    /// How often the rate is charged: pictures, seconds. Absent: once.
    pub times: Option<Pick>,
    /// What comes on top.
    pub plus: Vec<Surcharge>,
    /// Where the figures come from.
    pub source: String,
}

/// A price under conditions.
#[derive(Debug, Clone)]
pub struct Rate {
    /// JSON pointers to the value, or list of values, that the request must have there.
    pub when: Vec<(String, Value)>,
    /// For one unit.
    pub credits: Credits,
}

/// A price for each item of a list in the request.
#[derive(Debug, Clone)]
pub struct Surcharge {
    /// JSON pointer to the list.
    pub for_each: String,
    /// So many items are free.
    pub beyond: usize,
    /// For each of the others.
    pub credits: Credits,
}

impl Surcharge {
    fn of(&self, request: &Value) -> Credits {
        let items = request.pointer(&self.for_each).and_then(Value::as_array).map_or(0, Vec::len);
        self.credits * i64::try_from(items.saturating_sub(self.beyond)).unwrap_or(i64::MAX)
    }
}

impl Price {
    /// The price of `request`; `None` if no rate is known for it.
    pub fn of(&self, request: &Value) -> Option<Credits> {
        let rate = self.rates.iter().find(|rate| rate.holds(request))?;
        let quantity = self.times.as_ref().map_or(Some(1.0), |times| times.number(request))?;
        let surcharges: Credits = self.plus.iter().map(|surcharge| surcharge.of(request)).sum();
        Some(rate.credits.times(quantity) + surcharges)
    }
}

impl Rate {
    fn holds(&self, request: &Value) -> bool {
        self.when.iter().all(|(pointer, expected)| {
            let found = request.pointer(pointer).unwrap_or(&Value::Null);
            match expected {
                Value::Array(choices) => choices.contains(found),
                one => one == found,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn picks_follow_the_request() {
        let side =
            Pick::parse(&json!({"from": "/quality", "map": {"basic": 2048, "high": 4096}, "else": 1024}))
                .unwrap();
        assert_eq!(side.number(&json!({"quality": "high"})), Some(4096.0));
        assert_eq!(side.number(&json!({"quality": "other"})), Some(1024.0));
        assert_eq!(side.number(&json!({})), Some(1024.0));
        let seconds = Pick::parse(&json!({"from": "/duration"})).unwrap();
        assert_eq!(seconds.number(&json!({"duration": "10"})), Some(10.0));
        assert_eq!(seconds.number(&json!({})), None);
        assert!(Pick::parse(&json!({"from": "quality"})).is_err());
        assert!(Pick::parse(&json!({"form": "/quality"})).is_err());
    }

    #[test]
    fn the_first_rate_that_holds_is_charged_by_quantity() {
        let price = Price {
            rates: vec![
                Rate { when: vec![("/sound".into(), json!(true))], credits: Credits::whole(110) },
                Rate {
                    when: vec![("/duration".into(), json!([5, "5"]))],
                    credits: Credits::from_f64(6.5).unwrap(),
                },
            ],
            times: Some(Pick::parse(&json!({"from": "/count", "else": 1})).unwrap()),
            plus: vec![Surcharge {
                for_each: "/urls".into(),
                beyond: 1,
                credits: Credits::from_f64(0.5).unwrap(),
            }],
            source: String::new(),
        };
        assert_eq!(price.of(&json!({"duration": 5, "urls": [1, 2, 3]})), Credits::from_f64(7.5));
        assert_eq!(price.of(&json!({"duration": "5", "count": 2})), Some(Credits::whole(13)));
        assert_eq!(price.of(&json!({"sound": true})), Some(Credits::whole(110)));
        assert_eq!(price.of(&json!({"duration": 7})), None);
    }
}
