//! What is heard: decoders give samples or events, and the tune is looked for in them.

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::default_trait_access,
    reason = "times become indexes of samples; options of decoders are the usual ones"
)]

use midly::{Format as Tracks, MetaMessage, MidiMessage, Smf, Timing, TrackEventKind};
use symphonia::core::audio::Channels;
use symphonia::core::formats::TrackType;
use symphonia::core::io::MediaSourceStream;
use symphonia::default::{get_codecs, get_probe};

use super::*;

/// What a decoder makes of a file with one channel.
struct Heard {
    rate: u32,
    samples: Vec<f32>,
}

fn sound(format: Format, seed: u64, millis: u64) -> Spec {
    Spec { seed, duration: Duration::from_millis(millis), ..spec(format, 0, 0) }
}

fn heard(file: Bytes) -> Heard {
    let stream = MediaSourceStream::new(Box::new(std::io::Cursor::new(file)), Default::default());
    let mut reader =
        get_probe().probe(&Default::default(), stream, Default::default(), Default::default()).unwrap();
    let track = reader.default_track(TrackType::Audio).unwrap();
    let parameters = track.codec_params.as_ref().unwrap().audio().unwrap().clone();
    assert_eq!(parameters.channels.as_ref().map(Channels::count), Some(1));
    let mut decoder = get_codecs().make_audio_decoder(&parameters, &Default::default()).unwrap();
    let (mut samples, mut part) = (Vec::new(), Vec::new());
    while let Some(packet) = reader.next_packet().unwrap() {
        decoder.decode(&packet).unwrap().copy_to_vec_interleaved(&mut part);
        samples.append(&mut part);
    }
    Heard { rate: parameters.sample_rate.unwrap(), samples }
}

impl Heard {
    fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.rate)
    }

    /// How much of the sound around `time` a pitch and its octave explain, of 1.
    fn share_of(&self, pitch: u8, time: Duration) -> f64 {
        let middle = (time.as_secs_f64() * f64::from(self.rate)) as usize;
        let part = &self.samples[middle - 1200..middle + 1200];
        let energy: f64 = part.iter().map(|&sample| f64::from(sample).powi(2)).sum();
        assert!((energy / 2400.0).sqrt() > 0.01, "it is silent at {time:?}");
        let explained = |frequency: f64| {
            let (mut re, mut im) = (0.0, 0.0);
            for (index, &sample) in part.iter().enumerate() {
                let angle = frequency / f64::from(self.rate) * index as f64 * std::f64::consts::TAU;
                re += f64::from(sample) * angle.cos();
                im += f64::from(sample) * angle.sin();
            }
            (re * re + im * im) / 1200.0 / energy
        };
        let frequency = 440.0 * ((f64::from(pitch) - 69.0) / 12.0).exp2();
        explained(frequency) + explained(2.0 * frequency)
    }
}

#[test]
fn mp3_and_wav_play_the_melody() {
    for format in [Format::Mp3, Format::Wav] {
        for seed in [7, 8, 9] {
            let heard = heard(render(&sound(format, seed, 12_000)));
            for note in melody(seed, Duration::from_secs(12)) {
                let middle = (note.start + note.end) / 2;
                if note.length() < Duration::from_millis(100) {
                    continue; // the end came too soon
                }
                let share = heard.share_of(note.pitch, middle);
                assert!((0.9..1.1).contains(&share), "{share} at {middle:?} of {format:?}, {note:?}");
                assert!(heard.share_of(note.pitch + 1, middle) < 0.6, "{note:?} of {format:?}");
            }
        }
    }
}

#[test]
fn a_wav_lasts_exactly_as_long_as_asked_for() {
    for (millis, samples) in [(100, 4410), (1001, 44_144), (20_000, 882_000)] {
        let file = render(&sound(Format::Wav, 7, millis));
        assert_eq!(file.len(), 44 + 2 * samples);
        let heard = heard(file);
        assert_eq!((heard.rate, heard.samples.len()), (44_100, samples));
        assert!(heard.samples.iter().all(|sample| sample.abs() < 0.5), "it is soft");
    }
}

#[test]
fn an_mp3_lasts_as_long_as_asked_for_to_a_frame() {
    for millis in [0, 100, 1001, 5000, 33_333] {
        let spec = sound(Format::Mp3, 7, millis);
        let file = render(&spec);
        let heard = heard(file.clone());
        let asked = spec.duration().as_secs_f64();
        assert!((heard.seconds() - asked).abs() <= 0.024, "{} s, not {asked}", heard.seconds());
        assert!(heard.samples.iter().all(|sample| sample.abs() < 0.5), "it is soft");
        assert_eq!((heard.rate, file.len() % 192), (48_000, 0));
        for frame in file.chunks_exact(192) {
            assert_eq!(frame[..4], file[..4], "all frames are alike");
        }
        let told = u32::from_be_bytes(file[29..33].try_into().unwrap()) as usize;
        assert_eq!((&file[21..25], told), (&b"Info"[..], file.len() / 192 - 1), "frames after the first");
    }
}

#[test]
fn a_midi_file_has_the_notes_of_the_melody() {
    for (seed, millis) in [(7, 100), (7, 20_000), (8, 61_234), (9, 600_000)] {
        let file = render(&sound(Format::Midi, seed, millis));
        let smf = Smf::parse(&file).unwrap();
        assert_eq!((smf.header.format, smf.tracks.len()), (Tracks::Parallel, 2));
        let Timing::Metrical(beat) = smf.header.timing else { panic!("{:?}", smf.header) };
        let pace = smf.tracks[0].iter().find_map(|event| match event.kind {
            TrackEventKind::Meta(MetaMessage::Tempo(microseconds)) => Some(microseconds.as_int()),
            _ => None,
        });
        assert_eq!(pace, Some(u32::from(beat.as_int()) * 1000), "a tick is a millisecond");
        for track in &smf.tracks {
            let length: u32 = track.iter().map(|event| event.delta.as_int()).sum();
            assert_eq!(u64::from(length), millis);
            assert_eq!(track.last().unwrap().kind, TrackEventKind::Meta(MetaMessage::EndOfTrack));
        }
        let (mut now, mut notes, mut open) = (Duration::ZERO, Vec::new(), None);
        for event in &smf.tracks[1] {
            now += Duration::from_millis(event.delta.as_int().into());
            match event.kind {
                TrackEventKind::Midi { message: MidiMessage::NoteOn { key, vel }, .. } => {
                    open = Some((key.as_int(), now, vel.as_int()));
                }
                TrackEventKind::Midi { message: MidiMessage::NoteOff { key, .. }, .. } => {
                    let (pitch, start, velocity) = open.take().unwrap();
                    assert_eq!(pitch, key.as_int());
                    notes.push(Note { pitch, start, end: now, velocity });
                }
                _ => {}
            }
        }
        assert_eq!(notes, melody(seed, Duration::from_millis(millis)));
    }
}
