//! What a family's file says of bringing a file, checked.

use std::time::Duration;

use serde_json::Value;

use super::Context;
use crate::catalogue::raw::{RawUpload, RawUploadFrom};
use crate::catalogue::{Template, UploadFrom, UploadKind};

impl Context<'_> {
    /// How a file comes in; `answer` tells where it can be had.
    pub(super) fn upload(&mut self, raw: &RawUpload, answer: &Template) -> UploadKind {
        self.must_have_source("upload.source", &raw.source);
        self.must_lead("answer", answer, |path| knows_upload(path, &UPLOADED));
        let made_up = self.template("upload.made_up", &Value::from(raw.made_up.as_str()));
        self.must_lead("upload.made_up", &made_up, |path| knows_upload(path, &UPLOADED[..3]));
        let stored_as = self.template("upload.stored_as", &Value::from(raw.stored_as.as_str()));
        self.must_lead("upload.stored_as", &stored_as, |path| knows_upload(path, &UPLOADED[..5]));
        UploadKind {
            from: match &raw.from {
                RawUploadFrom::Base64(field) => UploadFrom::Base64(field.clone()),
                RawUploadFrom::Part(part) => UploadFrom::Part(part.clone()),
                RawUploadFrom::Url(field) => UploadFrom::Url(field.clone()),
            },
            folder_at: raw.folder_at.clone(),
            name_at: raw.name_at.clone(),
            made_up,
            stored_as,
            unreadable: self.error("upload.unreadable", &raw.unreadable),
            no_space: self.error("upload.no_space", &raw.no_space),
            kept: Duration::from_secs(u64::from(raw.kept_hours) * 3600),
        }
    }
}

/// What is known of an upload: the first three before it has a name, the first five before it has a place.
const UPLOADED: [&str; 9] = ["at", "token", "extension", "folder", "name", "path", "url", "size", "type"];

/// Whether a template of an upload may name this path, when `fields` of it are known.
fn knows_upload(path: &[&str], fields: &[&str]) -> bool {
    match path {
        ["upload", field] => fields.contains(field),
        ["account", "number"] => true,
        _ => false,
    }
}
