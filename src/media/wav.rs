//! WAV (RIFF): the tune in 16 bits, one channel, 44.1 kHz.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "samples and phases are computed as fractions, and fit by design"
)]

use super::Spec;
use super::melody::{FADED, Melody, Note};
use super::wave::{frequency, sine};

/// Samples per second.
const RATE: u32 = 44_100;
/// Samples in which a note swells and dies, so that it does not click.
const EDGE: usize = 220;
/// Samples of a period in the table.
const PERIOD: usize = 1 << PERIOD_BITS;
const PERIOD_BITS: u32 = 11;
/// Gain 1.
const UNITY: f32 = 65_536.0;

/// The tune that `spec` asks for.
pub(super) fn wav(spec: &Spec) -> Vec<u8> {
    let samples = samples_until(spec.duration());
    let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
    let mut file = Vec::with_capacity(44 + samples * 2);
    file.extend(b"RIFF");
    file.extend(size(36 + samples * 2));
    file.extend(b"WAVEfmt ");
    file.extend(size(16));
    file.extend([1, 0, 1, 0]); // PCM, one channel
    file.extend(RATE.to_le_bytes());
    file.extend((RATE * 2).to_le_bytes()); // bytes per second
    file.extend([2, 0, 16, 0]); // bytes of a sample, bits of a sample
    file.extend(b"data");
    file.extend(size(samples * 2));
    file.resize(44 + samples * 2, 0);
    let (mut rest, mut done) = (&mut file[44..], 0);
    let period = period();
    for note in Melody::new(spec.seed, spec.duration()).notes {
        let end = samples_until(note.end);
        let (now, later) = rest.split_at_mut((end - done) * 2);
        play(&note, &period, now);
        (rest, done) = (later, end);
    }
    file
}

/// Samples up to a point in time.
fn samples_until(time: std::time::Duration) -> usize {
    usize::try_from(time.as_nanos() * u128::from(RATE) / 1_000_000_000).unwrap_or_default()
}

/// One period of the sound: a sine with a bit of its octave, at a third of full scale.
fn period() -> Vec<i16> {
    let sample = |place: usize| {
        let turns = place as f64 / PERIOD as f64;
        let value = 9000.0 * sine(turns) + 3000.0 * sine(2.0 * turns);
        value.round() as i16
    };
    (0..PERIOD).map(sample).collect()
}

/// Fills `out` with a note that is struck, fades, and ends.
fn play(note: &Note, period: &[i16], out: &mut [u8]) {
    let step = (frequency(note.pitch) / f64::from(RATE) * 2.0_f64.powi(32)).round() as u32;
    let gain = |loudness: f32| (loudness * UNITY) as i32;
    let loud = gain(note.loudness());
    let faded = gain(note.loudness() * FADED);
    let samples = out.len() / 2;
    let edge = EDGE.min(samples / 2);
    let (start, rest) = out.split_at_mut(edge * 2);
    let (middle, end) = rest.split_at_mut((samples - 2 * edge) * 2);
    let mut phase = 0;
    for (part, from, to) in [(start, 0, loud), (middle, loud, faded), (end, faded, 0)] {
        phase = ramp(part, period, phase, step, from, to);
    }
}

/// Fills `out` with a sound whose gain goes evenly from `from` to `to`. Gives the phase after it.
fn ramp(out: &mut [u8], period: &[i16], mut phase: u32, step: u32, from: i32, to: i32) -> u32 {
    // Gains in 1/2^14 of their steps, so that even the slowest fade moves.
    let count = i64::try_from(out.len() / 2).unwrap_or(i64::MAX).max(1);
    let mut gain = i64::from(from) << 14;
    let slope = ((i64::from(to) << 14) - gain) / count;
    for sample in out.chunks_exact_mut(2) {
        let value = (i64::from(period[(phase >> (32 - PERIOD_BITS)) as usize]) * gain) >> 30;
        sample.copy_from_slice(&(value as i16).to_le_bytes());
        phase = phase.wrapping_add(step);
        gain += slope;
    }
    phase
}
