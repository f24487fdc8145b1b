//! Where in the bodies of a template a hole stands: found once, so that reading a body is a few look-ups.

use serde_json::Value;

use super::{Expression, Node, Template, Term};

/// The places at which a name may stand in bodies, in the template's order. Which of them counts in a body depends on the
/// cases that it took; the first that holds something does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places(Vec<Vec<Step>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Member(Box<str>),
    Item(usize),
}

impl Places {
    /// What stands in `body` at the first of the places that holds something; null counts as nothing.
    pub fn find<'v>(&self, body: &'v Value) -> Option<&'v Value> {
        self.0.iter().find_map(|steps| {
            let end = steps.iter().try_fold(body, |value, step| match step {
                Step::Member(name) => value.get(&**name),
                Step::Item(index) => value.get(*index),
            });
            end.filter(|value| !value.is_null())
        })
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the places `inner` of a body are that stands at these places of another.
    #[must_use]
    pub fn then(&self, inner: &Self) -> Self {
        let joined = |outer: &Vec<Step>| {
            let outer = outer.clone();
            inner.0.iter().map(move |inner| outer.iter().chain(inner).cloned().collect())
        };
        Self(self.0.iter().flat_map(joined).collect())
    }

    /// Adds the places of `other` that are not among these.
    pub fn add(&mut self, other: Self) {
        for place in other.0 {
            if !self.0.contains(&place) {
                self.0.push(place);
            }
        }
    }

    /// The last names on the ways there, each as a place of its own.
    #[must_use]
    pub fn leaves(&self) -> Self {
        let mut leaves = Self::default();
        for step in self.0.iter().filter_map(|steps| steps.last()) {
            leaves.add(Self(vec![vec![step.clone()]]));
        }
        leaves
    }
}

impl Template {
    /// Where its bodies have a hole that is nothing but the dotted `name`. Texts that hold JSON, and lists made item by
    /// item, are not looked into.
    pub fn places(&self, name: &str) -> Places {
        let mut places = Vec::new();
        self.0.collect_places(name, &mut Vec::new(), &mut places);
        let mut distinct = Places::default();
        distinct.add(Places(places));
        distinct
    }
}

impl Node {
    fn collect_places(&self, name: &str, way: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
        let mut below = |step, node: &Self, way: &mut Vec<Step>| {
            way.push(step);
            node.collect_places(name, way, found);
            way.pop();
        };
        match self {
            Self::Expression(expression) if expression.is(name) => found.push(way.clone()),
            Self::Object(members) => {
                for member in members {
                    below(Step::Member(member.name.clone()), &member.value, way);
                }
            }
            Self::List(list) => {
                for (index, item) in list.inner.iter().enumerate() {
                    below(Step::Item(index), item, way);
                }
            }
            Self::By { cases, otherwise, .. } => {
                let cases = cases.iter().map(|(_, node)| node).chain(otherwise.as_deref());
                cases.for_each(|node| node.collect_places(name, way, found));
            }
            Self::Expression(_) | Self::Fixed(_) | Self::Text(_) | Self::Encoded(_) | Self::Each { .. } => {}
        }
    }
}

impl Expression {
    /// Whether it is nothing but that dotted name.
    pub(super) fn is(&self, name: &str) -> bool {
        match (&self.terms[..], &self.filters[..]) {
            ([Term::Path(path)], []) => path.iter().map(|part| &**part).eq(name.split('.')),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_found_where_the_body_has_it() {
        let places = Template::compile(&json!({
            "code": 200,
            "data": {"$by": "ending", "success": {"ids": ["x", "${task.id}"]}, "*": {"taskId": "${task.id}"}},
            "inner": {"$json": "${task.id}"}
        }))
        .unwrap()
        .places("task.id");
        assert_eq!(places.find(&json!({"data": {"ids": ["x", "a"]}})), Some(&json!("a")));
        assert_eq!(places.find(&json!({"data": {"ids": null, "taskId": "b"}})), Some(&json!("b")));
        assert_eq!(places.find(&json!({"data": {"taskId": null}, "inner": "c"})), None);
        let outer = Template::compile(&json!({"told": "${record}"})).unwrap().places("record");
        assert_eq!(outer.then(&places).find(&json!({"told": {"data": {"taskId": "d"}}})), Some(&json!("d")));
        assert_eq!(places.leaves().find(&json!({"taskId": "e"})), Some(&json!("e")));
    }
}
