//! What a sandbox remembers of its client, and what it makes of it.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::support::{Client, World};

async fn veo(client: &Client, prompt: &str) -> String {
    client.call("veo.generate", &json!({"prompt": prompt})).await.task_id()
}

async fn verdict(client: &Client) -> Vec<(String, String)> {
    let shown = client.get("/_mock/verdict").await.expect_status(200).json();
    let findings = shown["findings"].as_array().unwrap().clone();
    assert_eq!(shown["ok"], findings.is_empty());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    findings.iter().map(|finding| (text(&finding["check"]), text(&finding["message"]))).collect()
}

fn names(findings: &[(String, String)]) -> Vec<&str> {
    findings.iter().map(|(check, _)| check.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn every_call_is_written_down_with_its_answer_and_without_its_key() {
    let world = World::standard();
    let acme = world.client("acme-secret-token");
    let task = veo(&acme.with("x-team", "video"), "a storm").await;
    acme.call("veo.details", &json!({"taskId": task})).await.expect_code(200);
    acme.get("/api/v1/no/such/path").await.expect_status(404);
    let shown = acme.get("/_mock/requests").await.expect_status(200);
    assert!(!shown.text().contains("acme-secret-token"));
    let shown = shown.json();
    let calls = shown["requests"].as_array().unwrap();
    assert_eq!((calls.len(), &shown["total"], &shown["dropped"]), (3, &json!(3), &json!(0)));
    assert_eq!(
        (&calls[0]["id"], &calls[0]["operation"], &calls[0]["model"]),
        (&json!(1), &json!("veo.generate"), &json!("veo3_fast"))
    );
    assert_eq!(
        (&calls[0]["body"]["prompt"], &calls[0]["headers"]["x-team"]),
        (&json!("a storm"), &json!("video"))
    );
    assert_eq!(calls[0]["answer"]["body"]["data"]["taskId"], task.as_str());
    assert_eq!(
        (&calls[1]["query"], &calls[1]["answer"]["status"]),
        (&json!(format!("taskId={task}")), &json!(200))
    );
    assert_eq!((&calls[2]["operation"], &calls[2]["answer"]["status"]), (&Value::Null, &json!(404)));
    // Filters, as in a rule.
    let count = async |query: &str| {
        acme.get(&format!("/_mock/requests?{query}")).await.expect_status(200).json()["total"].clone()
    };
    assert_eq!(count("operation=veo.*").await, 2);
    assert_eq!(count("prompt=storm&model=veo3*").await, 1);
    assert_eq!(count("match=%7B%22header%22%3A%7B%22x-team%22%3A%22video%22%7D%7D").await, 1);
    assert_eq!(count("after=2").await, 1);
    let last = acme.get("/_mock/requests?last=1").await.json();
    assert_eq!(last["requests"][0]["id"], 3);
    acme.get("/_mock/requests?prompt=%2F(%2F").await.expect_status(400);
    acme.send(Method::DELETE, "/_mock/requests", "").await.expect_status(200);
    veo(&acme, "again").await;
    assert_eq!(acme.get("/_mock/requests").await.json()["requests"][0]["id"], 4, "numbers go on");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_written_down_as_it_was_sent() {
    let world = World::standard();
    let acme = world.client("acme");
    let request = json!({"messages": [{"role": "user", "content": "hi"}], "stream": true});
    let sent = acme.post("/gpt-5-2/v1/chat/completions", &request).await.expect_status(200);
    let shown = acme.get("/_mock/requests").await.json();
    assert_eq!(shown["requests"][0]["answer"]["body"], sent.text());
    assert_eq!(shown["requests"][0]["answer"]["complete"], true);
}

#[tokio::test(start_paused = true)]
async fn verifying_counts_and_tells_what_came_near() {
    let world = World::standard();
    let acme = world.client("acme");
    veo(&acme, "a storm").await;
    veo(&acme, "a calm").await;
    let verify = async |body: Value| acme.post("/_mock/verify", &body).await;
    let stormy = json!({"operation": "veo.generate", "prompt": "storm"});
    let good = verify(json!({"match": stormy})).await.expect_status(200).json();
    assert_eq!(good, json!({"ok": true, "count": 1, "requests": [1]}));
    verify(json!({"match": stormy, "count": {"min": 1, "max": 3}})).await.expect_status(200);
    verify(json!({"match": {"prompt": "hail"}, "count": 0})).await.expect_status(200);
    let bad = verify(json!({"match": {"operation": "veo.*", "prompt": "hail"}, "count": 1}))
        .await
        .expect_status(422)
        .json();
    assert_eq!(
        (&bad["ok"], &bad["count"], &bad["expected"]),
        (&json!(false), &json!(0), &json!("exactly 1"))
    );
    assert_eq!(bad["nearest"][0]["misses"], json!([r#"prompt: "a calm" has no "hail""#]));
    let many =
        verify(json!({"match": {"operation": "veo.*"}, "count": {"max": 1}})).await.expect_status(422).json();
    assert_eq!((&many["count"], &many["requests"]), (&json!(2), &json!([1, 2])));
    for wrong in [
        json!({}),
        json!({"match": {}}),
        json!({"match": {"x": 1}}),
        json!({"match": stormy, "count": -1}),
        json!({"match": stormy, "count": {"min": 3, "max": 1}}),
    ] {
        verify(wrong).await.expect_status(400);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_behaves_has_no_findings() {
    let world = World::standard();
    let acme = world.client("acme");
    let hooked = json!({"prompt": "x", "callBackUrl": "https://app.example.com/hook"});
    let task = acme.wishing("callback:duplicate").call("veo.generate", &hooked).await.task_id();
    acme.until_idle().await;
    let record = acme.call("veo.details", &json!({"taskId": task})).await.json();
    let url = record["data"]["response"]["resultUrls"][0].as_str().unwrap().to_owned();
    acme.get(url.strip_prefix("http://kie.test").unwrap()).await.expect_status(200);
    assert_eq!(verdict(&acme).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_misbehaves_is_told_how() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let task = veo(&acme, "x").await;
    let poll = async || acme.call("veo.details", &json!({"taskId": task})).await.expect_code(200);
    poll().await;
    acme.advance("1s").await;
    poll().await;
    assert_eq!(verdict(&acme).await, [], "a second by the sandbox's clock is enough");
    tokio::time::sleep(Duration::from_secs(1)).await;
    poll().await;
    assert_eq!(verdict(&acme).await, [], "or one in reality");
    poll().await;
    let findings = verdict(&acme).await;
    assert_eq!(names(&findings), ["polled_too_fast"]);
    assert!(findings[0].1.contains(&task), "{findings:?}");
    acme.put("/_mock/settings", &json!({"min_poll": "0ms"})).await.expect_status(200);
    // The answer is lost, and the create sent again.
    let create = json!({"prompt": "lost"});
    acme.wishing("http:504").call("veo.generate", &create).await.expect_status(504);
    acme.call("veo.generate", &create).await.expect_code(200);
    acme.wishing("reject:429").call("veo.generate", &json!({"prompt": "y"})).await.expect_code(429);
    acme.call("veo.generate", &json!({"prompt": "z"})).await.expect_code(200);
    assert_eq!(names(&verdict(&acme).await), ["resubmitted", "ignored_429"]);
    // A receiver that does not take the same callback twice, and one that dawdles.
    let hooked =
        |name: &str| json!({"prompt": name, "callBackUrl": format!("https://app.example.com/{name}")});
    world.receiver.answers(&[200, 500]);
    acme.wishing("callback:duplicate")
        .with("x-mock-delay", "1ms")
        .call("veo.generate", &hooked("twice"))
        .await
        .expect_code(200);
    acme.advance("1ms").await;
    world.receiver.is_slow("late", Duration::from_secs(6));
    acme.with("x-mock-delay", "1ms").call("veo.generate", &hooked("late")).await.expect_code(200);
    acme.until_idle().await;
    let findings = verdict(&acme).await;
    let kinds = names(&findings);
    assert!(kinds.contains(&"broke_on_duplicate") && kinds.contains(&"never_fetched"), "{kinds:?}");
    assert!(
        findings
            .iter()
            .any(|(check, told)| check == "callback_answered_badly" && told.contains("only after 6s")),
        "{findings:?}"
    );
    let ignoring = acme.get("/_mock/verdict?ignore=never_fetched,ignored_429").await.json();
    assert!(!ignoring["findings"].to_string().contains("never_fetched"));
    let report = acme.get("/_mock/verdict?format=junit").await.expect_status(200);
    assert_eq!(report.header("content-type"), "application/xml; charset=utf-8");
    assert!(report.text().contains(r#"tests="6" failures="5""#), "{}", report.text());
    acme.get("/_mock/verdict?ignore=nothing").await.expect_status(400);
}

#[tokio::test(start_paused = true)]
async fn a_programmed_inbox_is_not_held_against_the_client() {
    let world = World::standard();
    let acme = world.client("acme");
    let url = acme.get("/_mock/inbox").await.json()["url"].as_str().unwrap().to_owned();
    acme.put("/_mock/inbox/a", &json!({"answers": [500, 200]})).await.expect_status(200);
    let hooked = json!({"prompt": "x", "callBackUrl": format!("{url}/a")});
    acme.call("veo.generate", &hooked).await.expect_code(200);
    acme.until_idle().await;
    assert_eq!(names(&verdict(&acme).await), ["never_fetched"]);
}

#[tokio::test(start_paused = true)]
async fn the_journal_is_bounded_and_says_what_it_dropped() {
    let world = World::standard();
    let acme = world.client("acme");
    let padded = json!({"prompt": "x".repeat(900), "pad": "y".repeat(50_000)});
    for _ in 0..1600 {
        acme.call("veo.generate", &padded).await.expect_code(200);
        acme.put("/_mock/credits", &json!({"credits": 10_000})).await.expect_status(200);
    }
    let shown = acme.get("/_mock/requests?last=1").await.json();
    assert_eq!(shown["requests"][0]["id"], 1600);
    let (total, dropped) = (shown["total"].as_u64().unwrap(), shown["dropped"].as_u64().unwrap());
    assert_eq!(total + dropped, 1600);
    assert!((1380..1500).contains(&total), "{total} calls of 51 KB in 72 MiB");
    acme.put("/_mock/settings", &json!({"journal": 2})).await.expect_status(200);
    let shown = acme.get("/_mock/requests").await.json();
    assert_eq!(
        (&shown["total"], &shown["dropped"], &shown["requests"][0]["id"]),
        (&json!(2), &json!(1598), &json!(1599))
    );
    acme.put("/_mock/settings", &json!({"journal": 0})).await.expect_status(200);
    acme.call("veo.generate", &json!({"prompt": "x"})).await.expect_code(200);
    assert_eq!(acme.get("/_mock/requests").await.json()["total"], 0);
}
