//! JSON Schemas of requests: compiled when first needed, and what is told of a violation.

use std::sync::OnceLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

/// A schema (draft 2020-12) and, once asked, its compiled form.
///
/// Compiling takes longer than parsing a whole family's file, and a process uses few of the schemas: so `load`
/// checks form only, and [`Schema::check`] compiles for whoever wants to be sure now.
#[derive(Debug)]
pub struct Schema {
    source: Value,
    compiled: OnceLock<Result<Validator, String>>,
}

/// The first thing about a value that breaks its schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The schema keyword, `required` or `enum` for instance.
    pub keyword: &'static str,
    /// The name of the field that is missing or wrong; empty for the whole body.
    pub field: String,
}

impl Schema {
    /// Takes over the schema as it stands in the file.
    pub fn new(source: Value) -> Self {
        Self { source, compiled: OnceLock::new() }
    }

    /// The schema itself.
    pub fn source(&self) -> &Value {
        &self.source
    }

    /// Compiles it now.
    ///
    /// # Errors
    /// What the schema compiler has against it.
    pub fn check(&self) -> Result<(), String> {
        self.validator().map(|_| ()).map_err(Clone::clone)
    }

    /// Whether `value` satisfies it. A schema that does not compile is satisfied by nothing.
    pub fn accepts(&self, value: &Value) -> bool {
        self.validator().is_ok_and(|validator| validator.is_valid(value))
    }

    /// The violation in `value` that the upstream would speak of: a missing field before a wrong one, then in the
    /// schema's order. `None` if all is well.
    pub fn violation(&self, value: &Value) -> Option<Violation> {
        let validator = self.validator().ok()?;
        if validator.is_valid(value) {
            return None;
        }
        let mut violations = validator.iter_errors(value).map(|error| Violation::of(&error));
        let first = violations.next()?;
        if first.keyword == "required" {
            return Some(first);
        }
        Some(violations.find(|violation| violation.keyword == "required").unwrap_or(first))
    }

    /// Whether the schema speaks of a top-level property of that name; one that lists none takes any.
    pub fn names(&self, property: &str) -> bool {
        let properties = self.source.get("properties").and_then(Value::as_object);
        properties.is_none_or(|properties| properties.contains_key(property))
    }

    /// Whether `pointer` (`/parts/text`) leads to a property that the schema speaks of; one that lists none takes any.
    pub fn leads_to(&self, pointer: &str) -> bool {
        let mut schema = &self.source;
        for name in pointer.split('/').skip(1) {
            let Some(properties) = schema.get("properties") else { return true };
            let Some(below) = properties.get(name) else { return false };
            schema = below;
        }
        true
    }

    /// The default that the schema states for the property at `pointer` (`/model`), if it is text.
    pub fn default_text(&self, pointer: &str) -> Option<&str> {
        let path = pointer.replace('/', "/properties/");
        self.source.pointer(&format!("{path}/default")).and_then(Value::as_str)
    }

    /// The values that the schema lists for the property at `pointer` (`/model`).
    pub fn choices(&self, pointer: &str) -> Vec<&str> {
        let path = pointer.replace('/', "/properties/");
        let choices = self.source.pointer(&format!("{path}/enum")).and_then(Value::as_array);
        choices.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    fn validator(&self) -> Result<&Validator, &String> {
        let compiled = self
            .compiled
            .get_or_init(|| jsonschema::draft202012::new(&self.source).map_err(|error| error.to_string()));
        compiled.as_ref()
    }
}

impl Violation {
    fn of(error: &ValidationError<'_>) -> Self {
        let field = if let ValidationErrorKind::Required { property } = error.kind() {
            property.as_str().unwrap_or_default().to_owned()
        } else {
            let path = error.instance_path().to_string();
            let mut names = path.split('/').filter(|part| !part.is_empty() && part.parse::<usize>().is_err());
            names.next_back().unwrap_or_default().to_owned()
        };
        Self { keyword: keyword(error.kind()), field }
    }
}

fn keyword(kind: &ValidationErrorKind) -> &'static str {
    use ValidationErrorKind as Kind;
    match kind {
        Kind::Required { .. } => "required",
        Kind::Enum { .. } | Kind::Constant { .. } => "enum",
        Kind::Type { kind: TypeKind::Single(_) | TypeKind::Multiple(_) } => "type",
        Kind::MaxLength { .. } => "maxLength",
        Kind::MinLength { .. } => "minLength",
        Kind::MaxItems { .. } => "maxItems",
        Kind::MinItems { .. } => "minItems",
        Kind::Minimum { .. } | Kind::ExclusiveMinimum { .. } => "minimum",
        Kind::Maximum { .. } | Kind::ExclusiveMaximum { .. } => "maximum",
        Kind::Pattern { .. } => "pattern",
        Kind::AnyOf { .. } | Kind::OneOfNotValid { .. } | Kind::OneOfMultipleValid { .. } => "anyOf",
        Kind::Not { .. } => "not",
        Kind::AdditionalProperties { .. } => "additionalProperties",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_missing_field_is_told_before_a_wrong_one() {
        let schema = Schema::new(json!({
            "type": "object",
            "required": ["prompt", "size"],
            "properties": {
                "size": {"enum": ["1:1"], "default": "1:1"},
                "urls": {"type": "array", "items": {"type": "string"}},
            },
        }));
        let violation = |value| schema.violation(&value).map(|v| (v.keyword, v.field));
        assert_eq!(violation(json!({"size": "2:2"})), Some(("required", "prompt".into())));
        assert_eq!(violation(json!({"prompt": "x", "size": "2:2"})), Some(("enum", "size".into())));
        assert_eq!(
            violation(json!({"prompt": "x", "size": "1:1", "urls": [1]})),
            Some(("type", "urls".into()))
        );
        assert_eq!(violation(json!([])), Some(("type", String::new())));
        assert_eq!(violation(json!({"prompt": "x", "size": "1:1", "extra": 1})), None);
        assert_eq!(schema.choices("/size"), ["1:1"]);
        assert_eq!(schema.default_text("/size"), Some("1:1"));
    }

    #[test]
    fn a_bad_schema_is_found_when_checked() {
        assert!(Schema::new(json!({"type": "objekt"})).check().is_err());
    }
}
