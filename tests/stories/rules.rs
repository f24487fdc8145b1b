//! Rules: what a test lays down for requests that are still to come.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Answer, Client, World};

async fn lay_down(client: &Client, rule: Value) -> Value {
    client.post("/_mock/rules", &rule).await.expect_status(201).json()
}

async fn veo(client: &Client, prompt: &str) -> Answer {
    client.call("veo.generate", &json!({"prompt": prompt, "aspectRatio": "9:16"})).await
}

/// How the task of `answer` will end.
async fn outcome(client: &Client, answer: &Answer) -> Value {
    client.task(&answer.task_id()).await["plan"]["outcome"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_rule_decides_how_the_requests_that_it_is_about_end() {
    let world = World::standard();
    let (acme, zeta) = (world.client("acme"), world.client("zeta"));
    let rule = lay_down(
        &acme,
        json!({
            "match": {"operation": "veo.*", "model": "veo3*", "prompt": "/storm/i", "body": {"/aspectRatio": "9:16"}},
            "then": {"outcome": "fail:content_policy", "after": "5s"},
        }),
    )
    .await;
    assert_eq!((&rule["id"], &rule["matched"]), (&json!("rule_1"), &json!(0)));
    let stormy = veo(&acme, "a STORM at sea").await;
    let task = acme.task(&stormy.task_id()).await;
    assert_eq!(task["plan"]["outcome"], "fail:content_policy");
    let took = task["plan"]["ends"].as_i64().unwrap() - task["plan"]["created"].as_i64().unwrap();
    assert_eq!(took, 5000);
    assert_eq!(outcome(&acme, &veo(&acme, "a calm").await).await, "success");
    assert_eq!(outcome(&zeta, &veo(&zeta, "a storm").await).await, "success", "the rule is acme's");
    let shown = acme.get("/_mock/rules").await.json();
    assert_eq!(shown["rules"][0]["matched"], 1);
    let near = &shown["rules"][0]["near"][0];
    assert_eq!(near["misses"], json!([r#"prompt: "a calm" has no /storm/"#]));
    let call =
        acme.get(&format!("/_mock/requests?after={}", near["request"].as_u64().unwrap() - 1)).await.json();
    assert_eq!(call["requests"][0]["body"]["prompt"], "a calm");
    assert_eq!(call["requests"][0]["near"][0]["rule"], "rule_1");
}

#[tokio::test(start_paused = true)]
async fn the_header_wins_over_a_rule_a_rule_over_a_directive_and_that_over_chance() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/settings", &json!({"failure_rate": 1})).await.expect_status(200);
    let directed = "x [[mock:fail:timeout]]";
    assert_eq!(outcome(&acme, &veo(&acme, directed).await).await, "fail:timeout");
    assert!(outcome(&acme, &veo(&acme, "x").await).await.as_str().unwrap().starts_with("fail:"));
    lay_down(&acme, json!({"then": {"outcome": "stall"}})).await;
    assert_eq!(outcome(&acme, &veo(&acme, directed).await).await, "stall");
    let wishing = acme.wishing("success");
    assert_eq!(outcome(&acme, &veo(&wishing, directed).await).await, "success");
    // A rule that leaves the end open leaves it to the directive.
    acme.send(http::Method::DELETE, "/_mock/rules", "").await.expect_status(200);
    lay_down(&acme, json!({"then": {"after": "1h"}})).await;
    assert_eq!(outcome(&acme, &veo(&acme, directed).await).await, "fail:timeout");
}

#[tokio::test(start_paused = true)]
async fn rules_count_take_turns_and_have_priorities() {
    let world = World::standard();
    let acme = world.client("acme");
    let general =
        json!({"id": "general", "match": {"operation": "veo.generate"}, "then": {"outcome": "stall"}});
    lay_down(&acme, general).await;
    let turns =
        json!({"then": [{"outcome": "reject:429"}, {"outcome": "reject:500"}, {"after": "9s"}], "times": 4});
    lay_down(&acme, turns).await;
    let mut codes = Vec::new();
    for _ in 0..4 {
        codes.push(veo(&acme, "x").await.json()["code"].clone());
    }
    assert_eq!(codes, [429, 500, 200, 200], "the newest comes first, and its last item stays");
    assert_eq!(outcome(&acme, &veo(&acme, "x").await).await, "stall", "four times are over");
    let low = json!({"id": "low", "priority": -1, "then": {"outcome": "reject:402"}});
    lay_down(&acme, low).await;
    assert_eq!(outcome(&acme, &veo(&acme, "x").await).await, "stall");
    acme.send(http::Method::DELETE, "/_mock/rules/general", "").await.expect_status(200);
    assert_eq!(veo(&acme, "x").await.json()["code"], 402);
    acme.send(http::Method::DELETE, "/_mock/rules/general", "").await.expect_status(404);
}

#[tokio::test(start_paused = true)]
async fn a_chance_is_the_seeds_and_the_same_each_time() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let world = World::standard();
        let acme = world.client("acme");
        lay_down(&acme, json!({"then": {"outcome": "reject:500"}, "chance": 0.3})).await;
        let mut refused = Vec::new();
        for _ in 0..200 {
            refused.push(veo(&acme, "x").await.json()["code"] == 500);
        }
        runs.push(refused);
    }
    assert_eq!(runs[0], runs[1]);
    let share = runs[0].iter().filter(|refused| **refused).count();
    assert!((40..=80).contains(&share), "{share} of 200");
}

#[tokio::test(start_paused = true)]
async fn a_rule_may_answer_word_for_word_and_take_its_time() {
    let world = World::standard();
    let acme = world.client("acme");
    let response =
        json!({"status": 503, "headers": {"retry-after": "7"}, "body": {"code": 503, "msg": "later"}});
    lay_down(
        &acme,
        json!({"match": {"operation": "runway.*"}, "then": {"response": response, "latency": "200ms"}}),
    )
    .await;
    let began = tokio::time::Instant::now();
    let answer = acme.call("runway.generate", &json!({"not": "even valid"})).await.expect_status(503);
    assert_eq!(began.elapsed(), Duration::from_millis(200));
    assert_eq!((answer.header("retry-after"), answer.header("content-type")), ("7", "application/json"));
    assert_eq!(answer.json(), json!({"code": 503, "msg": "later"}));
    assert_eq!(acme.get("/_mock/tasks").await.json()["total"], 0);
    // Questions and chats have rules as well.
    lay_down(&acme, json!({"match": {"operation": "veo.details"}, "then": {"response": {"body": "<html>"}}}))
        .await;
    let answer = acme.call("veo.details", &json!({"taskId": "x"})).await.expect_status(200);
    assert_eq!(
        (answer.text().as_str(), answer.header("content-type")),
        ("<html>", "text/plain; charset=utf-8")
    );
}

#[tokio::test(start_paused = true)]
async fn a_rule_gives_the_result_its_values_in_records_and_callbacks() {
    let world = World::standard();
    let acme = world.client("acme");
    let urls = json!(["https://cdn.example.com/one.mp4"]);
    lay_down(&acme, json!({"then": {"result": {"resultUrls": urls}}})).await;
    let hooked = json!({"prompt": "x", "callBackUrl": "https://app.example.com/hook"});
    let task = acme.call("veo.generate", &hooked).await.task_id();
    let market = json!({"model": "nano-banana-2", "input": {"prompt": "x"}});
    let picture = acme.call("jobs.create", &market).await.task_id();
    let running = acme.call("veo.details", &json!({"taskId": task})).await.json();
    assert!(!running.to_string().contains("cdn.example.com"), "there is none yet");
    acme.until_idle().await;
    let record = acme.call("veo.details", &json!({"taskId": task})).await.json();
    assert_eq!(record["data"]["response"]["resultUrls"], urls);
    let callback = &world.receiver.received()[0].body;
    assert_eq!(callback["data"]["info"]["resultUrls"], urls);
    let record = acme.call("jobs.details", &json!({"taskId": picture})).await.json();
    let result: Value = serde_json::from_str(record["data"]["resultJson"].as_str().unwrap()).unwrap();
    assert_eq!(result, json!({"resultUrls": urls}));
}

#[tokio::test(start_paused = true)]
async fn a_rule_puts_words_and_tools_into_a_models_mouth() {
    let world = World::standard();
    let acme = world.client("acme");
    lay_down(&acme, json!({"match": {"prompt": "weather"}, "then": {"tool": "get_weather"}})).await;
    lay_down(&acme, json!({"match": {"prompt": "/^hello/"}, "then": {"text": "Good day."}})).await;
    let ask = |messages: Value| {
        let tool = json!({"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}});
        json!({"messages": messages, "stream": false, "tools": [tool]})
    };
    let path = "/gpt-5-2/v1/chat/completions";
    let said = acme.post(path, &ask(json!([{"role": "user", "content": "hello there"}]))).await.json();
    assert_eq!(said["choices"][0]["message"]["content"], "Good day.");
    let question = json!({"role": "user", "content": "the weather?"});
    let called = acme.post(path, &ask(json!([question]))).await.json();
    let call = called["choices"][0]["message"].clone();
    assert_eq!(call["tool_calls"][0]["function"]["name"], "get_weather", "{called}");
    let result = json!({"role": "tool", "tool_call_id": call["tool_calls"][0]["id"], "content": "rain"});
    let told = acme.post(path, &ask(json!([question, call, result]))).await.json();
    assert_eq!(told["choices"][0]["finish_reason"], "stop", "the result is answered with text: {told}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_rule_is_refused_with_its_place_and_a_hint() {
    let world = World::standard();
    let acme = world.client("acme");
    let check = async |rule: Value, told: &str| {
        let refused = acme.post("/_mock/rules", &rule).await.expect_status(400);
        let detail = refused.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(told), "{detail}");
    };
    check(json!(5), "a rule is an object").await;
    check(json!({"match": {}}), "then: say what shall happen").await;
    check(json!({"then": {}}), "then: nothing happens; say one of outcome, after").await;
    check(json!({"then": []}), "then: the list is empty").await;
    check(json!({"then": {"outcom": "stall"}}), r#"then.outcom: unknown field "outcom"; there are outcome, after, latency, response, result, text, tool, did you mean "outcome"?"#).await;
    check(json!({"match": {"promt": "x"}, "then": {"outcome": "stall"}}), "match.promt: unknown field").await;
    check(
        json!({"match": {"prompt": "/(/"}, "then": {"outcome": "stall"}}),
        "match.prompt: /(/ is no regular expression",
    )
    .await;
    check(
        json!({"match": {"operation": "veo.[a"}, "then": {"outcome": "stall"}}),
        "match.operation: \"veo.[a\" is no pattern",
    )
    .await;
    check(
        json!({"match": {"operation": "veo.generat"}, "then": {"outcome": "stall"}}),
        r#"match.operation: no operation is called "veo.generat"; the nearest is veo.generate"#,
    )
    .await;
    check(json!({"chance": 1.5, "then": {"outcome": "stall"}}), "chance: 1.5 is not a number above 0").await;
    check(json!({"chance": 0, "then": {"outcome": "stall"}}), "chance: 0 is not").await;
    check(json!({"times": 0, "then": {"outcome": "stall"}}), "times: 0 is not a whole number from 1").await;
    check(json!({"priority": "high", "then": {"outcome": "stall"}}), "priority: \"high\" is not").await;
    check(json!({"then": {"outcome": "explode"}}), "then.outcome: unknown outcome \"explode\"").await;
    check(
        json!({"match": {"operation": "runway.*"}, "then": {"outcome": "fail:no_such"}}),
        "then.outcome: fail:no_such: no such error for these operations; there are ",
    )
    .await;
    check(
        json!({"match": {"operation": "veo.*"}, "then": {"text": "hi"}}),
        "then.outcome: text and tool are for chats",
    )
    .await;
    check(
        json!({"then": [{"outcome": "stall"}, {"after": "soon"}]}),
        "then.1.after: \"soon\" is not a duration",
    )
    .await;
    check(json!({"then": {"latency": "2h"}}), "then.latency: \"2h\" is not").await;
    check(json!({"then": {"response": {"status": 99}}}), "then.response.status: 99 is not").await;
    check(json!({"then": {"response": {"code": 5}}}), "then.response.code: unknown field").await;
    check(json!({"then": {"response": {}, "outcome": "stall"}}), "then: a response is the whole answer")
        .await;
    check(
        json!({"then": {"outcome": "fault:fire"}}),
        "then.outcome: unknown fault \"fire\"; there are reset",
    )
    .await;
    check(json!({"id": "a b", "then": {"outcome": "stall"}}), "id: \"a b\" is not").await;
    check(json!([{"then": {"outcome": "stall"}}, {"then": 1}]), "1.then: 1 is no object").await;
    assert_eq!(acme.get("/_mock/rules").await.json()["rules"], json!([]), "none was taken in");
}
