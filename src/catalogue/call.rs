//! The calls that start no task of their own: how one finds the task it is about, what it makes of a finished one, how
//! it takes a file in.

use std::time::Duration;

use super::{ErrorIx, TaskKind, Template};

/// How an operation finds the task it is about.
#[derive(Debug)]
pub struct Lookup {
    /// JSON pointer into the request.
    pub at: String,
    /// The collections that it looks into.
    pub records: Vec<String>,
    /// No id given.
    pub missing: ErrorIx,
    /// No such task.
    pub unknown: Reply,
    /// Records are hidden after this span.
    pub older: Option<(Duration, ErrorIx)>,
    /// The task still runs; if it matters.
    pub unfinished: Option<ErrorIx>,
    /// The task failed; if it matters.
    pub failed: Option<ErrorIx>,
    /// The backup model made the result; if it matters.
    pub by_fallback: Option<ErrorIx>,
}

/// An error by name, or a body.
#[derive(Debug)]
pub enum Reply {
    /// An entry of the catalogue.
    Error(ErrorIx),
    /// A body of its own.
    Body(Template),
}

/// Another version of a result, made on request.
#[derive(Debug)]
pub struct Upgrade {
    /// How the base task is found and what must hold of it.
    pub lookup: Lookup,
    /// JSON pointer to the number of the result file.
    pub index_at: String,
    /// There is no such file.
    pub bad_index: ErrorIx,
    /// The work itself.
    pub task: TaskKind,
    /// Answer to the call that starts it.
    pub started: Reply,
    /// Answer while it runs.
    pub running: Reply,
    /// Answer when it is done.
    pub done: Template,
    /// Whether details of the base task show this record once it is done.
    pub replaces_record: bool,
}

/// How a result's address becomes a link.
#[derive(Debug)]
pub struct Link {
    /// JSON pointer to the address.
    pub url_at: String,
    /// The address is none of the account's (or of the task's, where one is named).
    pub foreign: ErrorIx,
    /// The task that it must come from.
    pub lookup: Option<Lookup>,
}

/// How a file comes in, what it is called, how long it stays.
#[derive(Debug)]
pub struct UploadKind {
    /// Where the bytes are.
    pub from: UploadFrom,
    /// JSON pointer to the folder that the client wants it in.
    pub folder_at: String,
    /// JSON pointer to the name that the client wants for it.
    pub name_at: String,
    /// The name of one without a wish.
    pub made_up: Template,
    /// Folder and name as the host keeps them.
    pub stored_as: Template,
    /// There are no bytes to be had from what the client sent.
    pub unreadable: ErrorIx,
    /// There is no room for it.
    pub no_space: ErrorIx,
    /// How long it can be had.
    pub kept: Duration,
}

/// Where the bytes of an upload are; the name is that of a field.
#[derive(Debug)]
pub enum UploadFrom {
    /// Text in a JSON body: base64, or a data URL.
    Base64(String),
    /// A part of a form.
    Part(String),
    /// At an address that a JSON body names.
    Url(String),
}
