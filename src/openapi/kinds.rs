//! Kinds of tasks: which there are behind an operation, and what the values in their bodies look like.

use serde_json::{Value, json};

use crate::catalogue::{
    Catalogue, Lifecycle, Model, ModelChoice, Operation, OperationIx, ResultKind, Schema, Shape, TaskKind,
    Types,
};

/// Tasks that one operation starts.
#[derive(Clone, Copy)]
pub(super) struct Kind<'a> {
    pub(super) catalogue: &'a Catalogue,
    pub(super) operation: &'a Operation,
    pub(super) task: &'a TaskKind,
}

impl<'a> Kind<'a> {
    /// The tasks of the operation at `index`, if it starts any.
    pub(super) fn of(catalogue: &'a Catalogue, index: OperationIx) -> Option<Self> {
        let operation = catalogue.operation(index);
        Some(Self { catalogue, operation, task: operation.task()? })
    }

    /// All kinds whose records belong to one of the `collections`.
    pub(super) fn within(
        catalogue: &'a Catalogue,
        collections: &'a [String],
    ) -> impl Iterator<Item = Self> + 'a {
        let kinds = catalogue.operations().filter_map(|(index, _)| Self::of(catalogue, index));
        kinds.filter(|kind| collections.contains(&kind.task.records))
    }

    /// The Market models that the operation takes.
    pub(super) fn models(&self) -> impl Iterator<Item = &'a Model> {
        let (catalogue, id) = (self.catalogue, &self.operation.id);
        let takes = matches!(self.task.model, ModelChoice::Market { .. });
        let models = catalogue.models().map(|(_, model)| model).filter(move |_| takes);
        models.filter(move |model| catalogue.operation(model.operation).id == *id)
    }

    /// Its own states over time, or those of its models.
    pub(super) fn lifecycles(&self) -> impl Iterator<Item = &'a Lifecycle> {
        self.task.lifecycle.iter().chain(self.models().map(|model| &model.lifecycle))
    }

    fn results(&self) -> impl Iterator<Item = &'a (String, ResultKind)> {
        self.task.results.iter().chain(self.models().flat_map(|model| &model.results))
    }

    /// Whether it makes files called so.
    pub(super) fn makes(&self, slot: &str) -> bool {
        self.results().any(|(name, _)| name == slot)
    }

    fn about_task(field: &str) -> Shape {
        match field {
            "id" | "model" => Shape::of_type("string"),
            "created" | "chosen" => Shape::of_type("integer"),
            "completed" | "cost_seconds" => Shape::of_type("integer").or_null(),
            "progress" | "price" | "charged" => Shape::of_type("number"),
            "expired" => Shape::one_of(&[json!(0), json!(1)]),
            _ => Shape::any(),
        }
    }

    fn states(&self) -> Shape {
        let phases =
            self.lifecycles().flat_map(|lifecycle| lifecycle.phases.iter().map(|phase| &phase.state));
        let endings =
            self.lifecycles().flat_map(|lifecycle| lifecycle.endings.iter().map(|(_, ending)| &ending.state));
        Shape::one_of(phases.chain(endings))
    }

    fn endings(&self) -> Shape {
        let names = self.lifecycles().flat_map(|lifecycle| lifecycle.endings.iter().map(|(name, _)| name));
        let names: Vec<Value> = names.map(|name| Value::from(name.as_str())).collect();
        Shape::one_of(&names).or(Shape::of_value(&"running".into()))
    }

    fn draw(&self, name: &str) -> Shape {
        let draws = self.task.draws.iter().chain(self.models().flat_map(|model| &model.draws));
        let named = draws.filter(|(drawn, _)| drawn == name).map(|(_, kind)| kind.shape());
        named.fold(Shape::default(), Shape::or)
    }

    fn result(&self, slot: &str, field: &str) -> Shape {
        let texts = || Shape::of_schema(json!({"type": "array", "items": {"type": "string"}}));
        match field {
            "urls" => texts(),
            "notes" => Shape::of_type("array"),
            "seconds" => Shape::of_type("number"),
            _ if self.makes(slot) => Shape::of_type("string").or_null(),
            _ => Shape::any(),
        }
    }

    fn input(&self, path: &[Box<str>]) -> Shape {
        let schema = self.operation.request.as_ref().map(Schema::source);
        match (schema, path) {
            (Some(schema), [_, ..]) => field(schema, path),
            _ => Shape::any(),
        }
    }
}

/// What `schema` says of the type of the field at `path`; null where it may be absent.
fn field(schema: &Value, path: &[Box<str>]) -> Shape {
    let Some((name, rest)) = path.split_first() else { return by_type(schema) };
    let Some(property) = schema.get("properties").and_then(|properties| properties.get(&**name)) else {
        return Shape::any();
    };
    let required = schema["required"].as_array().is_some_and(|names| names.iter().any(|one| one == &**name));
    let shape = field(property, rest);
    if required { shape } else { shape.or_null() }
}

fn by_type(schema: &Value) -> Shape {
    match (&schema["type"], &schema["enum"]) {
        (Value::String(name), _) => Shape::of_type(name),
        (Value::Array(names), _) => {
            names.iter().filter_map(Value::as_str).map(Shape::of_type).fold(Shape::default(), Shape::or)
        }
        (_, Value::Array(values)) => Shape::one_of(values),
        _ => Shape::any(),
    }
}

impl Types for Kind<'_> {
    fn shape_at(&self, path: &[Box<str>]) -> Shape {
        let Some((root, rest)) = path.split_first() else { return Shape::any() };
        match (&**root, rest) {
            ("task", [field]) => Self::about_task(field),
            ("input", rest) => self.input(rest),
            ("state", []) => self.states(),
            ("ending", []) => self.endings(),
            ("fallback", []) => Shape::of_type("boolean"),
            ("error", [field]) if &**field == "code" => Shape::of_type("integer").or_null(),
            ("error", [_]) => Shape::of_type("string").or_null(),
            ("result", [slot, field]) => self.result(slot, field),
            ("draw", [name]) => self.draw(name),
            ("account", _) => Shape::of_type("number"),
            ("record", []) => self.task.record.shape(self),
            ("model", [_]) => {
                self.models().map(|model| model.result.shape(self)).fold(Shape::default(), Shape::or)
            }
            ("parent", [field]) if &**field == "id" => Shape::of_type("string").or_null(),
            ("parent", [root, field]) if &**root == "task" => Self::about_task(field).or_null(),
            _ => Shape::any(),
        }
    }
}

/// What answers that are about no task can be made of.
pub(super) struct NoTask;

impl Types for NoTask {
    fn shape_at(&self, path: &[Box<str>]) -> Shape {
        match path.first().map(|root| &**root) {
            Some("account") => Shape::of_type("number"),
            Some("upload") if path.last().is_some_and(|field| matches!(&**field, "size" | "at")) => {
                Shape::of_type("integer")
            }
            Some("link" | "upload") => Shape::of_type("string"),
            Some("chat") => match path.last().map(|field| &**field) {
                Some("credits") => Shape::of_type("number"),
                Some("created") => Shape::of_type("integer"),
                Some("id" | "model" | "finish") => Shape::of_type("string"),
                _ => Shape::any(),
            },
            _ => Shape::any(),
        }
    }
}
