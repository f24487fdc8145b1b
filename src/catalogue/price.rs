//! What a request costs, as a table in the catalogue.

use serde_json::Value;

use super::condition::Condition;
use super::pick::Pick;
use crate::ids::Credits;

/// What a task costs: the first rate whose conditions hold, times a quantity.
#[derive(Debug, Clone)]
pub struct Price {
    /// In the order of the file.
    pub rates: Vec<Rate>,
    /// How often the rate is charged: pictures, seconds. Absent: once.
    pub times: Option<Pick>,
    /// What comes on top.
    pub plus: Vec<Surcharge>,
    /// What is charged for: `image`, `second`, `request`.
    pub unit: String,
    /// Where the figures come from.
    pub source: String,
}

/// A price under conditions.
#[derive(Debug, Clone)]
pub struct Rate {
    /// What must hold of the request.
    pub when: Condition,
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
        let rate = self.rates.iter().find(|rate| rate.when.holds(request))?;
        let quantity = self.times.as_ref().map_or(Some(1.0), |times| times.number(request))?;
        let surcharges: Credits = self.plus.iter().map(|surcharge| surcharge.of(request)).sum();
        Some(rate.credits.times(quantity) + surcharges)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_first_rate_that_holds_is_charged_by_quantity() {
        let when = |condition: Value| Condition::parse(condition.as_object().unwrap()).unwrap();
        let price = Price {
            rates: vec![
                Rate { when: when(json!({"/sound": true})), credits: Credits::whole(110) },
                Rate { when: when(json!({"/duration": [5, "5"]})), credits: Credits::from_f64(6.5).unwrap() },
            ],
            times: Some(Pick::parse(&json!({"from": "/count", "else": 1})).unwrap()),
            plus: vec![Surcharge {
                for_each: "/urls".into(),
                beyond: 1,
                credits: Credits::from_f64(0.5).unwrap(),
            }],
            unit: "request".into(),
            source: String::new(),
        };
        assert_eq!(price.of(&json!({"duration": 5, "urls": [1, 2, 3]})), Credits::from_f64(7.5));
        assert_eq!(price.of(&json!({"duration": "5", "count": 2})), Some(Credits::whole(13)));
        assert_eq!(price.of(&json!({"sound": true})), Some(Credits::whole(110)));
        assert_eq!(price.of(&json!({"duration": 7})), None);
    }
}
