//! A Standard MIDI File, format 1: a track with the pace, and one with the tune.

use std::time::Duration;

use super::Spec;
use super::melody::{Melody, Note};

/// What a track ends with.
const END: [u8; 3] = [0xff, 0x2f, 0];

/// The tune that `spec` asks for. A tick is a millisecond, so notes lie where they do in the other formats.
pub(super) fn midi(spec: &Spec) -> Vec<u8> {
    let duration = spec.duration();
    let melody = Melody::new(spec.seed, duration);
    let beat = ticks(melody.beat);
    let mut file = b"MThd\0\0\0\x06\0\x01\0\x02".to_vec(); // format 1, two tracks
    file.extend(u16::try_from(beat).unwrap_or(u16::MAX).to_be_bytes()); // ticks of a quarter note
    let microseconds = (beat * 1000).to_be_bytes();
    let mut pace = vec![0, 0xff, 0x58, 4, 4, 2, 24, 8]; // four quarters a bar
    pace.extend([0, 0xff, 0x51, 3]); // microseconds of a quarter note
    pace.extend(&microseconds[1..]);
    delay(&mut pace, ticks(duration));
    pace.extend(END);
    file.extend(track(&pace));
    file.extend(track(&tune(&melody.notes, duration)));
    file
}

/// The events of the notes, which follow each other without a gap.
fn tune(notes: &[Note], duration: Duration) -> Vec<u8> {
    let mut events = b"\0\xff\x03\x06Melody".to_vec(); // the track's name
    events.extend([0, 0xc0, 0]); // channel 1 plays a piano
    for note in notes {
        events.extend([0, 0x90, note.pitch, note.velocity]);
        delay(&mut events, ticks(note.length()));
        events.extend([0x80, note.pitch, 0]);
    }
    let rest = duration.saturating_sub(notes.last().map_or(Duration::ZERO, |note| note.end));
    delay(&mut events, ticks(rest));
    events.extend(END);
    events
}

/// A quantity of variable length: 7 bits a byte, all but the last marked.
fn delay(out: &mut Vec<u8>, ticks: u32) {
    for shift in [21, 14, 7].into_iter().filter(|shift| ticks >> shift > 0) {
        out.push(0x80 | (ticks >> shift & 0x7f) as u8);
    }
    out.push((ticks & 0x7f) as u8);
}

fn track(events: &[u8]) -> Vec<u8> {
    let length = u32::try_from(events.len()).unwrap_or(u32::MAX).to_be_bytes();
    [b"MTrk", &length[..], events].concat()
}

/// Whole milliseconds.
fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
