//! Result files that really open: a picture or a video drawn from a size, a seed and a few lines of text, or a tune
//! from a seed.
//!
//! Pure: the same [`Spec`] gives the same bytes on every machine, and every [`Spec`] gives a file. Nothing here
//! knows who asked, or where the file is served from. Everything is generated at run time and kept cheap, so
//! that a simulator can afford a 4K video per request.
//!
//! `palette` chooses colours, `caption` sets text, `layout` puts both onto a surface; `image` writes that as PNG,
//! JPEG or (by `webp`) WebP, `gif` and `video` move it, and `video` hands pictures to `h264` and samples to `mp4`.
//! `melody` makes up a tune; `wav` and `mp3` play it, with the sines of `wave`, and `midi` writes it down. A new
//! format is a variant of [`Format`], a line in its table and a line in [`render`].

mod bits;
mod caption;
mod gif;
mod h264;
mod image;
mod layout;
mod melody;
mod midi;
mod mp3;
mod mp4;
mod palette;
mod video;
mod wav;
mod wave;
mod webp;

use std::time::Duration;

use bytes::Bytes;

pub use melody::{Note, melody};

/// The kinds of file that [`render`] can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// H.264 (Constrained Baseline) in MP4, with a silent AAC-LC track if asked for.
    Mp4,
    /// PNG, 8 bits per pixel with a palette.
    Png,
    /// Baseline JPEG.
    Jpeg,
    /// Lossless WebP.
    WebP,
    /// Animated GIF: a few pictures that repeat for ever.
    Gif,
    /// `QuickTime`: the tracks of MP4.
    Mov,
    /// MPEG-1 Layer III, 64 kbit/s, one channel: a tune.
    Mp3,
    /// PCM of 16 bits, 44.1 kHz, one channel: the same tune.
    Wav,
    /// Standard MIDI File, format 1: the same tune.
    Midi,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 9] = [
        Self::Mp4,
        Self::Png,
        Self::Jpeg,
        Self::WebP,
        Self::Gif,
        Self::Mov,
        Self::Mp3,
        Self::Wav,
        Self::Midi,
    ];

    /// The media type to serve it with.
    pub const fn content_type(self) -> &'static str {
        self.names().0
    }

    /// The usual end of a file name, without the dot.
    pub const fn extension(self) -> &'static str {
        self.names().1
    }

    /// Whether there is nothing to see in it, so that its size means nothing.
    pub const fn is_sound(self) -> bool {
        matches!(self, Self::Mp3 | Self::Wav | Self::Midi)
    }

    /// The format that a request calls `name`: an extension or a media type, in any case.
    pub fn from_name(name: &str) -> Option<Self> {
        let known = |format: &Self| {
            let (content_type, extension, others) = format.names();
            [content_type, extension].iter().chain(others).any(|known| known.eq_ignore_ascii_case(name))
        };
        Self::ALL.into_iter().find(known)
    }

    /// Media type, extension, and what else people call it.
    const fn names(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::Mp4 => ("video/mp4", "mp4", &[]),
            Self::Png => ("image/png", "png", &[]),
            Self::Jpeg => ("image/jpeg", "jpg", &["jpeg", "image/jpg"]),
            Self::WebP => ("image/webp", "webp", &[]),
            Self::Gif => ("image/gif", "gif", &[]),
            Self::Mov => ("video/quicktime", "mov", &["qt"]),
            Self::Mp3 => ("audio/mpeg", "mp3", &["audio/mp3"]),
            Self::Wav => ("audio/wav", "wav", &["audio/x-wav", "audio/wave"]),
            Self::Midi => ("audio/midi", "mid", &["midi", "audio/x-midi"]),
        }
    }
}

/// What a file shall be like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    /// The kind of file.
    pub format: Format,
    /// In pixels, clamped to 1..=8192. A video's is rounded up to even, as 4:2:0 crops in steps of two.
    pub width: u32,
    /// In pixels; see `width`.
    pub height: u32,
    /// Of formats that move or sound, clamped to 0.1..=600 s.
    pub duration: Duration,
    /// Whether a video has a (silent) audio track.
    pub audio: bool,
    /// Whether the background is removed, in formats that can leave it out (PNG and WebP): a figure in the middle is
    /// opaque, the rest has no colour.
    pub transparent: bool,
    /// How many pictures a GIF has, at most 64; absent: as many as its duration suggests.
    pub pictures: Option<u32>,
    /// Chooses the colours, or the tune.
    pub seed: u64,
    /// Lines of text to show, as large as fits. What the font (ISO 8859-1) lacks is shown as `?`; what does not
    /// fit even in the smallest size is cut off.
    pub caption: Vec<String>,
}

impl Spec {
    /// The size in pixels after clamping.
    fn size(&self) -> (usize, usize) {
        let side = |pixels: u32| pixels.clamp(1, 8192) as usize;
        (side(self.width), side(self.height))
    }

    /// The duration after clamping.
    fn duration(&self) -> Duration {
        self.duration.clamp(Duration::from_millis(100), Duration::from_mins(10))
    }
}

/// The file that `spec` asks for. Total and deterministic: any spec gives a file, the same spec the same bytes.
pub fn render(spec: &Spec) -> Bytes {
    let file = match spec.format {
        Format::Mp4 => video::mp4(spec),
        Format::Mov => video::mov(spec),
        Format::Png => image::png(spec),
        Format::Jpeg => image::jpeg(spec),
        Format::WebP => image::webp(spec),
        Format::Gif => gif::gif(spec),
        Format::Mp3 => mp3::mp3(spec),
        Format::Wav => wav::wav(spec),
        Format::Midi => midi::midi(spec),
    };
    file.into()
}

#[cfg(test)]
mod tests;
