//! Picture models of the Market that go on from other tasks, or make as many files as the request says.

use serde_json::{Value, json};

use crate::results::{jpeg_size, mp4_seconds, mp4_size, png_size};
use crate::support::{Answer, Client, World};

async fn ask(client: &Client, model: &str, input: Value) -> Answer {
    client.call("jobs.create", &json!({"model": model, "input": input})).await
}

/// Creates a task, lets it end well, and gives its id with what `resultJson` holds.
async fn made(client: &Client, model: &str, input: Value) -> (String, Value) {
    let id = ask(client, model, input).await.task_id();
    client.until_idle().await;
    let record = client.call("jobs.details", &json!({"taskId": id})).await.json();
    let result = record["data"]["resultJson"].as_str().unwrap_or_else(|| panic!("{record}"));
    (id, serde_json::from_str(result).unwrap_or_else(|error| panic!("{error}: {record}")))
}

async fn file(client: &Client, url: &Value) -> bytes::Bytes {
    let path = url.as_str().unwrap().strip_prefix("http://kie.test").unwrap();
    client.get(path).await.expect_status(200).raw
}

#[tokio::test(start_paused = true)]
async fn a_segment_edit_goes_on_from_a_picture_or_from_its_map() {
    let world = World::standard();
    let acme = world.client("acme");
    let model = |name: &str| format!("grok-imagine-image-2-0/{name}");
    let from_text = json!({"prompt": "a cat", "aspect_ratio": "2:3"});
    let (picture, result) = made(&acme, &model("text-to-image"), from_text).await;
    let size = jpeg_size(&file(&acme, &result["resultUrls"][0]).await);
    assert!(size.0 < size.1, "{size:?}");

    let (map, result) = made(&acme, &model("segment-map"), json!({"task_id": picture})).await;
    assert_eq!(result["resultUrls"], Value::Null);
    let segments = result["resultObject"]["segments"].as_array().unwrap();
    assert_eq!(result["resultObject"]["segments_count"], segments.len());
    for (index, segment) in segments.iter().enumerate() {
        assert_eq!(segment["index"], index);
        assert_eq!(png_size(&file(&acme, &segment["maskUrl"]).await), size);
    }

    for base in [&picture, &map] {
        let edit = json!({"prompt": "blue", "task_id": base, "mask_indexs": [1]});
        let (_, result) = made(&acme, &model("segment-edit"), edit).await;
        assert_eq!(jpeg_size(&file(&acme, &result["resultUrls"][0]).await), size);
    }

    let refused = "This task_id is not valid or its task has not succeeded";
    let strange = json!({"prompt": "blue", "task_id": "nobody-made-it"});
    ask(&acme, &model("segment-edit"), strange).await.expect_refusal(500, refused);
    let other = json!({"prompt": "x", "sound": false, "aspect_ratio": "1:1", "duration": "5"});
    let (video, _) = made(&acme, "kling-2.6/text-to-video", other).await;
    let edit = json!({"prompt": "blue", "task_id": video});
    ask(&acme, &model("segment-edit"), edit).await.expect_refusal(500, refused);
}

#[tokio::test(start_paused = true)]
async fn an_upscale_is_of_the_kind_and_length_of_what_it_enlarges() {
    let world = World::standard();
    let acme = world.client("acme");
    let upscale = "grok-imagine/upscale";
    let request = json!({"prompt": "x", "sound": false, "aspect_ratio": "16:9", "duration": "10"});
    let (video, _) = made(&acme, "kling-2.6/text-to-video", request).await;
    for (resolution, size) in [("720p", (1280, 720)), ("1080p", (1920, 1080))] {
        let (_, result) = made(&acme, upscale, json!({"task_id": video, "resolution": resolution})).await;
        let file = file(&acme, &result["resultUrls"][0]).await;
        assert_eq!((mp4_size(&file), mp4_seconds(&file)), (size, 10));
    }
    let request = json!({"prompt": "x", "aspect_ratio": "1:1"});
    let (picture, _) = made(&acme, "grok-imagine/text-to-image", request).await;
    let (_, result) = made(&acme, upscale, json!({"task_id": picture})).await;
    assert_eq!(jpeg_size(&file(&acme, &result["resultUrls"][0]).await), (2048, 2048));
}

#[tokio::test(start_paused = true)]
async fn as_many_pictures_are_made_and_charged_as_the_request_says() {
    let world = World::standard();
    let acme = world.client("acme");
    let (wan, grok) = ("wan/2-7-image", "grok-imagine/text-to-image");
    for (model, input, count, price) in [
        (wan, json!({"prompt": "x", "n": 2}), 2, 9.6),
        (wan, json!({"prompt": "x"}), 4, 19.2),
        (wan, json!({"prompt": "x", "enable_sequential": true}), 12, 57.6),
        (grok, json!({"prompt": "x", "aspect_ratio": "1:1"}), 6, 4.0),
        (grok, json!({"prompt": "x", "aspect_ratio": "1:1", "enable_pro": true}), 4, 5.0),
    ] {
        let before = acme.credits().await;
        let (_, result) = made(&acme, model, input.clone()).await;
        assert_eq!(result["resultUrls"].as_array().map(Vec::len), Some(count), "{model} {input}");
        assert!((before - acme.credits().await - price).abs() < 0.001, "{model} {input}");
    }
    let boxes = json!({"prompt": "x", "input_urls": ["https://a.example/1.png"], "bbox_list": [[], []]});
    ask(&acme, wan, boxes).await.expect_code(500);
}
