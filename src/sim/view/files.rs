//! The result files of a task: which there are, how large, how long. Drawn by [`media`] when fetched.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::plan::{Ending, State};
use super::super::task::Shape;
use super::View;
use crate::catalogue::{Found, Pick, ResultKind, Scope, Seconds, Size};
use crate::media::{self, Format, Spec};

/// A file that a task makes.
#[derive(Debug, Clone)]
pub(in crate::sim) struct File {
    /// The name that the catalogue gives to files of this kind: `video`, `cover`.
    pub(in crate::sim) slot: String,
    /// The last part of its address.
    pub(in crate::sim) name: String,
    pub(in crate::sim) format: Format,
    pub(in crate::sim) width: u32,
    pub(in crate::sim) height: u32,
    pub(in crate::sim) duration: Duration,
    pub(in crate::sim) audio: bool,
    pub(in crate::sim) transparent: bool,
    /// Of an animated picture, where the catalogue says it.
    pub(in crate::sim) pictures: Option<u32>,
    /// How long it is kept, where that is shorter than for its family.
    pub(in crate::sim) kept: Option<Duration>,
    /// The state from which it is there though the task still runs.
    pub(in crate::sim) ready_at: Option<String>,
    /// Which one of how many of its kind, where there are several.
    pub(in crate::sim) place: Option<(u32, u32)>,
}

/// What the files of the task behind `view` look like, one of each kind.
pub(in crate::sim) fn shapes(view: &View<'_>) -> Box<[Shape]> {
    let shape = |(slot, kind): &(String, ResultKind)| {
        let (width, height) = size(view, kind);
        Shape { slot: slot.as_str().into(), width, height, duration: duration(view, kind) }
    };
    view.results().iter().map(shape).collect()
}

/// More files than this no task makes, and no file has more pictures, whatever its request says.
const MOST_FILES: u32 = 64;

/// All files of the task behind `view`.
pub(in crate::sim) fn of(view: &View<'_>) -> Vec<File> {
    view.results().iter().flat_map(|(slot, kind)| of_kind(view, slot, kind)).collect()
}

fn of_kind(view: &View<'_>, slot: &str, kind: &ResultKind) -> Vec<File> {
    let input = view.model_input();
    let extension = kind.format.text(input).unwrap_or_default();
    let format = Format::from_name(&extension).unwrap_or(Format::Png);
    let (width, height) = size(view, kind);
    let number = |pick: &Option<Pick>| {
        let number = pick.as_ref()?.number(input)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped to a small number"
        )]
        Some(number.clamp(0.0, f64::from(MOST_FILES)) as u32)
    };
    let count = number(&kind.count).unwrap_or(1);
    let file = |index: u32| File {
        slot: slot.to_owned(),
        name: kind.file.to_text(&FileScope { view, index, extension: &extension }),
        format,
        width,
        height,
        duration: duration(view, kind),
        kept: kind.kept,
        ready_at: kind.ready_at.clone(),
        place: (count > 1).then_some((index + 1, count)),
        audio: kind.audio.as_ref().is_some_and(|audio| audio.is_true(input)),
        transparent: kind.transparent.as_ref().is_some_and(|transparent| transparent.is_true(input)),
        pictures: number(&kind.pictures),
    };
    (0..count).map(file).collect()
}

fn duration(view: &View<'_>, kind: &ResultKind) -> Duration {
    let own = match &kind.seconds {
        None => None,
        Some(Seconds::Pick(pick)) => pick.number(view.model_input()),
        Some(Seconds::Template(template)) => template.to_text(view).parse().ok(),
    };
    let own = Duration::try_from_secs_f64(own.unwrap_or(0.0)).unwrap_or_default();
    let inherited = view.task().inherits.iter().filter(|shape| matches!(&*shape.slot, "video" | "full"));
    let before = inherited.map(|shape| shape.duration).max().filter(|_| kind.joins_parent);
    own + before.unwrap_or_default()
}

/// Width and height in pixels, both even, within what players take.
fn size(view: &View<'_>, kind: &ResultKind) -> (u32, u32) {
    let input = view.model_input();
    let (width, height) = match &kind.size {
        Size::Exact(table) => exact(table.value(input).as_deref()).unwrap_or((1024.0, 1024.0)),
        Size::ShortSide(aspect, side) => {
            let side = fallback_side(view, kind).or_else(|| side.number(input)).unwrap_or(720.0);
            by_short_side(ratio(aspect, input), side)
        }
        Size::AreaSide(aspect, side) => {
            let root = ratio(aspect, input).sqrt();
            let side = side.number(input).unwrap_or(1024.0);
            (side * root, side / root)
        }
        Size::LikeParent { slot, aspect, short_side, scale } => {
            let parents = parents_size(view, slot);
            let shape = parents.map_or_else(|| ratio(aspect, input), |(width, height)| width / height);
            let own = short_side.as_ref().and_then(|side| side.number(input));
            let side = own.or(parents.map(|(width, height)| width.min(height))).unwrap_or(720.0);
            let (width, height) = by_short_side(shape, side);
            let scale = scale.as_ref().and_then(|scale| scale.number(input)).unwrap_or(1.0);
            (width * scale, height * scale)
        }
        Size::None => (0.0, 0.0),
    };
    (even(width), even(height))
}

fn fallback_side(view: &View<'_>, kind: &ResultKind) -> Option<f64> {
    let by_fallback = view.state() == State::Ended(Ending::Success { fallback: true });
    kind.fallback_short_side.filter(|_| by_fallback).map(f64::from)
}

fn exact(size: Option<&Value>) -> Option<(f64, f64)> {
    let size = size?;
    Some((size.get(0)?.as_f64()?, size.get(1)?.as_f64()?))
}

/// Width over height of a text such as `16:9`.
fn ratio(aspect: &Pick, input: &Value) -> f64 {
    let text = aspect.text(input).unwrap_or_default();
    let parts =
        text.split_once(':').and_then(|(w, h)| Some((w.parse::<f64>().ok()?, h.parse::<f64>().ok()?)));
    parts.map(|(w, h)| w / h).filter(|ratio| (0.05..=20.0).contains(ratio)).unwrap_or(1.0)
}

fn by_short_side(ratio: f64, side: f64) -> (f64, f64) {
    if ratio >= 1.0 { (side * ratio, side) } else { (side, side / ratio) }
}

/// The size of the parent's result of that name, if there is a parent.
fn parents_size(view: &View<'_>, slot: &str) -> Option<(f64, f64)> {
    let shape = view.task().inherits.iter().find(|shape| &*shape.slot == slot)?;
    Some((f64::from(shape.width), f64::from(shape.height)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to what fits")]
fn even(side: f64) -> u32 {
    ((side.clamp(2.0, 8192.0) / 2.0).round() as u32) * 2
}

impl File {
    /// What its drawing depends on, beside its form.
    fn seed(&self, view: &View<'_>) -> u64 {
        u64::from_le_bytes(view.draw(&self.name).bytes())
    }

    /// What to draw for it.
    pub(in crate::sim) fn spec(&self, view: &View<'_>) -> Spec {
        let input = view.model_input();
        let prompt = input.get("prompt").and_then(Value::as_str).unwrap_or_default();
        let seed = self.seed(view);
        // The request's own seed, as a person looks for it; else the one that it is drawn from, cut to be readable.
        let told = input
            .get("seed")
            .or_else(|| input.get("seeds"))
            .filter(|seed| seed.is_number() || seed.is_string());
        let told =
            told.map_or_else(|| (seed % 1_000_000).to_string(), |seed| seed.to_string().replace('"', ""));
        let place = self.place.map_or_else(String::new, |(number, of)| format!(", {number} of {of}"));
        Spec {
            format: self.format,
            width: self.width,
            height: self.height,
            duration: self.duration,
            audio: self.audio,
            transparent: self.transparent,
            pictures: self.pictures,
            seed,
            caption: vec![
                view.model().to_owned(),
                prompt.chars().take(120).collect(),
                format!(
                    "{}x{}{place}, seed {}",
                    self.width,
                    self.height,
                    told.chars().take(24).collect::<String>()
                ),
                view.key().to_string(),
            ],
        }
    }
}

impl File {
    /// The notes that a file of sound plays, as `{"pitch", "start", "end", "velocity"}`: seconds, and 0 to 1.
    pub(in crate::sim) fn notes(&self, view: &View<'_>) -> Value {
        let seconds = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e6;
        let note = |note: media::Note| {
            json!({
                "pitch": note.pitch,
                "start": seconds(note.start),
                "end": seconds(note.end),
                "velocity": (f64::from(note.velocity) / 127.0 * 100.0).round() / 100.0,
            })
        };
        media::melody(self.seed(view), self.duration).into_iter().map(note).collect()
    }
}

/// What a file's name may be made of, beside the task.
struct FileScope<'a, 'v> {
    view: &'a View<'v>,
    index: u32,
    extension: &'a str,
}

impl Scope for FileScope<'_, '_> {
    fn lookup<'s>(&'s self, path: &[Box<str>]) -> Found<'s> {
        match path.first().map(|name| &**name) {
            Some("index") => Found::Integer(self.index.into()),
            Some("format") => Found::Str(self.extension),
            _ => self.view.lookup(path),
        }
    }
}
