//! Calm colours from a seed.
//!
//! They are chosen as luma and chroma, not as hue and lightness, so that text is equally readable on all of them.

use crate::clock::Draw;

/// A colour as video stores it: BT.709, 8 bits, luma 16..=235, chroma 16..=240 around 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Color {
    pub(super) luma: u8,
    pub(super) cb: u8,
    pub(super) cr: u8,
}

/// The ground that everything is drawn on: a gradient from top to bottom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    top: Color,
    bottom: Color,
}

/// How much lighter than the ground text is. A multiple of 16, which [`h264`](super::h264) codes without loss.
pub(super) const TEXT: u8 = 144;
/// How much lighter than the ground rules and frames are; see [`TEXT`].
pub(super) const RULE: u8 = 32;

/// Twelve hues, 30 degrees apart, as (Cb, Cr) on a circle of radius 20.
const HUES: [(i8, i8); 12] = [
    (20, 0),
    (17, 10),
    (10, 17),
    (0, 20),
    (-10, 17),
    (-17, 10),
    (-20, 0),
    (-17, -10),
    (-10, -17),
    (0, -20),
    (10, -17),
    (17, -10),
];

impl Palette {
    /// The colours that belong to `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let mut draw = Draw::new(&[b"media palette", &seed.to_le_bytes()]);
        let mut hue = |low, high| usize::try_from(draw.integer(low, high)).unwrap_or_default();
        let first = hue(0, 11);
        let second = first + hue(1, 2);
        let color = |luma, hue: usize| {
            let (cb, cr) = HUES[hue % HUES.len()];
            Color { luma, cb: 128_u8.saturating_add_signed(cb), cr: 128_u8.saturating_add_signed(cr) }
        };
        Self { top: color(88, first), bottom: color(60, second) }
    }

    /// The colour at `step` of `steps`, from top to bottom.
    pub(super) fn ground(self, step: usize, steps: usize) -> Color {
        let last = steps.saturating_sub(1).max(1);
        let step = step.min(last);
        let mix = |top: u8, bottom: u8| {
            let weighted = usize::from(top) * (last - step) + usize::from(bottom) * step;
            u8::try_from((weighted + last / 2) / last).unwrap_or(u8::MAX)
        };
        Color {
            luma: mix(self.top.luma, self.bottom.luma),
            cb: mix(self.top.cb, self.bottom.cb),
            cr: mix(self.top.cr, self.bottom.cr),
        }
    }
}

impl Color {
    /// The same hue, `luma` lighter.
    pub(super) fn lighter(self, luma: u8) -> Self {
        Self { luma: self.luma.saturating_add(luma), ..self }
    }

    /// Red, green and blue, 0..=255 (ITU-R BT.709-6, items 3.2 to 3.5, in 1/1024).
    pub(super) fn rgb(self) -> [u8; 3] {
        let [luma, cb, cr] = [self.luma, self.cb, self.cr].map(i32::from);
        let (gray, cb, cr) = ((luma - 16) * 1192, cb - 128, cr - 128);
        let channel = |scaled: i32| u8::try_from(((scaled + 512) >> 10).clamp(0, 255)).unwrap_or_default();
        [channel(gray + 1836 * cr), channel(gray - 218 * cb - 546 * cr), channel(gray + 2163 * cb)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn black_and_white_are_black_and_white() {
        let gray = |luma| Color { luma, cb: 128, cr: 128 }.rgb();
        assert_eq!([gray(16), gray(235)], [[0; 3], [255; 3]]);
    }

    /// Were it to saturate, text would have other steps than the ground and lose its edges.
    #[test]
    fn text_on_any_ground_stays_in_range() {
        for seed in 0..100 {
            let palette = Palette::new(seed);
            for step in 0..50 {
                let text = palette.ground(step, 50).lighter(TEXT);
                assert!((180..=235).contains(&text.luma), "{text:?}");
            }
        }
    }
}
