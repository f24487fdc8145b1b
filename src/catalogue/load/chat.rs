//! What a family's file says of language models, checked.

use std::sync::Arc;
use std::time::Duration;

use super::Context;
use crate::catalogue::Template;
use crate::catalogue::chat::{Chat, ChatModel, Tokens};
use crate::catalogue::raw::{RawChat, RawChatModel, RawOperation, RawTokens};

impl Context<'_> {
    /// What the family's tokens cost.
    pub(super) fn tokens(&mut self, raw: &RawTokens) -> Tokens {
        self.must_have_source("tokens", &raw.source);
        let sound = |usd: f64| usd.is_finite() && usd >= 0.0;
        for (model, price) in &raw.usd_per_million {
            if !sound(price.input) || !sound(price.output) {
                self.problem("tokens.usd_per_million", format!("\"{model}\" has no sound price"));
            }
        }
        if !sound(raw.usd_per_credit) || raw.usd_per_credit == 0.0 {
            self.problem("tokens.usd_per_credit", format!("{} is no price", raw.usd_per_credit));
        }
        Tokens {
            usd_per_credit: raw.usd_per_credit,
            usd_per_million: raw.usd_per_million.clone().into_iter().collect(),
            per_file: raw.per_file,
            event_gap: Duration::from_millis(raw.event_ms.into()),
            source: raw.source.clone(),
        }
    }

    /// How an operation talks; `answer` is the form of its answers in one piece.
    pub(super) fn chat(&mut self, raw: &RawChat, operation: &RawOperation, answer: &Template) -> Chat {
        let id = self.template("chat.id", &raw.id);
        for (at, template) in [("chat.id", &id), ("answer", answer)] {
            let paths = template.paths().into_iter().map(|path| path.join("."));
            let lost: Vec<String> = paths.filter(|path| !Chat::PATHS.contains(&path.as_str())).collect();
            for path in lost {
                self.problem(at, format!("`${{{path}}}` leads nowhere"));
            }
        }
        if let Some(path) = raw.whole_at.iter().find(|path| !operation.also.contains(path)) {
            self.problem("chat.whole_at", format!("\"{path}\" does not stand in also"));
        }
        if raw.content_type.as_ref().is_some_and(|text| http::HeaderValue::from_str(text).is_err()) {
            self.problem("chat.content_type", "is not a header value".into());
        }
        let tokens = self.tokens.clone().unwrap_or_else(|| {
            self.problem("chat", "the family has no tokens, which say what they cost".into());
            Arc::new(Tokens::unknown())
        });
        Chat {
            dialect: raw.dialect,
            model: match &raw.model {
                RawChatModel::Name(name) => ChatModel::Name(name.clone()),
                RawChatModel::At(at) => ChatModel::At(at.clone()),
            },
            shown: raw.shown.clone().into_iter().collect(),
            id,
            content_type: raw.content_type.clone(),
            stream_default: raw.stream_default,
            whole_at: raw.whole_at.clone(),
            thinks: raw.thinks,
            shows_thoughts: raw.shows_thoughts,
            max_tokens: raw.max_tokens,
            search: raw.search.clone(),
            tokens,
        }
    }
}
