//! A tune from a seed: what it is made of, and how loud a note is as it fades. `wav`, `mp3` and `midi` play it.

use std::time::Duration;

use crate::clock::Draw;

/// A note of a tune. Times are whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// As MIDI numbers them: 69 is the A of 440 Hz, each step a semitone.
    pub pitch: u8,
    /// When it begins.
    pub start: Duration,
    /// When it ends; after `start`.
    pub end: Duration,
    /// How hard it is struck, 1..=127.
    pub velocity: u8,
}

/// A tune and its pace.
pub(super) struct Melody {
    /// How long a quarter note lasts.
    pub(super) beat: Duration,
    pub(super) notes: Vec<Note>,
}

/// The longest tune.
pub(super) const LONGEST: Duration = Duration::from_mins(10);

/// Semitones above the key note: major and minor scales without the notes that can sound wrong.
const SCALES: [[u8; 5]; 2] = [[0, 2, 4, 7, 9], [0, 3, 5, 7, 10]];
/// Highest degree of a scale, counted through its octaves.
const HIGHEST: u64 = 9;
/// Lengths of notes that fill a bar of four beats, in half beats.
const RHYTHMS: [&[u32]; 5] = [&[2, 2, 2, 2], &[3, 1, 2, 2], &[2, 1, 1, 4], &[1, 1, 2, 4], &[2, 2, 4]];
/// Bars in a phrase.
const BARS: usize = 4;
/// The order in which two phrases are played, again and again.
const FORM: [usize; 4] = [0, 0, 1, 0];

/// The notes of the tune that belongs to `seed`: one at a time, without rests, from 0 to the end of `duration`
/// (at most 10 minutes). A longer one begins as a shorter one does.
pub fn melody(seed: u64, duration: Duration) -> Vec<Note> {
    Melody::new(seed, duration).notes
}

impl Melody {
    /// See [`melody`].
    pub(super) fn new(seed: u64, duration: Duration) -> Self {
        let mut draw = Draw::new(&[b"media melody", &seed.to_le_bytes()]);
        let half_beat = Duration::from_millis(draw.integer(24, 34) * 10);
        let key = byte(draw.integer(57, 64));
        let scale = SCALES[index(&mut draw, SCALES.len())];
        let phrases: [Vec<(u32, u8)>; 2] = std::array::from_fn(|_| phrase(&mut draw));
        let tune = FORM.iter().cycle().flat_map(|&which| &phrases[which]);
        let end = Duration::from_millis(u64::try_from(duration.min(LONGEST).as_millis()).unwrap_or_default());
        let mut notes = Vec::new();
        let mut start = Duration::ZERO;
        for (count, &(half_beats, degree)) in tune.enumerate() {
            if start >= end {
                break;
            }
            let place = usize::from(degree);
            let pitch = key + scale[place % scale.len()] + 12 * byte((place / scale.len()) as u64);
            let velocity = if count % 4 == 0 { 100 } else { 80 };
            let until = (start + half_beat * half_beats).min(end);
            notes.push(Note { pitch, start, end: until, velocity });
            start = until;
        }
        Self { beat: half_beat * 2, notes }
    }
}

/// Notes of a phrase as (half beats, degree of the scale): steps up and down that end where they began.
fn phrase(draw: &mut Draw) -> Vec<(u32, u8)> {
    let first = draw.integer(0, 5);
    let mut degree = first;
    let mut notes: Vec<(u32, u8)> = Vec::new();
    for _ in 0..BARS {
        for &half_beats in RHYTHMS[index(draw, RHYTHMS.len())] {
            notes.push((half_beats, byte(degree)));
            degree = (degree + draw.integer(0, 4)).saturating_sub(2).min(HIGHEST);
        }
    }
    if let Some(last) = notes.last_mut() {
        last.1 = byte(first);
    }
    notes
}

impl Note {
    /// How long it sounds.
    pub(super) fn length(&self) -> Duration {
        self.end.saturating_sub(self.start)
    }

    /// How loud it is when struck, of 1.
    pub(super) fn loudness(&self) -> f32 {
        f32::from(self.velocity) / 127.0
    }
}

/// Of the loudness that a note is struck with, what is left at its end.
pub(super) const FADED: f32 = 0.25;

fn index(draw: &mut Draw, count: usize) -> usize {
    usize::try_from(draw.integer(0, count as u64 - 1)).unwrap_or_default()
}

fn byte(value: u64) -> u8 {
    u8::try_from(value).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tune_fills_its_time_without_gaps() {
        for seed in 0..50 {
            for millis in [0, 1, 100, 5000, 240_000] {
                let duration = Duration::from_millis(millis);
                let notes = melody(seed, duration);
                assert!(notes.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(notes.iter().all(|note| note.start < note.end && (57..=90).contains(&note.pitch)));
                assert_eq!(notes.last().map_or(Duration::ZERO, |note| note.end), duration);
            }
        }
    }

    #[test]
    fn a_tune_has_several_pitches_and_depends_on_its_seed() {
        let pitches = |seed| melody(seed, Duration::from_secs(20)).into_iter().map(|note| note.pitch);
        for seed in 0..50 {
            assert!(pitches(seed).collect::<std::collections::BTreeSet<_>>().len() > 2, "seed {seed}");
        }
        assert!(!pitches(1).eq(pitches(2)));
        assert!(melody(1, Duration::MAX).last().unwrap().end == LONGEST);
    }
}
