//! Prices as the description tells them: the tables of the catalogue.

use serde_json::{Value, json};

use crate::catalogue::Price;

/// `null` where nobody knows.
pub(super) fn of(price: Option<&Price>) -> Value {
    let Some(price) = price else { return Value::Null };
    let rates = price.rates.iter().map(|rate| {
        let when = rate.when.source();
        if when.is_empty() {
            json!({"credits": rate.credits})
        } else {
            json!({"when": when, "credits": rate.credits})
        }
    });
    let mut told = json!({"rates": rates.collect::<Value>(), "source": price.source});
    if let Some(times) = &price.times {
        told["times"] = times.written().clone();
    }
    if !price.plus.is_empty() {
        let surcharges = price
            .plus
            .iter()
            .map(|plus| json!({"for_each": plus.for_each, "beyond": plus.beyond, "credits": plus.credits}));
        told["plus"] = surcharges.collect();
    }
    told
}
