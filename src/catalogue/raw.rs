//! The catalogue's files as they are written: serde's view, checked by `load`.
//!
//! Key names here are the file format; README and `fixtures/README.md` explain them to people.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Class, Dialect, DrawKind, IdKind, Moment, Tells, Thinks, TokenPrice};

/// `catalogue/shared.json`: what all families have in common.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawShared {
    pub source: String,
    pub errors: Vec<RawError>,
    pub unauthorized: String,
    pub quota: RawQuota,
    pub insufficient: String,
    pub invalid_json: String,
    pub unknown_path: RawFramework,
    pub wrong_method: RawFramework,
    pub content_type: String,
    pub delivery: RawDelivery,
    pub link_minutes: u32,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawQuota {
    pub creates: u32,
    pub per_seconds: u32,
    pub error: String,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFramework {
    pub http: u16,
    pub body: Value,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDelivery {
    pub timeout_seconds: u32,
    pub retry_after_seconds: Vec<u32>,
    pub source: String,
}

/// `catalogue/<family>.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFamily {
    pub family: String,
    pub title: String,
    pub source: String,
    #[serde(default)]
    pub uncertain: Vec<String>,
    #[serde(default)]
    pub media_days: Option<u32>,
    #[serde(default)]
    pub templates: BTreeMap<String, Value>,
    #[serde(default)]
    pub wording: Option<RawWording>,
    #[serde(default)]
    pub errors: Vec<RawError>,
    #[serde(default)]
    pub lifecycles: BTreeMap<String, RawLifecycle>,
    #[serde(default)]
    pub tokens: Option<RawTokens>,
    pub operations: Vec<RawOperation>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWording {
    pub error: Value,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    #[serde(default)]
    pub wrong_method: Option<String>,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawError {
    pub id: String,
    pub code: u16,
    pub message: Option<String>,
    #[serde(default)]
    pub record_message: Option<String>,
    pub stage: RawStage,
    #[serde(default)]
    pub operations: Vec<String>,
    #[serde(default)]
    pub ending: Option<String>,
    #[serde(default)]
    pub http: Option<u16>,
    #[serde(default)]
    pub without_data: bool,
    #[serde(default)]
    pub line_feed: bool,
    #[serde(default)]
    pub data: Option<Value>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    pub evidence: String,
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawStage {
    Request,
    Task,
    Both,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLifecycle {
    pub phases: Vec<RawPhase>,
    pub endings: BTreeMap<String, RawEnding>,
    #[serde(default)]
    pub inline: bool,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPhase {
    pub state: Value,
    pub ms: [u32; 2],
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawEnding {
    pub state: Value,
    #[serde(default)]
    pub when: Moment,
    #[serde(default)]
    pub with_result: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSurcharge {
    pub for_each: String,
    #[serde(default)]
    pub beyond: usize,
    pub credits: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOperation {
    pub id: String,
    pub class: Class,
    pub method: String,
    pub path: String,
    #[serde(default)]
    pub also: Vec<String>,
    pub summary: String,
    pub evidence: String,
    #[serde(default)]
    pub notes: Vec<String>,
    #[serde(default)]
    pub request: Option<Value>,
    #[serde(default)]
    pub query: Option<Value>,
    #[serde(default)]
    pub example: Option<Value>,
    #[serde(default)]
    pub ids: BTreeMap<String, IdKind>,
    #[serde(default)]
    pub refusals: Vec<RawRefusal>,
    #[serde(default)]
    pub rules: Vec<RawRule>,
    #[serde(default)]
    pub fill: Vec<RawFill>,
    #[serde(default)]
    pub task: Option<RawTask>,
    #[serde(default)]
    pub upgrade: Option<RawUpgrade>,
    #[serde(default)]
    pub lookup: Option<RawLookup>,
    #[serde(default)]
    pub link: Option<RawLink>,
    #[serde(default)]
    pub discovery: Option<RawDiscovery>,
    #[serde(default)]
    pub open: bool,
    #[serde(default)]
    pub upload: Option<RawUpload>,
    #[serde(default)]
    pub chat: Option<RawChat>,
    #[serde(default)]
    pub answer: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRefusal {
    #[serde(default)]
    pub keyword: Option<String>,
    #[serde(default)]
    pub field: Option<String>,
    pub error: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
    pub id: String,
    #[serde(default)]
    pub for_each: Option<String>,
    #[serde(default)]
    pub reject_when: Option<Value>,
    #[serde(default)]
    pub exceeds: Option<RawExceeds>,
    pub error: String,
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExceeds {
    pub value: Value,
    pub limit: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFill {
    #[serde(default)]
    pub when: Option<Value>,
    #[serde(default)]
    pub rename: BTreeMap<String, String>,
    #[serde(default)]
    pub set: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTask {
    pub model: RawModelChoice,
    #[serde(default)]
    pub lifecycle: Option<String>,
    pub records: String,
    pub record: Value,
    #[serde(default)]
    pub price: Option<RawPrice>,
    #[serde(default)]
    pub draws: BTreeMap<String, DrawKind>,
    #[serde(default)]
    pub results: BTreeMap<String, RawResult>,
    #[serde(default)]
    pub follows: Option<RawFollows>,
    #[serde(default)]
    pub fallback: Option<RawFallback>,
    #[serde(default)]
    pub callbacks: Vec<RawCallback>,
    #[serde(default)]
    pub callback_at: Option<String>,
    #[serde(default)]
    pub fails: Vec<RawRule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum RawModelChoice {
    /// The operation is the model.
    Name(String),
    /// A field names it; the schema's enum lists the choice.
    At(String),
    /// A field names an entry under `models/`, whose schema holds for the field `input`.
    Market { at: String, input: String, unknown: String },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawPrice {
    #[serde(default)]
    pub rates: Vec<RawRate>,
    #[serde(default)]
    pub times: Option<Value>,
    #[serde(default)]
    pub plus: Vec<RawSurcharge>,
    #[serde(default)]
    pub unit: Option<String>,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRate {
    #[serde(default)]
    pub when: Map<String, Value>,
    pub credits: f64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawResult {
    pub format: Value,
    pub file: String,
    #[serde(default)]
    pub count: Option<Value>,
    #[serde(default)]
    pub aspect: Option<Value>,
    #[serde(default)]
    pub short_side: Option<Value>,
    #[serde(default)]
    pub area_side: Option<Value>,
    #[serde(default)]
    pub exact: Option<Value>,
    #[serde(default)]
    pub like_parent: Option<String>,
    #[serde(default)]
    pub scale: Option<Value>,
    #[serde(default)]
    pub seconds: Option<Value>,
    #[serde(default)]
    pub joins_parent: bool,
    #[serde(default)]
    pub audio: Option<Value>,
    #[serde(default)]
    pub transparent: Option<Value>,
    #[serde(default)]
    pub pictures: Option<Value>,
    #[serde(default)]
    pub fallback_short_side: Option<u32>,
    #[serde(default)]
    pub kept_minutes: Option<u32>,
    #[serde(default)]
    pub ready_at: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFollows {
    #[serde(default)]
    pub at: Option<String>,
    #[serde(default)]
    pub id_at: Option<String>,
    pub records: Vec<String>,
    #[serde(default)]
    pub has: Option<String>,
    #[serde(default)]
    pub models: Vec<String>,
    pub unknown: RawConsequence,
    #[serde(default)]
    pub unfinished: Option<RawConsequence>,
    #[serde(default)]
    pub failed: Option<RawConsequence>,
    #[serde(default)]
    pub succeeded: Option<RawConsequence>,
    #[serde(default)]
    pub once: Option<String>,
    #[serde(default)]
    pub after: Vec<RawAfter>,
    #[serde(default)]
    pub within: Vec<RawWithin>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWithin {
    pub value: Value,
    pub of: Vec<String>,
    #[serde(default = "whole")]
    pub share: f64,
    #[serde(default)]
    pub below: bool,
    pub error: String,
    /// For readers of the file.
    #[serde(rename = "note", default)]
    pub _note: Option<String>,
}

fn whole() -> f64 {
    1.0
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAfter {
    pub operation: String,
    pub then: RawConsequence,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum RawConsequence {
    Reject(String),
    Fail(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFallback {
    pub errors: Vec<String>,
    pub default_error: String,
    pub allowed_when: Value,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCallback {
    pub on: Vec<String>,
    pub body: Value,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLookup {
    pub at: String,
    pub records: Vec<String>,
    pub missing: String,
    pub unknown: RawUnknown,
    #[serde(default)]
    pub older: Option<RawOlder>,
    #[serde(default)]
    pub unfinished: Option<String>,
    #[serde(default)]
    pub failed: Option<String>,
    #[serde(default)]
    pub by_fallback: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum RawUnknown {
    Error(String),
    Body(Value),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOlder {
    pub days: u32,
    pub error: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpgrade {
    pub index_at: String,
    pub bad_index: String,
    pub started: RawUnknown,
    pub running: RawUnknown,
    pub done: Value,
    #[serde(default)]
    pub replaces_record: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLink {
    pub url_at: String,
    pub foreign: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDiscovery {
    pub tells: Tells,
    pub unknown: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawUpload {
    pub from: RawUploadFrom,
    pub folder_at: String,
    pub name_at: String,
    pub made_up: String,
    pub stored_as: String,
    pub unreadable: String,
    pub no_space: String,
    pub kept_hours: u32,
    pub source: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawChat {
    pub dialect: Dialect,
    pub model: RawChatModel,
    #[serde(default)]
    pub shown: BTreeMap<String, String>,
    pub id: Value,
    #[serde(default)]
    pub content_type: Option<String>,
    pub stream_default: bool,
    #[serde(default)]
    pub whole_at: Vec<String>,
    #[serde(default)]
    pub thinks: Thinks,
    #[serde(default)]
    pub shows_thoughts: bool,
    #[serde(default)]
    pub max_tokens: Option<u64>,
    #[serde(default)]
    pub search: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum RawUploadFrom {
    /// The field of a JSON body that holds the bytes as text.
    Base64(String),
    /// The part of a form that holds the bytes as they are.
    Part(String),
    /// The field of a JSON body that says where the bytes are.
    Url(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub(super) enum RawChatModel {
    /// The operation is the model.
    Name(String),
    /// A field names it; the schema's enum lists the choice.
    At(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawTokens {
    pub usd_per_credit: f64,
    pub usd_per_million: BTreeMap<String, TokenPrice>,
    pub per_file: u64,
    pub event_ms: u32,
    pub source: String,
}

/// `models/<vendor>/<model>.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawModel {
    pub model: String,
    pub title: String,
    pub vendor: String,
    pub operation: String,
    pub kind: String,
    pub lifecycle: String,
    pub source: String,
    #[serde(default)]
    pub notes: Vec<String>,
    pub input: Value,
    #[serde(default)]
    pub ids: BTreeMap<String, IdKind>,
    pub example: Value,
    #[serde(default)]
    pub refusals: Vec<RawRefusal>,
    #[serde(default)]
    pub rules: Vec<RawRule>,
    pub price: Option<RawPrice>,
    pub results: BTreeMap<String, RawResult>,
    #[serde(default)]
    pub follows: Option<RawFollows>,
    pub result: Value,
    #[serde(default)]
    pub answer: Option<Value>,
    #[serde(default)]
    pub draws: BTreeMap<String, DrawKind>,
}
