//! Market videos whose size, length, files or price depend on more than one field of the request.

use serde_json::{Value, json};

use crate::results::{mp4_seconds, mp4_size};
use crate::support::{Client, World};

/// Creates a task of `model`, lets it end, and gives its id and what its `resultJson` tells.
async fn run(client: &Client, model: &str, input: Value) -> (String, Value) {
    let created = client.call("jobs.create", &json!({"model": model, "input": input})).await;
    let id = created.expect_code(200).task_id();
    client.until_idle().await;
    let record = client.call("jobs.details", &json!({"taskId": id})).await.json();
    let result = record["data"]["resultJson"].as_str().unwrap_or_else(|| panic!("{record}"));
    (id, serde_json::from_str(result).unwrap_or_else(|error| panic!("{model}: {error}: {record}")))
}

/// Width, height and seconds of the video at the first of `urls`.
async fn measure(client: &Client, urls: &Value) -> (u32, u32, u32) {
    let path = urls[0].as_str().unwrap().strip_prefix("http://kie.test").unwrap();
    let video = client.get(path).await.expect_status(200).raw;
    let (width, height) = mp4_size(&video);
    (width, height, mp4_seconds(&video))
}

async fn price(client: &Client, model: &str, input: Value) -> Value {
    let body = json!({"path": "/api/v1/jobs/createTask", "body": {"model": model, "input": input}});
    client.post("/_mock/price", &body).await.json()["credits"].clone()
}

#[tokio::test(start_paused = true)]
async fn a_picture_that_moves_keeps_its_shape_and_several_take_the_asked_one() {
    let world = World::standard();
    let acme = world.client("acme");
    let model = "grok-imagine/image-to-video";
    let (picture, _) = run(&acme, "google/nano-banana", json!({"prompt": "x", "aspect_ratio": "9:16"})).await;
    let (_, moving) =
        run(&acme, model, json!({"task_id": picture, "resolution": "720p", "duration": 7})).await;
    assert_eq!(measure(&acme, &moving["resultUrls"]).await, (720, 1280, 7));
    let pictures = ["https://example.com/1.png", "https://example.com/2.png"];
    for (given, size) in [(&pictures[..1], (854, 480, 6)), (&pictures[..], (480, 720, 6))] {
        let (_, moving) = run(&acme, model, json!({"image_urls": given, "aspect_ratio": "2:3"})).await;
        assert_eq!(measure(&acme, &moving["resultUrls"]).await, size);
    }
    let both = json!({"model": model, "input": {"task_id": picture, "image_urls": pictures}});
    let text = "The request parameters are incorrect, please check the parameters.";
    acme.call("jobs.create", &both).await.expect_refusal(500, text);
}

#[tokio::test(start_paused = true)]
async fn an_extended_clip_lasts_as_long_as_both_parts_and_needs_a_clip() {
    let world = World::standard();
    let acme = world.client("acme");
    let clip = json!({"prompt": "x", "duration": "8", "aspect_ratio": "3:2"});
    let (clip, _) = run(&acme, "grok-imagine/text-to-video", clip).await;
    let extend = |id: &str| json!({"task_id": id, "prompt": "on", "extend_at": 2, "extend_times": "10"});
    let (_, longer) = run(&acme, "grok-imagine/extend", extend(&clip)).await;
    assert_eq!(measure(&acme, &longer["resultUrls"]).await, (720, 480, 18));
    let (picture, _) = run(&acme, "google/nano-banana", json!({"prompt": "x"})).await;
    for id in [&picture, "0123456789abcdef0123456789abcdef"] {
        let request = json!({"model": "grok-imagine/extend", "input": extend(id)});
        let refused = acme.call("jobs.create", &request).await.expect_status(200).json();
        assert_eq!(refused["code"], 500, "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_outermost_frames_are_there_for_those_who_ask() {
    let world = World::standard();
    let acme = world.client("acme");
    let input = |frames: bool| json!({"prompt": "a lake", "resolution": "480p", "return_last_frame": frames});
    let model = "bytedance/seedance-2";
    let (_, with) = run(&acme, model, input(true)).await;
    for pictures in ["firstFrameUrl", "lastFrameUrl"] {
        let path = with[pictures][0].as_str().unwrap().strip_prefix("http://kie.test").unwrap();
        acme.get(path).await.expect_status(200);
    }
    let (id, without) = run(&acme, model, input(false)).await;
    assert_eq!(without.as_object().unwrap().keys().collect::<Vec<_>>(), ["resultUrls"]);
    let task = acme.get(&format!("/_mock/tasks/{id}")).await.json();
    assert!(!task.to_string().contains("last_frame.png"), "{task}");
}

#[tokio::test(start_paused = true)]
async fn clips_in_the_request_and_sound_by_default_make_the_price() {
    let world = World::standard();
    let acme = world.client("acme");
    let seedance = |more: Value| {
        let mut input = json!({"prompt": "a lake", "resolution": "1080p", "duration": 10});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        price(&acme, "bytedance/seedance-2-5", input)
    };
    assert_eq!(seedance(json!({})).await, 1580.0);
    assert_eq!(seedance(json!({"reference_video_urls": []})).await, 1580.0);
    let clip = ["https://example.com/a.mp4"];
    assert_eq!(seedance(json!({"reference_video_urls": clip})).await, 950.0);
    assert_eq!(seedance(json!({"duration": -1})).await, 790.0, "a length left to the model counts as 5 s");
    let shots = |sound: Value| {
        let shot = json!([{"prompt": "a", "duration": 3}, {"prompt": "b", "duration": 3}]);
        let input = json!({"multi_shots": true, "multi_prompt": shot, "sound": sound, "mode": "std",
            "duration": "6", "aspect_ratio": "16:9"});
        let mut input = input.as_object().unwrap().clone();
        input.retain(|_, value| !value.is_null());
        price(&acme, "kling-3.0/video", input.into())
    };
    assert_eq!(shots(Value::Null).await, 120.0, "several shots have sound unless it is switched off");
    assert_eq!(shots(json!(false)).await, 84.0);
    let unknown = json!({"prompt": "x", "resolution": "1080p"});
    assert_eq!(price(&acme, "grok-imagine/text-to-video", unknown).await, Value::Null);
}

#[tokio::test(start_paused = true)]
async fn subjects_of_pictures_and_clips_are_counted_apart() {
    let world = World::standard();
    let acme = world.client("acme");
    acme.put("/_mock/credits", &json!({"credits": 100_000})).await;
    let picture = "https://example.com/a.png";
    let subject = |urls: &[&str]| json!({"name": "n", "description": "d", "element_input_urls": urls});
    let clips = |count| vec![subject(&["https://example.com/a.mp4"]); count];
    let pictures = |count| vec![subject(&[picture, picture]); count];
    let part = |start: u32, end: u32| {
        let urls = ["https://example.com/a.mp4"];
        json!({"name": "n", "description": "d", "element_input_urls": urls, "start_time": start, "end_time": end})
    };
    for (images, elements, fits) in [
        (5, pictures(2), true),
        (6, pictures(2), false),
        (4, clips(3), true),
        (1, clips(4), false),
        (3, [clips(1), pictures(1)].concat(), true),
        (4, [clips(1), pictures(1)].concat(), false),
        (1, vec![subject(&[picture])], false),
        (1, vec![subject(&[picture, "https://example.com/a.mp4"])], false),
        (1, [pictures(1), vec![part(1000, 9000)]].concat(), true),
        (1, [pictures(1), vec![part(1000, 9001)]].concat(), false),
        (1, vec![part(1000, 3999)], false),
    ] {
        let input = json!({"prompt": "x", "image_urls": vec![picture; images], "elements": elements});
        let request = json!({"model": "kling-3.0-omni/reference-to-video", "input": input});
        let code = acme.call("jobs.create", &request).await.json()["code"].clone();
        assert_eq!(code == 200, fits, "{code} {request}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_character_comes_of_a_clip() {
    let world = World::standard();
    let acme = world.client("acme");
    let (clip, _) = run(&acme, "sora-2-text-to-video", json!({"prompt": "x", "upload_method": "s3"})).await;
    let input = json!({"origin_task_id": clip, "timestamps": "1,3", "character_user_name": "robot",
        "character_prompt": "kind"});
    let (_, character) = run(&acme, "sora-2-characters-pro", input).await;
    let id = character["character_id"].as_str().unwrap();
    let digits = id.strip_prefix("robot_").unwrap_or_else(|| panic!("{id}"));
    assert!(digits.len() == 9 && digits.bytes().all(|digit| digit.is_ascii_digit()), "{id}");
}
