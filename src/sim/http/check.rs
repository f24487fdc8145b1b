//! Whether a request is one that the upstream takes: wishes of a test first, then model, schemas, rules.

use serde_json::Value;

use super::{Call, Refused};
use crate::catalogue::{ErrorEntry, ModelChoice, ModelIx, Refusal, Violation};
use crate::sim::outcome::unknown_error;

impl Call<'_> {
    /// The refusal that a test asked for, by code or error id.
    pub(super) fn wished_refusal(&self, wanted: &str) -> Refused {
        let mut known = self.sim.catalogue().errors_of(self.index).filter(|(_, error)| error.refuses);
        let fits = |error: &ErrorEntry| error.id == wanted || wanted.parse() == Ok(error.code);
        match known.find(|(_, error)| fits(error)) {
            Some((error, _)) => error.into(),
            None => {
                Refused::BadWish(unknown_error(self.sim.catalogue(), self.index, "reject", wanted, |error| {
                    error.refuses
                }))
            }
        }
    }

    /// Checks the request against schema and rules; gives the model where one is named.
    pub(in crate::sim) fn check_request(&self) -> Result<Option<ModelIx>, Refused> {
        let catalogue = self.sim.catalogue();
        let mut model = None;
        if let Some(ModelChoice::Market { at, unknown, .. }) = self.operation.task().map(|task| &task.model) {
            let name = self.request.pointer(at).and_then(Value::as_str).unwrap_or_default();
            let found = catalogue.model_by_name(self.index, name);
            model = Some(found.ok_or(*unknown)?);
        }
        self.check_schema()?;
        if let (Some(found), Some(ModelChoice::Market { input, .. })) =
            (model, self.operation.task().map(|task| &task.model))
        {
            let entry = catalogue.model(found);
            let input = self.request.get(input).unwrap_or(&Value::Null);
            if let Some(violation) = entry.input.violation(input) {
                return Err(self.violated(violation, &entry.refusals));
            }
            if let Some(rule) = entry.rules.iter().find(|rule| rule.refuses(input)) {
                return Err(rule.error.into());
            }
        }
        match self.operation.rules.iter().find(|rule| rule.refuses(&self.request)) {
            Some(rule) => Err(rule.error.into()),
            None => Ok(model),
        }
    }

    /// Checks the request against the operation's schema.
    pub(super) fn check_schema(&self) -> Result<(), Refused> {
        let violation = self.operation.request.as_ref().and_then(|schema| schema.violation(&self.request));
        violation.map_or(Ok(()), |violation| Err(self.violated(violation, &[])))
    }

    fn violated(&self, violation: Violation, first: &[Refusal]) -> Refused {
        let fits = |refusal: &&Refusal| {
            refusal.keyword.as_ref().is_none_or(|keyword| keyword == violation.keyword)
                && refusal.field.as_ref().is_none_or(|field| *field == violation.field)
        };
        let refusal = first.iter().chain(&self.operation.refusals).find(fits);
        let error = refusal.map_or(self.sim.catalogue().shared().invalid_json, |refusal| refusal.error);
        Refused::Error { error, field: Some(violation.field), task: None }
    }
}
