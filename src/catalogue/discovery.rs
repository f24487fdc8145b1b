//! What the API tells of its own models and prices, made of the catalogue: rows in the order and form of the real lists.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Catalogue, Model, Price, Rate};
use crate::clock::{Draw, Timestamp};

/// What an operation tells.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Tells {
    /// The models that a filter (`taskType`, `provider`, `q`) lets through.
    Models,
    /// The model that `model` names.
    Model,
    /// Its success over the last 24 hours.
    SuccessRate,
    /// A page (`pageNum`, `pageSize`) of the prices that a filter (`modelDescription`, `interfaceType`) lets through.
    Prices,
    /// How many prices there are of each kind.
    PriceCounts,
}

impl Tells {
    /// What `found` has in an answer; `openapi` is put in by who describes the operations.
    fn fields(self) -> &'static [&'static str] {
        match self {
            Self::Models => &["total", "models"],
            Self::Model => {
                &["model", "slug", "title", "provider", "taskType", "description", "pricingDesc", "openapi"]
            }
            Self::SuccessRate => &["model", "points"],
            Self::Prices => &["records", "total", "pages"],
            Self::PriceCounts => &["all", "image", "video", "music", "chat"],
        }
    }

    /// Whether an answer may name this path.
    pub(super) fn knows(self, path: &[&str]) -> bool {
        match path {
            ["found"] => true,
            ["found", field, ..] => self.fields().contains(field),
            _ => false,
        }
    }
}

/// What `tells` answers to `request` at `now`; `None` if the model that it names is not known.
pub fn tell(catalogue: &Catalogue, tells: Tells, request: &Value, now: Timestamp) -> Option<Value> {
    Some(match tells {
        Tells::Models => models(catalogue, request),
        Tells::Model => row(named(catalogue, request)?),
        Tells::SuccessRate => {
            let model = named(catalogue, request)?;
            json!({"model": model.name, "points": points(model, now)})
        }
        Tells::Prices => prices(catalogue, request),
        Tells::PriceCounts => price_counts(catalogue),
    })
}

fn text<'r>(request: &'r Value, name: &str) -> &'r str {
    request.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn named<'c>(catalogue: &'c Catalogue, request: &Value) -> Option<&'c Model> {
    let name = text(request, "model");
    catalogue.models().map(|(_, model)| model).find(|model| model.name == name)
}

fn models(catalogue: &Catalogue, request: &Value) -> Value {
    let types: Vec<&str> =
        text(request, "taskType").split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let (provider, sought) = (text(request, "provider"), text(request, "q").to_lowercase());
    let wanted = |model: &&Model| {
        let named = |text: &str| text.to_lowercase().contains(&sought);
        (types.is_empty() || task_types(model).iter().any(|kind| types.contains(&kind.as_str())))
            && (provider.is_empty() || model.vendor.eq_ignore_ascii_case(provider))
            && (named(&model.name) || named(&model.title))
    };
    let rows: Vec<Value> = catalogue.models().map(|(_, model)| model).filter(wanted).map(row).collect();
    json!({"total": rows.len(), "models": rows})
}

fn row(model: &Model) -> Value {
    json!({
        "model": model.name,
        "slug": slug(&model.name),
        "title": model.title,
        "provider": provider(model),
        "taskType": task_types(model),
        "description": null,
        "pricingDesc": model.price.as_ref().map(price_text),
    })
}

fn slug(name: &str) -> String {
    name.replace(['/', '.'], "-")
}

/// The vendor as a name: `Google` of `google`.
fn provider(model: &Model) -> String {
    let mut letters = model.vendor.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}

/// `image-to-video` and the like: from each kind of medium that its parameters take, or else from text.
fn task_types(model: &Model) -> Vec<String> {
    let properties = model.input.source().get("properties").and_then(Value::as_object);
    let media: Vec<&str> = properties
        .into_iter()
        .flat_map(|properties| properties.values())
        .filter_map(|property| property.pointer("/x-media/kind").and_then(Value::as_str))
        .collect();
    let kinds =
        ["image", "video", "audio"].into_iter().filter(|kind| media.iter().any(|of| of.contains(kind)));
    let mut types: Vec<String> = kinds.map(|kind| format!("{kind}-to-{}", model.kind)).collect();
    if types.is_empty() {
        types.push(format!("text-to-{}", model.kind));
    }
    types
}

/// `4 credits per image`, or the lowest and the highest rate.
fn price_text(price: &Price) -> String {
    let credits = || price.rates.iter().map(|rate| rate.credits);
    let (Some(least), Some(most)) = (credits().min(), credits().max()) else { return String::new() };
    let unit = &price.unit;
    if least == most {
        format!("{} credits per {unit}", least.as_f64())
    } else {
        format!("{} to {} credits per {unit}", least.as_f64(), most.as_f64())
    }
}

/// Every model with every rate of its.
fn rates(catalogue: &Catalogue) -> impl Iterator<Item = (&Model, &Price, &Rate)> {
    catalogue
        .models()
        .filter_map(|(_, model)| Some((model, model.price.as_ref()?)))
        .flat_map(|(model, price)| price.rates.iter().map(move |rate| (model, price, rate)))
}

fn interface_type(model: &Model) -> &'static str {
    match &*model.kind {
        "video" => "video",
        "audio" | "text" => "music",
        _ => "image",
    }
}

/// US dollars that a credit costs. Source: the vendor's price list of 2026.
const DOLLARS: f64 = 0.005;

fn price_row(model: &Model, price: &Price, rate: &Rate) -> Value {
    let conditions = rate.when.source().iter().map(|(field, value)| {
        format!(
            ", {} {}",
            field.trim_start_matches('/'),
            value.as_str().map_or_else(|| value.to_string(), Into::into)
        )
    });
    let credits = rate.credits.as_f64();
    json!({
        "modelDescription": format!("{}{}", model.title, conditions.collect::<String>()),
        "interfaceType": interface_type(model),
        "provider": provider(model),
        "creditPrice": credits.to_string(),
        "creditUnit": format!("per {}", price.unit),
        "usdPrice": ((credits * DOLLARS * 1e6).round() / 1e6).to_string(),
        "falPrice": null,
        "discountRate": null,
        "anchor": format!("https://kie.ai/{}", slug(&model.name)),
        "discountPrice": false,
    })
}

fn prices(catalogue: &Catalogue, request: &Value) -> Value {
    let number = |name: &str| {
        let number = request.get(name).and_then(Value::as_u64).unwrap_or(1).max(1);
        usize::try_from(number).unwrap_or(usize::MAX)
    };
    let (page, size) = (number("pageNum"), number("pageSize"));
    let (kind, sought) = (text(request, "interfaceType"), text(request, "modelDescription").to_lowercase());
    let rows: Vec<Value> = rates(catalogue)
        .filter(|(model, ..)| kind.is_empty() || interface_type(model) == kind)
        .map(|(model, price, rate)| price_row(model, price, rate))
        .filter(|row| text(row, "modelDescription").to_lowercase().contains(&sought))
        .collect();
    let records: Vec<&Value> = rows.iter().skip((page - 1).saturating_mul(size)).take(size).collect();
    json!({"records": records, "total": rows.len(), "pages": rows.len().div_ceil(size)})
}

fn price_counts(catalogue: &Catalogue) -> Value {
    let count = |kind: &str| rates(catalogue).filter(|(model, ..)| interface_type(model) == kind).count();
    json!({
        "all": rates(catalogue).count(),
        "image": count("image"),
        "video": count("video"),
        "music": count("music"),
        "chat": count("chat"),
    })
}

/// The last 24 hours in steps of ten minutes: nearly all went well, and it is always the same of the same step.
fn points(model: &Model, now: Timestamp) -> Vec<Value> {
    const STEP: i64 = 10 * 60 * 1000;
    let latest = now.millis().div_euclid(STEP) * STEP;
    let point = |back: i64| {
        let start = latest - back * STEP;
        let mut draw = Draw::new(&[b"success rate", model.name.as_bytes(), &start.to_le_bytes()]);
        #[expect(clippy::cast_precision_loss, reason = "a small number")]
        let failed = draw.integer(0, 40) as f64 / 10.0;
        let iso = |millis: i64| Timestamp::from_millis(millis).to_iso_seconds();
        json!({
            "start": iso(start),
            "end": iso(start + STEP),
            "successRate": 100.0 - failed,
            "errorRate": failed,
            "isNormal": true,
        })
    };
    (1..=144).rev().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_that_an_answer_may_name_are_those_that_are_told() {
        let catalogue = Catalogue::embedded().unwrap();
        let (_, model) = catalogue.models().next().unwrap();
        let request = json!({"model": model.name});
        for tells in [Tells::Models, Tells::Model, Tells::SuccessRate, Tells::Prices, Tells::PriceCounts] {
            let told = tell(&catalogue, tells, &request, Timestamp::from_millis(0)).unwrap();
            let told: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
            let named: Vec<&str> =
                tells.fields().iter().copied().filter(|field| *field != "openapi").collect();
            assert_eq!(told, named, "{tells:?}");
        }
    }
}
