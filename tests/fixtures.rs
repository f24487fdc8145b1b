//! Every file of the catalogue is sound, and what breaks one is told with its place.

use std::fs;

use kiegate::catalogue::{Catalogue, Problem, Resolved, Source};

fn problems(source: &Source) -> String {
    let lines =
        |problems: Vec<Problem>| problems.iter().map(|problem| format!("{problem}\n")).collect::<String>();
    match Catalogue::load(source) {
        Err(problems) => lines(problems),
        Ok(catalogue) => catalogue.check_deeply().err().map(lines).unwrap_or_default(),
    }
}

fn text(name: &str) -> String {
    fs::read_to_string(format!("fixtures/{name}")).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn the_embedded_catalogue_has_no_problems() {
    assert_eq!(problems(&Source::embedded()), "");
}

#[test]
fn every_operation_is_found_by_its_method_and_path() {
    let catalogue = Catalogue::embedded().unwrap();
    for (index, operation) in catalogue.operations() {
        assert_eq!(
            catalogue.resolve(&operation.method, &operation.path),
            Resolved::Operation(index),
            "{}",
            operation.id
        );
        assert_eq!(catalogue.operation_by_id(&operation.id), Some(index));
    }
    assert_eq!(catalogue.resolve(&http::Method::GET, "/nope"), Resolved::Unknown);
}

#[test]
fn every_model_has_a_duration_a_source_and_an_example_that_fits() {
    let catalogue = Catalogue::embedded().unwrap();
    for (_, model) in catalogue.models() {
        let takes_time = model.lifecycle.phases.iter().map(|phase| phase.stay.1).sum::<u32>() > 0;
        assert!(takes_time || model.lifecycle.inline, "{}", model.name);
        assert!(!model.source.is_empty() && !model.lifecycle.source.is_empty(), "{}", model.name);
        assert_eq!(model.input.violation(&model.example), None, "{}", model.name);
        let price = model.price.as_ref().map(|price| price.of(&model.example));
        assert_ne!(price, Some(None), "{}: no rate fits the example", model.name);
    }
}

/// What is known of the API is counted in `tests/contract/coverage.json`: no operation and no model is missing here.
#[test]
fn every_known_operation_and_model_is_in_the_catalogue() {
    #[derive(serde::Deserialize)]
    struct Known {
        /// Id, method, path.
        operations: Vec<(String, String, String)>,
        models: Vec<String>,
    }
    let known: Known = serde_json::from_str(include_str!("contract/coverage.json")).unwrap();
    assert_eq!((known.operations.len(), known.models.len()), (94, 194));
    let catalogue = Catalogue::embedded().unwrap();
    let leads_to = |method: &str, path: &str| {
        let Resolved::Operation(index) = catalogue.resolve(&method.parse().unwrap(), path) else {
            return None;
        };
        Some(&catalogue.operation(index).id)
    };
    let lost: Vec<_> =
        known.operations.iter().filter(|(id, method, path)| leads_to(method, path) != Some(id)).collect();
    assert!(lost.is_empty(), "{} operations are missing: {lost:#?}", lost.len());
    let has = |name: &&String| catalogue.models().any(|(_, model)| model.name == **name);
    let lost: Vec<_> = known.models.iter().filter(|name| !has(name)).collect();
    assert!(lost.is_empty(), "{} models are missing: {lost:#?}", lost.len());
}

#[test]
fn a_broken_file_is_named_with_line_and_reason() {
    let runway = text("catalogue/runway.json");
    for (change, expected) in [
        (runway.replacen("\"family\"", "\"famly\"", 1), "unknown field `famly`"),
        (runway.replacen("${task.id}", "${task.idd}", 1), "`${task.idd}` leads nowhere"),
        (
            runway.replacen("\"error\": \"invalid_parameters\"", "\"error\": \"invalid_params\"", 1),
            "there is no error \"invalid_params\" here",
        ),
        (
            runway.replacen("\"lifecycle\": \"video\"", "\"lifecycle\": \"vido\"", 1),
            "the family has no lifecycle \"vido\"",
        ),
        (
            runway.replacen("\"format\": \"mp4\"", "\"format\": \"mp5\"", 1),
            "\"mp5\" is no format of result files",
        ),
        (runway.replacen("| civil}", "| civill}", 1), "unknown filter \"civill\""),
        (
            runway.replacen("\"seconds\": 5", "\"seconds\": \"${result.cover.seconds}\"", 1),
            "seconds cannot come from the task's own result",
        ),
        (runway.replacen("\"type\": \"object\"", "\"type\": \"objekt\"", 1), "not a valid JSON Schema"),
        (runway[..runway.len() / 2].to_owned(), "EOF"),
    ] {
        assert_ne!(change, runway, "{expected}: nothing was changed");
        let found = problems(&Source::embedded().with_file("catalogue/runway.json", &change));
        assert!(found.contains(expected), "{expected}\n{found}");
        assert!(found.contains("runway"), "{found}");
    }
}

/// Each place that has templates knows names of its own: a typo, or a name of another place, is told.
#[test]
fn a_path_that_leads_nowhere_is_named_with_its_place() {
    for (name, from, to, expected) in [
        (
            "catalogue/aleph.json",
            r#"{"taskId": "${task.id}"}}"#,
            r#"{"taskId": "${task.idd}"}}"#,
            "aleph.generate: answer",
        ),
        ("catalogue/suno.json", "${account.credits}", "${account.credit}", ": answer"),
        ("catalogue/runway.json", r#""data": "${record}""#, r#""data": "${account.credits}""#, ": answer"),
        ("catalogue/account.json", "${account.credits}", "${account.credit}", ": answer"),
        ("catalogue/account.json", "${link.url}", "${link.uri}", ": answer"),
        ("catalogue/account.json", "${found.total}", "${found.totals}", ": answer"),
        (
            "catalogue/veo.json",
            r#""started": {"error": "processing_1080p"}"#,
            r#""started": {"body": "${parent.idd}"}"#,
            "upgrade.started",
        ),
        (
            "catalogue/veo.json",
            r#""running": {"error": "processing_1080p"}"#,
            r#""running": {"body": "${result.vid.url}"}"#,
            "upgrade.running",
        ),
        (
            "catalogue/veo.json",
            r#""resultUrl": "${result.video.url}""#,
            r#""resultUrl": "${result.video.uri}""#,
            "upgrade.done",
        ),
        (
            "catalogue/runway.json",
            r#""unknown": {"body": {"code": 200, "msg": "success", "data": null}}"#,
            r#""unknown": {"body": {"code": 200, "msg": "success", "data": "${task.id}"}}"#,
            "lookup.unknown",
        ),
        ("catalogue/file-upload.json", "${refusal.field}", "${refusal.fields}", ": message: "),
        ("catalogue/veo.json", "${request.taskId}", "${task.id}", ": message: "),
        (
            "catalogue/runway.json",
            r#""record_message": "Incorrect image"#,
            r#""record_message": "${refusal.field} image"#,
            ": record_message: ",
        ),
        (
            "catalogue/runway.json",
            r#""record_message": "Incorrect image"#,
            r#""record_message": "${error.code} image"#,
            ": record_message: ",
        ),
        ("catalogue/jobs.json", "${refusal.task}", "${task.id}", ": data: "),
        ("catalogue/runway.json", "${task.id}_cover.png", "${task.id}_${indx}.png", "results.cover.file"),
        ("catalogue/runway.json", "${task.id}_cover.png", "${result.cover.size}.png", "results.cover.file"),
        ("catalogue/suno.json", "?? draw.length_1}", "?? draw.lenght_1}", ".seconds"),
        ("models/google/google-nano-banana.json", r#""file": ""#, r#""file": "${task.idd}"#, ".file"),
        ("catalogue/shared.json", "${http.path}", "${http.pth}", "unknown_path: body"),
    ] {
        let change = text(name).replacen(from, to, 1);
        assert_ne!(change, text(name), "{name}: {from} does not stand there");
        let found = problems(&Source::embedded().with_file(name, &change));
        let told = found.lines().any(|line| line.contains(expected) && line.ends_with("}` leads nowhere"));
        assert!(told && found.starts_with(name), "{name}: {to}: {expected}\n{found}");
    }
}

/// `discovery` beside `link` once passed unseen, and what the link was to do was lost.
#[test]
fn an_operation_that_says_twice_what_it_does_is_refused() {
    let link = r#""link": {"url_at": "/url", "foreign": "unauthorized"}, "#;
    let discovery = r#""discovery": {"tells": "models", "unknown": "unauthorized"}, "#;
    for (file, one, other) in [
        ("account", "\"discovery\": {", link),
        ("account", "\"link\": {", discovery),
        ("file-upload", "\"upload\": {", discovery),
        ("file-upload", "\"upload\": {", link),
        ("chat", "\"chat\": {", link),
        ("runway", "\"task\": {", discovery),
        ("runway", "\"lookup\": {", discovery),
    ] {
        let name = format!("catalogue/{file}.json");
        let change = text(&name).replacen(one, &format!("{other}{one}"), 1);
        assert_ne!(change, text(&name), "{file}: {one} does not stand there");
        let found = problems(&Source::embedded().with_file(&name, &change));
        assert!(found.contains("an operation has task and answer,"), "{file}: {other}{one}\n{found}");
    }
}

#[test]
fn a_folder_can_add_a_model_and_replace_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let models = folder.path().join("models/acme");
    fs::create_dir_all(&models).unwrap();
    let model = text("models/google/google-nano-banana.json").replace("google/nano-banana", "acme/image-1");
    fs::write(models.join("image-1.json"), model).unwrap();
    let source = Source::with_overrides(folder.path()).unwrap();
    let catalogue = Catalogue::load(&source).unwrap();
    let create = catalogue.operation_by_id("jobs.create").unwrap();
    assert!(catalogue.model_by_name(create, "acme/image-1").is_some());
    assert!(catalogue.model_by_name(create, "google/nano-banana").is_some());
    assert!(Source::with_overrides(&folder.path().join("nowhere")).is_err());
}
