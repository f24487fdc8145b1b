//! From files to a checked [`Catalogue`]: every problem is told, with its file and its place in it.

mod chat;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::chat::Tokens;
use super::parts::{self, Parts};
use super::raw::{
    RawCallback, RawConsequence, RawError, RawFallback, RawFamily, RawFill, RawFollows, RawLifecycle,
    RawLink, RawLookup, RawModel, RawModelChoice, RawOperation, RawPrice, RawRefusal, RawResult, RawRule,
    RawShared, RawStage, RawTask, RawUnknown, RawUpgrade, RawUpload, RawUploadFrom, RawWording,
};
use super::{
    Behaviour, CallbackKind, Catalogue, Condition, Consequence, DrawKind, EndState, ErrorEntry, ErrorIx,
    Fallback, Family, Fill, Follows, Lifecycle, Link, Lookup, Model, ModelChoice, ModelIx, Operation,
    OperationIx, Phase, Pick, Price, Rate, Refusal, Reply, ResultKind, Routes, Rule, Schema, Seconds, Shared,
    Size, Surcharge, TaskKind, Template, Upgrade, UploadFrom, UploadKind, Wording, small,
};
use crate::ids::Credits;
use crate::media::Format;

/// The compiled-in files: name below `fixtures/` and text.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/fixtures.rs"));

/// The files that a catalogue is made of.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name below the root (`catalogue/runway.json`) to text.
    files: BTreeMap<String, std::borrow::Cow<'static, str>>,
}

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// `catalogue/runway.json`, perhaps with a line.
    pub file: String,
    /// Where in the file, in words or as a path; may be empty.
    pub at: String,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: ", self.file)?;
        if !self.at.is_empty() {
            write!(out, "{}: ", self.at)?;
        }
        out.write_str(&self.what)
    }
}

impl Source {
    /// What is compiled in.
    pub fn embedded() -> Self {
        Self { files: EMBEDDED.iter().map(|(name, text)| ((*name).to_owned(), (*text).into())).collect() }
    }

    /// What is compiled in, with the files below `folder` in the place of their namesakes or beside them.
    ///
    /// # Errors
    /// Folders or files that cannot be read.
    pub fn with_overrides(folder: &FilePath) -> Result<Self, Vec<Problem>> {
        let mut source = Self::embedded();
        let mut problems = Vec::new();
        if folder.is_dir() {
            source.add_folder(folder, "", &mut problems);
        } else {
            let what = "is not a folder; it should hold catalogue/*.json and models/<vendor>/*.json".into();
            problems.push(Problem { file: folder.display().to_string(), at: String::new(), what });
        }
        if problems.is_empty() { Ok(source) } else { Err(problems) }
    }

    /// Puts a file in, as if it stood below the root; for tests.
    #[must_use]
    pub fn with_file(mut self, name: &str, text: &str) -> Self {
        self.files.insert(name.into(), text.to_owned().into());
        self
    }

    fn add_folder(&mut self, folder: &FilePath, prefix: &str, problems: &mut Vec<Problem>) {
        let entries = match std::fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) => return problems.push(unreadable(folder, &error)),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                self.add_folder(&path, &format!("{name}/"), problems);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                match std::fs::read_to_string(&path) {
                    Ok(text) => drop(self.files.insert(name, text.into())),
                    Err(error) => problems.push(unreadable(&path, &error)),
                }
            }
        }
    }
}

fn unreadable(path: &FilePath, error: &std::io::Error) -> Problem {
    Problem { file: path.display().to_string(), at: String::new(), what: format!("cannot be read: {error}") }
}

pub(super) fn load(source: &Source) -> Result<Catalogue, Vec<Problem>> {
    let mut loader = Loader::default();
    let raw = loader.read_files(source);
    let Some(raw_shared) = raw.shared else {
        loader.problem("catalogue/shared.json", "", "is missing or broken".into());
        return Err(loader.problems);
    };
    loader.add_errors("catalogue/shared.json", None, &raw_shared.errors, None);
    for (family, (file, raw)) in raw.families.iter().enumerate() {
        // A form that does not compile is told of with the wording.
        let form = raw.wording.as_ref().and_then(|wording| Template::compile(&wording.error).ok());
        loader.add_errors(file, Some(family), &raw.errors, form.as_ref());
    }
    let shared = loader.shared(&raw_shared);
    let mut operations = Vec::new();
    let mut lifecycles = HashMap::new();
    let mut families = Vec::new();
    for (index, (file, family)) in raw.families.into_iter().enumerate() {
        let of_family = loader.family_lifecycles(&file, &family);
        let wording = family.wording.as_ref().map(|wording| loader.wording(&file, index, wording));
        let tokens = loader.family_tokens(&file, &family);
        for raw in family.operations {
            let mut context =
                Context::new(&mut loader, &file, Some(index), raw.id.clone(), &family.templates);
            context.tokens.clone_from(&tokens);
            operations.push(context.operation(raw, index, &of_family));
        }
        lifecycles.insert(family.family.clone(), of_family);
        families.push(Family {
            id: family.family,
            title: family.title,
            source: family.source,
            uncertain: family.uncertain,
            media_kept: family.media_days.map(days),
            wording,
        });
    }
    let mut catalogue = Catalogue {
        families,
        operations,
        models: Vec::new(),
        errors: Vec::new(),
        shared,
        routes: Routes::default(),
        operations_by_id: HashMap::new(),
        replacing: Vec::new(),
        models_by_name: HashMap::new(),
    };
    loader.index_operations(&mut catalogue);
    for (file, raw) in raw.models {
        loader.add_model(&file, raw, &lifecycles, &mut catalogue);
    }
    catalogue.errors = loader.errors;
    if loader.problems.is_empty() { Ok(catalogue) } else { Err(loader.problems) }
}

pub(super) fn check_deeply(catalogue: &Catalogue) -> Result<(), Vec<Problem>> {
    let mut problems = Vec::new();
    let mut check = |of: &str, at: &str, schema: &Schema| {
        if let Err(what) = schema.check() {
            problems.push(Problem {
                file: of.into(),
                at: at.into(),
                what: format!("not a valid JSON Schema: {what}"),
            });
        }
    };
    for operation in &catalogue.operations {
        operation.request.iter().for_each(|schema| check(&operation.id, "request", schema));
        check_rules(&mut check, &operation.id, &operation.rules);
        operation
            .fill
            .iter()
            .filter_map(|fill| fill.when.as_ref())
            .for_each(|when| check(&operation.id, "fill", when));
        let fallback = operation.task().and_then(|task| task.fallback.as_ref());
        if let Some(fallback) = fallback {
            check(&operation.id, "fallback", &fallback.allowed_when);
        }
    }
    for model in &catalogue.models {
        check(&model.name, "input", &model.input);
        check_rules(&mut check, &model.name, &model.rules);
    }
    for operation in &catalogue.operations {
        let schema = operation.request.as_ref().zip(operation.example.as_ref());
        problems.extend(
            schema.and_then(|(schema, example)| {
                example_problem(&operation.id, example, schema, &operation.rules)
            }),
        );
    }
    for model in &catalogue.models {
        let followed = model.follows.iter().flat_map(|follows| &follows.models);
        for unknown in followed.filter(|name| !catalogue.models.iter().any(|other| other.name == **name)) {
            let what = format!("there is no model \"{unknown}\"");
            problems.push(Problem { file: model.name.clone(), at: "follows.models".into(), what });
        }
    }
    let of_models = catalogue
        .models
        .iter()
        .filter_map(|model| example_problem(&model.name, &model.example, &model.input, &model.rules));
    problems.extend(of_models);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// What is wrong with an example that should be accepted.
fn example_problem(of: &str, example: &Value, schema: &Schema, rules: &[Rule]) -> Option<Problem> {
    let broken = schema
        .violation(example)
        .map(|violation| format!("the example breaks the schema: {} {}", violation.keyword, violation.field));
    let refused = || {
        let rule = rules.iter().find(|rule| rule.refuses(example))?;
        Some(format!("the example is refused by the rule \"{}\"", rule.id))
    };
    let what = broken.or_else(refused)?;
    Some(Problem { file: of.into(), at: "example".into(), what })
}

fn check_rules(check: &mut impl FnMut(&str, &str, &Schema), of: &str, rules: &[Rule]) {
    for rule in rules {
        rule.reject_when.iter().for_each(|schema| check(of, &rule.id, schema));
    }
}

fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 24 * 60 * 60)
}

#[derive(Default)]
struct RawFiles {
    shared: Option<RawShared>,
    families: Vec<(String, RawFamily)>,
    models: Vec<(String, RawModel)>,
}

#[derive(Default)]
struct Loader {
    problems: Vec<Problem>,
    errors: Vec<ErrorEntry>,
}

impl Loader {
    fn problem(&mut self, file: &str, at: &str, what: String) {
        self.problems.push(Problem { file: file.into(), at: at.into(), what });
    }

    fn read_files(&mut self, source: &Source) -> RawFiles {
        let mut raw = RawFiles::default();
        for (name, text) in &source.files {
            if name == "catalogue/shared.json" {
                raw.shared = self.parse(name, text);
            } else if name.starts_with("catalogue/") {
                raw.families.extend(self.parse(name, text).map(|family| (name.clone(), family)));
            } else if name.starts_with("models/") {
                raw.models.extend(self.parse(name, text).map(|model| (name.clone(), model)));
            } else {
                self.problem(name, "", "does not stand below catalogue/ or models/".into());
            }
        }
        raw
    }

    fn parse<T: DeserializeOwned>(&mut self, name: &str, text: &str) -> Option<T> {
        serde_json::from_str(text)
            .map_err(|error| {
                let what = error.to_string();
                let what = what.split(" at line ").next().unwrap_or_default().to_owned();
                self.problem(&format!("{name}:{}", error.line()), "", what);
            })
            .ok()
    }

    fn add_errors(&mut self, file: &str, family: Option<usize>, raw: &[RawError], form: Option<&Template>) {
        for error in raw {
            let at = format!("error {}", error.id);
            let mut message = |text: &Option<String>| {
                let compiled = Template::compile(&Value::from(text.as_ref()?.as_str()));
                compiled.map_err(|problem| self.problem(file, &at, problem.to_string())).ok()
            };
            let entry = ErrorEntry {
                id: error.id.clone(),
                family,
                operations: error.operations.clone(),
                code: error.code,
                message: message(&error.message),
                record_message: message(&error.record_message),
                refuses: matches!(error.stage, RawStage::Request | RawStage::Both),
                fails: matches!(error.stage, RawStage::Task | RawStage::Both),
                ending: error.ending.clone().unwrap_or_else(|| "fail".into()),
                http: error.http.unwrap_or(200),
                form: form.cloned(),
                without_data: error.without_data,
                tail: if error.line_feed { "\n" } else { "" },
                data: error.data.as_ref().and_then(|data| {
                    let compiled = Template::compile(data);
                    compiled.map_err(|problem| self.problem(file, &at, problem.to_string())).ok()
                }),
                headers: error.headers.clone().into_iter().collect(),
                evidence: error.evidence.clone(),
                note: error.note.clone(),
            };
            let same = |other: &&ErrorEntry| {
                other.id == entry.id && other.family == family && other.operations == entry.operations
            };
            if self.errors.iter().any(|other| same(&other)) {
                self.problem(file, &at, "stands there twice".into());
            }
            self.errors.push(entry);
        }
    }

    fn shared(&mut self, raw: &RawShared) -> Shared {
        let file = "catalogue/shared.json";
        let mut context = Context::new(self, file, None, String::new(), &NO_PARTS);
        let framework = |context: &mut Context<'_>, raw: &super::raw::RawFramework| {
            (raw.http, context.template("body", &raw.body))
        };
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        let mut shared = Shared {
            unauthorized: context.error("unauthorized", &raw.unauthorized),
            insufficient: context.error("insufficient", &raw.insufficient),
            invalid_json: context.error("invalid_json", &raw.invalid_json),
            quota: (
                raw.quota.creates as usize,
                seconds(raw.quota.per_seconds),
                context.error("quota", &raw.quota.error),
            ),
            unknown_path: framework(&mut context, &raw.unknown_path),
            wrong_method: framework(&mut context, &raw.wrong_method),
            content_type: raw.content_type.clone(),
            callback_timeout: seconds(raw.delivery.timeout_seconds),
            callback_retries: raw.delivery.retry_after_seconds.iter().copied().map(seconds).collect(),
            link_lives: Duration::from_secs(u64::from(raw.link_minutes) * 60),
        };
        for (at, text) in [
            ("source", &raw.source),
            ("quota.source", &raw.quota.source),
            ("delivery.source", &raw.delivery.source),
            ("unknown_path.source", &raw.unknown_path.source),
            ("wrong_method.source", &raw.wrong_method.source),
        ] {
            context.must_have_source(at, text);
        }
        if http::HeaderValue::from_str(&shared.content_type).is_err() {
            context.problem("content_type", "is not a header value".into());
            shared.content_type = "application/json".into();
        }
        shared
    }

    fn family_lifecycles(&mut self, file: &str, family: &RawFamily) -> HashMap<String, Lifecycle> {
        let mut context = Context::new(self, file, None, String::new(), &NO_PARTS);
        context.must_have_source("source", &family.source);
        let checked =
            family.lifecycles.iter().map(|(name, raw)| (name.clone(), context.lifecycle(name, raw)));
        checked.collect()
    }

    fn wording(&mut self, file: &str, family: usize, raw: &RawWording) -> Wording {
        let mut context = Context::new(self, file, Some(family), String::new(), &NO_PARTS);
        context.must_have_source("wording.source", &raw.source);
        for (name, value) in &raw.headers {
            if http::HeaderName::try_from(name).is_err() || http::HeaderValue::try_from(value).is_err() {
                context.problem("wording.headers", format!("\"{name}: {value}\" is no header"));
            }
        }
        let error = context.template("wording.error", &raw.error);
        context.must_lead("wording.error", &error, |path| matches!(path, ["error", "code" | "message"]));
        Wording {
            error,
            headers: raw.headers.clone().into_iter().collect(),
            wrong_method: raw.wrong_method.as_ref().map(|error| context.error("wording.wrong_method", error)),
        }
    }

    fn family_tokens(&mut self, file: &str, family: &RawFamily) -> Option<Arc<Tokens>> {
        let mut context = Context::new(self, file, None, String::new(), &NO_PARTS);
        family.tokens.as_ref().map(|tokens| Arc::new(context.tokens(tokens)))
    }

    fn index_operations(&mut self, catalogue: &mut Catalogue) {
        catalogue.replacing = vec![Vec::new(); catalogue.families.len()];
        for (index, operation) in catalogue.operations.iter().enumerate() {
            let (id, index) = (&operation.id, OperationIx(small(index)));
            if catalogue.operations_by_id.insert(id.clone(), index).is_some() {
                self.problem(id, "", "two operations have this id".into());
            }
            if matches!(&operation.behaviour, Behaviour::Upgrade(upgrade) if upgrade.replaces_record) {
                catalogue.replacing[operation.family].push(index);
            }
            for path in std::iter::once(&operation.path).chain(&operation.also) {
                if !catalogue.routes.add(path, &operation.method, index) {
                    self.problem(id, path, "another operation has this method and path".into());
                }
            }
        }
    }

    fn add_model(
        &mut self,
        file: &str,
        raw: RawModel,
        lifecycles: &HashMap<String, HashMap<String, Lifecycle>>,
        catalogue: &mut Catalogue,
    ) {
        let Some(operation) = catalogue.operation_by_id(&raw.operation) else {
            return self.problem(file, "operation", format!("there is no operation \"{}\"", raw.operation));
        };
        let family = catalogue.operation(operation).family;
        let lifecycle = lifecycles[&catalogue.families[family].id].get(&raw.lifecycle).cloned();
        let Some(lifecycle) = lifecycle else {
            return self.problem(
                file,
                "lifecycle",
                format!("its family has no lifecycle \"{}\"", raw.lifecycle),
            );
        };
        let mut context = Context::new(self, file, Some(family), raw.operation.clone(), &NO_PARTS);
        context.must_have_source("source", &raw.source);
        let results = context.results(&raw.results);
        let model = Model {
            refusals: context.refusals(&raw.refusals),
            rules: context.rules(raw.rules),
            price: raw.price.as_ref().map(|price| context.price(price)),
            result: context.template("result", &raw.result),
            answer: raw.answer.as_ref().map(|answer| context.template("answer", answer)),
            follows: raw.follows.as_ref().map(|follows| context.follows(follows)),
            name: raw.model,
            title: raw.title,
            vendor: raw.vendor,
            operation,
            kind: raw.kind,
            source: raw.source,
            notes: raw.notes,
            input: Schema::new(raw.input),
            example: raw.example,
            lifecycle,
            results,
            draws: raw.draws.into_iter().collect(),
        };
        for (at, template) in std::iter::once(("result", &model.result))
            .chain(model.answer.iter().map(|answer| ("answer", answer)))
        {
            context.check_paths(at, template, &model.results, &model.draws);
        }
        let index = ModelIx(small(catalogue.models.len()));
        if catalogue.models_by_name.insert(model.name.clone(), index).is_some() {
            self.problem(file, "model", format!("\"{}\" stands in another file too", model.name));
        }
        catalogue.models.push(model);
    }
}

/// Checks one operation or model and tells where a problem is.
struct Context<'a> {
    loader: &'a mut Loader,
    file: &'a str,
    family: Option<usize>,
    operation: String,
    parts: &'a Parts,
    /// Of the family, if it talks.
    tokens: Option<Arc<Tokens>>,
}

static NO_PARTS: Parts = Parts::new();

impl<'a> Context<'a> {
    fn new(
        loader: &'a mut Loader,
        file: &'a str,
        family: Option<usize>,
        operation: String,
        parts: &'a Parts,
    ) -> Self {
        Self { loader, file, family, operation, parts, tokens: None }
    }

    fn problem(&mut self, at: &str, what: String) {
        let at = if self.operation.is_empty() { at.to_owned() } else { format!("{}: {at}", self.operation) };
        self.loader.problem(self.file, &at, what);
    }

    fn must_have_source(&mut self, at: &str, source: &str) {
        if source.trim().is_empty() {
            self.problem(at, "a fact needs a source".into());
        }
    }

    fn template(&mut self, at: &str, source: &Value) -> Template {
        let compiled = parts::expand(source, self.parts)
            .and_then(|source| Template::compile(&source).map_err(|error| error.to_string()));
        compiled.unwrap_or_else(|what| {
            self.problem(at, what);
            Template::compile(&Value::Null).expect("null is a template")
        })
    }

    /// A schema, with the family's parts in their places.
    fn schema(&mut self, at: &str, source: &Value) -> Schema {
        let expanded = parts::expand(source, self.parts).map(std::borrow::Cow::into_owned);
        Schema::new(expanded.unwrap_or_else(|what| {
            self.problem(at, what);
            Value::Bool(true)
        }))
    }

    /// The error called `id` that this operation can have: its own, its family's, anybody's.
    fn error(&mut self, at: &str, id: &str) -> ErrorIx {
        let rank = |error: &ErrorEntry| match error.family {
            None => 1,
            family if family != self.family => 0,
            Some(_) if error.operations.contains(&self.operation) => 3,
            Some(_) if error.operations.is_empty() => 2,
            Some(_) => 0,
        };
        let candidates = self.loader.errors.iter().enumerate().filter(|(_, error)| error.id == id);
        let best = candidates.map(|(index, error)| (rank(error), index)).filter(|(rank, _)| *rank > 0).max();
        let Some((_, index)) = best else {
            self.problem(at, format!("there is no error \"{id}\" here"));
            return ErrorIx(0);
        };
        ErrorIx(small(index))
    }

    fn operation(
        &mut self,
        raw: RawOperation,
        family: usize,
        lifecycles: &HashMap<String, Lifecycle>,
    ) -> Operation {
        let method = raw.method.parse().unwrap_or_else(|_| {
            self.problem("method", format!("\"{}\" is no HTTP method", raw.method));
            http::Method::GET
        });
        if raw.request.is_some() && raw.query.is_some() {
            self.problem("request", "an operation has a request or a query, not both".into());
        }
        let by_query = raw.query.is_some();
        Operation {
            family,
            class: raw.class,
            method,
            path: raw.path.clone(),
            also: raw.also.clone(),
            summary: raw.summary.clone(),
            evidence: raw.evidence.clone(),
            notes: raw.notes.clone(),
            by_query,
            open: raw.open,
            example: raw.example.clone(),
            refusals: self.refusals(&raw.refusals),
            fill: raw.fill.iter().map(fill).collect(),
            behaviour: self.behaviour(&raw, lifecycles),
            request: raw.request.or(raw.query).map(|schema| self.schema("request", &schema)),
            rules: self.rules(raw.rules),
            id: raw.id,
        }
    }

    fn behaviour(&mut self, raw: &RawOperation, lifecycles: &HashMap<String, Lifecycle>) -> Behaviour {
        let answer = raw.answer.as_ref().map(|answer| self.template("answer", answer));
        if let (Some(discovery), Some(answer)) = (&raw.discovery, &answer) {
            let unknown = self.error("discovery.unknown", &discovery.unknown);
            return Behaviour::Discovery(discovery.tells, unknown, answer.clone());
        }
        let task = raw.task.as_ref().map(|task| self.task(task, lifecycles));
        let lookup = raw.lookup.as_ref().map(|lookup| self.lookup(lookup));
        if let Some(upload) = &raw.upload {
            return self.upload_behaviour(raw, upload, answer);
        }
        if let (Some(chat), None, None, Some(answer)) = (&raw.chat, &task, &lookup, &answer) {
            return Behaviour::Chat(Box::new(self.chat(chat, raw, answer)), answer.clone());
        }
        match (task, lookup, &raw.upgrade, &raw.link, answer) {
            (Some(task), None, None, None, Some(answer)) => Behaviour::Create(Box::new(task), answer),
            (None, Some(lookup), None, None, Some(answer)) => Behaviour::Details(lookup, answer),
            (Some(task), Some(lookup), Some(upgrade), None, None) => {
                Behaviour::Upgrade(Box::new(self.upgrade(upgrade, task, lookup)))
            }
            (None, lookup, None, Some(RawLink { url_at, foreign }), Some(answer)) => {
                let foreign = self.error("link.foreign", foreign);
                Behaviour::Link(Link { url_at: url_at.clone(), foreign, lookup }, answer)
            }
            (None, None, None, None, Some(answer)) => Behaviour::Plain(answer),
            _ => {
                let what = "an operation has task and answer, lookup and answer, task, lookup and upgrade, \
                            link and answer, discovery and answer, upload and answer, chat and answer, or an \
                            answer alone";
                self.problem("task", what.into());
                Behaviour::Plain(self.template("answer", &Value::Null))
            }
        }
    }

    fn upload_behaviour(
        &mut self,
        raw: &RawOperation,
        upload: &RawUpload,
        answer: Option<Template>,
    ) -> Behaviour {
        let others = [raw.task.is_some(), raw.lookup.is_some(), raw.upgrade.is_some(), raw.link.is_some()];
        if others.contains(&true) || answer.is_none() {
            self.problem("upload", "stands beside an answer and nothing else".into());
        }
        let answer = answer.unwrap_or_else(|| self.template("answer", &Value::Null));
        self.must_lead("answer", &answer, |path| knows_upload(path, &UPLOADED));
        Behaviour::Upload(Box::new(self.upload(upload)), answer)
    }

    fn upload(&mut self, raw: &RawUpload) -> UploadKind {
        self.must_have_source("upload.source", &raw.source);
        let made_up = self.template("upload.made_up", &Value::from(raw.made_up.as_str()));
        self.must_lead("upload.made_up", &made_up, |path| knows_upload(path, &UPLOADED[..3]));
        let stored_as = self.template("upload.stored_as", &Value::from(raw.stored_as.as_str()));
        self.must_lead("upload.stored_as", &stored_as, |path| knows_upload(path, &UPLOADED[..5]));
        UploadKind {
            from: match &raw.from {
                RawUploadFrom::Base64(field) => UploadFrom::Base64(field.clone()),
                RawUploadFrom::Part(part) => UploadFrom::Part(part.clone()),
                RawUploadFrom::Url(field) => UploadFrom::Url(field.clone()),
            },
            folder_at: raw.folder_at.clone(),
            name_at: raw.name_at.clone(),
            made_up,
            stored_as,
            unreadable: self.error("upload.unreadable", &raw.unreadable),
            no_space: self.error("upload.no_space", &raw.no_space),
            kept: Duration::from_secs(u64::from(raw.kept_hours) * 3600),
        }
    }

    fn task(&mut self, raw: &RawTask, lifecycles: &HashMap<String, Lifecycle>) -> TaskKind {
        let lifecycle = raw.lifecycle.as_ref().and_then(|name| {
            let found = lifecycles.get(name).cloned();
            if found.is_none() {
                self.problem("task.lifecycle", format!("the family has no lifecycle \"{name}\""));
            }
            found
        });
        let model = match &raw.model {
            RawModelChoice::Name(name) => ModelChoice::Name(name.clone()),
            RawModelChoice::At(at) => ModelChoice::At(at.clone()),
            RawModelChoice::Market { at, input, unknown } => ModelChoice::Market {
                at: at.clone(),
                input: input.clone(),
                unknown: self.error("task.model.unknown", unknown),
            },
        };
        if lifecycle.is_none() && !matches!(model, ModelChoice::Market { .. }) {
            self.problem("task.lifecycle", "is missing".into());
        }
        let task = TaskKind {
            model,
            lifecycle,
            records: raw.records.clone(),
            record: self.template("task.record", &raw.record),
            price: raw.price.as_ref().map(|price| self.price(price)),
            draws: raw.draws.clone().into_iter().collect(),
            results: self.results(&raw.results),
            follows: raw.follows.as_ref().map(|follows| self.follows(follows)),
            fallback: raw.fallback.as_ref().map(|fallback| self.fallback(fallback)),
            callbacks: raw.callbacks.iter().map(|callback| self.callback(callback)).collect(),
            callback_at: raw.callback_at.clone().unwrap_or_else(|| "/callBackUrl".into()),
        };
        for (at, template) in std::iter::once(("task.record", &task.record))
            .chain(task.callbacks.iter().map(|callback| ("task.callbacks", &callback.body)))
        {
            self.check_paths(at, template, &task.results, &task.draws);
        }
        task
    }

    /// Every path that `template` names must lead somewhere.
    fn check_paths(
        &mut self,
        at: &str,
        template: &Template,
        results: &[(String, ResultKind)],
        draws: &[(String, DrawKind)],
    ) {
        self.must_lead(at, template, |path| leads_somewhere(path, results, draws));
    }

    /// Every path that `template` names must be `known`.
    fn must_lead(&mut self, at: &str, template: &Template, known: impl Fn(&[&str]) -> bool) {
        for path in template.paths() {
            let names: Vec<&str> = path.iter().map(|part| &**part).collect();
            if !known(&names) {
                self.problem(at, format!("`${{{}}}` leads nowhere", names.join(".")));
            }
        }
    }

    fn lifecycle(&mut self, name: &str, raw: &RawLifecycle) -> Lifecycle {
        let at = format!("lifecycle {name}");
        self.must_have_source(&at, &raw.source);
        if raw.phases.is_empty() || raw.phases.len() > Lifecycle::MOST_PHASES {
            self.problem(
                &at,
                format!("has {} phases, not 1 to {}", raw.phases.len(), Lifecycle::MOST_PHASES),
            );
        }
        for ending in ["success", "fail"] {
            if !raw.endings.contains_key(ending) {
                self.problem(&at, format!("has no ending \"{ending}\""));
            }
        }
        let phase =
            |raw: &super::raw::RawPhase| Phase { state: raw.state.clone(), stay: (raw.ms[0], raw.ms[1]) };
        if raw.phases.iter().any(|phase| phase.ms[0] > phase.ms[1]) {
            self.problem(&at, "a phase's shortest stay is above its longest".into());
        }
        let ending = |raw: &super::raw::RawEnding| EndState {
            state: raw.state.clone(),
            with_result: raw.with_result,
            moment: raw.when,
        };
        Lifecycle {
            phases: raw.phases.iter().map(phase).collect(),
            endings: raw.endings.iter().map(|(name, raw)| (name.clone(), ending(raw))).collect(),
            inline: raw.inline,
            source: raw.source.clone(),
        }
    }

    fn price(&mut self, raw: &RawPrice) -> Price {
        self.must_have_source("price", &raw.source);
        let mut rates = Vec::new();
        for rate in &raw.rates {
            let credits = Credits::from_f64(rate.credits).filter(|credits| !credits.is_negative());
            let credits = credits.ok_or_else(|| format!("{} is no price", rate.credits));
            match credits.and_then(|credits| Ok(Rate { when: Condition::parse(&rate.when)?, credits })) {
                Ok(rate) => rates.push(rate),
                Err(what) => self.problem("price", what),
            }
        }
        let times = raw.times.as_ref().and_then(|times| self.pick("price.times", times));
        let surcharge = |raw: &super::raw::RawSurcharge| {
            let credits = Credits::from_f64(raw.credits)?;
            Some(Surcharge { for_each: raw.for_each.clone(), beyond: raw.beyond, credits })
        };
        let plus = raw.plus.iter().filter_map(surcharge).collect();
        let unit = raw.unit.clone().unwrap_or_else(|| "request".into());
        Price { rates, times, plus, unit, source: raw.source.clone() }
    }

    fn pick(&mut self, at: &str, raw: &Value) -> Option<Pick> {
        Pick::parse(raw).map_err(|what| self.problem(at, what)).ok()
    }

    fn results(&mut self, raw: &BTreeMap<String, RawResult>) -> Vec<(String, ResultKind)> {
        raw.iter().map(|(name, raw)| (name.clone(), self.result(&format!("results.{name}"), raw))).collect()
    }

    fn result(&mut self, at: &str, raw: &RawResult) -> ResultKind {
        let format = self.pick(at, &raw.format).unwrap_or_else(|| Pick::always(Value::Null));
        for unknown in format.constants().into_iter().filter(|name| drawn_as(name).is_none()) {
            self.problem(&format!("{at}.format"), format!("{unknown} is no format of result files"));
        }
        ResultKind {
            size: self.size(at, raw, is_sound(&format)).unwrap_or(Size::None),
            format,
            file: self.template(at, &Value::from(raw.file.as_str())),
            count: raw.count.as_ref().and_then(|count| self.pick(at, count)),
            seconds: raw.seconds.as_ref().and_then(|seconds| self.seconds(at, seconds)),
            joins_parent: raw.joins_parent,
            audio: raw.audio.as_ref().and_then(|audio| self.pick(at, audio)),
            transparent: raw.transparent.as_ref().and_then(|transparent| self.pick(at, transparent)),
            fallback_short_side: raw.fallback_short_side,
            ready_at: raw.ready_at.clone(),
            kept: raw.kept_minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60)),
        }
    }

    fn size(&mut self, at: &str, raw: &RawResult, sound: bool) -> Option<Size> {
        let aspect = raw.aspect.clone().unwrap_or_else(|| Value::from("16:9"));
        let mut optional = |raw: &Option<Value>| raw.as_ref().and_then(|raw| self.pick(at, raw));
        Some(match (&raw.exact, &raw.short_side, &raw.area_side, &raw.like_parent) {
            (Some(exact), None, None, None) => Size::Exact(self.pick(at, exact)?),
            (None, Some(side), None, None) => Size::ShortSide(self.pick(at, &aspect)?, self.pick(at, side)?),
            (None, None, Some(side), None) => Size::AreaSide(self.pick(at, &aspect)?, self.pick(at, side)?),
            (None, side, None, Some(slot)) => Size::LikeParent {
                slot: slot.clone(),
                short_side: optional(side),
                scale: optional(&raw.scale),
                aspect: self.pick(at, &aspect)?,
            },
            (None, None, None, None) if sound => Size::None,
            _ => {
                self.problem(at, "needs one of exact, short_side, area_side and like_parent".into());
                return None;
            }
        })
    }

    fn seconds(&mut self, at: &str, raw: &Value) -> Option<Seconds> {
        if raw.as_str().is_some_and(|text| text.contains("${")) || raw.get("$by").is_some() {
            let template = self.template(at, raw);
            if template.paths().iter().any(|path| ["result", "record", "model"].contains(&&*path[0])) {
                self.problem(at, "seconds cannot come from the task's own result".into());
            }
            return Some(Seconds::Template(template));
        }
        self.pick(at, raw).map(Seconds::Pick)
    }

    fn refusals(&mut self, raw: &[RawRefusal]) -> Vec<Refusal> {
        let refusal = |raw: &RawRefusal| Refusal {
            keyword: raw.keyword.clone(),
            field: raw.field.clone(),
            error: self.error("refusals", &raw.error),
        };
        raw.iter().map(refusal).collect()
    }

    fn rules(&mut self, raw: Vec<RawRule>) -> Vec<Rule> {
        raw.into_iter().map(|raw| self.rule(raw)).collect()
    }

    fn rule(&mut self, raw: RawRule) -> Rule {
        let at = format!("rule {}", raw.id);
        if raw.reject_when.is_none() && raw.exceeds.is_none() {
            self.problem(&at, "needs reject_when or exceeds".into());
        }
        if raw.for_each.as_ref().is_some_and(|list| !list.starts_with('/')) {
            self.problem(&at, "\"for_each\" must be a JSON pointer such as \"/shots\"".into());
        }
        Rule {
            error: self.error(&at, &raw.error),
            id: raw.id,
            for_each: raw.for_each,
            reject_when: raw.reject_when.map(|schema| self.schema(&at, &schema)),
            exceeds: raw.exceeds.and_then(|raw| self.pick(&at, &raw.value).zip(self.pick(&at, &raw.limit))),
            note: raw.note,
        }
    }

    fn consequence(&mut self, at: &str, raw: &RawConsequence) -> Consequence {
        match raw {
            RawConsequence::Reject(error) => Consequence::Reject(self.error(at, error)),
            RawConsequence::Fail(error) => Consequence::Fail(self.error(at, error)),
        }
    }

    fn follows(&mut self, raw: &RawFollows) -> Follows {
        if raw.at.is_none() && raw.id_at.is_none() {
            self.problem("follows", "needs at or id_at".into());
        }
        let mut optional = |at: &str, raw: &Option<RawConsequence>| {
            raw.as_ref().map(|raw| self.consequence(&format!("follows.{at}"), raw))
        };
        Follows {
            at: raw.at.clone(),
            id_at: raw.id_at.clone(),
            records: raw.records.clone(),
            has: raw.has.clone(),
            models: raw.models.clone(),
            unfinished: optional("unfinished", &raw.unfinished),
            failed: optional("failed", &raw.failed),
            succeeded: optional("succeeded", &raw.succeeded),
            once: raw.once.as_ref().map(|error| self.error("follows.once", error)),
            unknown: self.consequence("follows.unknown", &raw.unknown),
            after: raw
                .after
                .iter()
                .map(|after| (after.operation.clone(), self.consequence("follows.after", &after.then)))
                .collect(),
        }
    }

    fn fallback(&mut self, raw: &RawFallback) -> Fallback {
        self.must_have_source("fallback", &raw.source);
        Fallback {
            errors: raw.errors.iter().map(|error| self.error("fallback.errors", error)).collect(),
            default_error: self.error("fallback.default_error", &raw.default_error),
            allowed_when: Schema::new(raw.allowed_when.clone()),
        }
    }

    fn callback(&mut self, raw: &RawCallback) -> CallbackKind {
        CallbackKind { on: raw.on.clone(), body: self.template("callbacks", &raw.body) }
    }

    fn reply(&mut self, at: &str, raw: &RawUnknown) -> Reply {
        match raw {
            RawUnknown::Error(error) => Reply::Error(self.error(at, error)),
            RawUnknown::Body(body) => Reply::Body(self.template(at, body)),
        }
    }

    fn lookup(&mut self, raw: &RawLookup) -> Lookup {
        let mut optional =
            |at: &str, error: &Option<String>| error.as_ref().map(|error| self.error(at, error));
        Lookup {
            at: raw.at.clone(),
            records: raw.records.clone(),
            unfinished: optional("lookup.unfinished", &raw.unfinished),
            failed: optional("lookup.failed", &raw.failed),
            by_fallback: optional("lookup.by_fallback", &raw.by_fallback),
            older: raw
                .older
                .as_ref()
                .map(|older| (days(older.days), self.error("lookup.older", &older.error))),
            missing: self.error("lookup.missing", &raw.missing),
            unknown: self.reply("lookup.unknown", &raw.unknown),
        }
    }

    fn upgrade(&mut self, raw: &RawUpgrade, task: TaskKind, lookup: Lookup) -> Upgrade {
        Upgrade {
            lookup,
            index_at: raw.index_at.clone(),
            bad_index: self.error("upgrade.bad_index", &raw.bad_index),
            task,
            started: self.reply("upgrade.started", &raw.started),
            running: self.reply("upgrade.running", &raw.running),
            done: self.template("upgrade.done", &raw.done),
            replaces_record: raw.replaces_record,
        }
    }
}

/// Whether files of this format have no size in pixels.
fn is_sound(format: &Pick) -> bool {
    format.constants().into_iter().filter_map(drawn_as).all(Format::is_sound)
}

/// The format that files of this name are drawn in.
fn drawn_as(name: &Value) -> Option<Format> {
    Format::from_name(name.as_str()?)
}

/// What is known of an upload: the first three before it has a name, the first five before it has a place.
const UPLOADED: [&str; 9] = ["at", "token", "extension", "folder", "name", "path", "url", "size", "type"];

/// Whether a template of an upload may name this path, when `fields` of it are known.
fn knows_upload(path: &[&str], fields: &[&str]) -> bool {
    match path {
        ["upload", field] => fields.contains(field),
        ["account", "number"] => true,
        _ => false,
    }
}

/// Whether a template of a task may name this path.
fn leads_somewhere(path: &[&str], results: &[(String, ResultKind)], draws: &[(String, DrawKind)]) -> bool {
    const TASK: [&str; 10] = [
        "id",
        "created",
        "completed",
        "cost_seconds",
        "progress",
        "price",
        "charged",
        "model",
        "expired",
        "chosen",
    ];
    match path {
        ["task", field] => TASK.contains(field),
        ["error", field] => ["code", "message", "record_message"].contains(field),
        ["result", slot, "url" | "urls" | "size" | "seconds" | "notes"] => {
            results.iter().any(|(name, _)| name == slot)
        }
        ["draw", name] => draws.iter().any(|(drawn, _)| drawn == name),
        ["model", "result"]
        | ["state" | "ending" | "fallback"]
        | ["input" | "request" | "parent" | "record" | "account", ..] => true,
        _ => false,
    }
}

fn fill(raw: &RawFill) -> Fill {
    Fill {
        when: raw.when.clone().map(Schema::new),
        rename: raw.rename.clone().into_iter().collect(),
        set: raw.set.clone().into_iter().collect(),
    }
}
