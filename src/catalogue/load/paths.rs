//! Which paths a template may name: a typo in one is told when its file is read, not when the body is sent.

use super::Context;
use crate::catalogue::{DrawKind, ResultKind, Template};

impl Context<'_> {
    /// Every path that `template` names must lead somewhere.
    pub(super) fn check_paths(
        &mut self,
        at: &str,
        template: &Template,
        results: &[(String, ResultKind)],
        draws: &[(String, DrawKind)],
    ) {
        self.must_lead(at, template, |path| leads_somewhere(path, results, draws));
    }

    /// Every path that `template` names must be `known`.
    pub(super) fn must_lead(&mut self, at: &str, template: &Template, known: impl Fn(&[&str]) -> bool) {
        for path in template.paths() {
            let names: Vec<&str> = path.iter().map(|part| &**part).collect();
            if !known(&names) {
                self.problem(at, format!("`${{{}}}` leads nowhere", names.join(".")));
            }
        }
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
