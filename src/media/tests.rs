//! Files are judged from outside: by decoders, and by walking their structure.

mod audio;

use std::path::Path;
use std::process::Command;

use proptest::prelude::*;

use super::*;

fn spec(format: Format, width: u32, height: u32) -> Spec {
    let caption = ["acme/video-1", "task 7c1e5a94", "A cat walks through the rain in the evening"]
        .map(str::to_owned)
        .into();
    let duration = Duration::from_secs(5);
    Spec {
        format,
        width,
        height,
        duration,
        audio: false,
        transparent: false,
        pictures: None,
        seed: 7,
        caption,
    }
}

/// The box of that name directly in `boxes`, without its header.
fn child<'a>(mut boxes: &'a [u8], kind: &str) -> &'a [u8] {
    loop {
        let length = numbers(boxes)[0] as usize;
        if &boxes[4..8] == kind.as_bytes() {
            return &boxes[8..length];
        }
        boxes = &boxes[length..];
        assert!(!boxes.is_empty(), "no box {kind}");
    }
}

fn descend<'a>(boxes: &'a [u8], path: &[&str]) -> &'a [u8] {
    path.iter().fold(boxes, |boxes, kind| child(boxes, kind))
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|four| u32::from_be_bytes(four.try_into().unwrap())).collect()
}

/// The sum of the sample times of a track, checked against its headers and its number of samples.
fn check_track(track: &[u8]) -> u32 {
    let table = descend(track, &["mdia", "minf", "stbl"]);
    let times = numbers(child(table, "stts"));
    let runs = times[2..].chunks_exact(2);
    let sizes = numbers(child(table, "stsz"));
    assert_eq!(runs.clone().map(|run| run[0]).sum::<u32>(), sizes[2], "samples in stts and stsz");
    assert_eq!(sizes.len(), sizes[2] as usize + 3);
    let total = runs.map(|run| run[0] * run[1]).sum();
    let header = numbers(descend(track, &["mdia", "mdhd"]));
    assert_eq!(header[3..5], [48_000, total], "timescale and duration in mdhd");
    assert_eq!(numbers(child(track, "tkhd"))[5], total, "duration in tkhd");
    total
}

/// Where the samples of a track lie, from its tables alone.
fn samples<'a>(file: &'a [u8], track: &[u8]) -> Vec<&'a [u8]> {
    let table = descend(track, &["mdia", "minf", "stbl"]);
    let sizes = &numbers(child(table, "stsz"))[3..];
    let runs = numbers(child(table, "stsc"));
    let mut sizes = sizes.iter().map(|size| *size as usize);
    let mut samples = Vec::new();
    for (index, offset) in (1..).zip(&numbers(child(table, "stco"))[2..]) {
        let mut at = *offset as usize;
        let run = runs[2..].chunks_exact(3).rfind(|run| run[0] <= index).unwrap();
        for size in sizes.by_ref().take(run[1] as usize) {
            samples.push(&file[at..at + size]);
            at += size;
        }
    }
    assert_eq!(sizes.next(), None, "a sample lies in no chunk");
    samples
}

#[test]
fn an_mp4_describes_itself_without_contradiction() {
    let lengths = [(5000, 120), (40, 2), (1010, 24), (8125, 195)];
    for ((millis, frames), format) in lengths.into_iter().zip([Format::Mp4, Format::Mov].into_iter().cycle())
    {
        let mut spec = spec(format, 321, 180);
        (spec.audio, spec.duration) = (true, Duration::from_millis(millis));
        let file = render(&spec);
        let moov = child(&file, "moov");
        let picture = child(moov, "trak");
        let silence = child(&moov[8 + child(moov, "mvhd").len() + 8 + picture.len()..], "trak");
        let expected = mp4::ticks(spec.duration());
        assert_eq!([check_track(picture), check_track(silence)], [expected; 2]);
        assert_eq!(numbers(child(picture, "tkhd"))[19..21], [322 << 16, 180 << 16]);

        let pictures = samples(&file, picture);
        assert_eq!(pictures.len(), frames);
        for (index, sample) in pictures.iter().enumerate() {
            assert_eq!(numbers(sample)[0] as usize, sample.len() - 4, "length of the NAL unit");
            assert_eq!(sample[4], if index % 48 == 0 { 0x65 } else { 0x41 });
        }
        let keys = numbers(descend(picture, &["mdia", "minf", "stbl", "stss"]));
        let expected: Vec<u32> = (1..=u32::try_from(frames).unwrap()).step_by(48).collect();
        assert_eq!(keys[2..], expected);
        let silence = samples(&file, silence);
        assert!(silence.iter().all(|frame| frame == &silence[0] && frame.len() == 6));
        let in_all = pictures.iter().chain(&silence).map(|sample| sample.len()).sum::<usize>();
        assert_eq!(in_all, child(&file, "mdat").len(), "every byte of mdat belongs to a sample");
    }
}

#[test]
fn a_mov_differs_from_an_mp4_where_quicktime_does() {
    let [mov, mp4] =
        [Format::Mov, Format::Mp4].map(|format| render(&Spec { audio: true, ..spec(format, 320, 180) }));
    let brands = [&mov, &mp4].map(|file| &child(file, "ftyp")[..4]);
    assert_eq!(brands, [b"qt  ", b"isom"]);
    assert!(child(&mov, "mdat") == child(&mp4, "mdat"), "the samples are the same");
    let handler = |file| &descend(file, &["moov", "trak", "mdia", "hdlr"])[4..12];
    assert_eq!([handler(&mov), handler(&mp4)], [b"mhlrvide", b"\0\0\0\0vide"]);
}

#[test]
fn a_png_has_the_size_asked_for() {
    for (width, height) in [(1, 1), (3, 500), (640, 480), (1023, 769)] {
        let file = render(&spec(Format::Png, width, height));
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!((frame.width, frame.height), (width, height));
    }
}

/// Checks the alpha of each pixel, row by row: none at the corners, all in the middle, no half measures.
fn check_cut_out(alpha: &[u8], width: usize) {
    let height = alpha.len() / width;
    assert!(alpha.iter().all(|alpha| [0, 255].contains(alpha)));
    assert_eq!(alpha[height / 2 * width + width / 2], 255, "the middle of {width}x{height}");
    if width.min(height) > 12 {
        assert_eq!(
            [alpha[0], alpha[width - 1], alpha[alpha.len() - 1]],
            [0; 3],
            "corners of {width}x{height}"
        );
        let opaque = alpha.iter().map(|alpha| usize::from(*alpha)).sum::<usize>() / 255 * 100 / alpha.len();
        assert!((40..70).contains(&opaque), "{opaque} % of {width}x{height}");
    }
}

#[test]
fn a_png_without_background_is_transparent_around_the_middle() {
    for (width, height) in [(1, 1), (2, 3), (640, 480), (301, 77)] {
        let file = render(&Spec { transparent: true, ..spec(Format::Png, width, height) });
        let alpha: Vec<u8> = png_pixels(file).chunks_exact(4).map(|pixel| pixel[3]).collect();
        check_cut_out(&alpha, width as usize);
    }
}

/// The pixels of a PNG as red, green, blue and alpha.
fn png_pixels(file: Bytes) -> Vec<u8> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(file));
    decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::ALPHA);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    assert_eq!(reader.next_frame(&mut pixels).unwrap().color_type, png::ColorType::Rgba);
    pixels
}

/// The PNG has gone through another encoder and another decoder.
#[test]
fn a_webp_shows_what_the_png_shows() {
    for (width, height) in [(1, 1), (1, 90), (3, 500), (5000, 7), (640, 480), (1023, 769)] {
        for transparent in [false, true] {
            let spec = |format| Spec { transparent, ..spec(format, width, height) };
            let file = render(&spec(Format::WebP));
            let mut decoder = image_webp::WebPDecoder::new(std::io::Cursor::new(file)).unwrap();
            assert_eq!((decoder.dimensions(), decoder.has_alpha()), ((width, height), transparent));
            let mut pixels = vec![0; decoder.output_buffer_size().unwrap()];
            decoder.read_image(&mut pixels).unwrap();
            let mut expected = png_pixels(render(&spec(Format::Png)));
            if !transparent {
                expected = expected.chunks_exact(4).flat_map(|pixel| &pixel[..3]).copied().collect();
            }
            assert!(pixels == expected, "{width}x{height}, transparent: {transparent}");
        }
    }
}

#[test]
fn a_gif_plays_as_long_as_asked_for() {
    for (width, height, millis) in [(1_u16, 1_u16, 100), (3, 500, 999), (640, 480, 5000), (320, 240, 600_000)]
    {
        let duration = Duration::from_millis(millis);
        let file = render(&Spec { duration, ..spec(Format::Gif, width.into(), height.into()) });
        let mut options = ::gif::DecodeOptions::new();
        options.set_color_output(::gif::ColorOutput::Indexed);
        let mut decoder = options.read_info(&file[..]).unwrap();
        assert_eq!((decoder.width(), decoder.height()), (width, height));
        let (mut hundredths, mut bodies) = (0, Vec::new());
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            hundredths += u64::from(frame.delay);
            assert!(frame.top + frame.height <= height && frame.width == width);
            bodies.push(frame.buffer.to_vec());
        }
        assert_eq!(hundredths, millis / 10, "{width}x{height}");
        assert_eq!(bodies[0].len(), usize::from(width) * usize::from(height));
        assert!((2..=12).contains(&bodies.len()), "{} frames", bodies.len());
        if width > 100 {
            assert!(bodies.windows(2).all(|pair| pair[0] != pair[1]), "every frame changes something");
        }
    }
}

#[test]
fn a_gif_has_as_many_pictures_as_asked_for() {
    for pictures in [1, 4, 9, 64] {
        let duration = Duration::from_millis(u64::from(pictures) * 100);
        let file = render(&Spec { pictures: Some(pictures), duration, ..spec(Format::Gif, 320, 320) });
        let mut decoder = ::gif::DecodeOptions::new().read_info(&file[..]).unwrap();
        let mut delays = Vec::new();
        while let Some(frame) = decoder.read_next_frame().unwrap() {
            delays.push(frame.delay);
        }
        assert_eq!(delays, vec![10; pictures as usize]);
    }
}

#[test]
fn a_jpeg_has_the_size_asked_for() {
    for (width, height) in [(1_u16, 1_u16), (3, 500), (640, 480), (1023, 769)] {
        let file = render(&spec(Format::Jpeg, width.into(), height.into()));
        assert_eq!((&file[..2], &file[file.len() - 2..]), (&[0xff, 0xd8][..], &[0xff, 0xd9][..]));
        let mut segments = &file[2..];
        while segments[1] != 0xc0 {
            segments = &segments[2 + usize::from(segments[2]) * 256 + usize::from(segments[3])..];
        }
        let side = |at: usize| u16::from_be_bytes([segments[at], segments[at + 1]]);
        assert_eq!((side(7), side(5)), (width, height));
    }
}

#[test]
fn formats_are_found_by_extension_and_media_type() {
    for format in Format::ALL {
        assert_eq!(Format::from_name(format.content_type()), Some(format));
        assert_eq!(Format::from_name(&format.extension().to_uppercase()), Some(format));
    }
    for (name, format) in
        [("jpeg", Format::Jpeg), ("JPG", Format::Jpeg), ("midi", Format::Midi), ("audio/x-wav", Format::Wav)]
    {
        assert_eq!(Format::from_name(name), Some(format));
    }
    assert_eq!(Format::from_name("tiff"), None);
}

#[test]
fn files_stay_small_whatever_the_caption() {
    let caption = vec!["The quick brown fox jumps over the lazy dog, 0123456789. ".repeat(60)];
    for (format, width, height, most, most_with_a_page_of_text) in [
        (Format::Mp4, 1280, 720, 60_000, 120_000),
        (Format::Mp4, 3840, 2160, 300_000, 1_000_000),
        (Format::Png, 1024, 1024, 20_000, 50_000),
        (Format::WebP, 1024, 1024, 20_000, 200_000),
        (Format::WebP, 3840, 2160, 40_000, 400_000),
        (Format::Gif, 640, 480, 60_000, 100_000),
        (Format::Mp3, 0, 0, 41_000, 41_000),
    ] {
        let usual = render(&spec(format, width, height)).len();
        assert!(usual < most, "{format:?} {width}x{height}: {usual}");
        let wordy = render(&Spec { caption: caption.clone(), ..spec(format, width, height) }).len();
        assert!(wordy < most_with_a_page_of_text, "{format:?} {width}x{height}: {wordy}");
    }
}

fn any_spec() -> impl Strategy<Value = Spec> {
    let format = prop::sample::select(&Format::ALL[..]);
    let side = || prop_oneof![0..40_u32, 0..400_u32];
    let caption = prop::collection::vec(any::<String>(), 0..5);
    let flags = (any::<bool>(), any::<bool>());
    (format, side(), side(), 0..4000_u64, flags, any::<u64>(), caption).prop_map(
        |(format, width, height, millis, (audio, transparent), seed, caption)| {
            let duration = Duration::from_millis(millis);
            Spec { format, width, height, duration, audio, transparent, pictures: None, seed, caption }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_spec_gives_a_file_and_always_the_same(spec in any_spec()) {
        let file = render(&spec);
        prop_assert!(!file.is_empty());
        prop_assert_eq!(file, render(&spec));
    }
}

/// What `program` prints when run with `arguments`, in which `FILE` stands for `file`.
fn output(program: &str, arguments: &str, file: &Path) -> String {
    let arguments =
        arguments.split(' ').map(|word| if word == "FILE" { file.to_str().unwrap() } else { word });
    let output = Command::new(program).args(arguments).output().unwrap();
    String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
}

fn check_with_ffmpeg(spec: &Spec, path: &Path) {
    std::fs::write(path, render(spec)).unwrap();
    assert_eq!(output("ffmpeg", "-v error -xerror -i FILE -f null -", path), "", "{spec:?}");
    let probe = |what: &str| {
        let arguments = format!("-v error -show_entries {what} -of csv=p=0 FILE");
        output("ffprobe", &arguments, path).trim().to_owned()
    };
    if !matches!(spec.format, Format::Mp3 | Format::Wav) {
        let even = |side: u32| if is_video(spec.format) { side.next_multiple_of(2) } else { side };
        let size = probe("stream=width,height -select_streams v");
        assert_eq!(size, format!("{},{}", even(spec.width), even(spec.height)));
    }
    let (codec, grain) = match spec.format {
        Format::Mp4 | Format::Mov if spec.audio => ("h264\naac", 0.001),
        Format::Mp4 | Format::Mov => ("h264", 0.001),
        Format::Gif => ("gif", 0.01),
        Format::Mp3 => ("mp3", 0.024),
        Format::Wav => ("pcm_s16le", 0.001),
        Format::Png | Format::Jpeg | Format::WebP | Format::Midi => return,
    };
    assert_eq!(probe("stream=codec_name"), codec);
    for duration in probe("stream=duration").lines().chain([&*probe("format=duration")]) {
        let seconds: f64 = duration.parse().unwrap();
        assert!((seconds - spec.duration.as_secs_f64()).abs() <= grain, "{seconds} s for {spec:?}");
    }
    if is_video(spec.format) {
        assert_eq!(probe("stream=sample_aspect_ratio -select_streams v"), "1:1");
    }
}

fn is_video(format: Format) -> bool {
    matches!(format, Format::Mp4 | Format::Mov)
}

#[test]
#[ignore = "needs ffmpeg; run by tests/run.sh"]
fn decoders_find_nothing_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (width, height) in
        [(1, 1), (854, 480), (1080, 1920), (1921, 1081), (50, 700), (1280, 720), (3840, 2160)]
    {
        for format in Format::ALL.into_iter().filter(|format| !format.is_sound()) {
            let path = folder.path().join("file").with_extension(format.extension());
            check_with_ffmpeg(&spec(format, width, height), &path);
        }
    }
    // It does not read MIDI.
    for format in [Format::Mp4, Format::Mov, Format::Gif, Format::Mp3, Format::Wav] {
        let path = folder.path().join("short").with_extension(format.extension());
        let duration = Duration::from_millis(3333);
        check_with_ffmpeg(&Spec { audio: true, duration, ..spec(format, 640, 360) }, &path);
    }
}

/// The decoder's pictures are compared with the mosaics that went in, pixel by pixel.
#[test]
#[ignore = "needs ffmpeg; run by tests/run.sh"]
fn a_decoder_sees_what_was_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("video.mp4");
    let spec = Spec { duration: Duration::from_secs(3), ..spec(Format::Mp4, 640, 360) };
    std::fs::write(&path, render(&spec)).unwrap();
    let raw = folder.path().join("video.yuv");
    let arguments = format!("-v error -i FILE -f rawvideo -pix_fmt yuv420p {}", raw.display());
    assert_eq!(output("ffmpeg", &arguments, &path), "");
    let decoded = std::fs::read(raw).unwrap();
    let pictures: Vec<&[u8]> = decoded.chunks_exact(640 * 360 * 3 / 2).collect();
    assert_eq!(pictures.len(), 72);
    for (frame, picture) in pictures.into_iter().enumerate() {
        let drawn = video::drawn(&spec, frame);
        let (luma, chroma) = picture.split_at(640 * 360);
        for (y, row) in luma.chunks_exact(640).enumerate() {
            let cells = &drawn.luma[y / 4 * drawn.stride()..];
            assert!((0..640).all(|x| row[x] == cells[x / 4]), "luma of frame {frame}, row {y}");
        }
        let (cb, cr) = chroma.split_at(320 * 180);
        for (y, (cb, cr)) in cb.chunks_exact(320).zip(cr.chunks_exact(320)).enumerate() {
            let expected = drawn.chroma[y / 4];
            assert!(
                cb.iter().zip(cr).all(|(&cb, &cr)| [cb, cr] == expected),
                "chroma of frame {frame}, row {y}"
            );
        }
    }
}
