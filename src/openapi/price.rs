//! Prices as the description tells them: the tables of the catalogue.

use serde_json::{Map, Value, json};

use crate::catalogue::{Pick, Price};

/// `null` where nobody knows.
pub(super) fn of(price: Option<&Price>) -> Value {
    let Some(price) = price else { return Value::Null };
    let rates = price.rates.iter().map(|rate| {
        let when: Map<String, Value> = rate.when.iter().cloned().collect();
        if when.is_empty() {
            json!({"credits": rate.credits})
        } else {
            json!({"when": when, "credits": rate.credits})
        }
    });
    let mut told = json!({"rates": rates.collect::<Value>(), "source": price.source});
    if let Some(times) = &price.times {
        told["times"] = pick(times);
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

fn pick(pick: &Pick) -> Value {
    match pick {
        Pick::Always(value) => value.clone(),
        Pick::From { pointer, map, otherwise } => {
            let mut told = json!({"from": pointer});
            if let Some(map) = map {
                told["map"] = map.clone().into();
            }
            if let Some(otherwise) = otherwise {
                told["else"] = otherwise.clone();
            }
            told
        }
    }
}
