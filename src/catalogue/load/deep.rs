//! What takes too long to check at every start: that schemas compile, and that examples satisfy them.

use serde_json::Value;

use super::Problem;
use crate::catalogue::{Catalogue, Rule, Schema};

pub(in crate::catalogue) fn check_deeply(catalogue: &Catalogue) -> Result<(), Vec<Problem>> {
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
        operation.task().iter().for_each(|task| check_rules(&mut check, &operation.id, &task.fails));
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
