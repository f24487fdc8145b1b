//! An animated GIF: the still picture with a clock and a bar, of which only these are drawn anew.

use ::gif::{DisposalMethod, Encoder, EncodingError, Frame, Repeat};

use super::Spec;
use super::image::{colors, inks};
use super::layout::Layout;

/// Most pictures in a file that nobody counts.
const USUAL_FRAMES: usize = 12;
/// Most pictures in any file.
const MOST_FRAMES: usize = 64;
/// Hundredths of a second between two pictures, where there are fewer.
const USUAL_DELAY: usize = 25;

/// The pictures that `spec` asks for as a GIF file that repeats for ever.
pub(super) fn gif(spec: &Spec) -> Vec<u8> {
    let mut file = Vec::new();
    write(spec, &mut file).expect("writing to memory cannot fail, and all frames lie on the screen");
    file
}

fn write(spec: &Spec, file: &mut Vec<u8>) -> Result<(), EncodingError> {
    let (width, height) = spec.size();
    let palette: Vec<u8> = colors(spec.seed).iter().flat_map(|color| color.rgb()).collect();
    let mut encoder = Encoder::new(file, short(width), short(height), &palette)?;
    encoder.set_repeat(Repeat::Infinite)?;
    let (layout, footer) = Layout::moving(width, height, &spec.caption);
    let hundredths = usize::try_from(spec.duration().as_millis() / 10).unwrap_or(usize::MAX);
    let frames = match spec.pictures {
        Some(pictures) => (pictures as usize).clamp(1, MOST_FRAMES),
        None => (hundredths / USUAL_DELAY).clamp(2, USUAL_FRAMES),
    };
    for frame in 0..frames {
        let (start, end) = (hundredths * frame / frames, hundredths * (frame + 1) / frames);
        let rows = if frame == 0 || footer.rows().is_empty() { 0..height } else { footer.rows() };
        let mut pixels = vec![0; width * rows.len()];
        let moment = footer.moment(footer.filled(frame, frames), (start / 100) as u64, spec.duration());
        for (y, row) in rows.clone().zip(pixels.chunks_exact_mut(width)) {
            layout.row(y, inks(y, height), row);
            moment.row(y, inks(y, height), row);
        }
        encoder.write_frame(&Frame {
            delay: short(end - start),
            dispose: DisposalMethod::Keep,
            top: short(rows.start),
            width: short(width),
            height: short(rows.len()),
            buffer: pixels.into(),
            ..Frame::default()
        })?;
    }
    Ok(())
}

fn short(value: usize) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}
