//! Files that clients bring: what they are called, how they come back, when they go, what is refused.

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::Method;
use serde_json::{Value, json};

use crate::support::{Answer, BOUNDARY, Client, Part, World, form};

const BASE64: &str = "/api/file-base64-upload";
const STREAM: &str = "/api/file-stream-upload";
const URL: &str = "/api/file-url-upload";

/// `data` of an upload that was taken.
#[track_caller]
fn taken(answer: &Answer) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["success"], &body["code"]), (200, &json!(true), &json!(200)), "{body}");
    body["data"].clone()
}

/// The answer must be this host's refusal.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: u16, message: &str) {
    let expected = json!({"success": false, "code": code, "msg": message}).to_string();
    assert_eq!((answer.status, answer.text()), (status, expected));
    assert_eq!(answer.header("content-type"), "application/json");
}

/// Uploads `text` to `notes/<name>`.
async fn upload(client: &Client, name: &str, text: &[u8]) -> Value {
    let file = Part::File("file", "whatever.txt", Some("text/plain"), text);
    let parts = [file, Part::Field("uploadPath", "notes"), Part::Field("fileName", name)];
    taken(&client.send_form(STREAM, &parts).await)
}

/// The path of a URL of ours.
fn path(url: &Value) -> &str {
    url.as_str().unwrap().strip_prefix("http://kie.test").unwrap_or_else(|| panic!("{url} leads elsewhere"))
}

async fn fetch(client: &Client, upload: &Value) -> Answer {
    client.get(path(&upload["downloadUrl"])).await
}

#[tokio::test(start_paused = true)]
async fn a_file_comes_back_byte_for_byte_however_it_was_brought() {
    let world = World::standard();
    let client = world.client("acme");
    let bytes: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
    let by_text = json!({"base64Data": base64, "uploadPath": "in", "fileName": "a.bin"});
    let by_text = taken(&client.post(BASE64, &by_text).await);
    let parts = [Part::Field("uploadPath", "in"), Part::File("file", "b.mp3", Some("audio/mpeg"), &bytes)];
    let by_form = taken(&client.send_form(STREAM, &parts).await);
    let by_url = json!({"fileUrl": by_form["downloadUrl"], "uploadPath": "in", "fileName": "c.mp3"});
    let by_url = taken(&client.post(URL, &by_url).await);
    for (upload, kind) in
        [(by_text, "application/octet-stream"), (by_form, "audio/mpeg"), (by_url, "audio/mpeg")]
    {
        assert_eq!((&upload["fileSize"], &upload["mimeType"]), (&json!(5000), &json!(kind)), "{upload}");
        let file = fetch(&world.stranger(), &upload).await.expect_status(200);
        assert_eq!((&file.raw[..], file.header("content-type")), (&bytes[..], kind), "{upload}");
        assert_eq!(file.header("content-length"), "5000");
    }
    assert_eq!(world.files_on_disk().len(), 3);
}

/// Base64 made a file of 8 MB a body above the bound on JSON.
#[tokio::test(start_paused = true)]
async fn a_file_in_base64_may_be_as_large_as_a_json_body() {
    let client = World::standard().client("acme");
    let file = |bytes: usize| {
        let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, vec![7; bytes]);
        json!({"base64Data": text, "uploadPath": "in", "fileName": "a.bin"})
    };
    let most = 64 * 1024; // what this world takes
    assert_eq!(taken(&client.post(BASE64, &file(most)).await)["fileSize"], most);
    client.post(BASE64, &file(most + 8 * 1024)).await.expect_status(413);
}

#[tokio::test(start_paused = true)]
async fn the_answer_says_where_the_file_is() {
    let world = World::standard();
    let client = world.client("acme");
    let request =
        json!({"base64Data": "SGVsbG8gV29ybGQ=", "uploadPath": "documents/mine", "fileName": "test.txt"});
    let answer = client.post(BASE64, &request).await;
    let data = taken(&answer);
    let keys: Vec<_> = data.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        ["success", "fileName", "filePath", "downloadUrl", "fileSize", "mimeType", "uploadedAt"]
    );
    let (account, rest) = data["filePath"].as_str().unwrap()["kieai/".len()..].split_once('/').unwrap();
    assert!(
        account.len() == 6 && account.parse::<u32>().is_ok() && rest == "documents/mine/test.txt",
        "{data}"
    );
    assert!(data["downloadUrl"].as_str().unwrap().ends_with(data["filePath"].as_str().unwrap()), "{data}");
    assert_eq!((&data["fileSize"], &data["uploadedAt"]), (&json!(11), &json!("2026-08-06T06:57:57.123Z")));
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    let other = taken(&world.client("other").post(BASE64, &request).await);
    assert_ne!(other["filePath"], data["filePath"], "another key is another account");
    assert!(world.metrics_page().contains(r#"operation="file-upload.base64",status="200""#));
    assert!(world.metrics_page().contains(r#"code="200""#), "the code stands behind the verdict");
}

#[tokio::test(start_paused = true)]
async fn names_and_types_go_by_what_the_client_says() {
    let world = World::standard();
    let client = world.client("acme");
    let name = |data: &Value| data["fileName"].as_str().unwrap().to_owned();
    for (data, name_wanted, kind, end) in [
        ("iVBORw0KGgo=", None, "application/octet-stream", ".bin"),
        ("data:image/jpeg;base64,iVBORw0KGgo=", None, "image/jpeg", ".jpg"),
        ("data:image/jpeg;base64,iVBORw0KGgo=", Some("x.png"), "image/jpeg", "x.png"),
        ("iVBORw0KGgo=", Some("x.webp"), "image/webp", "x.webp"),
        ("iVBORw0KGgo=", Some("x"), "application/octet-stream", "x"),
        ("iVBORw0KGgo=", Some(""), "application/octet-stream", ".bin"),
    ] {
        let request = json!({"base64Data": data, "uploadPath": "x", "fileName": name_wanted});
        let made = taken(&client.post(BASE64, &request).await);
        assert_eq!(made["mimeType"], kind, "{request}");
        assert!(name(&made).ends_with(end), "{request}: {made}");
        assert_eq!(name(&made).starts_with("uploaded-"), name_wanted.is_none_or(str::is_empty), "{made}");
    }
    for (file_name, kind, mime, end) in [
        ("photo.final.JPG", Some("image/jpeg"), "image/jpeg", ".JPG"),
        ("photo.png", None, "image/png", ".png"),
        ("photo", Some("image/webp; q=1"), "image/webp", ".webp"),
        ("noise.xyz", Some("no type"), "application/octet-stream", ".xyz"),
        ("noise.xyz", None, "application/octet-stream", ".xyz"),
    ] {
        let parts = [Part::File("file", file_name, kind, b"x"), Part::Field("uploadPath", "x")];
        let made = taken(&client.send_form(STREAM, &parts).await);
        assert_eq!(made["mimeType"], mime, "{made}");
        assert!(name(&made).ends_with(end) && !name(&made).contains("photo"), "{made}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_name_leads_out_of_its_place() {
    let world = World::standard();
    let client = world.client("acme");
    for (folder, name) in [
        ("a", "../../../etc/passwd"),
        ("../../..", "x.png"),
        ("a/./b", "..\\..\\x.png"),
        ("a", "50% & more? #1 \u{e4}\u{f6} \u{1f600}.png"),
        ("mit Leerzeichen/\u{4f60}", "x\u{0}y\r\n.png"),
        ("a", "."),
    ] {
        let request = json!({"base64Data": "QQ==", "uploadPath": folder, "fileName": name});
        let made = taken(&client.post(BASE64, &request).await);
        let stored = made["filePath"].as_str().unwrap();
        let inside = stored.split('/').all(|part| !["", ".", ".."].contains(&part) && !part.contains('\\'));
        assert!(inside, "{stored}");
        assert_eq!(fetch(&client, &made).await.expect_status(200).text(), "A", "{made}");
        let parts = [Part::File("file", name, None, b"B"), Part::Field("uploadPath", "b")];
        let sent = client.send_form(STREAM, &parts).await;
        if name.contains(['\r', '\u{0}']) {
            refused(&sent, 200, 400, "Invalid form data");
        } else {
            assert_eq!(fetch(&client, &taken(&sent)).await.text(), "B");
        }
    }
    let is_random = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    for file in world.files_on_disk() {
        assert!(is_random(file.file_name().unwrap().to_str().unwrap()), "{}", file.display());
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_name_overwrites() {
    let world = World::standard();
    let client = world.client("acme");
    let first = upload(&client, "a.txt", b"old").await;
    let before = fetch(&client, &first).await;
    let second = upload(&client, "a.txt", b"newer").await;
    assert_eq!(first["downloadUrl"], second["downloadUrl"]);
    let after = fetch(&client, &second).await;
    assert_eq!((before.text(), after.text()), ("old".into(), "newer".into()));
    assert_ne!(before.header("etag"), after.header("etag"));
    world.until_on_disk(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_file_is_served_as_file_servers_do() {
    let world = World::standard();
    let client = world.client("acme");
    let file = upload(&client, "a.txt", b"0123456789").await;
    let url = path(&file["downloadUrl"]).to_owned();
    let whole = client.get(&url).await.expect_status(200);
    let etag = whole.header("etag").to_owned();
    let head = client.send(Method::HEAD, &url, "").await.expect_status(200);
    assert_eq!((head.header("content-length"), head.header("etag"), head.raw.len()), ("10", &*etag, 0));
    let part = client.with("range", "bytes=2-4").get(&url).await.expect_status(206);
    assert_eq!((part.text(), part.header("content-range")), ("234".into(), "bytes 2-4/10"));
    client.with("range", "bytes=10-").get(&url).await.expect_status(416);
    client.with("if-none-match", &etag).get(&url).await.expect_status(304);
    client.send(Method::DELETE, &url, "").await.expect_status(405);
    client.get(&format!("{url}x")).await.expect_status(404);
    client.get(&url.replace("a.txt", "%ff")).await.expect_status(404);
    let empty = upload(&client, "empty.txt", b"").await;
    assert_eq!(empty["fileSize"], 0);
    assert_eq!(fetch(&client, &empty).await.expect_status(200).raw.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn after_24_hours_of_the_sandbox_a_file_is_gone() {
    let world = World::standard();
    let client = world.client("acme");
    let file = upload(&client, "a.txt", b"x").await;
    client.advance("23h59m").await;
    let later = upload(&client, "later.txt", b"y").await;
    fetch(&client, &file).await.expect_status(200);
    let happened = client.until_idle().await;
    assert!(happened.is_empty(), "an upload is nothing to wait for: {happened:?}");
    fetch(&client, &file).await.expect_status(200);
    client.advance("1m").await;
    fetch(&client, &file).await.expect_status(404);
    world.until_on_disk(1).await;
    fetch(&client, &later).await.expect_status(200);
    // Nobody asks any more, and yet it goes.
    tokio::time::sleep(std::time::Duration::from_hours(24)).await;
    world.until_on_disk(0).await;
}

#[tokio::test(start_paused = true)]
async fn reset_removes_the_files_of_its_own_sandbox_only() {
    let world = World::standard();
    let (mine, other) = (world.client("mine"), world.client("other"));
    let file = upload(&mine, "a.txt", b"x").await;
    let kept = upload(&other, "a.txt", b"y").await;
    mine.post("/_mock/reset", &json!({})).await.expect_status(200);
    fetch(&mine, &file).await.expect_status(404);
    world.until_on_disk(1).await;
    assert_eq!(fetch(&other, &kept).await.expect_status(200).text(), "y");
}

#[tokio::test(start_paused = true)]
async fn refusals_are_worded_as_this_host_does() {
    let world = World::standard();
    let (client, stranger) = (world.client("acme"), world.stranger());
    let good = json!({"base64Data": "QQ==", "uploadPath": "x"});
    let unauthorized = "Authentication failed: Invalid API Key";
    refused(&stranger.post(BASE64, &good).await, 200, 401, unauthorized);
    let parts = [Part::File("file", "a.txt", None, b"x"), Part::Field("uploadPath", "x")];
    refused(&stranger.send_form(STREAM, &parts).await, 200, 401, unauthorized);
    refused(&world.client("invalid-key").post(BASE64, &good).await, 200, 401, unauthorized);
    refused(&client.get(BASE64).await, 200, 405, "Method not allowed");
    let no_json = "Format Error - The parameter is not in a valid JSON format";
    refused(&client.send(Method::POST, BASE64, "{").await, 200, 400, no_json);
    refused(&client.send(Method::POST, URL, "[1]").await, 200, 400, no_json);
    let decoding = "Base64 decoding failed: Invalid Base64 format";
    for data in ["QQ", "Q Q==", "QQ==\n", "QR==", "_-8=", "data:image/png,QQ==", "data:image/png;base64,?"] {
        refused(
            &client.post(BASE64, &json!({"base64Data": data, "uploadPath": "x"})).await,
            200,
            400,
            decoding,
        );
    }
    for (url, message) in [
        (json!(null), "Missing required parameter: fileUrl (file download URL)"),
        (json!(""), "Missing required parameter: fileUrl (file download URL)"),
        (json!("ftp://example.com/x.png"), "Invalid parameter: fileUrl"),
        (json!(5), "Invalid parameter: fileUrl"),
    ] {
        refused(&client.post(URL, &json!({"fileUrl": url, "uploadPath": "x"})).await, 200, 400, message);
    }
    for (folder, message) in [
        ("", "Missing required parameter: uploadPath"),
        ("/images", "Invalid parameter: uploadPath"),
        ("images/", "Invalid parameter: uploadPath"),
        (&"x".repeat(1025), "Invalid parameter: uploadPath"),
    ] {
        let parts = [Part::File("file", "a.txt", None, b"x"), Part::Field("uploadPath", folder)];
        refused(&client.send_form(STREAM, &parts).await, 200, 400, message);
    }
    world.until_on_disk(0).await;
}

#[tokio::test(start_paused = true)]
async fn the_code_is_the_status_where_that_is_asked_for() {
    let world = World::standard();
    let client = world.client("acme");
    client.put("/_mock/settings", &json!({"http_status": "real"})).await.expect_status(200);
    let answer = client.post(BASE64, &json!({"uploadPath": "x"})).await;
    refused(&answer, 400, 400, "Missing required parameter: base64Data");
    client.post(BASE64, &json!({"base64Data": "QQ==", "uploadPath": "x"})).await.expect_status(200);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_form_is_refused_and_leaves_nothing() {
    let world = World::standard();
    let client = world.client("acme");
    let parts = [Part::File("file", "a.txt", None, b"hello"), Part::Field("uploadPath", "x")];
    let whole = form(&parts);
    let half = whole[..whole.len() - 10].to_vec();
    for (kind, body) in [
        ("application/json", br#"{"uploadPath": "x"}"#.to_vec()),
        ("multipart/form-data", whole.clone()),
        ("multipart/form-data; boundary=other", whole.clone()),
        (&format!("multipart/form-data; boundary={BOUNDARY}"), half),
        (&format!("multipart/form-data; boundary={BOUNDARY}"), Vec::new()),
    ] {
        let answer = client.with("content-type", kind).send(Method::POST, STREAM, body).await;
        refused(&answer, 200, 400, "Invalid form data");
    }
    world.until_on_disk(0).await;
}

#[tokio::test(start_paused = true)]
async fn outcomes_can_be_asked_for() {
    let world = World::standard();
    let client = world.client("acme");
    let good = json!({"base64Data": "QQ==", "uploadPath": "x"});
    refused(&client.wishing("reject:500").post(BASE64, &good).await, 200, 500, "Internal server error");
    refused(
        &client.wishing("reject:bad_base64").post(BASE64, &good).await,
        200,
        400,
        "Base64 decoding failed: Invalid Base64 format",
    );
    client.wishing("http:503").post(BASE64, &good).await.expect_status(503);
    let parts = |name| {
        [Part::File("file", "a", None, b"x"), Part::Field("uploadPath", "x"), Part::Field("fileName", name)]
    };
    let answer = client.send_form(STREAM, &parts("[[mock:reject:429]].png")).await;
    refused(&answer, 200, 429, "Too many requests");
    let answer = client.wishing("reject:content_policy").send_form(STREAM, &parts("a.png")).await;
    assert!(answer.expect_status(400).text().contains("no such error for file-upload.stream"));
    world.until_on_disk(0).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_fetched_and_yet_a_file_of_that_kind_is_there() {
    let world = World::standard();
    let client = world.client("acme");
    let by_url = async |request: Value| {
        let made = taken(&client.post(URL, &request).await);
        let file = fetch(&client, &made).await.expect_status(200);
        assert_eq!(
            (made["fileSize"].as_u64().unwrap(), &made["mimeType"]),
            (file.raw.len() as u64, &json!(file.header("content-type")))
        );
        (made["fileName"].as_str().unwrap().to_owned(), file)
    };
    for (url, kind, start) in [
        ("https://example.com/a/cat.jpg?size=large", "image/jpeg", &b"\xff\xd8\xff"[..]),
        ("HTTPS://example.com/cat.PNG", "image/png", b"\x89PNG"),
        ("http://example.com/film.mp4#t=1", "video/mp4", b"\0\0\0"),
        ("https://example.com/paper.pdf", "application/pdf", b"%PDF"),
        ("https://example.com/words.txt", "text/plain", b"A placeholder"),
        ("https://example.com/200", "application/octet-stream", b"A placeholder"),
    ] {
        let (name, file) = by_url(json!({"fileUrl": url, "uploadPath": "x"})).await;
        assert_eq!(file.header("content-type"), kind, "{url}");
        assert!(file.raw.starts_with(start), "{url}");
        let extension = std::path::Path::new(&name).extension().unwrap();
        assert!(extension.eq_ignore_ascii_case("bin") || url.contains(extension.to_str().unwrap()), "{name}");
    }
    let named = json!({"fileUrl": "https://example.com/a.jpg", "uploadPath": "x", "fileName": "b.png"});
    let (_, file) = by_url(named).await;
    assert_eq!((file.header("content-type"), &file.raw[..4]), ("image/png", &b"\x89PNG"[..]));
}

#[tokio::test(start_paused = true)]
async fn our_own_urls_are_followed() {
    let world = World::standard();
    let client = world.client("acme");
    let create = json!({"model": "nano-banana-2", "input": {"prompt": "a banana"}});
    let task = client.call("jobs.create", &create).await.task_id();
    client.until_idle().await;
    let url = client.task(&task).await["results"][0].clone();
    let result = client.get(path(&url)).await.expect_status(200);
    let copied = taken(&client.post(URL, &json!({"fileUrl": url, "uploadPath": "x"})).await);
    assert_eq!(fetch(&client, &copied).await.raw, result.raw);
    assert_eq!(copied["mimeType"], result.header("content-type"));
    // Another sandbox may take it, too: whoever knows the address can have the file.
    let theirs = json!({"fileUrl": copied["downloadUrl"], "uploadPath": "y"});
    let theirs = taken(&world.client("other").post(URL, &theirs).await);
    client.post("/_mock/reset", &json!({})).await.expect_status(200);
    assert_eq!(fetch(&client, &theirs).await.raw, result.raw);
    let gone = client.post(URL, &json!({"fileUrl": copied["downloadUrl"], "uploadPath": "z"})).await;
    refused(&gone, 200, 500, "Internal server error");
}

#[tokio::test(start_paused = true)]
async fn an_uploaded_file_can_have_a_download_link_and_go_into_a_create() {
    let world = World::standard();
    let client = world.client("acme");
    let file = upload(&client, "a cat.png", b"x").await;
    let link =
        client.call("common.download-url", &json!({"url": file["downloadUrl"]})).await.expect_code(200);
    let link = link.json()["data"].clone();
    assert_eq!(client.get(path(&link)).await.expect_status(200).text(), "x");
    client.advance("21m").await;
    client.get(path(&link)).await.expect_status(403);
    fetch(&client, &file).await.expect_status(200);
    let foreign =
        world.client("other").call("common.download-url", &json!({"url": file["downloadUrl"]})).await;
    foreign.expect_refusal(422, "url is wrong");
    let create = json!({"prompt": "x", "imageUrl": file["downloadUrl"], "duration": 5, "quality": "720p"});
    client.call("runway.generate", &create).await.expect_code(200).task_id();
}

#[tokio::test(start_paused = true)]
async fn without_room_an_upload_is_refused_until_there_is_some() {
    let world = World::build().room(300_000, 200_000).start();
    let (client, other) = (world.client("acme"), world.client("other"));
    let large = vec![b'x'; 150_000];
    let parts = [Part::File("file", "a.txt", None, &large), Part::Field("uploadPath", "x")];
    taken(&client.send_form(STREAM, &parts).await);
    for full in [&client, &other] {
        let answer = full.send_form(STREAM, &parts).await;
        refused(&answer, 200, 500, "Internal server error");
        assert_eq!(answer.header("x-kiegate-error"), "upload_space");
    }
    client.post("/_mock/reset", &json!({})).await.expect_status(200);
    taken(&other.send_form(STREAM, &parts).await);
    world.until_on_disk(1).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_refused_in_this_hosts_form() {
    let world = World::standard();
    let client = world.client("acme");
    let too_large = |answer: &Answer| {
        assert_eq!((answer.status, answer.header("x-kiegate-error")), (413, "body_too_large"));
        let body = answer.json();
        let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((keys, &body["code"]), (vec!["success", "code", "msg"], &json!(413)));
    };
    let file = vec![b'x'; 2 * 1024 * 1024];
    let parts = [Part::File("file", "a.txt", None, &file), Part::Field("uploadPath", "x")];
    too_large(&client.send_form(STREAM, &parts).await);
    // Without a length that tells it beforehand.
    let whole = Bytes::from(form(&parts));
    let pieces: Vec<_> =
        (0..whole.len()).step_by(10_000).map(|at| whole.slice(at..whole.len().min(at + 10_000))).collect();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let body = Body::from_stream(stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)));
    too_large(&client.with("content-type", &kind).send(Method::POST, STREAM, body).await);
    // JSON has the smaller bound of JSON.
    let base64 = json!({"base64Data": "A".repeat(120_000), "uploadPath": "x"});
    too_large(&client.post(BASE64, &base64).await);
    world.until_on_disk(0).await;
}

#[tokio::test(start_paused = true)]
async fn half_a_file_is_not_kept() {
    let world = World::standard();
    let client = world.client("acme");
    let file = vec![b'x'; 100_000];
    let whole = form(&[Part::Field("uploadPath", "x"), Part::File("file", "a.txt", None, &file)]);
    let half = Bytes::copy_from_slice(&whole[..50_000]);
    let gone = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let body = Body::from_stream(stream::iter([Ok(half.clone()), Err(gone)]));
    let answer = client.with("content-type", &kind).send(Method::POST, STREAM, body).await;
    assert_eq!((answer.status, answer.header("x-kiegate-error")), (400, "body_malformed"));
    // One that stops coming is given up.
    let stalled = stream::iter([Ok::<_, std::io::Error>(half)]);
    let body = Body::from_stream(futures_util::StreamExt::chain(stalled, stream::pending()));
    let answer = client.with("content-type", &kind).send(Method::POST, STREAM, body).await;
    assert_eq!((answer.status, answer.header("x-kiegate-error")), (408, "body_timeout"));
    world.until_on_disk(0).await;
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_makes_up_the_same_names() {
    let make = async || {
        let world = World::standard();
        let client = world.client("acme");
        client.freeze().await;
        let request = json!({"base64Data": "QQ==", "uploadPath": "x"});
        let one = taken(&client.post(BASE64, &request).await)["fileName"].clone();
        let two = taken(&client.post(BASE64, &request).await)["fileName"].clone();
        assert_ne!(one, two);
        (one, two)
    };
    assert_eq!(make().await, make().await);
}
