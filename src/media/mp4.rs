//! The MP4 container (ISO/IEC 14496-12): samples in, a file out that starts playing before all of it is there.
//! And its elder brother, the `QuickTime` file format (Apple's specification of that name, 2012), which differs in
//! a few boxes.
//!
//! `moov` comes before `mdat`, and the samples of the tracks alternate by the second.

use std::time::Duration;

use bytes::Bytes;

/// Ticks per second of the file and of every track: whole frames at 24, 25 and 30 per second, and audio samples.
pub(super) const TIMESCALE: u32 = 48_000;

/// The kinds of container.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Brand {
    Mp4,
    QuickTime,
}

/// A track: samples of equal length, one after the other, but that the last lasts until the end of the file.
pub(super) struct Track {
    pub(super) media: Media,
    /// The box that says how samples are coded: see [`avc_entry`] and [`aac_entry`].
    pub(super) entry: Vec<u8>,
    /// How long a sample lasts.
    pub(super) ticks: u32,
    pub(super) samples: Vec<Bytes>,
    /// The indexes of samples at which playing can start; `None` if it can at any.
    pub(super) key_samples: Option<Vec<usize>>,
}

/// What a track is of.
#[derive(Clone, Copy)]
pub(super) enum Media {
    Video { width: usize, height: usize },
    Audio,
}

/// What boxes must know of the file around them.
struct Timeline {
    brand: Brand,
    /// In ticks.
    duration: u32,
    /// The byte at which samples start.
    start: usize,
}

/// Samples of a track that lie in the file together.
struct Chunk {
    /// Bytes from the start of the payload of `mdat`.
    offset: usize,
    samples: usize,
}

/// `duration` in ticks.
pub(super) fn ticks(duration: Duration) -> u32 {
    let ticks = duration.as_nanos() * u128::from(TIMESCALE) / 1_000_000_000;
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

/// The file with `tracks`, each of which lasts `duration` ticks.
pub(super) fn file(brand: Brand, tracks: &[Track], duration: u32) -> Vec<u8> {
    let (data, chunks) = interleaved(tracks);
    let mut file = match brand {
        Brand::Mp4 => boxed("ftyp", &[b"isom", &number(512), b"isomiso2avc1mp41"]),
        Brand::QuickTime => boxed("ftyp", &[b"qt  ", &number(512), b"qt  "]),
    };
    let start = |moov: &[u8]| file.len() + moov.len() + 8;
    let movie = |start| movie(&Timeline { brand, duration, start }, tracks, &chunks);
    // Its length does not depend on the offsets in it.
    let moov = movie(start(&movie(0)));
    file.reserve_exact(moov.len() + 8 + data.len());
    file.extend(moov);
    file.extend(number(data.len() + 8));
    file.extend(b"mdat");
    file.extend(data);
    file
}

/// The entry of H.264 video (ISO/IEC 14496-15, 5.4.2) with its parameter sets.
pub(super) fn avc_entry(
    brand: Brand,
    width: usize,
    height: usize,
    sequence: &[u8],
    picture: &[u8],
) -> Vec<u8> {
    let half = |count: usize| u16::try_from(count).expect("sides and parameter sets are short").to_be_bytes();
    let configuration = [
        &[1, sequence[1], sequence[2], sequence[3]][..], // version, profile, constraints, level
        &[0xfc | 3, 0xe0 | 1],                           // lengths take 4 bytes; one sequence parameter set
        &half(sequence.len()),
        sequence,
        &[1],
        &half(picture.len()),
        picture,
    ];
    let resolution = number(72 << 16);
    let bt709 = [0, 1, 0, 1, 0, 1];
    let fields = [
        &[0; 6][..],
        &[0, 1], // data_reference_index
        &[0; 16],
        &half(width),
        &half(height),
        &resolution,
        &resolution,
        &[0; 4],
        &[0, 1],    // frame_count
        &[0; 32],   // compressorname
        &[0, 0x18], // depth: colour, no alpha
        &[0xff; 2],
        &boxed("avcC", &configuration),
        &boxed("pasp", &[&number(1), &number(1)]),
        &match brand {
            Brand::Mp4 => boxed("colr", &[b"nclx", &bt709, &[0]]), // limited range
            Brand::QuickTime => boxed("colr", &[b"nclc", &bt709]),
        },
    ];
    boxed("avc1", &fields)
}

/// The entry of AAC-LC stereo at 48 kHz (ISO/IEC 14496-14, 5.6).
pub(super) fn aac_entry(brand: Brand) -> Vec<u8> {
    // AudioSpecificConfig (14496-3, 1.6.2.1): object type 2, frequency index 3, two channels.
    let specific = [5, 2, 0b0001_0001, 0b1001_0000];
    let decoder =
        [&[4, 13 + 4, 0x40, 0x15, 0, 0, 0][..], &number(128_000), &number(2_250), &specific].concat();
    let stream = [&[3, 3 + 19 + 3, 0, 2, 0][..], &decoder, &[6, 1, 2]].concat();
    let descriptor = full_box("esds", 0, &[&stream]);
    // QuickTime wants version 1, with what is packed into a sample, and the descriptor inside of `wave`.
    let (version, tail) = match brand {
        Brand::Mp4 => (0, descriptor),
        Brand::QuickTime => {
            let packing = [1024, 0, 0, 2].map(number).concat(); // samples and bytes of packets; bytes of a sample
            let empty = [0, 0, 0, 8, 0, 0, 0, 0]; // a box without name ends `wave`
            let wave =
                boxed("wave", &[&boxed("frma", &[b"mp4a"]), &boxed("mp4a", &[&[0; 4]]), &descriptor, &empty]);
            (1, [packing, wave].concat())
        }
    };
    let compression = if brand == Brand::QuickTime { [0xff, 0xfe] } else { [0; 2] }; // -2: packets vary in size
    let fields = [
        &[0; 6][..],
        &[0, 1], // data_reference_index
        &[0, version],
        &[0; 6],
        &[0, 2, 0, 16], // channels, bits of a sample
        &compression,
        &[0; 2],
        &number(48_000 << 16),
        &tail,
    ];
    boxed("mp4a", &fields)
}

/// The samples of all tracks as they lie in the file, and for each track its chunks: one for each second.
fn interleaved(tracks: &[Track]) -> (Vec<u8>, Vec<Vec<Chunk>>) {
    let mut data = Vec::with_capacity(tracks.iter().flat_map(|track| &track.samples).map(Bytes::len).sum());
    let mut chunks: Vec<Vec<Chunk>> = tracks.iter().map(|_| Vec::new()).collect();
    let mut rest: Vec<&[Bytes]> = tracks.iter().map(|track| &*track.samples).collect();
    for second in 1.. {
        for (index, track) in tracks.iter().enumerate() {
            let end = (second * TIMESCALE as usize).div_ceil(track.ticks as usize).min(track.samples.len());
            let done = track.samples.len() - rest[index].len();
            let (now, later) = rest[index].split_at(end - done);
            if !now.is_empty() {
                chunks[index].push(Chunk { offset: data.len(), samples: now.len() });
            }
            for sample in now {
                data.extend_from_slice(sample);
            }
            rest[index] = later;
        }
        if rest.iter().all(|samples| samples.is_empty()) {
            break;
        }
    }
    (data, chunks)
}

fn movie(line: &Timeline, tracks: &[Track], chunks: &[Vec<Chunk>]) -> Vec<u8> {
    let header = full_box(
        "mvhd",
        0,
        &[
            &[0; 8], // created and changed: never, so that files are equal
            &TIMESCALE.to_be_bytes(),
            &line.duration.to_be_bytes(),
            &[0, 1, 0, 0, 1, 0], // rate 1.0, volume 1.0
            &[0; 10],
            &unity(),
            &[0; 24],
            &number(tracks.len() + 1), // next_track_ID
        ],
    );
    let numbered = tracks.iter().zip(chunks).enumerate();
    let tracks: Vec<Vec<u8>> =
        numbered.map(|(index, (entry, chunks))| track(line, index + 1, entry, chunks)).collect();
    boxed("moov", &[&header, &tracks.concat()])
}

fn track(line: &Timeline, id: usize, track: &Track, chunks: &[Chunk]) -> Vec<u8> {
    let (width, height, volume) = match track.media {
        Media::Video { width, height } => (width, height, [0, 0]),
        Media::Audio => (0, 0, [1, 0]),
    };
    let header = full_box(
        "tkhd",
        3, // enabled, and part of the presentation
        &[
            &[0; 8],
            &number(id),
            &[0; 4],
            &line.duration.to_be_bytes(),
            &[0; 12],
            &volume,
            &[0; 2],
            &unity(),
            &number(width << 16),
            &number(height << 16),
        ],
    );
    boxed("trak", &[&header, &media(line, track, chunks)])
}

fn media(line: &Timeline, track: &Track, chunks: &[Chunk]) -> Vec<u8> {
    let (kind, name, header) = match track.media {
        Media::Video { .. } => (b"vide", "Video", full_box("vmhd", 1, &[&[0; 8]])),
        Media::Audio => (b"soun", "Audio", full_box("smhd", 0, &[&[0; 4]])),
    };
    // The language 0x55c4 is "und": undetermined.
    let timing = [&[0; 8][..], &TIMESCALE.to_be_bytes(), &line.duration.to_be_bytes(), &[0x55, 0xc4, 0, 0]];
    let here = full_box("dref", 0, &[&number(1), &full_box("url ", 1, &[])]); // the data is in this file
    let information = [&boxed("dinf", &[&here])[..], &sample_table(line, track, chunks)].concat();
    let (handler, information) = match line.brand {
        Brand::Mp4 => {
            let handler = full_box("hdlr", 0, &[&[0; 4], kind, &[0; 12], name.as_bytes(), &[0]]);
            (handler, [header, information].concat())
        }
        Brand::QuickTime => {
            let data = quicktime_handler(b"dhlr", b"url ", "Data");
            (quicktime_handler(b"mhlr", kind, name), [header, data, information].concat())
        }
    };
    boxed("mdia", &[&full_box("mdhd", 0, &timing), &handler, &boxed("minf", &[&information])])
}

/// Who handles a track's media, or its data; its name is counted, not terminated.
fn quicktime_handler(component: &[u8], kind: &[u8], name: &str) -> Vec<u8> {
    let length = [u8::try_from(name.len()).unwrap_or_default()];
    full_box("hdlr", 0, &[component, kind, &[0; 12], &length, name.as_bytes()])
}

fn sample_table(line: &Timeline, track: &Track, chunks: &[Chunk]) -> Vec<u8> {
    let numbers = |values: &mut dyn Iterator<Item = usize>| values.flat_map(number).collect::<Vec<u8>>();
    let mut tables = vec![
        full_box("stsd", 0, &[&number(1), &track.entry]),
        full_box("stts", 0, &[&time_to_sample(track, line.duration)]),
    ];
    if let Some(keys) = &track.key_samples {
        let keys_from_one = numbers(&mut keys.iter().map(|index| index + 1));
        tables.push(full_box("stss", 0, &[&number(keys.len()), &keys_from_one]));
    }
    tables.push(full_box("stsc", 0, &[&sample_to_chunk(chunks)]));
    let sizes = numbers(&mut track.samples.iter().map(Bytes::len));
    tables.push(full_box("stsz", 0, &[&number(0), &number(track.samples.len()), &sizes]));
    let offsets = numbers(&mut chunks.iter().map(|chunk| line.start + chunk.offset));
    tables.push(full_box("stco", 0, &[&number(chunks.len()), &offsets]));
    boxed("stbl", &[&tables.concat()])
}

/// Runs of (count, ticks): all but the last are alike, and it takes what is left of `duration`.
fn time_to_sample(track: &Track, duration: u32) -> Vec<u8> {
    let alike = track.samples.len().saturating_sub(1);
    let last = (duration as usize).saturating_sub(alike * track.ticks as usize);
    let runs = [(alike, track.ticks as usize), (1, last)];
    let runs = if alike == 0 { &runs[1..] } else { &runs[..] };
    let fields = runs.iter().flat_map(|&(count, ticks)| [count, ticks]);
    [runs.len()].into_iter().chain(fields).flat_map(number).collect()
}

/// Runs of (first chunk, samples in each, entry), where the number of samples changes.
fn sample_to_chunk(chunks: &[Chunk]) -> Vec<u8> {
    let before = [0].into_iter().chain(chunks.iter().map(|chunk| chunk.samples));
    let changes: Vec<[usize; 3]> = (1..)
        .zip(chunks.iter().zip(before))
        .filter(|(_, (chunk, before))| chunk.samples != *before)
        .map(|(index, (chunk, _))| [index, chunk.samples, 1])
        .collect();
    [changes.len()].into_iter().chain(changes.into_iter().flatten()).flat_map(number).collect()
}

/// The matrix that leaves pictures as they are (14496-12, 6.2.2).
fn unity() -> [u8; 36] {
    let mut matrix = [0; 36];
    for (at, one) in [(0, 1 << 16), (16, 1 << 16), (32, 1 << 30)] {
        matrix[at..at + 4].copy_from_slice(&number(one));
    }
    matrix
}

/// A box that has a version, which is 0, and flags.
fn full_box(kind: &str, flags: usize, parts: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&number(flags), &parts.concat()])
}

/// A box: its length, its kind, its parts.
fn boxed(kind: &str, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut whole = Vec::with_capacity(length + 8);
    whole.extend(number(length + 8));
    whole.extend(kind.as_bytes());
    for part in parts {
        whole.extend_from_slice(part);
    }
    whole
}

/// A number of 32 bits.
fn number(value: usize) -> [u8; 4] {
    u32::try_from(value).expect("a file stays far below 4 GiB").to_be_bytes()
}
