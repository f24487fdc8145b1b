//! Still pictures, written row by row: no more than a few rows and the file are ever in memory.

use jpeg_encoder::{ImageBuffer, JpegColorType, SamplingFactor, rgb_to_ycbcr};

use super::Spec;
use super::layout::{Inks, Layout};
use super::palette::{Color, Palette, RULE, TEXT};

/// Steps of the gradient: as many as a palette of 256 has room for, each in three inks.
const STEPS: u8 = 85;

/// A picture as indexes into a table of colours.
struct Indexed {
    width: usize,
    height: usize,
    layout: Layout,
    colors: Vec<Color>,
}

/// The picture that `spec` asks for as a PNG file.
pub(super) fn png(spec: &Spec) -> Vec<u8> {
    let picture = Indexed::new(spec);
    let mut file = Vec::new();
    picture.write_png(&mut file).expect("writing to memory cannot fail, and every row is written");
    file
}

/// The picture that `spec` asks for as a JPEG file.
pub(super) fn jpeg(spec: &Spec) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = jpeg_encoder::Encoder::new(&mut file, 90);
    encoder.set_sampling_factor(SamplingFactor::R_4_2_0);
    encoder.encode_image(Indexed::new(spec)).expect("writing to memory cannot fail, and sizes are 1..=8192");
    file
}

impl Indexed {
    fn new(spec: &Spec) -> Self {
        let (width, height) = spec.size();
        let palette = Palette::new(spec.seed);
        let inks = |step: u8| {
            let ground = palette.ground(step.into(), STEPS.into());
            [ground, ground.lighter(RULE), ground.lighter(TEXT)]
        };
        let colors = (0..STEPS).flat_map(inks).collect();
        Self { width, height, layout: Layout::still(width, height, &spec.caption), colors }
    }

    /// Fills `row` with the indexes of row `y`.
    fn row(&self, y: usize, row: &mut [u8]) {
        let step = u8::try_from(y * usize::from(STEPS) / self.height).unwrap_or(STEPS - 1);
        let ground = step * 3;
        self.layout.row(y, Inks { ground, rule: ground + 1, text: ground + 2 }, row);
    }

    /// Most rows equal the one above, so the filter that subtracts it leaves next to nothing to compress.
    fn write_png(&self, file: &mut Vec<u8>) -> Result<(), png::EncodingError> {
        let side = |pixels| u32::try_from(pixels).unwrap_or(u32::MAX);
        let mut encoder = png::Encoder::new(file, side(self.width), side(self.height));
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(self.colors.iter().flat_map(|color| color.rgb()).collect::<Vec<u8>>());
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
