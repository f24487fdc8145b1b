//! What a file says of a task's result files and of its price, checked.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use super::Context;
use crate::catalogue::raw::{RawPrice, RawResult, RawSurcharge};
use crate::catalogue::{Condition, Pick, Price, Rate, ResultKind, Seconds, Size, Surcharge};
use crate::ids::Credits;
use crate::media::Format;

impl Context<'_> {
    pub(super) fn results(&mut self, raw: &BTreeMap<String, RawResult>) -> Vec<(String, ResultKind)> {
        raw.iter().map(|(name, raw)| (name.clone(), self.result(&format!("results.{name}"), raw))).collect()
    }

    fn result(&mut self, at: &str, raw: &RawResult) -> ResultKind {
        let format = self.pick(at, &raw.format).unwrap_or_else(|| Pick::always(Value::Null));
        for unknown in format.constants().into_iter().filter(|name| drawn_as(name).is_none()) {
            self.problem(&format!("{at}.format"), format!("{unknown} is no format of result files"));
        }
        ResultKind {
            size: self.size(at, raw, is_sound(&format)).unwrap_or(Size::None),
            format,
            file: self.template(at, &Value::from(raw.file.as_str())),
            count: raw.count.as_ref().and_then(|count| self.pick(at, count)),
            seconds: raw.seconds.as_ref().and_then(|seconds| self.seconds(at, seconds)),
            joins_parent: raw.joins_parent,
            audio: raw.audio.as_ref().and_then(|audio| self.pick(at, audio)),
            transparent: raw.transparent.as_ref().and_then(|transparent| self.pick(at, transparent)),
            pictures: raw.pictures.as_ref().and_then(|pictures| self.pick(at, pictures)),
            fallback_short_side: raw.fallback_short_side,
            ready_at: raw.ready_at.clone(),
            kept: raw.kept_minutes.map(|minutes| Duration::from_secs(u64::from(minutes) * 60)),
        }
    }

    fn size(&mut self, at: &str, raw: &RawResult, sound: bool) -> Option<Size> {
        let aspect = raw.aspect.clone().unwrap_or_else(|| Value::from("16:9"));
        let mut optional = |raw: &Option<Value>| raw.as_ref().and_then(|raw| self.pick(at, raw));
        Some(match (&raw.exact, &raw.short_side, &raw.area_side, &raw.like_parent) {
            (Some(exact), None, None, None) => Size::Exact(self.pick(at, exact)?),
            (None, Some(side), None, None) => Size::ShortSide(self.pick(at, &aspect)?, self.pick(at, side)?),
            (None, None, Some(side), None) => Size::AreaSide(self.pick(at, &aspect)?, self.pick(at, side)?),
            (None, side, None, Some(slot)) => Size::LikeParent {
                slot: slot.clone(),
                short_side: optional(side),
                scale: optional(&raw.scale),
                aspect: self.pick(at, &aspect)?,
            },
            (None, None, None, None) if sound => Size::None,
            _ => {
                self.problem(at, "needs one of exact, short_side, area_side and like_parent".into());
                return None;
            }
        })
    }

    fn seconds(&mut self, at: &str, raw: &Value) -> Option<Seconds> {
        if raw.as_str().is_some_and(|text| text.contains("${")) || raw.get("$by").is_some() {
            return Some(Seconds::Template(self.template(at, raw)));
        }
        self.pick(at, raw).map(Seconds::Pick)
    }

    pub(super) fn price(&mut self, raw: &RawPrice) -> Price {
        self.must_have_source("price", &raw.source);
        let mut rates = Vec::new();
        for rate in &raw.rates {
            let credits = Credits::from_f64(rate.credits).filter(|credits| !credits.is_negative());
            let credits = credits.ok_or_else(|| format!("{} is no price", rate.credits));
            match credits.and_then(|credits| Ok(Rate { when: Condition::parse(&rate.when)?, credits })) {
                Ok(rate) => rates.push(rate),
                Err(what) => self.problem("price", what),
            }
        }
        let times = raw.times.as_ref().and_then(|times| self.pick("price.times", times));
        let surcharge = |raw: &RawSurcharge| {
            let credits = Credits::from_f64(raw.credits)?;
            Some(Surcharge { for_each: raw.for_each.clone(), beyond: raw.beyond, credits })
        };
        let plus = raw.plus.iter().filter_map(surcharge).collect();
        let unit = raw.unit.clone().unwrap_or_else(|| "request".into());
        Price { rates, times, plus, unit, source: raw.source.clone() }
    }

    pub(super) fn pick(&mut self, at: &str, raw: &Value) -> Option<Pick> {
        Pick::parse(raw).map_err(|what| self.problem(at, what)).ok()
    }
}

/// Whether files of this format have no size in pixels.
fn is_sound(format: &Pick) -> bool {
    format.constants().into_iter().filter_map(drawn_as).all(Format::is_sound)
}

/// The format that files of this name are drawn in.
fn drawn_as(name: &Value) -> Option<Format> {
    Format::from_name(name.as_str()?)
}
