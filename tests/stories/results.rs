//! Result files: of the asked form, size and length, served as a file server would.

use bytes::Bytes;
use serde_json::{Value, json};

use crate::support::{Client, World};

/// Creates a task, lets it end, fetches what its record calls a result.
async fn fetch(client: &Client, operation: &str, request: &Value, pointer: &str) -> Vec<Bytes> {
    let created = client.call(operation, request).await;
    let id =
        created.json()["data"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text())).to_owned();
    client.until_idle().await;
    let family = operation.split('.').next().unwrap();
    let record = client.call(&format!("{family}.details"), &json!({"taskId": id})).await.json();
    let mut results = record.pointer(pointer).unwrap_or_else(|| panic!("{record}")).clone();
    if let Some(encoded) = results.as_str().filter(|text| text.starts_with('{')) {
        results = serde_json::from_str::<Value>(encoded).unwrap()["resultUrls"].clone();
    }
    let urls = results.as_array().cloned().unwrap_or_else(|| vec![results]);
    let mut files = Vec::new();
    for url in urls {
        let path = url.as_str().unwrap().strip_prefix("http://kie.test").unwrap().to_owned();
        files.push(client.get(&path).await.expect_status(200).raw);
    }
    files
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Where a box's content begins.
fn find_box(file: &[u8], name: [u8; 4]) -> usize {
    file.windows(4).position(|window| *window == name).unwrap_or_else(|| panic!("no {name:?}")) + 4
}

/// The length of an MP4 in whole seconds, from its movie header.
pub(crate) fn mp4_seconds(file: &[u8]) -> u32 {
    let mvhd = find_box(file, *b"mvhd");
    assert_eq!(file[mvhd], 0, "version 0");
    be32(file, mvhd + 16) / be32(file, mvhd + 12)
}

/// Width and height of an MP4's first track.
pub(crate) fn mp4_size(file: &[u8]) -> (u32, u32) {
    let tkhd = find_box(file, *b"tkhd");
    (be32(file, tkhd + 76) >> 16, be32(file, tkhd + 80) >> 16)
}

fn png_size(file: &[u8]) -> (u32, u32) {
    assert_eq!(&file[1..4], b"PNG");
    (be32(file, 16), be32(file, 20))
}

fn jpeg_size(file: &[u8]) -> (u32, u32) {
    assert_eq!(file[..2], [0xff, 0xd8]);
    let at = file.windows(2).position(|pair| matches!(pair, [0xff, 0xc0..=0xc2])).unwrap();
    let short = |at: usize| u32::from(u16::from_be_bytes([file[at], file[at + 1]]));
    (short(at + 7), short(at + 5))
}

#[tokio::test(start_paused = true)]
async fn videos_have_the_asked_shape_and_length() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/credits", &json!({"credits": 100_000})).await;
    let runway = |aspect: &str, duration: Value, quality: &str| json!({"prompt": "x", "duration": duration, "quality": quality, "aspectRatio": aspect});
    let info = "/data/videoInfo/videoUrl";
    let veo = "/data/response/resultUrls";
    for (operation, request, pointer, size, seconds) in [
        ("runway.generate", runway("16:9", json!(5), "720p"), info, (1280, 720), 5),
        ("runway.generate", runway("9:16", json!("10"), "720p"), info, (720, 1280), 10),
        ("runway.generate", runway("1:1", json!(5), "1080p"), info, (1080, 1080), 5),
        ("runway.generate", runway("4:3", json!(5), "720p"), info, (960, 720), 5),
        (
            "aleph.generate",
            json!({"prompt": "x", "videoUrl": "https://a.example/v.mp4", "aspectRatio": "21:9"}),
            "/data/response/resultVideoUrl",
            (1680, 720),
            5,
        ),
        ("veo.generate", json!({"prompt": "x"}), veo, (1280, 720), 8),
        (
            "veo.generate",
            json!({"prompt": "x", "aspectRatio": "9:16", "resolution": "4k", "duration": 4}),
            veo,
            (2160, 3840),
            4,
        ),
        (
            "jobs.create",
            json!({"model": "kling-2.6/text-to-video", "input": {"prompt": "x", "sound": true, "aspect_ratio": "9:16", "duration": "10"}}),
            "/data/resultJson",
            (1080, 1920),
            10,
        ),
    ] {
        let files = fetch(&acme, operation, &request, pointer).await;
        assert_eq!(files.len(), 1);
        assert_eq!((mp4_size(&files[0]), mp4_seconds(&files[0])), (size, seconds), "{operation} {request}");
    }
}

#[tokio::test(start_paused = true)]
async fn images_have_the_asked_size_format_and_number() {
    let world = World::standard();
    let acme = world.client("acme");
    let market = |model: &str, input: Value| json!({"model": model, "input": input});
    let square = fetch(
        &acme,
        "gpt4o-image.generate",
        &json!({"prompt": "x", "size": "3:2", "nVariants": 4}),
        "/data/response/resultUrls",
    )
    .await;
    assert_eq!(square.iter().map(|file| png_size(file)).collect::<Vec<_>>(), vec![(1536, 1024); 4]);
    let request = market(
        "nano-banana-2",
        json!({"prompt": "x", "aspect_ratio": "16:9", "resolution": "1K", "output_format": "jpg"}),
    );
    let files = fetch(&acme, "jobs.create", &request, "/data/resultJson").await;
    let (width, height) = jpeg_size(&files[0]);
    assert!((f64::from(width) / f64::from(height) - 16.0 / 9.0).abs() < 0.02, "{width}x{height}");
    let request = market(
        "bytedance/seedream-v4-text-to-image",
        json!({"prompt": "x", "max_images": 3, "image_resolution": "2K"}),
    );
    let files = fetch(&acme, "jobs.create", &request, "/data/resultJson").await;
    assert_eq!(files.iter().map(|file| png_size(file)).collect::<Vec<_>>(), vec![(2048, 2048); 3]);
    let request = market(
        "seedream/5-pro-layer-decomposition",
        json!({"image_url": "https://a.example/p.png", "size": "1K"}),
    );
    let files = fetch(&acme, "jobs.create", &request, "/data/resultJson").await;
    assert_eq!((jpeg_size(&files[0]), png_size(&files[1])), ((1024, 1024), (768, 128)));
}

#[tokio::test(start_paused = true)]
async fn results_are_there_after_success_and_go_after_two_weeks() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let request = json!({"prompt": "x", "duration": 5, "quality": "720p", "aspectRatio": "16:9"});
    let id = acme.call("runway.generate", &request).await.task_id();
    acme.until_idle().await;
    let record = acme.call("runway.details", &json!({"taskId": id})).await.json();
    let url = record["data"]["videoInfo"]["videoUrl"].as_str().unwrap().to_owned();
    let path = url.strip_prefix("http://kie.test").unwrap().to_owned();
    let whole = world.stranger().get(&path).await.expect_status(200);
    assert_eq!(whole.header("content-type"), "video/mp4");
    assert_eq!(whole.header("content-length"), whole.raw.len().to_string());
    let part = world.stranger().with("range", "bytes=4-11").get(&path).await.expect_status(206);
    assert_eq!(part.raw, whole.raw.slice(4..12));
    let head =
        world.stranger().send(http::Method::HEAD, &path, axum::body::Body::empty()).await.expect_status(200);
    assert_eq!((head.raw.len(), head.header("etag")), (0, whole.header("etag")));
    let same =
        world.stranger().with("if-none-match", whole.header("etag")).get(&path).await.expect_status(304);
    assert_eq!(same.raw.len(), 0);
    world.stranger().get(&path.replace("_media/", "_media/0")).await.expect_status(404);
    acme.advance("15d").await;
    world.stranger().get(&path).await.expect_status(404);
    let record = acme.call("runway.details", &json!({"taskId": id})).await.json();
    assert_eq!((&record["data"]["expireFlag"], &record["data"]["state"]), (&json!(1), &json!("success")));
}

#[tokio::test(start_paused = true)]
async fn a_download_link_works_for_twenty_minutes() {
    let world = World::standard();
    let (acme, zeta) = (world.client("acme"), world.client("zeta"));
    acme.freeze().await;
    let id = acme.call("gpt4o-image.generate", &json!({"prompt": "x", "size": "1:1"})).await.task_id();
    acme.until_idle().await;
    let record = acme.call("gpt4o-image.details", &json!({"taskId": id})).await.json();
    let url = record["data"]["response"]["resultUrls"][0].clone();
    zeta.call("common.download-url", &json!({"url": url})).await.expect_refusal(422, "url is wrong");
    for link in [
        acme.call("common.download-url", &json!({"url": url})).await.expect_code(200).json()["data"].clone(),
        acme.call("gpt4o-image.download-url", &json!({"taskId": id, "url": url}))
            .await
            .expect_code(200)
            .json()["data"]
            .clone(),
    ] {
        let path = link.as_str().unwrap().strip_prefix("http://kie.test").unwrap().to_owned();
        world.stranger().get(&path).await.expect_status(200);
        world.stranger().get(&path.replace("Expires=1200", "Expires=9999")).await.expect_status(403);
    }
    let link = acme.call("common.download-url", &json!({"url": url})).await.json()["data"]
        .as_str()
        .unwrap()
        .to_owned();
    acme.advance("21m").await;
    world.stranger().get(link.strip_prefix("http://kie.test").unwrap()).await.expect_status(403);
}

#[tokio::test(start_paused = true)]
async fn a_file_may_be_kept_for_a_shorter_time_than_its_family() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.freeze().await;
    let request = json!({"prompt": "x", "outputFormat": "png", "aspectRatio": "1:1"});
    let id = acme.call("flux-kontext.generate", &request).await.task_id();
    acme.until_idle().await;
    let record = acme.call("flux-kontext.details", &json!({"taskId": id})).await.json();
    let path = |name: &str| {
        let url = record["data"]["response"][name].as_str().unwrap();
        url.strip_prefix("http://kie.test").unwrap().to_owned()
    };
    let (origin, image) = (path("originImageUrl"), path("resultImageUrl"));
    assert_eq!(png_size(&acme.get(&image).await.expect_status(200).raw), (1024, 1024));
    acme.get(&origin).await.expect_status(200);
    acme.advance("11m").await;
    acme.get(&origin).await.expect_status(404);
    acme.get(&image).await.expect_status(200);
}

/// The work was done: its result is there and is paid for, though the record calls the task failed.
#[tokio::test(start_paused = true)]
async fn a_failure_after_the_work_keeps_the_result() {
    let world = World::standard();
    let acme = world.client("acme");
    let request = json!({"prompt": "x", "videoUrl": "https://example.com/in.mp4"});
    let id = acme.wishing("fail:callback_failed").call("luma.generate", &request).await.task_id();
    acme.until_idle().await;
    let record = acme.call("luma.details", &json!({"taskId": id})).await.json();
    assert_eq!(record["data"]["successFlag"], 4);
    let url = record["data"]["response"]["resultUrls"][0].as_str().unwrap().to_owned();
    acme.get(url.strip_prefix("http://kie.test").unwrap()).await.expect_status(200);
    let id = acme.wishing("fail:modify_failed").call("luma.generate", &request).await.task_id();
    acme.until_idle().await;
    assert_eq!(acme.task(&id).await["results"], json!([]));
}
