//! What the bodies that a template makes look like: taken from the template itself, so that none can differ.

use super::{Expression, Filter, Member, Node, Template, Term};
use crate::catalogue::Shape;

/// What the values look like that a template's holes are filled with; the counterpart of a
/// [`Scope`](super::Scope).
pub trait Types {
    /// The values that `path` can lead to, null included where it may lead nowhere.
    fn shape_at(&self, path: &[Box<str>]) -> Shape;
}

impl Template {
    /// What its bodies look like where `types` fill its holes.
    pub fn shape(&self, types: &dyn Types) -> Shape {
        self.0.shape(types)
    }
}

impl Node {
    fn shape(&self, types: &dyn Types) -> Shape {
        match self {
            Self::Fixed(text) => Shape::of_value(
                &serde_json::from_str(text).expect("fixed text is JSON that was written before"),
            ),
            Self::Expression(expression) => expression.shape(types),
            Self::Text(_) => Shape::of_type("string"),
            Self::Object(members) => Shape::object(members.iter().map(|member| member.shape(types))),
            Self::List(list) => Shape::list(list.inner.iter().map(|item| item.shape(types))),
            Self::By { cases, otherwise, .. } => {
                let rest = otherwise.as_ref().map_or(Shape::of_type("null"), |node| node.shape(types));
                let cases = cases.iter().map(|(_, node)| node.shape(types));
                cases.chain([rest]).fold(Shape::default(), Shape::or)
            }
            Self::Encoded(encoded) => Shape::encoded(encoded.inner.shape(types)),
            Self::Each { of, .. } => Shape::list([of.shape(&ItemTypes(types))]).or_null(),
        }
    }
}

/// Types with an item of a list in front of them.
struct ItemTypes<'a>(&'a dyn Types);

impl Types for ItemTypes<'_> {
    fn shape_at(&self, path: &[Box<str>]) -> Shape {
        match path {
            [root, ..] if &**root == "item" => Shape::any(),
            [root] if &**root == "index" => Shape::of_type("integer"),
            _ => self.0.shape_at(path),
        }
    }
}

impl Member {
    fn shape(&self, types: &dyn Types) -> (String, bool, Shape) {
        let name: String = serde_json::from_str(self.key.trim_end_matches(':'))
            .expect("a key is a JSON string with a colon");
        let shape = self.value.shape(types);
        if self.optional { (name, true, shape.but_null()) } else { (name, false, shape) }
    }
}

impl Expression {
    fn shape(&self, types: &dyn Types) -> Shape {
        let mut shape = Shape::default();
        for term in &self.terms {
            let next = match term {
                Term::Path(path) => types.shape_at(path),
                Term::Literal(value) => Shape::of_value(value),
            };
            shape = shape.but_null().or(next);
        }
        self.filters.iter().fold(shape, |shape, filter| filter.shape(shape))
    }
}

impl Filter {
    fn shape(self, shape: Shape) -> Shape {
        let made = match self {
            Self::Civil | Self::Iso | Self::IsoMillis | Self::TwoDecimals | Self::Text | Self::Base64 => {
                Shape::of_type("string")
            }
            Self::Seconds | Self::WholeSeconds => Shape::of_type("integer"),
            Self::Count => return Shape::of_type("integer").or_null(),
            Self::Words => {
                Shape::of_schema(serde_json::json!({"type": "array", "items": {"type": "object"}}))
            }
            Self::Sorted => return shape,
        };
        if shape.may_be_null() { made.or_null() } else { made }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    struct Sample;

    impl Types for Sample {
        fn shape_at(&self, path: &[Box<str>]) -> Shape {
            match path.join(".").as_str() {
                "id" => Shape::of_type("string"),
                "ended" => Shape::of_type("integer").or_null(),
                _ => Shape::any(),
            }
        }
    }

    fn check(template: &Value, expected: &Value) {
        let shape = Template::compile(template).unwrap().shape(&Sample);
        assert_eq!(shape.into_schema(), *expected, "{template}");
    }

    #[test]
    fn a_body_looks_as_its_template_says() {
        check(&json!("${ended}"), &json!({"type": ["integer", "null"]}));
        check(&json!("${ended ?? id}"), &json!({"type": ["integer", "string"]}));
        check(&json!("${ended | civil}"), &json!({"type": ["string", "null"]}));
        check(&json!("at ${ended}"), &json!({"type": "string"}));
        check(&json!("${x | sorted}"), &json!({}));
        check(
            &json!({"code": 200, "at?": "${ended}"}),
            &json!({"type": "object", "properties": {"code": {"const": 200}, "at": {"type": "integer"}}, "required": ["code"]}),
        );
        check(&json!({"$by": "x", "a": "${id}"}), &json!({"type": ["string", "null"]}));
        check(
            &json!({"$json": {"a": ["${id}"]}}),
            &json!({"type": "string", "contentMediaType": "application/json", "contentSchema": {
                "type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}}}, "required": ["a"]}}),
        );
    }
}
