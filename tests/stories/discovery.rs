//! What the API tells of its own models and prices.

use serde_json::json;

use crate::support::{CATALOGUE, World};

#[tokio::test(start_paused = true)]
async fn the_list_of_models_is_the_catalogue_s_and_can_be_filtered() {
    let world = World::standard();
    let acme = world.client("acme");
    let list = |query: &str| {
        let (acme, path) = (acme.clone(), format!("/api/v1/models{query}"));
        async move { acme.get(&path).await.expect_code(200).json()["data"].clone() }
    };
    let all = list("").await;
    assert_eq!(all["total"], CATALOGUE.models().count());
    let row = all["models"].as_array().unwrap().iter().find(|row| row["model"] == "google/nano-banana");
    assert_eq!(
        row.unwrap(),
        &json!({
            "model": "google/nano-banana",
            "slug": "google-nano-banana",
            "title": row.unwrap()["title"],
            "provider": "Google",
            "taskType": ["text-to-image"],
            "description": null,
            "pricingDesc": row.unwrap()["pricingDesc"],
        })
    );
    let kling = list("?provider=kling&taskType=image-to-video,audio-to-video").await;
    assert!(kling["total"].as_u64().unwrap() > 0);
    for row in kling["models"].as_array().unwrap() {
        assert_eq!(row["provider"], "Kling");
        assert!(row["taskType"].as_array().unwrap().contains(&json!("image-to-video")), "{row}");
    }
    assert_eq!(list("?q=no-such-thing").await, json!({"total": 0, "models": []}));
}

#[tokio::test(start_paused = true)]
async fn one_model_is_asked_for_with_its_slashes_in_the_path() {
    let world = World::standard();
    let acme = world.client("acme");
    let price = acme.get("/api/v1/models/google/nano-banana/price").await.expect_code(200).json();
    assert_eq!(price["data"]["model"], "google/nano-banana");
    assert!(price["data"]["pricingDesc"].as_str().unwrap().contains("credits per"), "{price}");
    let schema = acme.get("/api/v1/models/google/nano-banana/schema").await.expect_code(200).json();
    let body = "/data/openapi/paths/~1api~1v1~1jobs~1createTask/post/requestBody/content/application~1json";
    let body = schema.pointer(body).unwrap_or_else(|| panic!("{schema}"));
    assert_eq!(body["schema"]["properties"]["model"]["const"], "google/nano-banana");
    assert_eq!(body["schema"]["properties"]["input"]["required"], json!(["prompt"]));
    acme.post("/api/v1/jobs/createTask", &body["examples"]["usual"]["value"]).await.expect_code(200);
    let encoded = acme.get("/api/v1/models/google%2Fnano-banana/price").await.json();
    assert_eq!(encoded, price);
    let unknown = "The model name you specified is not supported. Please verify your input and use one of the \
                   supported models provided by KIE.";
    for what in ["schema", "price", "success-rate"] {
        acme.get(&format!("/api/v1/models/no/such/{what}")).await.expect_refusal(404, unknown);
    }
    acme.post("/api/v1/models/google/nano-banana/price", &json!({})).await.expect_status(405);
    acme.get("/api/v1/models/google/nano-banana").await.expect_status(404);
    let rates = acme.get("/api/v1/models/google/nano-banana/success-rate").await.expect_code(200).json();
    let points = rates["data"]["points"].as_array().unwrap();
    assert_eq!(points.len(), 144);
    assert_eq!(points[0]["end"], points[1]["start"]);
    assert!(points.iter().all(|point| point["successRate"].as_f64().unwrap() <= 100.0));
}

#[tokio::test(start_paused = true)]
async fn the_price_list_needs_no_key_and_comes_in_pages() {
    let world = World::standard();
    let anybody = world.stranger();
    let path = "/client/v1/model-pricing/page";
    let page = |number: u64| {
        let anybody = anybody.clone();
        let body = json!({"pageNum": number, "pageSize": 7, "interfaceType": "image"});
        async move { anybody.post(path, &body).await.expect_code(200).json()["data"].clone() }
    };
    let first = page(1).await;
    let (total, pages) = (first["total"].as_u64().unwrap(), first["pages"].as_u64().unwrap());
    assert_eq!(pages, total.div_ceil(7));
    let mut seen = 0;
    for number in 1..=pages {
        let records = page(number).await["records"].as_array().unwrap().clone();
        assert!(records.iter().all(|record| record["interfaceType"] == "image"));
        seen += records.len() as u64;
    }
    assert_eq!(seen, total);
    assert_eq!(page(pages + 1).await["records"], json!([]));
    let counts = anybody.get("/client/v1/model-pricing/count").await.expect_code(200).json()["data"].clone();
    assert_eq!(counts["image"], total);
    let sum = |kinds: [&str; 4]| kinds.iter().map(|kind| counts[kind].as_u64().unwrap()).sum::<u64>();
    assert_eq!(counts["all"], sum(["image", "video", "music", "chat"]));
    anybody.post(path, &json!({"pageNum": 0, "pageSize": 7})).await.expect_code(422);
    anybody.get("/api/v1/models").await.expect_code(401);
}
