//! Values that depend on a request: sizes, durations, formats, quantities, as tables in the catalogue.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::condition::{Condition, number};

/// A value taken or computed from a request, or one that is always the same.
///
/// In the files: a plain value, or an object with one of these keys.
/// - `{"from": "/quality", "map": {"basic": 2048, "high": 4096}}`: a field, perhaps by way of a table;
/// - `{"length_of": "/lines/*/text"}`: characters of a text, items of a list; `*` adds up over a list's items;
/// - `{"sum_of": "/shots/*/duration"}`: numbers added up;
/// - `{"total": [pick, …]}`, to which what is absent adds nothing; `{"product": [pick, …]}`,
///   `{"quotient": [dividend, divisor]}`;
/// - `{"cases": [{"when": condition, "value": pick}, …]}`: the first that holds.
///
/// Beside it `else` stands in for what is absent, and `scale`, `least`, `most` work on the number.
#[derive(Debug, Clone)]
pub struct Pick {
    /// As it stands in the file.
    written: Box<Value>,
    source: Source,
    /// If the source gives nothing.
    otherwise: Option<Box<Pick>>,
    /// What becomes of the number, if anything does.
    shaping: Option<Shaping>,
}

#[derive(Debug, Clone)]
enum Source {
    Always(Value),
    Field { pointer: String, map: Option<Map<String, Value>> },
    LengthOf(String),
    SumOf(String),
    Total(Vec<Pick>),
    Product(Vec<Pick>),
    Quotient(Box<(Pick, Pick)>),
    Cases(Vec<(Condition, Pick)>),
}

/// A number times a scale, within bounds.
#[derive(Debug, Clone, Copy)]
struct Shaping {
    scale: f64,
    least: f64,
    most: f64,
}

const SOURCES: [&str; 7] = ["from", "length_of", "sum_of", "total", "product", "quotient", "cases"];
const ASIDES: [&str; 5] = ["map", "else", "scale", "least", "most"];

impl Pick {
    /// One that is always `value`.
    pub fn always(value: Value) -> Self {
        Self {
            written: Box::new(value.clone()),
            source: Source::Always(value),
            otherwise: None,
            shaping: None,
        }
    }

    /// Reads it from a file's JSON.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(written: &Value) -> Result<Self, String> {
        let Some(members) = written.as_object() else { return Ok(Self::always(written.clone())) };
        let unknown =
            members.keys().find(|key| !SOURCES.contains(&key.as_str()) && !ASIDES.contains(&key.as_str()));
        if let Some(key) = unknown {
            let known = SOURCES.iter().chain(&ASIDES).copied().collect::<Vec<_>>().join(", ");
            return Err(format!("unknown key \"{key}\" in a pick; there are {known}"));
        }
        let mut sources = SOURCES.iter().filter_map(|name| Some((*name, members.get(*name)?)));
        let (Some((name, source)), None) = (sources.next(), sources.next()) else {
            return Err(format!("a pick has one of {}", SOURCES.join(", ")));
        };
        if name != "from" && members.contains_key("map") {
            return Err("\"map\" goes with \"from\"".into());
        }
        Ok(Self {
            written: Box::new(written.clone()),
            source: Source::parse(name, source, members.get("map"))?,
            otherwise: members.get("else").map(Self::parse).transpose()?.map(Box::new),
            shaping: Shaping::parse(members)?,
        })
    }

    /// As it stands in the file.
    pub fn written(&self) -> &Value {
        &self.written
    }

    /// The value for `request`.
    pub fn value<'a>(&'a self, request: &'a Value) -> Option<Cow<'a, Value>> {
        let own = match self.shaping {
            None => self.source.value(request),
            Some(shaping) => {
                let number = self.source.value(request).and_then(|value| number(&value));
                number.map(|number| Cow::Owned(Value::from(shaping.apply(number))))
            }
        };
        own.or_else(|| self.otherwise.as_ref()?.value(request))
    }

    /// The value as a number; text such as `"10"` counts.
    pub fn number(&self, request: &Value) -> Option<f64> {
        self.value(request).and_then(|value| number(&value))
    }

    /// The value as text.
    pub fn text(&self, request: &Value) -> Option<String> {
        self.value(request).map(|value| plain_text(&value).into_owned())
    }

    /// Whether the value is true.
    pub fn is_true(&self, request: &Value) -> bool {
        self.value(request).is_some_and(|value| *value == Value::Bool(true))
    }

    /// Every value that it can have without looking at a request's own: for checks.
    pub fn constants(&self) -> Vec<&Value> {
        let mut constants = match &self.source {
            Source::Always(value) => vec![value],
            Source::Field { map: Some(map), .. } => map.values().collect(),
            Source::Cases(cases) => cases.iter().flat_map(|(_, pick)| pick.constants()).collect(),
            _ => Vec::new(),
        };
        constants.extend(self.otherwise.iter().flat_map(|pick| pick.constants()));
        constants
    }
}

impl Source {
    fn parse(name: &str, source: &Value, map: Option<&Value>) -> Result<Self, String> {
        let pointer = || match source.as_str() {
            Some(pointer) if pointer.starts_with('/') => Ok(pointer.to_owned()),
            _ => Err(format!("\"{name}\" must be a JSON pointer such as \"/quality\"")),
        };
        let list = || source.as_array().ok_or_else(|| format!("\"{name}\" must be a list"));
        let picks = || list()?.iter().map(Pick::parse).collect::<Result<Vec<_>, _>>();
        Ok(match name {
            "from" => Self::Field {
                pointer: pointer()?,
                map: match map {
                    None => None,
                    Some(Value::Object(map)) => Some(map.clone()),
                    Some(_) => return Err("\"map\" must be an object".into()),
                },
            },
            "length_of" => Self::LengthOf(pointer()?),
            "sum_of" => Self::SumOf(pointer()?),
            "total" => Self::Total(picks()?),
            "product" => Self::Product(picks()?),
            "quotient" => match <[Pick; 2]>::try_from(picks()?) {
                Ok([dividend, divisor]) => Self::Quotient(Box::new((dividend, divisor))),
                Err(_) => return Err("\"quotient\" must be a list of two".into()),
            },
            _ => Self::Cases(list()?.iter().map(case).collect::<Result<_, _>>()?),
        })
    }

    fn value<'a>(&'a self, request: &'a Value) -> Option<Cow<'a, Value>> {
        let computed = |number: Option<f64>| number.map(|number| Cow::Owned(Value::from(number)));
        match self {
            Self::Always(value) => Some(Cow::Borrowed(value)),
            Self::Field { pointer, map } => {
                let field = request.pointer(pointer).filter(|value| !value.is_null())?;
                match map {
                    None => Some(field),
                    Some(map) => map.get(&*plain_text(field)),
                }
                .map(Cow::Borrowed)
            }
            Self::LengthOf(pointer) => computed(added_up(request, pointer, length)),
            Self::SumOf(pointer) => computed(added_up(request, pointer, number)),
            Self::Total(picks) => computed(Some(picks.iter().filter_map(|pick| pick.number(request)).sum())),
            Self::Product(picks) => computed(picks.iter().map(|pick| pick.number(request)).product()),
            Self::Quotient(parts) => {
                let (dividend, divisor) = (parts.0.number(request)?, parts.1.number(request)?);
                computed((divisor != 0.0).then(|| dividend / divisor))
            }
            Self::Cases(cases) => {
                let (_, pick) = cases.iter().find(|(condition, _)| condition.holds(request))?;
                pick.value(request)
            }
        }
    }
}

impl Shaping {
    fn parse(members: &Map<String, Value>) -> Result<Option<Self>, String> {
        let given = |name: &str, absent: f64| match members.get(name) {
            None => Ok(absent),
            Some(value) => value.as_f64().ok_or_else(|| format!("\"{name}\" must be a number")),
        };
        let shaping = Self {
            scale: given("scale", 1.0)?,
            least: given("least", f64::NEG_INFINITY)?,
            most: given("most", f64::INFINITY)?,
        };
        if shaping.least > shaping.most {
            return Err("\"least\" is above \"most\"".into());
        }
        Ok(["scale", "least", "most"].iter().any(|name| members.contains_key(*name)).then_some(shaping))
    }

    fn apply(self, number: f64) -> f64 {
        (number * self.scale).clamp(self.least, self.most)
    }
}

fn case(source: &Value) -> Result<(Condition, Pick), String> {
    let form = "a case is {\"when\": {…}, \"value\": …}";
    let members = source.as_object().filter(|members| members.len() == 2).ok_or(form)?;
    let when = members.get("when").and_then(Value::as_object).ok_or(form)?;
    Ok((Condition::parse(when)?, Pick::parse(members.get("value").ok_or(form)?)?))
}

/// The sum of `measure` over all that `pointer` leads to; `None` if it leads nowhere.
fn added_up(request: &Value, pointer: &str, measure: impl Fn(&Value) -> Option<f64>) -> Option<f64> {
    let found = all_at(request, pointer);
    if found.is_empty() { None } else { found.into_iter().map(measure).sum() }
}

/// All values that `pointer` leads to, where `*` stands for every item of a list.
fn all_at<'v>(value: &'v Value, pointer: &str) -> Vec<&'v Value> {
    pointer.split('/').skip(1).fold(vec![value], |found, name| {
        let below = |value: &'v Value| -> Vec<&'v Value> {
            match value {
                Value::Array(items) if name == "*" => items.iter().collect(),
                other => other.pointer(&format!("/{name}")).into_iter().collect(),
            }
        };
        found.into_iter().flat_map(below).collect()
    })
}

fn length(value: &Value) -> Option<f64> {
    #[expect(clippy::cast_precision_loss, reason = "no request is so long")]
    match value {
        Value::String(text) => Some(text.chars().count() as f64),
        Value::Array(items) => Some(items.len() as f64),
        _ => None,
    }
}

/// A scalar as the text a person would write: strings without quotes.
fn plain_text(value: &Value) -> Cow<'_, str> {
    value.as_str().map_or_else(|| value.to_string().into(), Into::into)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn number_of(pick: &Value, request: &Value) -> Option<f64> {
        Pick::parse(pick).unwrap_or_else(|what| panic!("{pick}: {what}")).number(request)
    }

    #[test]
    fn a_field_counts_itself_or_by_way_of_a_table() {
        let side = json!({"from": "/quality", "map": {"basic": 2048, "high": 4096}, "else": 1024});
        assert_eq!(number_of(&side, &json!({"quality": "high"})), Some(4096.0));
        assert_eq!(number_of(&side, &json!({"quality": "other"})), Some(1024.0));
        assert_eq!(number_of(&side, &json!({})), Some(1024.0));
        let seconds = json!({"from": "/duration"});
        assert_eq!(number_of(&seconds, &json!({"duration": "10"})), Some(10.0));
        assert_eq!(number_of(&seconds, &json!({"duration": null})), None);
        assert_eq!(number_of(&json!(7), &json!({})), Some(7.0));
    }

    #[test]
    fn numbers_are_computed_from_lists_and_texts() {
        let request = json!({
            "text": "héllo",
            "urls": ["a", "b"],
            "none": [],
            "shots": [{"duration": 2}, {"duration": "3.5"}],
        });
        assert_eq!(number_of(&json!({"length_of": "/text"}), &request), Some(5.0));
        assert_eq!(number_of(&json!({"length_of": "/urls"}), &request), Some(2.0));
        assert_eq!(number_of(&json!({"length_of": "/urls/*"}), &request), Some(2.0));
        assert_eq!(number_of(&json!({"length_of": "/other", "else": 1}), &request), Some(1.0));
        assert_eq!(number_of(&json!({"sum_of": "/shots/*/duration"}), &request), Some(5.5));
        let both = json!({"total": [{"length_of": "/urls"}, {"length_of": "/none"}, 1]});
        assert_eq!(number_of(&both, &request), Some(3.0));
        let product = json!({"product": [{"length_of": "/urls"}, {"from": "/shots/0/duration"}]});
        assert_eq!(number_of(&product, &request), Some(4.0));
        assert_eq!(number_of(&json!({"total": [1, {"from": "/other"}]}), &request), Some(1.0));
        assert_eq!(number_of(&json!({"product": [1, {"from": "/other"}]}), &request), None);
        let quotient = |divisor: u8| json!({"quotient": [{"sum_of": "/shots/*/duration"}, divisor]});
        assert_eq!(number_of(&quotient(2), &request), Some(2.75));
        assert_eq!(number_of(&quotient(0), &request), None);
        let shaped = json!({"length_of": "/text", "scale": 0.1, "least": 1, "most": 3});
        assert_eq!(number_of(&shaped, &request), Some(1.0));
    }

    #[test]
    fn the_first_case_that_holds_counts() {
        let count = json!({
            "cases": [
                {"when": {"/pro": true}, "value": 4},
                {"when": {"/n": {"from": 2}}, "value": {"from": "/n"}},
            ],
            "else": 1,
        });
        assert_eq!(number_of(&count, &json!({"pro": true, "n": 9})), Some(4.0));
        assert_eq!(number_of(&count, &json!({"n": "9"})), Some(9.0));
        assert_eq!(number_of(&count, &json!({})), Some(1.0));
    }

    #[test]
    fn mistakes_are_named() {
        let error = |pick: Value| Pick::parse(&pick).unwrap_err();
        assert!(error(json!({"from": "quality"})).contains("JSON pointer"));
        assert!(error(json!({"form": "/quality"})).starts_with("unknown key \"form\""));
        assert!(error(json!({"else": 1})).starts_with("a pick has one of from"));
        assert!(error(json!({"sum_of": "/a", "length_of": "/b"})).starts_with("a pick has one of"));
        assert!(error(json!({"total": "/a"})).contains("must be a list"));
        assert!(error(json!({"cases": [{"value": 1}]})).starts_with("a case is"));
        assert!(error(json!({"from": "/a", "least": 2, "most": 1})).contains("above"));
    }
}
