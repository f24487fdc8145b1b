//! Still pictures, written row by row: no more than a few rows and the file are ever in memory.

use jpeg_encoder::{ImageBuffer, JpegColorType, SamplingFactor, rgb_to_ycbcr};

use super::layout::{Figure, Inks, Layout};
use super::palette::{Color, Palette, RULE, TEXT};
use super::{Spec, webp};

/// Steps of the gradient: as many as a palette of 256 has room for, each in three inks.
const STEPS: u8 = 85;

/// The index of no colour: what lies there is transparent.
pub(super) const CLEAR: u8 = STEPS * 3;

/// A picture as indexes into a table of colours.
pub(super) struct Indexed {
    pub(super) width: usize,
    pub(super) height: usize,
    layout: Layout,
    /// What is not transparent; `None` if nothing is.
    figure: Option<Figure>,
    colors: Vec<Color>,
}

/// The picture that `spec` asks for as a PNG file.
pub(super) fn png(spec: &Spec) -> Vec<u8> {
    let picture = Indexed::new(spec);
    let mut file = Vec::new();
    picture.write_png(&mut file).expect("writing to memory cannot fail, and every row is written");
    file
}

/// The picture that `spec` asks for as a WebP file.
pub(super) fn webp(spec: &Spec) -> Vec<u8> {
    webp::file(&Indexed::new(spec))
}

/// The picture that `spec` asks for as a JPEG file.
pub(super) fn jpeg(spec: &Spec) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder
        .encode_image(Indexed::opaque(spec))
        .expect("writing to memory cannot fail, and sizes are 1..=8192");
    file
}

impl Indexed {
    /// The picture that `spec` asks for.
    pub(super) fn new(spec: &Spec) -> Self {
        if !spec.transparent {
            return Self::opaque(spec);
        }
        let (width, height) = spec.size();
        let (layout, figure) = Layout::cut_out(width, height, &spec.caption);
        Self { width, height, layout, figure: Some(figure), colors: colors(spec.seed) }
    }

    /// The picture that `spec` asks for in a format without transparency.
    fn opaque(spec: &Spec) -> Self {
        let (width, height) = spec.size();
        let layout = Layout::still(width, height, &spec.caption);
        Self { width, height, layout, figure: None, colors: colors(spec.seed) }
    }

    /// Whether parts of it are [`CLEAR`].
    pub(super) fn is_transparent(&self) -> bool {
        self.figure.is_some()
    }

    /// Red, green and blue of each index but [`CLEAR`].
    pub(super) fn rgb(&self) -> impl Iterator<Item = [u8; 3]> {
        self.colors.iter().map(|color| color.rgb())
    }

    /// Fills `row` with the indexes of row `y`.
    pub(super) fn row(&self, y: usize, row: &mut [u8]) {
        self.layout.row(y, inks(y, self.height), row);
        if let Some(figure) = self.figure {
            let columns = figure.columns(y);
            row[..columns.start].fill(CLEAR);
            row[columns.end..].fill(CLEAR);
        }
    }

    /// Most rows equal the one above, so the filter that subtracts it leaves next to nothing to compress.
    fn write_png(&self, file: &mut Vec<u8>) -> Result<(), png::EncodingError> {
        let side = |pixels| u32::try_from(pixels).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(file, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        let colors = self.rgb().chain(self.is_transparent().then_some([0; 3]));
        encoder.set_palette(colors.flatten().collect::<Vec<u8>>());
        if self.is_transparent() {
            let mut alpha = [u8::MAX; CLEAR as usize + 1];
            alpha[usize::from(CLEAR)] = 0;
            encoder.set_trns(alpha.to_vec());
        }
        encoder.set_deflate_compression(png::DeflateCompression::Level(3));
        encoder.set_filter(png::Filter::Up);
        let mut writer = encoder.write_header()?;
        let mut rows = writer.stream_writer()?;
        let mut row = vec![0; self.width];
        for y in 0..self.height {
            self.row(y, &mut row);
            std::io::Write::write_all(&mut rows, &row)?;
        }
        rows.finish()?;
        writer.finish()
    }
}

/// The colours of a gradient, and for each of them those of rules and text on it.
pub(super) fn colors(seed: u64) -> Vec<Color> {
    let palette = Palette::new(seed);
    let inks = |step: u8| {
        let ground = palette.ground(step.into(), STEPS.into());
        [ground, ground.lighter(RULE), ground.lighter(TEXT)]
    };
    (0..STEPS).flat_map(inks).collect()
}

/// The indexes of what row `y` of `height` is drawn with.
pub(super) fn inks(y: usize, height: usize) -> Inks {
    let step = u8::try_from(y * usize::from(STEPS) / height).unwrap_or(STEPS - 1);
    let ground = step * 3;
    Inks { ground, rule: ground + 1, text: ground + 2 }
}

impl ImageBuffer for Indexed {
    fn get_jpeg_color_type(&self) -> JpegColorType {
        JpegColorType::Ycbcr
    }

    fn width(&self) -> u16 {
        u16::try_from(self.width).unwrap_or(u16::MAX)
    }

    fn height(&self) -> u16 {
        u16::try_from(self.height).unwrap_or(u16::MAX)
    }

    fn fill_buffers(&self, y: u16, buffers: &mut [Vec<u8>; 4]) {
        let mut row = vec![0; self.width];
        self.row(y.into(), &mut row);
        let color = |index: &u8| {
            let [red, green, blue] = self.colors[usize::from(*index)].rgb();
            rgb_to_ycbcr(red, green, blue)
        };
        let [luma, cb, cr, _] = buffers;
        for pixels in row.chunk_by(|a, b| a == b) {
            let color = color(&pixels[0]);
            luma.resize(luma.len() + pixels.len(), color.0);
            cb.resize(cb.len() + pixels.len(), color.1);
            cr.resize(cr.len() + pixels.len(), color.2);
        }
    }
}
