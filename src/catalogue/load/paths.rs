//! Which paths a template may name: a typo in one is told when its file is read, not when the body is sent.
//!
//! What may be named depends on who fills the template in: a task, a refusal, a link. The names here are those that
//! the simulator's scopes know.

use super::Context;
use crate::catalogue::{DrawKind, ResultKind, Seconds, TaskKind, Template};

/// The result files and draws that a task's templates may name.
#[derive(Clone, Copy)]
pub(super) struct Named<'a> {
    results: &'a [(String, ResultKind)],
    draws: &'a [(String, DrawKind)],
}

impl<'a> Named<'a> {
    pub(super) fn new(results: &'a [(String, ResultKind)], draws: &'a [(String, DrawKind)]) -> Self {
        Self { results, draws }
    }
}

impl<'a> From<&'a TaskKind> for Named<'a> {
    fn from(task: &'a TaskKind) -> Self {
        Self::new(&task.results, &task.draws)
    }
}

impl Context<'_> {
    /// Every path that `template` names must be `known`.
    pub(super) fn must_lead(&mut self, at: &str, template: &Template, known: impl Fn(&[&str]) -> bool) {
        for path in template.paths() {
            let names: Vec<&str> = path.iter().map(|part| &**part).collect();
            if !known(&names) {
                self.problem(at, format!("`${{{}}}` leads nowhere", names.join(".")));
            }
        }
    }

    /// The names and lengths of a task's files must not be made of what is made of the files.
    pub(super) fn check_files(&mut self, named: Named<'_>) {
        for (name, kind) in named.results {
            let file = |path: &[&str]| matches!(path, ["index" | "format"]) || of_file(path, named);
            self.must_lead(&format!("results.{name}.file"), &kind.file, file);
            if let Some(Seconds::Template(seconds)) = &kind.seconds {
                let at = format!("results.{name}.seconds");
                if seconds.paths().iter().any(|path| matches!(&*path[0], "result" | "record" | "model")) {
                    self.problem(&at, "seconds cannot come from the task's own result".into());
                } else {
                    self.must_lead(&at, seconds, |path| of_file(path, named));
                }
            }
        }
    }
}

/// Whether a body about a task of its own may name this path.
pub(super) fn of_task(path: &[&str], named: Named<'_>) -> bool {
    leads_somewhere(path, Some(named))
}

/// Whether a body about a task of any kind may.
pub(super) fn of_any_task(path: &[&str]) -> bool {
    leads_somewhere(path, None)
}

/// Whether the answer to a create may.
pub(super) fn of_create(path: &[&str], named: Named<'_>) -> bool {
    of_account(path) || of_task(path, named)
}

/// Whether an answer that is always the same but for its holes may.
pub(super) fn of_plain(path: &[&str]) -> bool {
    of_account(path) || of_request(path)
}

/// Whether an answer that gives a link may.
pub(super) fn of_link(path: &[&str]) -> bool {
    path == ["link", "url"] || of_request(path)
}

fn of_account(path: &[&str]) -> bool {
    path == ["account", "credits"]
}

/// Whether a body about a task that there is not may.
pub(super) fn of_request(path: &[&str]) -> bool {
    matches!(path, ["request", _])
}

/// Whether the text or `data` of a refusal may.
pub(super) fn of_refusal(path: &[&str]) -> bool {
    of_request(path) || matches!(path, ["refusal", "field" | "task"])
}

/// Whether the text of the error that a task ends with may: not that text itself, nor the bodies that it stands in.
pub(super) fn of_failure(path: &[&str]) -> bool {
    !matches!(path, ["error" | "record" | "model", ..]) && of_any_task(path)
}

/// Whether the name or length of a task's file may, beside what a file alone has.
fn of_file(path: &[&str], named: Named<'_>) -> bool {
    matches!(path, ["task" | "input" | "draw" | "parent" | "fallback", ..]) && of_task(path, named)
}

/// Whether a task knows this path; files and draws by any name, where nobody knows of what kind the task is.
fn leads_somewhere(path: &[&str], named: Option<Named<'_>>) -> bool {
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
            named.is_none_or(|named| named.results.iter().any(|(name, _)| name == slot))
        }
        ["draw", name] => named.is_none_or(|named| named.draws.iter().any(|(drawn, _)| drawn == name)),
        ["parent", "id"]
        | ["model", "result"]
        | ["state" | "ending" | "fallback"]
        | ["input" | "request" | "record", ..] => true,
        ["parent", rest @ ..] => leads_somewhere(rest, None),
        _ => false,
    }
}
