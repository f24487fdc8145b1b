//! The spectral lines of a lasting tone, as the hybrid filter bank of Layer III sees it (ISO/IEC 11172-3, C.1.3,
//! C.1.5.3): 32 bands, each split into 18 lines by an MDCT, and neighbours freed from each other's aliases.
//!
//! All of that is linear, and a granule later it sees the same tone with another phase. So the lines of
//! exp(iwt) are complex numbers, computed once, and any granule's are their real part after a rotation.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small indexes become numbers, and lines need no more than seven digits"
)]

use super::super::wave::{cosine, sine};
use super::{GRANULE, RATE};

/// Lines of a band.
const BAND: usize = 18;
/// Bands in which tones are looked for: up to 2250 Hz.
const BANDS: usize = 3;
/// Lines from 0 in which tones are looked for.
pub(super) const LINES: usize = BANDS * BAND;
/// Coefficients of the filter of a band.
const TAPS: usize = 512;
/// The filter that all bands are made of, up to its middle, in 1/2^21 (Table C.1, without its changes of sign).
const FILTER: [i32; TAPS / 2 + 1] = [
    0, -1, -1, -1, -1, -1, -1, -2, -2, -2, -2, -3, -3, -4, -4, -5, -5, -6, -7, -7, -8, -9, -10, -11, -13,
    -14, -16, -17, -19, -21, -24, -26, -29, -31, -35, -38, -41, -45, -49, -53, -58, -63, -68, -73, -79, -85,
    -91, -97, -104, -111, -117, -125, -132, -139, -147, -154, -161, -169, -176, -183, -190, -196, -202, -208,
    -213, -218, -222, -225, -227, -228, -228, -227, -224, -221, -215, -208, -200, -189, -177, -163, -146,
    -127, -106, -83, -57, -29, 2, 36, 72, 111, 153, 197, 244, 294, 347, 401, 459, 519, 581, 645, 711, 779,
    848, 919, 991, 1064, 1137, 1210, 1283, 1356, 1428, 1498, 1567, 1634, 1698, 1759, 1817, 1870, 1919, 1962,
    2001, 2032, 2057, 2075, 2085, 2087, 2080, 2063, 2037, 2000, 1952, 1893, 1822, 1739, 1644, 1535, 1414,
    1280, 1131, 970, 794, 605, 402, 185, -45, -288, -545, -814, -1095, -1388, -1692, -2006, -2330, -2663,
    -3004, -3351, -3705, -4063, -4425, -4788, -5153, -5517, -5879, -6237, -6589, -6935, -7271, -7597, -7910,
    -8209, -8491, -8755, -8998, -9219, -9416, -9585, -9727, -9838, -9916, -9959, -9966, -9935, -9863, -9750,
    -9592, -9389, -9139, -8840, -8492, -8092, -7640, -7134, -6574, -5959, -5288, -4561, -3776, -2935, -2037,
    -1082, -70, 998, 2122, 3300, 4533, 5818, 7154, 8540, 9975, 11_455, 12_980, 14_548, 16_155, 17_799,
    19_478, 21_189, 22_929, 24_694, 26_482, 28_289, 30_112, 31_947, 33_791, 35_640, 37_489, 39_336, 41_176,
    43_006, 44_821, 46_617, 48_390, 50_137, 51_853, 53_534, 55_178, 56_778, 58_333, 59_838, 61_289, 62_684,
    64_019, 65_290, 66_494, 67_629, 68_692, 69_679, 70_590, 71_420, 72_169, 72_835, 73_415, 73_908, 74_313,
    74_630, 74_856, 74_992, 75_038,
];
/// What the butterflies between neighbouring bands are made of (Table B.9).
const ALIASES: [f64; 8] = [-0.6, -0.535, -0.33, -0.185, -0.095, -0.041, -0.0142, -0.0037];

/// A complex number.
#[derive(Clone, Copy, Default)]
struct Complex {
    re: f64,
    im: f64,
}

/// A tone of some frequency and loudness.
pub(super) struct Tone {
    re: [f32; LINES],
    im: [f32; LINES],
    /// By which part of a turn it goes on in a granule.
    turn: f64,
}

impl Tone {
    /// Of `frequency` in Hz, which swings between -`loudness` and `loudness`.
    pub(super) fn new(frequency: f64, loudness: f64) -> Self {
        let turn = frequency / f64::from(RATE);
        let mut lines = [Complex::default(); LINES];
        for (band, lines) in lines.chunks_exact_mut(BAND).enumerate() {
            let response = response(band, turn);
            for (index, line) in lines.iter_mut().enumerate() {
                *line = transformed(band, index, turn).times(response).scaled(loudness);
            }
        }
        free_from_aliases(&mut lines);
        Self {
            re: lines.map(|line| line.re as f32),
            im: lines.map(|line| line.im as f32),
            turn: turn * GRANULE as f64,
        }
    }

    /// What its lines are multiplied with in granule `index` after its start.
    pub(super) fn parts(&self, index: usize, loudness: f32) -> [f32; 2] {
        let turns = self.turn * index as f64;
        [loudness * cosine(turns) as f32, -loudness * sine(turns) as f32]
    }

    /// A line at the time that `parts` are of.
    pub(super) fn line(&self, line: usize, parts: [f32; 2]) -> f32 {
        self.re[line] * parts[0] + self.im[line] * parts[1]
    }
}

/// What the filter of `band` makes of a tone.
fn response(band: usize, turn: f64) -> Complex {
    let tap = |n: usize| {
        let coefficient = f64::from(FILTER[n.min(TAPS - n)]) / f64::from(1 << 21);
        let carrier = cosine((2 * band + 1) as f64 * (n as f64 - 16.0) / 128.0);
        Complex::at(-turn * n as f64).scaled(coefficient * carrier)
    };
    (0..TAPS).map(tap).fold(Complex::default(), Complex::plus)
}

/// Line `index` of the MDCT of a tone in `band`, where samples are 32 apart, and every second one of odd bands is
/// negated.
fn transformed(band: usize, index: usize, turn: f64) -> Complex {
    let sample = |k: usize| {
        let window = sine((k as f64 + 0.5) / 72.0);
        let base = cosine(((2 * k + 1 + BAND) * (2 * index + 1)) as f64 / 144.0);
        let sign = if band % 2 == 1 && k % 2 == 1 { -1.0 } else { 1.0 };
        Complex::at(turn * 32.0 * k as f64).scaled(window * base * sign / 9.0)
    };
    (0..2 * BAND).map(sample).fold(Complex::default(), Complex::plus)
}

/// The butterflies that decoders undo (2.4.3.4.10.1).
fn free_from_aliases(lines: &mut [Complex; LINES]) {
    for edge in (BAND..LINES).step_by(BAND) {
        for (distance, alias) in ALIASES.iter().enumerate() {
            let (below, above) = (lines[edge - 1 - distance], lines[edge + distance]);
            let size = (1.0 + alias * alias).sqrt();
            lines[edge - 1 - distance] = below.plus(above.scaled(*alias)).scaled(1.0 / size);
            lines[edge + distance] = above.plus(below.scaled(-alias)).scaled(1.0 / size);
        }
    }
}

impl Complex {
    /// On the unit circle.
    fn at(turns: f64) -> Self {
        Self { re: cosine(turns), im: sine(turns) }
    }

    fn plus(self, other: Self) -> Self {
        Self { re: self.re + other.re, im: self.im + other.im }
    }

    fn times(self, other: Self) -> Self {
        Self { re: self.re * other.re - self.im * other.im, im: self.re * other.im + self.im * other.re }
    }

    fn scaled(self, factor: f64) -> Self {
        Self { re: self.re * factor, im: self.im * factor }
    }
}
