//! One test's world: the control API of the simulator as calls.
//!
//! Bodies and answers are JSON as the README describes them ("Control API"); only what needs no explanation has types.

use std::fmt::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{Method, Request};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Error, Server};
use crate::sim::SandboxId;

/// A world of its own in a [`Simulator`](super::Simulator): tasks, clock, credits, rules, callbacks, inboxes. Clones are
/// the same world.
///
/// Every call can fail with [`Error::Refused`], which tells the call, the status and the problem text of the answer; with
/// [`Error::Answer`], if the answer makes no sense; and with [`Error::Request`], if a name or an id has characters that
/// cannot stand in a path or a header.
#[derive(Clone)]
pub struct Sandbox {
    server: Arc<Server>,
    token: String,
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "sandbox \"{}\" of {}", self.token, self.server.base_url)
    }
}

#[expect(clippy::missing_errors_doc, reason = "all calls fail alike; the docs of `Sandbox` say how")]
impl Sandbox {
    pub(super) fn new(server: Arc<Server>, token: String) -> Self {
        Self { server, token }
    }

    /// The key that the code under test uses: it is its world that this handle steers.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The address that the code under test uses.
    pub fn base_url(&self) -> &str {
        &self.server.base_url
    }

    /// Stops the clock: from then on time passes by [`advance`](Self::advance) only.
    pub async fn freeze(&self) -> Result<(), Error> {
        self.run_at(0.0).await
    }

    /// Lets the clock run `rate` times as fast as real time.
    pub async fn run_at(&self, rate: f64) -> Result<(), Error> {
        self.put("clock", &json!({"rate": rate})).await.map(drop)
    }

    /// The clock: `now` in milliseconds since 1970, `iso`, `rate`.
    pub async fn clock(&self) -> Result<Value, Error> {
        self.get("clock").await
    }

    /// Moves the clock forward, in whole milliseconds. Returns when every callback that came due on the way has been
    /// delivered or given up; gives what happened.
    pub async fn advance(&self, by: Duration) -> Result<Vec<Value>, Error> {
        let by = format!("{}ms", by.as_millis());
        self.post("clock/advance", Some(&json!({"by": by}))).await?.list("events")
    }

    /// Moves the clock forward until nothing is left to happen; gives what happened.
    pub async fn advance_until_idle(&self) -> Result<Vec<Value>, Error> {
        self.post("clock/advance", Some(&json!({"until": "idle"}))).await?.list("events")
    }

    /// Pace, seed, latency, failure rate and the like.
    pub async fn settings(&self) -> Result<Value, Error> {
        self.get("settings").await
    }

    /// Changes the settings that `changes` names, for tasks made from then on; gives all.
    pub async fn set_settings(&self, changes: &Value) -> Result<Value, Error> {
        self.put("settings", changes).await
    }

    /// Adds a rule, such as `{"match": {"operation": "veo.*"}, "then": {"outcome": "fail:content_policy"}}`; gives it with
    /// its id.
    pub async fn rule(&self, rule: &Value) -> Result<Value, Error> {
        self.post("rules", Some(rule)).await.map(Answered::whole)
    }

    /// The rules.
    pub async fn rules(&self) -> Result<Vec<Value>, Error> {
        self.control(Method::GET, "rules", None).await?.list("rules")
    }

    /// Removes a rule.
    pub async fn remove_rule(&self, id: &str) -> Result<(), Error> {
        self.control(Method::DELETE, &format!("rules/{id}"), None).await.map(drop)
    }

    /// Removes all rules.
    pub async fn clear_rules(&self) -> Result<(), Error> {
        self.control(Method::DELETE, "rules", None).await.map(drop)
    }

    /// All tasks, oldest first.
    pub async fn tasks(&self) -> Result<Vec<Value>, Error> {
        let mut tasks = Vec::new();
        let mut cursor = json!(0);
        while !cursor.is_null() {
            let page = self.control(Method::GET, &format!("tasks?limit=1000&cursor={cursor}"), None).await?;
            cursor = page.body["next_cursor"].clone();
            tasks.extend(page.list("tasks")?);
        }
        Ok(tasks)
    }

    /// A task: plan, state, price, input, results, attempts to call back.
    pub async fn task(&self, id: &str) -> Result<Value, Error> {
        self.get(&format!("tasks/{id}")).await
    }

    /// Ends a task now, with `success`, `fallback:success` or `fail:<error id>`; gives it.
    pub async fn finish(&self, id: &str, outcome: &str) -> Result<Value, Error> {
        let answered = self.post(&format!("tasks/{id}/finish"), Some(&json!({"outcome": outcome}))).await;
        answered.map(Answered::whole)
    }

    /// The journal: every request and its answer, newest last.
    pub async fn requests(&self) -> Result<Vec<Value>, Error> {
        self.control(Method::GET, "requests", None).await?.list("requests")
    }

    /// Empties the journal.
    pub async fn clear_requests(&self) -> Result<(), Error> {
        self.control(Method::DELETE, "requests", None).await.map(drop)
    }

    /// Requires that the journal has so many requests that match: `1`, or `json!({"min": 1, "max": 3})`.
    /// If it has not, the problem text tells how many there are and the nearest misses.
    pub async fn verify(&self, matching: &Value, count: impl Into<Value>) -> Result<(), Error> {
        let count: Value = count.into();
        self.post("verify", Some(&json!({"match": matching, "count": count}))).await.map(drop)
    }

    /// How the client behaved: `ok` and `findings`.
    pub async fn verdict(&self) -> Result<Value, Error> {
        self.get("verdict").await
    }

    /// Every attempt to deliver a callback.
    pub async fn callbacks(&self) -> Result<Vec<Value>, Error> {
        self.control(Method::GET, "callbacks", None).await?.list("callbacks")
    }

    /// A receiver of callbacks. Its name is made of letters, digits, `-` and `_`.
    pub fn inbox(&self, name: impl Into<String>) -> Inbox {
        let name = name.into();
        let url = format!("{}/_mock/inbox/{}/{name}", self.base_url(), SandboxId::of(&self.token));
        Inbox { sandbox: self.clone(), name, url }
    }

    /// The balance.
    pub async fn credits(&self) -> Result<f64, Error> {
        let answered = self.control(Method::GET, "credits", None).await?;
        answered.body["credits"].as_f64().ok_or_else(|| answered.without("a number in \"credits\""))
    }

    /// Changes the balance.
    pub async fn set_credits(&self, credits: f64) -> Result<(), Error> {
        self.put("credits", &json!({"credits": credits})).await.map(drop)
    }

    /// What a create with that path and body would cost: `credits`, which is null where no price is known, or `refused`.
    pub async fn price(&self, path: &str, body: &Value) -> Result<Value, Error> {
        self.post("price", Some(&json!({"path": path, "body": body}))).await.map(Answered::whole)
    }

    /// The whole sandbox as one document.
    pub async fn snapshot(&self) -> Result<Value, Error> {
        self.get("snapshot").await
    }

    /// Makes the sandbox what it was when `snapshot` was taken.
    pub async fn restore(&self, snapshot: &Value) -> Result<(), Error> {
        self.put("snapshot", snapshot).await.map(drop)
    }

    /// Empties the sandbox. Clock, balance and settings are as at the start: a frozen clock runs again.
    pub async fn reset(&self) -> Result<(), Error> {
        self.post("reset", None).await.map(drop)
    }

    /// Sends any other call with this sandbox's key, be it of the API or of `/_mock`; gives the body of the answer, which
    /// for refusals of the API is that of the refusal, since they come with HTTP 200. An empty body is `null`.
    /// A body that is no JSON is [`Error::Answer`].
    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Error> {
        self.send(method, path, body).await.map(Answered::whole)
    }

    async fn get(&self, what: &str) -> Result<Value, Error> {
        self.control(Method::GET, what, None).await.map(Answered::whole)
    }

    async fn put(&self, what: &str, body: &Value) -> Result<Value, Error> {
        self.control(Method::PUT, what, Some(body)).await.map(Answered::whole)
    }

    async fn post(&self, what: &str, body: Option<&Value>) -> Result<Answered, Error> {
        self.control(Method::POST, what, body).await
    }

    async fn control(&self, method: Method, what: &str, body: Option<&Value>) -> Result<Answered, Error> {
        self.send(method, &format!("/_mock/{what}"), body).await
    }

    /// Asks the data plane itself, on the simulator's thread: whoever calls needs neither socket nor runtime.
    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answered, Error> {
        let call = format!("{method} {path}");
        let host = self.server.base_url.trim_start_matches("http://");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host)
            .header(AUTHORIZATION, format!("Bearer {}", self.token))
            .header(CONTENT_TYPE, "application/json")
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())));
        let request = request.map_err(|source| Error::Request { call: call.clone(), source })?;
        let (tell, told) = oneshot::channel();
        let plane = self.server.plane.clone();
        self.server.thread.spawn(async move {
            let (head, body) = plane.answer(request).await.into_parts();
            let _ = tell.send((head.status, to_bytes(body, usize::MAX).await));
        });
        let Ok((status, body)) = told.await else { return Err(Error::Broken { call }) };
        let body = match body {
            Ok(body) => body,
            Err(error) => {
                return Err(Error::Answer { call, expected: "a whole body", answer: error.to_string() });
            }
        };
        let text = || String::from_utf8_lossy(&body).into_owned();
        if !status.is_success() {
            let problem = serde_json::from_slice(&body).ok().and_then(|problem| problem_text(&problem));
            return Err(Error::Refused { call, status, problem: problem.unwrap_or_else(text) });
        }
        if body.is_empty() {
            return Ok(Answered { call, body: Value::Null });
        }
        match serde_json::from_slice(&body) {
            Ok(body) => Ok(Answered { call, body }),
            Err(_) => Err(Error::Answer { call, expected: "JSON", answer: text() }),
        }
    }
}

/// What a problem document says: its detail, and what it has beside the usual members.
fn problem_text(problem: &Value) -> Option<String> {
    let mut text = problem.get("detail")?.as_str()?.to_owned();
    let usual = |name: &str| matches!(name, "type" | "title" | "status" | "detail");
    for (name, value) in problem.as_object()?.iter().filter(|(name, _)| !usual(name)) {
        let _ = write!(text, "\n  {name}: {value}");
    }
    Some(text)
}

/// An answer, and the call that it answers.
struct Answered {
    call: String,
    body: Value,
}

impl Answered {
    fn whole(self) -> Value {
        self.body
    }

    /// The list that the answer has under `name`.
    fn list(mut self, name: &str) -> Result<Vec<Value>, Error> {
        if let Some(Value::Array(items)) = self.body.get_mut(name) {
            return Ok(std::mem::take(items));
        }
        Err(self.without("a list of what was asked for"))
    }

    /// The answer lacks what was expected.
    fn without(self, expected: &'static str) -> Error {
        Error::Answer { call: self.call, expected, answer: self.body.to_string() }
    }
}

/// A receiver of callbacks in a sandbox.
#[derive(Clone, Debug)]
pub struct Inbox {
    sandbox: Sandbox,
    name: String,
    url: String,
}

#[expect(clippy::missing_errors_doc, reason = "all calls fail alike; the docs of `Sandbox` say how")]
impl Inbox {
    /// What to send as `callBackUrl`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits in real time until `count` callbacks have arrived; gives all that have: `headers`, `body`,
    /// `signature_valid`, `attempt`, `answered`. With a frozen clock, [`Sandbox::advance`] first.
    /// If fewer come within `patience`, which is 600 s at most, that is [`Error::Missing`].
    pub async fn arrivals(&self, count: usize, patience: Duration) -> Result<Vec<Value>, Error> {
        let what = format!("inbox/{}?count={count}&wait={}ms", self.name, patience.as_millis());
        let received = self.sandbox.control(Method::GET, &what, None).await?.list("received")?;
        if received.len() < count {
            let got = received.len();
            return Err(Error::Missing { inbox: self.name.clone(), wanted: count, got, patience });
        }
        Ok(received)
    }

    /// Answers the next arrivals with these statuses, of which the last one repeats, each after `delay`.
    pub async fn program(&self, answers: &[u16], delay: Duration) -> Result<(), Error> {
        let program = json!({"answers": answers, "delay": format!("{}ms", delay.as_millis())});
        self.sandbox.put(&format!("inbox/{}", self.name), &program).await.map(drop)
    }
}
