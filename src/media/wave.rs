//! Sines and pitches, by arithmetic that gives the same everywhere, which the sine of a system's library does not.

/// The sine of a part of a turn: 0 at 0, 1 at a quarter.
pub(super) fn sine(turns: f64) -> f64 {
    let turns = turns - turns.floor();
    // Folded to -1/4..=1/4, where the series converges fast.
    let folded = if turns > 0.75 {
        turns - 1.0
    } else if turns > 0.25 {
        0.5 - turns
    } else {
        turns
    };
    let x = folded * std::f64::consts::TAU;
    let square = x * x;
    let series = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 16.0];
    x * series.iter().rev().fold(1.0, |rest, n: &f64| 1.0 - square / (n * (n + 1.0)) * rest)
}

/// The cosine of a part of a turn: 1 at 0, 0 at a quarter.
pub(super) fn cosine(turns: f64) -> f64 {
    sine(turns + 0.25)
}

/// The frequency in Hz of a pitch as MIDI numbers it, in equal temperament.
pub(super) fn frequency(pitch: u8) -> f64 {
    const SEMITONE: f64 = 1.059_463_094_359_295_3;
    let above = |octave: i32, semitones: i32| 2.0_f64.powi(octave) * SEMITONE.powi(semitones);
    let distance = i32::from(pitch) - 69;
    440.0 * above(distance.div_euclid(12), distance.rem_euclid(12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sines_and_pitches_are_those_of_the_library() {
        for step in -2000..2000 {
            let turns = f64::from(step) / 777.0;
            assert!((sine(turns) - (turns * std::f64::consts::TAU).sin()).abs() < 1e-12, "{turns}");
            assert!((cosine(turns) - (turns * std::f64::consts::TAU).cos()).abs() < 1e-12, "{turns}");
        }
        for pitch in 0..128 {
            let expected = 440.0 * ((f64::from(pitch) - 69.0) / 12.0).exp2();
            assert!((frequency(pitch) / expected - 1.0).abs() < 1e-12, "{pitch}");
        }
    }
}
