//! WebP, lossless (RFC 9649): an indexed picture as copies from above and runs.
//!
//! Most rows equal the one above, and the others are runs of few colours. So the prefix code is fixed, which saves
//! a second look at the pixels, and still a 4K picture is some kilobytes.

use super::bits::LowBitWriter;
use super::image::{CLEAR, Indexed};

/// Bits of a code word for a colour.
const COLOR_BITS: u32 = 10;
/// Bits of a code word for the length of a copy. 24 of these leave a quarter of the code for 256 colours.
const LENGTH_BITS: u32 = 5;
/// Values of a length's prefix (RFC 9649, 4.2.2).
const LENGTHS: u32 = 24;
/// The longest copy.
const MOST_PIXELS: usize = 4096;
/// The order in which the lengths of the code for code lengths stand (3.7.2.1.2).
const ORDER: [u32; 19] = [17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
/// In a list of code lengths: the last one 3 to 6 times more.
const REPEAT: u32 = 16;

/// Where a copy comes from. The numbers are those of the distance prefixes.
#[derive(Clone, Copy)]
enum From {
    Above = 0,
    Left = 1,
}

/// `picture` as a WebP file.
pub(super) fn file(picture: &Indexed) -> Vec<u8> {
    let stream = stream(picture);
    let number = |length: usize| u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let padding = stream.len() % 2;
    let mut file = Vec::with_capacity(stream.len() + 21);
    file.extend(b"RIFF");
    file.extend(number(12 + stream.len() + padding));
    file.extend(b"WEBPVP8L");
    file.extend(number(stream.len()));
    file.extend(stream);
    file.resize(file.len() + padding, 0);
    file
}

/// The VP8L stream (3.8).
fn stream(picture: &Indexed) -> Vec<u8> {
    let mut out = LowBitWriter::default();
    let side = |pixels: usize| u32::try_from(pixels - 1).unwrap_or(u32::MAX);
    out.put(0x2f, 8);
    out.put(side(picture.width), 14);
    out.put(side(picture.height), 14);
    out.put(u32::from(picture.is_transparent()), 1); // alpha_is_used
    out.put(0, 3); // version
    out.put(0b111, 3); // a transform, colour indexing
    out.put(CLEAR.into(), 8); // colours - 1
    color_table(&mut out, picture);
    out.put(0, 1); // no further transform
    out.put(0, 1); // no colour cache
    out.put(0, 1); // one set of prefix codes
    color_code(&mut out);
    (0..3).for_each(|_| one_symbol(&mut out, 0)); // red, blue and alpha
    out.put(0b011, 3); // distances: a simple code of two symbols, of which the first fits into one bit
    out.put(From::Above as u32, 1);
    out.put(From::Left as u32, 8);
    pixels(&mut out, picture);
    out.finish()
}

/// The colours by index, each as its difference from the one before (4.4).
fn color_table(out: &mut LowBitWriter, picture: &Indexed) {
    out.put(0, 1); // no colour cache
    color_code(out);
    (0..3).for_each(|_| code_lengths(out, &[(8, 256)])); // red, blue and alpha
    one_symbol(out, 0); // distances: there are none
    let mut last = [0_u8; 4];
    let colors = picture.rgb().map(|[red, green, blue]| [green, red, blue, u8::MAX]);
    for color in colors.chain([[0; 4]]) {
        let [green, rest @ ..]: [u8; 4] =
            std::array::from_fn(|channel| color[channel].wrapping_sub(last[channel]));
        color_word(out, green);
        for channel in rest {
            out.code(channel.into(), 8);
        }
        last = color;
    }
}

fn pixels(out: &mut LowBitWriter, picture: &Indexed) {
    let mut above = vec![0; picture.width];
    let mut row = vec![0; picture.width];
    let mut alike = 0;
    for y in 0..picture.height {
        picture.row(y, &mut row);
        if y > 0 && row == above {
            alike += picture.width;
        } else {
            copy(out, alike, From::Above);
            alike = 0;
            for run in row.chunk_by(|a, b| a == b) {
                color_word(out, run[0]);
                copy(out, run.len() - 1, From::Left);
            }
            std::mem::swap(&mut row, &mut above);
        }
    }
    copy(out, alike, From::Above);
}

/// The code for colours (or green, in the table) and lengths.
fn color_code(out: &mut LowBitWriter) {
    code_lengths(out, &[(COLOR_BITS, 256), (LENGTH_BITS, LENGTHS)]);
}

/// One word of it. Shorter words come first in a canonical code, so the colours follow all lengths.
fn color_word(out: &mut LowBitWriter, color: u8) {
    out.code((LENGTHS << (COLOR_BITS - LENGTH_BITS)) + u32::from(color), COLOR_BITS);
}

/// Copies `count` pixels, one after the other.
fn copy(out: &mut LowBitWriter, count: usize, from: From) {
    let mut rest = count;
    while rest > 0 {
        let now = rest.min(MOST_PIXELS);
        length(out, u32::try_from(now - 1).unwrap_or_default());
        out.code(from as u32, 1);
        rest -= now;
    }
}

/// A length less one: a prefix and further bits (4.2.2).
fn length(out: &mut LowBitWriter, less_one: u32) {
    if less_one < 4 {
        return out.code(less_one, LENGTH_BITS);
    }
    let extra = less_one.ilog2() - 1;
    out.code(2 * extra + (less_one >> extra), LENGTH_BITS);
    out.put(less_one & ((1 << extra) - 1), extra);
}

/// A code of one symbol, whose word is empty.
fn one_symbol(out: &mut LowBitWriter, symbol: u32) {
    out.put(0b001, 3); // a simple code of one symbol, that fits into one bit
    out.put(symbol, 1);
}

/// A code whose words have the lengths of `runs`: (bits, symbols). There are one or two of these.
fn code_lengths(out: &mut LowBitWriter, runs: &[(u32, u32)]) {
    // The list of lengths is itself coded: in one bit to repeat, and one or two for each length.
    let bits = u32::try_from(runs.len()).unwrap_or_default();
    let bits_of = |symbol: u32| match symbol {
        REPEAT => 1,
        length if runs.iter().any(|run| run.0 == length) => bits,
        _ => 0,
    };
    out.put(0, 1); // no simple code
    out.put(19 - 4, 4);
    for symbol in ORDER {
        out.put(bits_of(symbol), 3);
    }
    out.put(0, 1); // lengths for all symbols follow
    let mut sorted: Vec<u32> = runs.iter().map(|run| run.0).chain([REPEAT]).collect();
    sorted.sort_by_key(|&symbol| (bits_of(symbol), symbol));
    let word = |symbol: u32| {
        // Words in order: 0 and 1, or 0, 10 and 11.
        let place = sorted.iter().position(|&known| known == symbol).unwrap_or_default();
        [0, if bits == 1 { 1 } else { 0b10 }, 0b11][place]
    };
    for &(length, symbols) in runs {
        out.code(word(length), bits);
        let mut rest = symbols - 1;
        while rest > 0 {
            // What is left must be none or at least three.
            let now = if rest > 6 { 6.min(rest - 3) } else { rest };
            out.code(word(REPEAT), 1);
            out.put(now - 3, 2);
            rest -= now;
        }
    }
}
