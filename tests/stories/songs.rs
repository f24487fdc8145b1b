//! What is made of what a Market model has made: tracks by their own ids, phrases and voices by their tasks.

use serde_json::{Value, json};

use crate::support::{Answer, Client, World};

async fn create(client: &Client, model: &str, input: Value) -> Answer {
    let model = format!("ai-music-api/{model}");
    client.call("jobs.create", &json!({"model": model, "input": input})).await
}

/// The task's result, once it has ended well.
async fn result_of(client: &Client, id: &str) -> Value {
    client.until_idle().await;
    let record = client.call("jobs.details", &json!({"taskId": id})).await.json();
    assert_eq!(record["data"]["state"], "success", "{record}");
    serde_json::from_str(record["data"]["resultJson"].as_str().unwrap()).unwrap()
}

/// A song's task and its two tracks.
async fn song(client: &Client) -> (String, Value) {
    let input = json!({
        "custom_mode": true, "instrumental": false, "model": "V6",
        "style": "folk", "title": "The Last Ferry", "lyrics": "[Verse]\nThe gulls are loud",
    });
    let id = create(client, "generate", input).await.task_id();
    let tracks = result_of(client, &id).await["data"].clone();
    (id, tracks)
}

#[tokio::test(start_paused = true)]
async fn stems_are_as_long_as_the_track_that_they_are_made_of() {
    let world = World::standard();
    let acme = world.client("acme");
    let (id, tracks) = song(&acme).await;
    assert_ne!(tracks[0]["duration"], tracks[1]["duration"]);
    for track in tracks.as_array().unwrap() {
        let stems = create(&acme, "separate-vocals", json!({"task_id": id, "audio_id": track["id"]})).await;
        let stems = result_of(&acme, &stems.task_id()).await;
        let lengths: Vec<_> = stems["resultObject"]["originData"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stem| stem["duration"].clone())
            .collect();
        assert_eq!(lengths, [track["duration"].clone(), track["duration"].clone()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_song_goes_on_from_within_its_track() {
    let world = World::standard();
    let acme = world.client("acme");
    let wrong = "The request parameters are incorrect, please check the parameters.";
    let (id, tracks) = song(&acme).await;
    for track in tracks.as_array().unwrap() {
        let length = track["duration"].as_f64().unwrap();
        let extend = |at: f64| {
            json!({
                "default_param_flag": true, "audio_id": track["id"], "prompt": "softer", "style": "folk",
                "title": "The Ferry", "continue_at": at, "model": "V6",
            })
        };
        create(&acme, "extend", extend(length - 0.01)).await.expect_code(200);
        create(&acme, "extend", extend(length)).await.expect_refusal(422, wrong);
        let section = |seconds: f64| {
            json!({
                "task_id": id, "audio_id": track["id"], "prompt": "a trumpet", "tags": "jazz",
                "title": "The Ferry", "infill_start_s": 1, "infill_end_s": 1.0 + seconds, "full_lyrics": "la",
            })
        };
        create(&acme, "replace-section", section(length / 2.0 - 0.1)).await.expect_code(200);
        create(&acme, "replace-section", section(length / 2.0 + 0.1)).await.expect_refusal(422, wrong);
    }
}

#[tokio::test(start_paused = true)]
async fn a_track_must_be_one_of_its_task() {
    let world = World::standard();
    let acme = world.client("acme");
    let (first, tracks) = song(&acme).await;
    let (second, _) = song(&acme).await;
    let words = |task: &str| json!({"task_id": task, "audio_id": tracks[0]["id"]});
    let told = create(&acme, "timeStamped-lyrics", words(&first)).await.expect_code(200).json();
    let heard: Vec<_> =
        told["data"]["alignedWords"].as_array().unwrap().iter().map(|word| &word["word"]).collect();
    assert_eq!(heard, ["[Verse]", " The", " gulls", " are", " loud"]);
    let stranger = create(&acme, "timeStamped-lyrics", words(&second)).await;
    stranger.expect_refusal(422, "The corresponding record does not exist");
}

#[tokio::test(start_paused = true)]
async fn only_a_phrase_becomes_a_voice_and_only_a_failed_one_is_made_again() {
    let world = World::standard();
    let acme = world.client("acme");
    let singer = json!({
        "voice_url": "https://example.com/singer.mp3", "vocal_start_s": 0, "vocal_end_s": 12, "language": "de",
    });
    let voice_of = |task: &str| json!({"task_id": task, "verify_url": "https://example.com/phrase.mp3"});
    let (song, _) = song(&acme).await;
    let refused = create(&acme, "create-voice", voice_of(&song)).await;
    refused.expect_refusal(422, "Validate record not found");

    let phrase = create(&acme, "validation-phrase", singer.clone()).await.task_id();
    acme.until_idle().await;
    let again = create(&acme, "regenerate-phrase", json!({"task_id": phrase})).await;
    again.expect_code(422);
    let voice = create(&acme, "create-voice", voice_of(&phrase)).await.task_id();
    assert!(result_of(&acme, &voice).await["resultObject"]["voiceId"].is_string());

    let failing = acme.wishing("fail:phrase_failed");
    let failed = create(&failing, "validation-phrase", singer).await.task_id();
    acme.until_idle().await;
    let again = create(&acme, "regenerate-phrase", json!({"task_id": failed})).await.task_id();
    assert!(result_of(&acme, &again).await["resultObject"]["validateInfo"].is_string());
}
