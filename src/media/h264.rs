//! A small encoder of H.264 (ITU-T H.264), Constrained Baseline profile, for mosaics: pictures whose smallest
//! parts are flat cells of 4 by 4 pixels.
//!
//! Every coded macroblock is predicted as a whole (`Intra_16x16`) from its left neighbour, and of the difference
//! only the DC coefficients are coded, one for each cell. What did not change since the last picture is skipped.
//! That takes no search and no transform worth the name: a flat macroblock is one byte, and 4K pictures take
//! about a millisecond. Deblocking is off, so cells keep their edges.
//!
//! The mosaic comes back exactly as it went in if along a row of cells neighbours differ by multiples of 16; from
//! row to row they may differ by anything. Other differences come back a few steps off, without adding up.

mod cavlc;
mod parameters;

use std::ops::Range;

pub(super) use parameters::{FrameRate, parameter_sets};

use super::bits::BitWriter;

/// A size in macroblocks of 16 by 16 pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Macroblocks {
    pub(super) width: usize,
    pub(super) height: usize,
}

/// A picture of flat cells.
#[derive(Clone)]
pub(super) struct Mosaic {
    pub(super) size: Macroblocks,
    /// One value a cell, 4 cells a macroblock each way, row by row.
    pub(super) luma: Vec<u8>,
    /// (Cb, Cr) of each half row of macroblocks, which is 8 pixels high. The same all along the row.
    pub(super) chroma: Vec<[u8; 2]>,
}

/// Codes a series of mosaics of one size.
pub(super) struct Encoder {
    /// What a decoder shows after the last picture.
    shown: Mosaic,
    /// Pictures since the last key frame.
    frame_number: u32,
    key_frames: u32,
    /// QP of the last macroblock.
    quantiser_parameter: i32,
}

/// How coarsely the DC levels of a macroblock are coded.
///
/// Of the 4 bits by which the transform there and back is too large, `shift` are taken off before coding, and the
/// others by the decoder. That follows from 8.5.10 for a QP of 4 + 6 * `shift`.
#[derive(Clone, Copy)]
struct Quantiser {
    parameter: i32,
    shift: u32,
}

/// Exact for what is constant along a row: the gradient, which only the first macroblock of a row has to code.
/// A level of chroma, spread over its 4 blocks, is half a step in each (8.5.11).
const FINE: Quantiser = Quantiser { parameter: 16, shift: 2 };
/// Exact for multiples of 16, in half as many bits: marks on the ground, as they differ from their left.
const COARSE: Quantiser = Quantiser { parameter: 28, shift: 4 };
/// No levels, or no differences.
const NONE: Cells = [[0; 4]; 4];
/// Pictures are numbered modulo 2 to the power of this.
const FRAME_NUMBER_BITS: u32 = 8;

/// Luma of the four by four cells of a macroblock, or what stands for them.
type Cells = [[i32; 4]; 4];

/// Where the prediction of a macroblock comes from.
#[derive(Clone, Copy)]
enum Prediction {
    Left,
    Above,
    /// A medium gray: there is nothing to predict from.
    Flat,
}

impl Macroblocks {
    /// As many as cover `width` by `height` pixels.
    pub(super) fn covering(width: usize, height: usize) -> Self {
        Self { width: width.div_ceil(16), height: height.div_ceil(16) }
    }

    fn count(self) -> usize {
        self.width * self.height
    }
}

impl Mosaic {
    /// Cells in a row.
    pub(super) fn stride(&self) -> usize {
        self.size.width * 4
    }

    /// All of one gray.
    pub(super) fn gray(size: Macroblocks) -> Self {
        Self { size, luma: vec![128; size.count() * 16], chroma: vec![[128; 2]; size.height * 2] }
    }

    /// The cells of the macroblock in column `x` of row `y`.
    fn cells(&self, x: usize, y: usize) -> Cells {
        std::array::from_fn(|row| {
            let start = (y * 4 + row) * self.stride() + x * 4;
            std::array::from_fn(|column| self.luma[start + column].into())
        })
    }

    fn differs(&self, other: &Self, x: usize, y: usize) -> bool {
        (0..4).any(|row| {
            let start = (y * 4 + row) * self.stride() + x * 4;
            self.luma[start..start + 4] != other.luma[start..start + 4]
        })
    }
}

impl Encoder {
    /// For mosaics of `size`.
    pub(super) fn new(size: Macroblocks) -> Self {
        Self { shown: Mosaic::gray(size), frame_number: 0, key_frames: 0, quantiser_parameter: 0 }
    }

    /// `picture` as an access unit that needs no other: playing can start here.
    pub(super) fn key_frame(&mut self, picture: &Mosaic) -> Vec<u8> {
        let mut slice = BitWriter::default();
        self.frame_number = 0;
        slice.unsigned(0); // first_mb_in_slice
        slice.unsigned(7); // slice_type: all slices of this picture are I
        slice.unsigned(0); // pic_parameter_set_id
        slice.put(0, FRAME_NUMBER_BITS);
        slice.unsigned(self.key_frames % 2); // idr_pic_id: differs between neighbours
        slice.flag(false); // no_output_of_prior_pics_flag
        slice.flag(false); // long_term_reference_flag
        self.end_header(&mut slice);
        for y in 0..picture.size.height {
            for x in 0..picture.size.width {
                self.macroblock(&mut slice, picture, x, y, 0);
            }
        }
        self.key_frames += 1;
        nal_unit(0x65, &slice.finish())
    }

    /// `picture` as an access unit that says what changed since the last. Only macroblocks in `rows` are looked at.
    pub(super) fn delta_frame(&mut self, picture: &Mosaic, rows: Range<usize>) -> Vec<u8> {
        let mut slice = BitWriter::default();
        self.frame_number = (self.frame_number + 1) % (1 << FRAME_NUMBER_BITS);
        slice.unsigned(0); // first_mb_in_slice
        slice.unsigned(5); // slice_type: all slices of this picture are P
        slice.unsigned(0); // pic_parameter_set_id
        slice.put(self.frame_number, FRAME_NUMBER_BITS);
        slice.flag(false); // num_ref_idx_active_override_flag
        slice.flag(false); // ref_pic_list_modification_flag_l0
        slice.flag(false); // adaptive_ref_pic_marking_mode_flag
        self.end_header(&mut slice);
        let mut coded = 0;
        for y in rows {
            for x in 0..picture.size.width {
                if self.shown.differs(picture, x, y) {
                    let address = y * picture.size.width + x;
                    slice.unsigned(skipped(address - coded));
                    self.macroblock(&mut slice, picture, x, y, 5);
                    coded = address + 1;
                }
            }
        }
        if coded < picture.size.count() {
            slice.unsigned(skipped(picture.size.count() - coded));
        }
        nal_unit(0x41, &slice.finish())
    }

    /// What all slice headers (7.3.3) end with.
    fn end_header(&mut self, slice: &mut BitWriter) {
        slice.signed(0); // slice_qp_delta
        slice.unsigned(1); // disable_deblocking_filter_idc
        self.quantiser_parameter = COARSE.parameter;
    }

    /// Codes one macroblock (7.3.5). `first_type` is 5 in P slices, where the numbers of intra types start.
    fn macroblock(&mut self, slice: &mut BitWriter, picture: &Mosaic, x: usize, y: usize, first_type: u32) {
        let prediction = match (x, y) {
            (0, 0) => Prediction::Flat,
            (0, _) => Prediction::Above,
            _ => Prediction::Left,
        };
        let predicted = self.predicted_luma(prediction, x, y);
        let quantiser = if x == 0 { FINE } else { COARSE };
        let levels = quantiser.levels(picture.cells(x, y), predicted);
        let chroma = chroma_levels(prediction, picture, y);
        let has_chroma = chroma != [[0; 4]; 2];
        let (luma_mode, chroma_mode) = match prediction {
            Prediction::Above => (0, 2),
            Prediction::Left => (1, 1),
            Prediction::Flat => (2, 0),
        };
        slice.unsigned(first_type + 1 + luma_mode + if has_chroma { 4 } else { 0 }); // mb_type, Table 7-11
        slice.unsigned(chroma_mode); // intra_chroma_pred_mode
        slice.signed(quantiser.parameter - self.quantiser_parameter); // mb_qp_delta
        self.quantiser_parameter = quantiser.parameter;
        cavlc::luma_dc(slice, &levels);
        if has_chroma {
            for levels in &chroma {
                cavlc::chroma_dc(slice, levels);
            }
        }
        self.show(x, y, predicted, quantiser.differences(levels));
    }

    /// `Intra_16x16` prediction (8.3.3) from what the decoder has.
    fn predicted_luma(&self, prediction: Prediction, x: usize, y: usize) -> Cells {
        match prediction {
            Prediction::Left => self.shown.cells(x - 1, y).map(|row| [row[3]; 4]),
            Prediction::Above => [self.shown.cells(x, y - 1)[3]; 4],
            Prediction::Flat => [[128; 4]; 4],
        }
    }

    /// Does what the decoder does.
    fn show(&mut self, x: usize, y: usize, predicted: Cells, differences: Cells) {
        let stride = self.shown.stride();
        for (row, (predicted, differences)) in predicted.iter().zip(differences).enumerate() {
            let start = (y * 4 + row) * stride + x * 4;
            let sums = predicted.iter().zip(differences).map(|(cell, difference)| cell + difference);
            for (cell, sum) in self.shown.luma[start..].iter_mut().zip(sums) {
                *cell = u8::try_from(sum.clamp(0, 255)).unwrap_or_default();
            }
        }
    }
}

impl Quantiser {
    /// The DC levels that turn `predicted` into `wanted`, by rows.
    fn levels(self, wanted: Cells, predicted: Cells) -> Cells {
        if wanted == predicted {
            return NONE;
        }
        let difference = std::array::from_fn(|y| std::array::from_fn(|x| wanted[y][x] - predicted[y][x]));
        transform(difference).map(|row| row.map(|sum| rounded(sum, self.shift)))
    }

    /// What a decoder makes of `levels`.
    fn differences(self, levels: Cells) -> Cells {
        if levels == NONE {
            return NONE;
        }
        transform(levels).map(|row| row.map(|sum| rounded(sum, 4 - self.shift)))
    }
}

/// `value` divided by 2 to the power of `shift`, halves rounded up.
fn rounded(value: i32, shift: u32) -> i32 {
    (value + (1 << shift >> 1)) >> shift
}

/// The DC levels of Cb and Cr. As chroma is the same all along a row, only the first macroblock has any.
fn chroma_levels(prediction: Prediction, picture: &Mosaic, y: usize) -> [[i32; 4]; 2] {
    let above = match prediction {
        Prediction::Left => return [[0; 4]; 2],
        Prediction::Above => picture.chroma[y * 2 - 1],
        Prediction::Flat => [128; 2],
    };
    std::array::from_fn(|plane| {
        let difference =
            |half: usize| i32::from(picture.chroma[y * 2 + half][plane]) - i32::from(above[plane]);
        [difference(0) + difference(1), 0, difference(0) - difference(1), 0]
    })
}

/// The 4 by 4 Hadamard transform in both directions (8-328); done twice it multiplies by 16.
fn transform(cells: Cells) -> Cells {
    let line = |[a, b, c, d]: [i32; 4]| [a + b + c + d, a + b - c - d, a - b - c + d, a - b + c - d];
    let rows = cells.map(line);
    let columns: Cells = std::array::from_fn(|x| line(std::array::from_fn(|y| rows[y][x])));
    std::array::from_fn(|y| std::array::from_fn(|x| columns[x][y]))
}

/// `mb_skip_run`: the macroblocks left as they were.
fn skipped(macroblocks: usize) -> u32 {
    u32::try_from(macroblocks).expect("a picture has at most 2^18 macroblocks")
}

/// A NAL unit as MP4 stores it (ISO/IEC 14496-15, 5.3.3): its length in 4 bytes, its header, and its payload so
/// that it cannot be taken for a start code (7.4.1).
fn nal_unit(header: u8, payload: &[u8]) -> Vec<u8> {
    let mut unit = vec![0, 0, 0, 0];
    escape(header, payload, &mut unit);
    let length = u32::try_from(unit.len() - 4).expect("a picture stays far below 4 GiB");
    unit[..4].copy_from_slice(&length.to_be_bytes());
    unit
}

/// Appends `header` and `payload` with a 3 wherever two zeros and a byte up to 3 would follow each other.
fn escape(header: u8, payload: &[u8], unit: &mut Vec<u8>) {
    unit.reserve(payload.len() + 1);
    unit.push(header);
    let mut zeros = 0;
    for &byte in payload {
        if zeros == 2 && byte <= 3 {
            unit.push(3);
            zeros = 0;
        }
        unit.push(byte);
        zeros = if byte == 0 { zeros + 1 } else { 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transform_undoes_itself() {
        let cells = [[1, 2, 3, 4], [5, 6, 7, 8], [-9, 10, 0, 0], [0, 0, 0, 255]];
        assert_eq!(transform(transform(cells)), cells.map(|row| row.map(|cell| cell * 16)));
    }

    #[test]
    fn start_codes_are_escaped() {
        let mut unit = Vec::new();
        escape(0x65, &[0, 0, 1, 0, 0, 0, 0, 0, 4, 0, 0, 3], &mut unit);
        assert_eq!(unit, [0x65, 0, 0, 3, 1, 0, 0, 3, 0, 0, 3, 0, 4, 0, 0, 3, 3]);
    }

    /// Ground that changes from row to row, with marks a multiple of 16 lighter: what `video` draws.
    #[test]
    fn a_mosaic_comes_back_as_it_went_in() {
        let mut mosaic = Mosaic::gray(Macroblocks { width: 5, height: 3 });
        let stride = mosaic.stride();
        for (index, cell) in mosaic.luma.iter_mut().enumerate() {
            let mark = index * index % 7 % 3;
            *cell = u8::try_from(40 + index / stride + mark * 64).unwrap();
        }
        let mut encoder = Encoder::new(mosaic.size);
        encoder.key_frame(&mosaic);
        assert_eq!(encoder.shown.luma, mosaic.luma);
        let unchanged = encoder.delta_frame(&mosaic, 0..3);
        mosaic.luma[30] += 16;
        assert!(encoder.delta_frame(&mosaic, 0..3).len() > unchanged.len());
        assert_eq!(encoder.shown.luma, mosaic.luma);
    }

    /// The error must not grow from one macroblock to the next.
    #[test]
    fn other_mosaics_come_back_nearly() {
        let mut mosaic = Mosaic::gray(Macroblocks { width: 9, height: 2 });
        for (index, cell) in mosaic.luma.iter_mut().enumerate() {
            *cell = u8::try_from(16 + index * index * 31 % 220).unwrap();
        }
        let mut encoder = Encoder::new(mosaic.size);
        encoder.key_frame(&mosaic);
        for (shown, wanted) in encoder.shown.luma.iter().zip(&mosaic.luma) {
            assert!(shown.abs_diff(*wanted) <= 8, "{shown} for {wanted}");
        }
    }
}
