//! What chats cost: nobody knows before they are over, so what their words cost is reserved, and what the upstream says that
//! one has cost is read from its answer as it passes by.
//!
//! It says so at the end. A client that leaves before ends the request to the upstream as well, so nobody ever hears what
//! it cost; it is charged what that is `supposed` to be, or whoever leaves early would talk for nothing. One that
//! comes to its end without a word of its cost, a refusal perhaps, or is broken off by the upstream, costs nothing.

mod supposed;

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;

use super::ask::Ask;
use super::member::Member;
use super::{Gateway, reserve};
use crate::background;
use crate::clock::Moment;
use crate::config::Mode;
use crate::error::ApiError;
use crate::heard::{End, Heard, Listener};
use crate::ids::Credits;
use supposed::Supposed;

/// Where the cost of one chat is noted, when it is over or its client has left.
pub(super) struct Meter {
    gateway: Arc<Gateway>,
    member: Arc<Member>,
    /// When it was let in, which is when it counts.
    at: Moment,
    /// For metrics.
    model: String,
    reader: Reader,
    supposed: Supposed,
    /// What was counted when it was let in.
    reserved: Credits,
    /// Nothing more comes: what it has not said by now it did not cost.
    is_over: bool,
}

impl Meter {
    /// For a chat that is about to be sent: what it costs at least is counted.
    ///
    /// # Errors
    /// Credits that are spent; a store that cannot be reached.
    pub(super) async fn begin(
        gateway: &Arc<Gateway>,
        member: &Arc<Member>,
        ask: &Ask,
    ) -> Result<Self, ApiError> {
        let catalogue = &gateway.parts.catalogue;
        let at = gateway.moment(member, &ask.parts.headers);
        let request = ask.request(catalogue.operation(ask.index));
        let supposed = Supposed::new(catalogue, ask.index, request);
        let reserved = reserve::chat(gateway, member, supposed.least(catalogue), at).await?;
        let mut meter = Self {
            model: catalogue.model_label(ask.index, request).to_owned(),
            reader: Reader::default(),
            supposed,
            reserved,
            is_over: false,
            at,
            gateway: Arc::clone(gateway),
            member: Arc::clone(member),
        };
        if meter.is_told() {
            gateway.parts.metrics.chat_reserved(&member.label, &meter.model, reserved);
        }
        if let Err(error) = reserve::shadow_credits(gateway, member, reserved, at).await {
            meter.is_over = true;
            return Err(error.into());
        }
        Ok(meter)
    }

    /// Whether the metrics are told of it: the simulator tells of its chats itself.
    fn is_told(&self) -> bool {
        self.member.mode != Mode::Mock
    }

    /// The answer, whose cost is noted as it passes.
    pub(super) fn over(self, response: Response) -> Response {
        response.map(|body| Body::new(Heard::new(body, self)))
    }

    /// There is no answer.
    pub(super) fn unanswered(mut self) {
        self.is_over = true;
    }

    fn cost(&mut self) -> Option<Credits> {
        let told = self.reader.found();
        told.or_else(|| if self.is_over { None } else { self.supposed.cost(&self.gateway.parts.catalogue) })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        let cost = self.cost().unwrap_or_default();
        if self.is_told() {
            let metrics = &self.gateway.parts.metrics;
            metrics.chat_charged(&self.member.label, &self.model, self.reserved, cost);
        }
        let more = cost - self.reserved;
        if more == Credits::ZERO {
            return;
        }
        let (gateway, member, at) = (Arc::clone(&self.gateway), Arc::clone(&self.member), self.at);
        background::spawn(async move {
            if let Err(error) = gateway.parts.store.spend(&member.tenant.id, more, at).await {
                tracing::error!("what a chat has cost cannot be written down: {error}");
            }
        });
    }
}

impl Listener for Meter {
    fn piece(&mut self, piece: &Bytes) {
        self.reader.read(piece);
        self.supposed.hear(piece);
    }

    fn end(&mut self, how: End) {
        self.is_over = how != End::Dropped;
    }
}

/// The name under which answers say what they have cost.
const NAME: &[u8] = b"\"credits_consumed\":";
/// The longest number that may follow.
const NUMBER: usize = 32;

/// Finds the cost in a text that comes in pieces. The last one said counts.
#[derive(Debug, Default)]
struct Reader {
    /// The end of what has passed, where a name or number may have been cut.
    tail: Vec<u8>,
    found: Option<Credits>,
}

impl Reader {
    fn read(&mut self, piece: &[u8]) {
        self.tail.extend_from_slice(piece);
        self.look(false);
        let keep = NAME.len() + NUMBER;
        let cut = self.tail.len().saturating_sub(keep);
        self.tail.drain(..cut);
    }

    /// What was said last.
    fn found(&mut self) -> Option<Credits> {
        self.look(true);
        self.found
    }

    /// `is_over`: nothing follows that a number could go on with.
    fn look(&mut self, is_over: bool) {
        let mut rest = &self.tail[..];
        while let Some(at) = rest.windows(NAME.len()).position(|window| window == NAME) {
            rest = rest[at + NAME.len()..].trim_ascii_start();
            let is_part = |byte: &u8| byte.is_ascii_digit() || b".eE+-".contains(byte);
            let end = rest.iter().position(|byte| !is_part(byte));
            let Some(end) = end.or(is_over.then_some(rest.len())) else { return };
            let number = std::str::from_utf8(&rest[..end]).ok().and_then(|text| text.parse().ok());
            let credits = number.and_then(Credits::from_f64).filter(|credits| *credits >= Credits::ZERO);
            self.found = credits.or(self.found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_found_wherever_the_text_is_cut() {
        let text = b"data: {\"x\": 1}\n\ndata: {\"usage\": {}, \"credits_consumed\": 12.75, \"y\": 2}\n\ndata: [DONE]\n\n";
        for cut in 0..text.len() {
            let mut reader = Reader::default();
            reader.read(&text[..cut]);
            reader.read(&text[cut..]);
            assert_eq!(reader.found(), Credits::from_f64(12.75), "cut at {cut}");
        }
        let mut whole = Reader::default();
        for byte in text {
            whole.read(&[*byte]);
        }
        assert_eq!(whole.found(), Credits::from_f64(12.75));
        assert!(whole.tail.len() < 100);
    }

    #[test]
    fn an_answer_without_a_cost_costs_nothing() {
        let mut reader = Reader::default();
        reader.read(b"{\"credits_consumed\": null, \"credits\": 5, \"x\": {\"credits_consumed\": -5}}");
        assert_eq!(reader.found(), None);
    }
}
