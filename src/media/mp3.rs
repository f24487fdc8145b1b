//! MP3 (MPEG-1 Layer III, ISO/IEC 11172-3), one channel at a constant 64 kbit/s: the tune as a few spectral lines.
//!
//! Nothing is analysed: a tone that lasts has the same lines in every granule, but for their phases. So the
//! lines of each tone are computed once (`tone`), and a granule is a sum of them. All blocks are long, all
//! scale factors zero, and only four words of one Huffman table are used, those of zeros and of large values:
//! small ones are rounded to either. At 48 kHz a frame is exactly 192 bytes and 24 ms.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "lines are small numbers, before and after rounding"
)]

mod tone;

use tone::{LINES, Tone};

use super::Spec;
use super::bits::BitWriter;
use super::melody::{FADED, Melody, Note};

/// Samples per second.
pub(super) const RATE: u32 = 48_000;
/// Samples in a granule; a frame has two.
pub(super) const GRANULE: usize = 576;
/// Bytes of a frame: 64 kbit/s for 24 ms.
const FRAME: usize = 192;
/// MPEG-1 Layer III without checksum, 64 kbit/s, 48 kHz, no padding, one channel, an original (2.4.2.3).
const HEADER: [u8; 4] = [0xff, 0xfb, 0x54, 0xc4];
/// Bytes of side information of a frame with one channel.
const SIDE: usize = 17;

/// The Huffman table (B.7) in use. It has words for pairs of 0 to 15, where 15 stands for 15 and more: the
/// excess follows in [`EXCESS_BITS`].
const TABLE: u32 = 29;
const EXCESS_BITS: u32 = 9;
const LARGE: u32 = 15;
/// Words for (0, 0), (0, 15), (15, 0), (15, 15).
const WORDS: [(u32, u32); 4] = [(0b1111, 4), (0b0_0101_1000, 9), (0b0010_1011, 8), (0b0011, 4)];
/// The step of the quantiser: a value of 1 is 2^((gain - 210) / 4) of full scale (2.4.3.4.7.1), here 2^-13.75.
const GAIN: u32 = 155;
/// One over that step.
const STEPS: f32 = 13_777.2;

/// How loud the tones of a note are: itself, and its octave.
const PARTIALS: [f64; 2] = [0.2, 0.07];

/// Lines of a granule, quantised.
type Values = [i32; LINES];

/// The tune that `spec` asks for.
pub(super) fn mp3(spec: &Spec) -> Vec<u8> {
    let granules = granule_at(spec.duration()).next_multiple_of(2).max(2);
    let mut file = Vec::with_capacity((granules / 2 + 1) * FRAME);
    file.extend(information(granules / 2));
    let mut values: Vec<Values> = vec![[0; LINES]; granules];
    let mut player = Player::default();
    for note in Melody::new(spec.seed, spec.duration()).notes {
        let end = granule_at(note.end).min(granules);
        let start = granule_at(note.start).min(end);
        player.play(&note, &mut values[start..end]);
    }
    for pair in values.chunks_exact(2) {
        file.extend(frame(&pair[0], &pair[1]));
    }
    file
}

/// The granule that begins nearest to a point in time.
fn granule_at(time: std::time::Duration) -> usize {
    let samples = time.as_micros() * u128::from(RATE) / 1_000_000;
    (usize::try_from(samples).unwrap_or_default() + GRANULE / 2) / GRANULE
}

/// A silent frame that says how many follow, as players expect it of a file that is not streamed.
fn information(frames: usize) -> Vec<u8> {
    let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes();
    let mut frame = [&HEADER[..], &[0; SIDE], b"Info", &number(0b11)].concat(); // frames and bytes are told
    frame.extend(number(frames));
    frame.extend(number((frames + 1) * FRAME));
    frame.resize(FRAME, 0);
    frame
}

/// The tones heard so far, by pitch.
#[derive(Default)]
struct Player {
    tones: std::collections::BTreeMap<u8, [Tone; 2]>,
}

impl Player {
    /// Fills `granules` with a note that is struck and fades.
    fn play(&mut self, note: &Note, granules: &mut [Values]) {
        let frequency = super::wave::frequency(note.pitch);
        let tones = self
            .tones
            .entry(note.pitch)
            .or_insert_with(|| [Tone::new(frequency, PARTIALS[0]), Tone::new(2.0 * frequency, PARTIALS[1])]);
        let fade = (1.0 - FADED) / granules.len() as f32;
        for (index, values) in granules.iter_mut().enumerate() {
            let loudness = note.loudness() * (1.0 - fade * index as f32) * STEPS;
            let [low, high] = [tones[0].parts(index, loudness), tones[1].parts(index, loudness)];
            let lines = std::array::from_fn(|line| tones[0].line(line, low) + tones[1].line(line, high));
            *values = quantised(&lines);
        }
    }
}

/// Lines in steps, to the power of 3/4 as decoders undo it.
fn quantised(lines: &[f32; LINES]) -> Values {
    const MOST: f32 = (LARGE + (1 << EXCESS_BITS) - 1) as f32;
    lines.map(|line| {
        let size = line.abs();
        let value = (size * size.sqrt()).sqrt().min(MOST);
        let value = if value < LARGE as f32 / 2.0 { 0 } else { (value + 0.5).max(LARGE as f32) as i32 };
        if line < 0.0 { -value } else { value }
    })
}

/// A frame: header, side information (2.4.1.7), and the values of two granules.
fn frame(first: &Values, second: &Values) -> Vec<u8> {
    let (mut side, mut data) = (BitWriter::default(), BitWriter::default());
    side.put(0, 9); // main_data_begin: it follows at once
    side.put(0, 5 + 4); // private_bits; scfsi: scale factors are not shared
    for values in [first, second] {
        let pairs = LINES / 2 - values.rchunks_exact(2).take_while(|pair| **pair == [0, 0]).count();
        let bits: u32 = values.chunks_exact(2).take(pairs).map(|pair| write_pair(&mut data, pair)).sum();
        side.put(bits, 12); // part2_3_length
        side.put(u32::try_from(pairs).unwrap_or_default(), 9); // big_values
        side.put(GAIN, 8); // global_gain
        side.put(0, 4); // scalefac_compress: scale factors take no bits
        side.flag(false); // window_switching_flag
        (0..3).for_each(|_| side.put(TABLE, 5)); // table_select, the same in all regions
        side.put(7, 4); // region0_count
        side.put(7, 3); // region1_count
        side.put(0, 3); // preflag, scalefac_scale, count1table_select
    }
    [&HEADER[..], &side.padded(SIDE), &data.padded(FRAME - SIDE - HEADER.len())].concat()
}

/// Writes a pair of values (2.4.1.7, `huffmancodebits`), and tells in how many bits.
fn write_pair(out: &mut BitWriter, pair: &[i32]) -> u32 {
    let large = |value: i32| usize::from(value != 0);
    let (word, mut bits) = WORDS[large(pair[0]) * 2 + large(pair[1])];
    out.put(word, bits);
    for value in pair.iter().filter(|value| **value != 0) {
        out.put(value.unsigned_abs() - LARGE, EXCESS_BITS);
        out.flag(*value < 0);
        bits += EXCESS_BITS + 1;
    }
    bits
}
