//! Every body that is known of the real API, brought about and compared.
//!
//! `tests/contract/<family>.json` holds the facts: each story is a list of calls and clock movements with the bodies
//! that the real server (or its documentation) shows. Keys, their order and types must agree, and every value that
//! is not an id, an address, a time or a draw (`drawn` lists a story's own keys of that kind).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::support::{CATALOGUE, Client, World};

#[tokio::test(start_paused = true)]
async fn runway_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/runway.json")).await;
}

#[tokio::test(start_paused = true)]
async fn aleph_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/aleph.json")).await;
}

#[tokio::test(start_paused = true)]
async fn veo_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/veo.json")).await;
}

#[tokio::test(start_paused = true)]
async fn gpt4o_image_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/gpt4o-image.json")).await;
}

#[tokio::test(start_paused = true)]
async fn flux_kontext_bodies_are_those_of_the_documentation() {
    tell_all(include_str!("../contract/flux-kontext.json")).await;
}

#[tokio::test(start_paused = true)]
async fn luma_bodies_are_those_of_the_documentation() {
    tell_all(include_str!("../contract/luma.json")).await;
}

#[tokio::test(start_paused = true)]
async fn market_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/jobs.json")).await;
}

#[tokio::test(start_paused = true)]
async fn suno_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/suno.json")).await;
}

#[tokio::test(start_paused = true)]
async fn midjourney_bodies_are_those_of_the_documentation() {
    tell_all(include_str!("../contract/midjourney.json")).await;
}

#[tokio::test(start_paused = true)]
async fn account_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/account.json")).await;
}

#[tokio::test(start_paused = true)]
async fn upload_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/file-upload.json")).await;
}

#[tokio::test(start_paused = true)]
async fn chat_bodies_are_those_of_the_real_api() {
    tell_all(include_str!("../contract/chat.json")).await;
}

async fn tell_all(file: &str) {
    let stories: Vec<Value> = serde_json::from_str(file).unwrap();
    assert!(!stories.is_empty());
    let mut wrong = Vec::new();
    for story in &stories {
        if let Err(what) = tell(story).await {
            wrong.push(format!("{}: {what}", story["name"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} stories:\n{}", wrong.len(), stories.len(), wrong.join("\n"));
}

/// Plays one story in a world of its own.
async fn tell(story: &Value) -> Result<(), String> {
    let world = World::standard();
    let client = world.client("reader");
    client.freeze().await;
    let mut ids = BTreeMap::new();
    let own: Vec<&str> = story["drawn"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for step in story["steps"].as_array().unwrap() {
        if let Some(operation) = step["call"].as_str() {
            call(&client, operation, step, &mut ids, &own).await?;
        } else if let Some(moment) = step["advance"].as_str() {
            advance(&client, moment, ids.get("task")).await;
        } else {
            let received = world.receiver.received();
            let last = received.last().ok_or("no callback came")?;
            same_shape(&last.body, &step["callback"], "callback", &own)?;
        }
    }
    Ok(())
}

async fn call(
    client: &Client,
    operation: &str,
    step: &Value,
    ids: &mut BTreeMap<String, String>,
    drawn: &[&str],
) -> Result<(), String> {
    let mut request = step["with"].to_string();
    for (name, id) in ids.iter() {
        request = request.replace(&format!("\"${name}\""), &format!("\"{id}\""));
    }
    let request = serde_json::from_str(&request).unwrap();
    let client = step["outcome"].as_str().map_or_else(|| client.clone(), |outcome| client.wishing(outcome));
    let answer = client.call(operation, &request).await.expect_status(200);
    if let Some(name) = step["as"].as_str() {
        let data = &answer.json()["data"];
        let id = data["taskId"].as_str().or(data["task_id"].as_str());
        let id = id.ok_or_else(|| format!("{operation}: {}", answer.text()))?.to_owned();
        for (position, name) in step["ids"].as_array().into_iter().flatten().enumerate() {
            let drawn = client.task(&id).await["ids"][position].as_str().unwrap().to_owned();
            ids.insert(name.as_str().unwrap().to_owned(), drawn);
        }
        ids.insert(name.to_owned(), id);
    }
    match step.get("expect") {
        Some(expected) => same_shape(&answer.json(), expected, operation, drawn),
        None => Ok(()),
    }
}

/// Moves to the end of everything, by a span, or into a phase of the task.
async fn advance(client: &Client, moment: &str, task: Option<&String>) {
    let Some(phase) = moment.strip_prefix("phase:") else {
        match moment {
            "idle" => client.until_idle().await,
            span => client.advance(span).await,
        };
        return;
    };
    let shown = client.task(task.unwrap()).await;
    let phase: usize = phase.parse().unwrap();
    let from = shown["plan"]["phases"][phase]["from"].as_i64().unwrap();
    let gone = from - shown["plan"]["created"].as_i64().unwrap();
    client.advance(&format!("{}ms", gone + 1)).await;
}

/// Compares as the module says; the error names the first difference.
fn same_shape(found: &Value, expected: &Value, at: &str, drawn: &[&str]) -> Result<(), String> {
    let differs = || Err(format!("at {at}\n  expected {expected}\n  found    {found}"));
    match (found, expected) {
        (Value::Object(found), Value::Object(wanted)) => {
            let keys: Vec<_> = found.keys().collect();
            let wanted_keys: Vec<_> = wanted.keys().collect();
            if keys != wanted_keys {
                return Err(format!("at {at}\n  expected keys {wanted_keys:?}\n  found keys    {keys:?}"));
            }
            let always = ["seeds", "progress", "costTime", "mediaIds", "creditsConsumed"];
            let is_drawn = |key: &str| always.contains(&key) || drawn.contains(&key);
            wanted.iter().try_for_each(|(key, value)| {
                let at = format!("{at}/{key}");
                if is_drawn(key) {
                    same_type(&found[key], value, &at)
                } else {
                    same_shape(&found[key], value, &at, drawn)
                }
            })
        }
        (Value::Array(found), Value::Array(wanted)) => match wanted.first() {
            None => {
                if found.is_empty() {
                    Ok(())
                } else {
                    differs()
                }
            }
            Some(_) if found.len() == wanted.len() => {
                found.iter().zip(wanted).try_for_each(|(item, wanted)| same_shape(item, wanted, at, drawn))
            }
            Some(first) if !found.is_empty() => {
                found.iter().try_for_each(|item| same_shape(item, first, at, drawn))
            }
            Some(_) => differs(),
        },
        (Value::String(found), Value::String(wanted)) => same_text(found, wanted, at, drawn),
        (Value::Number(one), Value::Number(other)) if one.is_f64() == other.is_f64() => {
            let varies = other.as_f64().unwrap() > 1e6 || at == "common.credit/data";
            if varies || one == other { Ok(()) } else { differs() }
        }
        (one, other) if one == other => Ok(()),
        _ => differs(),
    }
}

fn same_type(found: &Value, expected: &Value, at: &str) -> Result<(), String> {
    let same = std::mem::discriminant(found) == std::mem::discriminant(expected);
    if same { Ok(()) } else { Err(format!("at {at}: expected something like {expected}, found {found}")) }
}

fn same_text(found: &str, expected: &str, at: &str, drawn: &[&str]) -> Result<(), String> {
    let is_url = |text: &str| text.starts_with("http");
    let extension = |text: &str| {
        let name = text.rsplit('/').next().unwrap_or_default();
        name.rsplit_once('.').map(|(_, extension)| extension.to_owned())
    };
    let is_id = |text: &str| {
        text.len() >= 9
            && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
            && text.contains(|c: char| c.is_ascii_digit())
    };
    let is_time = |text: &str| {
        (text.len(), text.as_bytes().get(10)) == (19, Some(&b' '))
            || [20, 24].contains(&text.len()) && text.as_bytes().get(10) == Some(&b'T')
    };
    if let (Ok(found @ Value::Object(_)), Ok(wanted @ Value::Object(_))) =
        (serde_json::from_str(found), serde_json::from_str(expected))
    {
        return same_shape(&found, &wanted, at, drawn);
    }
    let alike = found == expected
        || is_url(found) && is_url(expected) && extension(found) == extension(expected)
        || is_id(found) && is_id(expected) && !at.ends_with("/model")
        || is_time(found) && is_time(expected)
        || same_place(found, expected)
        || at.ends_with("/taskId") && is_id(found) && expected.starts_with("task");
    if alike { Ok(()) } else { Err(format!("at {at}\n  expected {expected:?}\n  found    {found:?}")) }
}

/// Whether two texts are the same path, but for the account's number and what stands before the extension of a made-up
/// name (milliseconds and a draw).
fn same_place(found: &str, expected: &str) -> bool {
    let is_number = |part: &str| part.len() == 6 && part.bytes().all(|byte| byte.is_ascii_digit());
    let form = |part: &str| -> Option<(String, String)> {
        let (stem, extension) = part.split_once('.')?;
        let (stem, token) = stem.rsplit_once('-')?;
        let millis = stem.rsplit('-').next()?;
        let drawn = (9..=11).contains(&token.len()) && token.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let fits = drawn && millis.len() == 13 && millis.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| (stem.trim_end_matches(millis).to_owned(), extension.to_owned()))
    };
    let same = |(one, other): (&str, &str)| {
        one == other || is_number(one) && is_number(other) || form(one).is_some() && form(one) == form(other)
    };
    let (found, expected): (Vec<_>, Vec<_>) = (found.split('/').collect(), expected.split('/').collect());
    found.len() == expected.len() && found.into_iter().zip(expected).all(same)
}

/// Every message that the real API is known to send can be had by the name of an outcome.
#[tokio::test(start_paused = true)]
async fn every_known_message_has_an_outcome_with_a_name() {
    let messages: Vec<Value> = serde_json::from_str(include_str!("../contract/messages.json")).unwrap();
    let missing: Vec<&Value> = messages.iter().filter(|message| !has_outcome(message)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Whether an error of the family has this code and text, in the place where the message is seen.
fn has_outcome(message: &Value) -> bool {
    let family = message["family"].as_str().unwrap();
    let (code, text) = (message["code"].as_u64().unwrap(), message["message"].as_str());
    let place = message["where"].as_str().unwrap();
    let family = CATALOGUE.families().iter().position(|known| known.id == family);
    CATALOGUE.errors().filter(|(_, error)| error.family == family || error.family.is_none()).any(
        |(_, error)| {
            let plain = |template: Option<&kiegate::catalogue::Template>| {
                template.map(|template| template.to_text(&NoValues))
            };
            let texts = [plain(error.message.as_ref()), plain(error.record_message.as_ref())];
            let text = text.map(|text| text.replace("<taskId>", ""));
            let says_so = texts.contains(&text) || error.message.is_none() && text.is_none();
            let stage = if place.contains("callback") || place.contains("failMsg") {
                error.fails
            } else {
                error.fails || error.refuses
            };
            u64::from(error.code) == code && says_so && stage
        },
    )
}

/// A scope in which nothing is known.
struct NoValues;

impl kiegate::catalogue::Scope for NoValues {
    fn lookup<'a>(&'a self, _: &[Box<str>]) -> kiegate::catalogue::Found<'a> {
        kiegate::catalogue::Found::Missing
    }
}
