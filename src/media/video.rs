//! A video that is seen to play: a still scene, on which a clock counts and a progress bar grows.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;

use super::Spec;
use super::h264::{Encoder, FrameRate, Macroblocks, Mosaic, parameter_sets};
use super::layout::{Footer, Inks, Layout};
use super::mp4::{self, Brand, Media, TIMESCALE, Track};
use super::palette::{Palette, RULE, TEXT};

/// Pictures per second.
const RATE: u32 = 24;
/// Audio samples in a frame of AAC.
const AAC_SAMPLES: u32 = 1024;
/// Most key frames in a video: they are nearly all of its size, and a minute-long one needs fewer per second.
const MOST_KEY_FRAMES: usize = 60;

/// A frame of AAC-LC that holds silence (ISO/IEC 14496-3, 4.4.2.1): a channel pair with a common window and no
/// scale factor bands (25 bits), a global gain and no data for each channel (11 bits twice), the end (3 bits).
const SILENCE: &[u8] = &[0x21, 0x10, 0x04, 0x60, 0x8c, 0x1c];

/// What the video shows, in cells of 4 by 4 pixels.
struct Scene {
    /// Without clock and bar.
    still: Mosaic,
    /// Luma of the ground by row of cells.
    ground: Vec<u8>,
    width: usize,
    footer: Footer,
    frames: usize,
    duration: Duration,
}

/// The video that `spec` asks for as an MP4 file.
pub(super) fn mp4(spec: &Spec) -> Vec<u8> {
    file(spec, Brand::Mp4)
}

/// The video that `spec` asks for as a `QuickTime` file.
pub(super) fn mov(spec: &Spec) -> Vec<u8> {
    file(spec, Brand::QuickTime)
}

fn file(spec: &Spec, brand: Brand) -> Vec<u8> {
    let (width, height) = spec.size();
    let (width, height) = (width.next_multiple_of(2), height.next_multiple_of(2));
    let duration = mp4::ticks(spec.duration());
    let mut tracks = vec![picture_track(spec, brand, width, height, duration)];
    if spec.audio {
        tracks.push(silence_track(brand, duration));
    }
    mp4::file(brand, &tracks, duration)
}

fn picture_track(spec: &Spec, brand: Brand, width: usize, height: usize, duration: u32) -> Track {
    let ticks = TIMESCALE / RATE;
    let frames = ((duration + ticks / 2) / ticks).max(1) as usize;
    let interval = (2 * RATE as usize).max(frames.div_ceil(MOST_KEY_FRAMES));
    let sets = parameter_sets(width, height, FrameRate(RATE));
    Track {
        media: Media::Video { width, height },
        entry: mp4::avc_entry(brand, width, height, &sets.sequence, &sets.picture),
        ticks,
        samples: Scene::new(spec, width, height, frames).pictures(interval),
        key_samples: Some((0..frames).step_by(interval).collect()),
    }
}

fn silence_track(brand: Brand, duration: u32) -> Track {
    Track {
        media: Media::Audio,
        entry: mp4::aac_entry(brand),
        ticks: AAC_SAMPLES,
        samples: vec![Bytes::from_static(SILENCE); duration.div_ceil(AAC_SAMPLES) as usize],
        key_samples: None,
    }
}

impl Scene {
    fn new(spec: &Spec, width: usize, height: usize, frames: usize) -> Self {
        let palette = Palette::new(spec.seed);
        let mut still = Mosaic::gray(Macroblocks::covering(width, height));
        let (width, height) = (width.div_ceil(4), height.div_ceil(4));
        let (layout, footer) = Layout::moving(width, height, &spec.caption);
        let (stride, halves) = (still.stride(), still.chroma.len());
        for (step, chroma) in still.chroma.iter_mut().enumerate() {
            let color = palette.ground(step, halves);
            *chroma = [color.cb, color.cr];
        }
        let rows = still.luma.len() / stride;
        let ground: Vec<u8> = (0..rows).map(|y| palette.ground(y, rows).luma).collect();
        for (y, (row, &ground)) in still.luma.chunks_exact_mut(stride).zip(&ground).enumerate() {
            row.fill(ground);
            if y < height {
                layout.row(y, inks(ground), &mut row[..width]);
            }
        }
        Self { still, ground, width, footer, frames, duration: spec.duration() }
    }

    /// All pictures, coded, with a key frame every `interval`.
    fn pictures(&self, interval: usize) -> Vec<Bytes> {
        let mut encoder = Encoder::new(self.still.size);
        let mut picture = self.still.clone();
        let mut last = None;
        let code = |frame| {
            let state = (self.footer.filled(frame, self.frames), seconds(frame));
            let rows = if last.replace(state) == Some(state) { 0..0 } else { self.moving_rows() };
            if !rows.is_empty() {
                self.paint(frame, &mut picture);
            }
            let unit = if frame % interval == 0 {
                encoder.key_frame(&picture)
            } else {
                encoder.delta_frame(&picture, rows)
            };
            unit.into()
        };
        (0..self.frames).map(code).collect()
    }

    /// The rows of macroblocks in which pictures differ.
    fn moving_rows(&self) -> Range<usize> {
        let rows = self.footer.rows();
        rows.start / 4..rows.end.div_ceil(4)
    }

    /// Puts clock and bar as they are in `frame` onto `picture`.
    fn paint(&self, frame: usize, picture: &mut Mosaic) {
        let moment =
            self.footer.moment(self.footer.filled(frame, self.frames), seconds(frame), self.duration);
        let stride = picture.stride();
        for y in self.footer.rows() {
            let row = &mut picture.luma[y * stride..][..self.width];
            moment.row(y, inks(self.ground[y]), row);
        }
    }
}

/// What text and rules are drawn with on `ground`.
fn inks(ground: u8) -> Inks {
    Inks { ground, rule: ground + RULE, text: ground + TEXT }
}

/// Whole seconds played before `frame`.
fn seconds(frame: usize) -> u64 {
    (frame / RATE as usize) as u64
}

/// What frame `frame` of the video shows if it is decoded without loss.
#[cfg(test)]
pub(super) fn drawn(spec: &Spec, frame: usize) -> Mosaic {
    let (width, height) = spec.size();
    let frames = usize::try_from(spec.duration().as_secs()).unwrap() * RATE as usize;
    let scene = Scene::new(spec, width, height, frames);
    let mut picture = scene.still.clone();
    scene.paint(frame, &mut picture);
    picture
}
