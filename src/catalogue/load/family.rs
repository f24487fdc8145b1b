//! What whole files say, checked: the one for all families, one family's, one model's.
//!
//! A family's operations are checked in `operation`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::paths::{Named, of_create, of_failure, of_refusal, of_task};
use super::{Context, Loader, NO_PARTS};
use crate::catalogue::chat::Tokens;
use crate::catalogue::raw::{RawError, RawFamily, RawFramework, RawModel, RawShared, RawStage, RawWording};
use crate::catalogue::{
    Behaviour, Catalogue, ErrorEntry, Lifecycle, Model, ModelIx, OperationIx, Schema, Shared, Template,
    Wording, small,
};

impl Loader {
    pub(super) fn add_errors(
        &mut self,
        file: &str,
        family: Option<usize>,
        raw: &[RawError],
        form: Option<&Template>,
    ) {
        for error in raw {
            let mut context = Context::new(self, file, family, String::new(), &NO_PARTS);
            let entry = context.error_entry(error, form);
            let same = |other: &&ErrorEntry| {
                other.id == entry.id && other.family == family && other.operations == entry.operations
            };
            if self.errors.iter().any(|other| same(&other)) {
                self.problem(file, &format!("error {}", entry.id), "stands there twice".into());
            }
            self.errors.push(entry);
        }
    }

    pub(super) fn shared(&mut self, raw: &RawShared) -> Shared {
        let file = "catalogue/shared.json";
        let mut context = Context::new(self, file, None, String::new(), &NO_PARTS);
        let framework = |context: &mut Context<'_>, at: &str, raw: &RawFramework| {
            let known = |path: &[&str]| matches!(path, ["http", "timestamp" | "method" | "path"]);
            (raw.http, context.told(at, "body", &raw.body, known))
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
            unknown_path: framework(&mut context, "unknown_path", &raw.unknown_path),
            wrong_method: framework(&mut context, "wrong_method", &raw.wrong_method),
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

    pub(super) fn family_lifecycles(&mut self, file: &str, family: &RawFamily) -> HashMap<String, Lifecycle> {
        let mut context = Context::new(self, file, None, String::new(), &NO_PARTS);
        context.must_have_source("source", &family.source);
        let checked =
            family.lifecycles.iter().map(|(name, raw)| (name.clone(), context.lifecycle(name, raw)));
        checked.collect()
    }

    pub(super) fn wording(&mut self, file: &str, family: usize, raw: &RawWording) -> Wording {
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

    pub(super) fn family_tokens(&mut self, file: &str, family: &RawFamily) -> Option<Arc<Tokens>> {
        let mut context = Context::new(self, file, None, String::new(), &NO_PARTS);
        family.tokens.as_ref().map(|tokens| Arc::new(context.tokens(tokens)))
    }

    pub(super) fn index_operations(&mut self, catalogue: &mut Catalogue) {
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

    pub(super) fn add_model(
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
        let input = Schema::new(raw.input);
        let model = Model {
            ids: context.ids(&raw.ids, Some(&input)),
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
            input,
            example: raw.example,
            lifecycle,
            results,
            draws: raw.draws.into_iter().collect(),
        };
        let named = Named::new(&model.results, &model.draws);
        context.check_files(named);
        context.must_lead("result", &model.result, |path| of_task(path, named));
        if let Some(answer) = &model.answer {
            context.must_lead("answer", answer, |path| of_create(path, named));
        }
        let index = ModelIx(small(catalogue.models.len()));
        if catalogue.models_by_name.insert(model.name.clone(), index).is_some() {
            self.problem(file, "model", format!("\"{}\" stands in another file too", model.name));
        }
        catalogue.models.push(model);
    }
}

impl Context<'_> {
    /// One error; `form` is that of its family's bodies, where the family has a wording.
    fn error_entry(&mut self, error: &RawError, form: Option<&Template>) -> ErrorEntry {
        let at = format!("error {}", error.id);
        let (refuses, fails) = match error.stage {
            RawStage::Request => (true, false),
            RawStage::Task => (false, true),
            RawStage::Both => (true, true),
        };
        ErrorEntry {
            id: error.id.clone(),
            family: self.family,
            operations: error.operations.clone(),
            code: error.code,
            message: error.message.as_ref().map(|message| {
                // Of a task that failed it can stand in an answer, too.
                let known = |path: &[&str]| of_refusal(path) || (fails && of_failure(path));
                self.told(&at, "message", &message.as_str().into(), known)
            }),
            record_message: error
                .record_message
                .as_ref()
                .map(|message| self.told(&at, "record_message", &message.as_str().into(), of_failure)),
            data: error.data.as_ref().map(|data| self.told(&at, "data", data, of_refusal)),
            refuses,
            fails,
            ending: error.ending.clone().unwrap_or_else(|| "fail".into()),
            http: error.http.unwrap_or(200),
            form: form.cloned(),
            without_data: error.without_data,
            tail: if error.line_feed { "\n" } else { "" },
            headers: error.headers.clone().into_iter().collect(),
            evidence: error.evidence.clone(),
            note: error.note.clone(),
        }
    }

    /// The template in a field of what stands at `at`; it may name what is `known`.
    fn told(&mut self, at: &str, field: &str, source: &Value, known: impl Fn(&[&str]) -> bool) -> Template {
        let at = format!("{at}: {field}");
        let template = self.template(&at, source);
        self.must_lead(&at, &template, known);
        template
    }
}
