//! `kiegate models`: the catalogue for people and for machines.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::{complain, print};
use crate::catalogue::{Catalogue, OperationIx, Price};

pub(super) fn run(family: Option<&str>, as_json: bool, catalog: Option<PathBuf>) -> ExitCode {
    let catalogue = match super::catalogue(catalog) {
        Ok(catalogue) => catalogue,
        Err(error) => return complain(&error),
    };
    if let Some(family) =
        family.filter(|family| !catalogue.families().iter().any(|known| known.id == *family))
    {
        let known: Vec<&str> = catalogue.families().iter().map(|family| family.id.as_str()).collect();
        return complain(&format!("there is no family \"{family}\"; there are {}", known.join(", ")));
    }
    let text = if as_json { machine_form(&catalogue, family) } else { table(&catalogue, family) };
    print(text.as_bytes())
}

fn family_of(catalogue: &Catalogue, operation: OperationIx) -> &str {
    &catalogue.families()[catalogue.operation(operation).family].id
}

fn outcomes(catalogue: &Catalogue, operation: OperationIx) -> Vec<String> {
    let mut outcomes = Vec::new();
    if let Some(task) = catalogue.operation(operation).task() {
        outcomes.extend(["success".to_owned(), "stall".to_owned()]);
        if task.fallback.is_some() {
            outcomes.extend(["fallback:success".to_owned(), "fallback:fail".to_owned()]);
        }
        let fails = catalogue.errors_of(operation).filter(|(_, error)| error.fails);
        outcomes.extend(fails.map(|(_, error)| format!("fail:{}", error.id)));
    }
    let refuses = catalogue.errors_of(operation).filter(|(_, error)| error.refuses);
    outcomes.extend(refuses.map(|(_, error)| format!("reject:{}", error.id)));
    outcomes
}

fn price_json(price: Option<&Price>) -> Value {
    price.map_or(Value::Null, |price| {
        let rates: Vec<Value> = price
            .rates
            .iter()
            .map(|rate| json!({"when": rate.when.source(), "credits": rate.credits}))
            .collect();
        json!({"rates": rates, "source": price.source})
    })
}

fn machine_form(catalogue: &Catalogue, family: Option<&str>) -> String {
    let wanted =
        |operation: OperationIx| family.is_none_or(|family| family_of(catalogue, operation) == family);
    let operations: Vec<Value> = catalogue
        .operations()
        .filter(|(index, _)| wanted(*index))
        .map(|(index, operation)| {
            json!({
                "id": operation.id,
                "family": family_of(catalogue, index),
                "method": operation.method.as_str(),
                "path": operation.path,
                "summary": operation.summary,
                "evidence": operation.evidence,
                "price": price_json(operation.task().and_then(|task| task.price.as_ref())),
                "outcomes": outcomes(catalogue, index),
            })
        })
        .collect();
    let models: Vec<Value> = catalogue
        .models()
        .filter(|(_, model)| wanted(model.operation))
        .map(|(_, model)| {
            json!({
                "model": model.name,
                "title": model.title,
                "vendor": model.vendor,
                "kind": model.kind,
                "operation": catalogue.operation(model.operation).id,
                "source": model.source,
                "price": price_json(model.price.as_ref()),
                "input": model.input.source(),
                "example": model.example,
            })
        })
        .collect();
    let all = json!({"operations": operations, "models": models});
    format!("{}\n", serde_json::to_string_pretty(&all).unwrap_or_default())
}

/// The cheapest and the dearest rate: `12 to 30`.
fn price_text(price: Option<&Price>) -> String {
    let Some(price) = price else { return "not known".into() };
    let rates = price.rates.iter().map(|rate| rate.credits);
    match (rates.clone().min(), rates.max()) {
        (Some(low), Some(high)) if low == high => low.to_string(),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        _ => "not known".into(),
    }
}

fn table(catalogue: &Catalogue, family: Option<&str>) -> String {
    let wanted =
        |operation: OperationIx| family.is_none_or(|family| family_of(catalogue, operation) == family);
    let mut rows = vec![["OPERATION".to_owned(), "CALL".to_owned(), "CREDITS".to_owned(), "WHAT".to_owned()]];
    for (_, operation) in catalogue.operations().filter(|(index, _)| wanted(*index)) {
        let price =
            operation.task().filter(|task| task.price.is_some()).map(|task| price_text(task.price.as_ref()));
        let call = format!("{} {}", operation.method, operation.path);
        rows.push([operation.id.clone(), call, price.unwrap_or_default(), operation.summary.clone()]);
    }
    let mut text = columns(&rows);
    let mut rows = vec![["MODEL".to_owned(), "KIND".to_owned(), "CREDITS".to_owned(), "WHAT".to_owned()]];
    for (_, model) in catalogue.models().filter(|(_, model)| wanted(model.operation)) {
        let price = price_text(model.price.as_ref());
        rows.push([
            model.name.clone(),
            model.kind.clone(),
            price,
            format!("{} ({})", model.title, model.vendor),
        ]);
    }
    if rows.len() > 1 {
        text.push('\n');
        text.push_str(&columns(&rows));
    }
    text.push_str("\nOUTCOMES for X-Mock-Outcome\n");
    for (index, operation) in catalogue.operations().filter(|(index, _)| wanted(*index)) {
        let _ = writeln!(text, "  {}: {}", operation.id, outcomes(catalogue, index).join(" "));
    }
    text
}

/// Rows with their columns one below the other.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
