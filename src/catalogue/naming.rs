//! Which model a request means, and what it costs: questions that are asked by whoever acts a create out and by whoever
//! passes it on.

use serde_json::Value;

use super::{Catalogue, ChatModel, ModelChoice, ModelIx, Operation, OperationIx};
use crate::ids::Credits;

impl Operation {
    /// The model that `request` means: the operation's only one, the one it names, or the one that is meant where none is
    /// named. `None` for what has no models.
    pub fn model_of<'a>(&'a self, request: &'a Value) -> Option<&'a str> {
        let named = |at: &str| {
            let default = || self.request.as_ref().and_then(|schema| schema.default_text(at));
            request.pointer(at).and_then(Value::as_str).or_else(default)
        };
        match (self.task().map(|task| &task.model), self.chat().map(|chat| &chat.model)) {
            (Some(ModelChoice::Name(name)), _) | (_, Some(ChatModel::Name(name))) => Some(name),
            _ => named(self.model_at()?),
        }
    }

    /// Where requests name it, as a JSON pointer.
    fn model_at(&self) -> Option<&str> {
        match (self.task().map(|task| &task.model), self.chat().map(|chat| &chat.model)) {
            (Some(ModelChoice::At(at) | ModelChoice::Market { at, .. }), _)
            | (_, Some(ChatModel::At(at))) => Some(at),
            _ => None,
        }
    }

    /// Whether `request` may be read as naming a model that [`Operation::model_of`] does not see: by a member of which the
    /// name or the value is not spelt as the catalogue spells it.
    pub fn is_vague_about_its_model(&self, request: &Value) -> bool {
        let Some(at) = self.model_at() else { return false };
        let Some((parent, name)) = at.rsplit_once('/') else { return false };
        let Some(Value::Object(members)) = request.pointer(parent) else { return false };
        let is_plain = |value: &Value| match value {
            Value::Null => true,
            Value::String(text) => text.trim() == text && !text.contains(char::is_control),
            _ => false,
        };
        members
            .iter()
            .any(|(key, value)| key.trim().eq_ignore_ascii_case(name) && (key != name || !is_plain(value)))
    }

    /// The models that it is known to take, of its own; none where it takes those of `models/`.
    pub fn own_models(&self) -> Vec<&str> {
        let listed = |at: &str| self.request.as_ref().map(|schema| schema.choices(at)).unwrap_or_default();
        match (self.task().map(|task| &task.model), self.chat().map(|chat| &chat.model)) {
            (Some(ModelChoice::Name(name)), _) | (_, Some(ChatModel::Name(name))) => vec![name],
            (Some(ModelChoice::At(at)), _) | (_, Some(ChatModel::At(at))) => listed(at),
            (Some(ModelChoice::Market { .. }) | None, _) => Vec::new(),
        }
    }
}

impl Catalogue {
    /// The models among which a request of `operation` chooses, and those of the same family among which others do; of what
    /// has only one, such as another version of a result, that alone. None where they are those of `models/`.
    pub fn models_beside(&self, operation: OperationIx) -> Vec<&str> {
        let known = self.operation(operation);
        let chooses = |operation: &Operation| operation.model_at().is_some() || operation.chat().is_some();
        if !chooses(known) || known.own_models().is_empty() {
            return known.own_models();
        }
        let family = self.operations().map(|(_, other)| other).filter(|other| other.family == known.family);
        family.filter(|other| chooses(other)).flat_map(Operation::own_models).collect()
    }

    /// The model of that name, however it is spelt: whoever answers may not mind capitals and blanks.
    pub fn model_meant_by(&self, operation: OperationIx, name: &str) -> Option<ModelIx> {
        let folded = || {
            let name = name.trim_matches(|sign: char| sign.is_whitespace() || sign.is_control());
            let mut models = self.models().filter(|(_, model)| model.operation == operation);
            models.find(|(_, model)| model.name.eq_ignore_ascii_case(name)).map(|(index, _)| index)
        };
        self.model_by_name(operation, name).or_else(folded)
    }

    /// The model that `request` means, as a metric may show it: by the name that the catalogue has for it, else `other`.
    pub fn model_label(&self, operation: OperationIx, request: &Value) -> &str {
        let known = self.operation(operation);
        let Some(name) = known.model_of(request) else { return "other" };
        if let Some(model) = self.model_meant_by(operation, name) {
            return &self.model(model).name;
        }
        known.own_models().into_iter().find(|own| *own == name).unwrap_or("other")
    }

    /// What a create costs whose request, completed, is `input`; `None` where nobody knows.
    pub fn price_of(&self, operation: OperationIx, model: Option<ModelIx>, input: &Value) -> Option<Credits> {
        let task = self.operation(operation).task()?;
        match (model, &task.model) {
            (Some(model), ModelChoice::Market { input: field, .. }) => {
                let parameters = input.get(field).unwrap_or(&Value::Null);
                self.model(model).price.as_ref().and_then(|price| price.of(parameters))
            }
            _ => task.price.as_ref().and_then(|price| price.of(input)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_chooses_among_models_has_those_of_its_family_beside_it() {
        let catalogue = Catalogue::embedded().unwrap();
        let beside = |id: &str| catalogue.models_beside(catalogue.operation_by_id(id).unwrap());
        assert!(beside("veo.extend").contains(&"veo3_lite") && beside("veo.generate").contains(&"quality"));
        assert!(beside("chat.gpt-5-2").len() > 3);
        assert_eq!((beside("veo.get4k"), beside("jobs.create")), (vec!["veo-4k"], vec![]));
    }

    #[test]
    fn a_model_of_the_market_is_found_however_it_is_spelt() {
        let catalogue = Catalogue::embedded().unwrap();
        let (model, entry) = catalogue.models().find(|(_, model)| model.name.contains('/')).unwrap();
        let operation = entry.operation;
        for name in [entry.name.clone(), entry.name.to_uppercase(), format!(" {}\0\n", entry.name)] {
            assert_eq!(catalogue.model_meant_by(operation, &name), Some(model), "{name:?}");
        }
        assert_eq!(catalogue.model_meant_by(operation, &format!("{}-x", entry.name)), None);
    }
}
