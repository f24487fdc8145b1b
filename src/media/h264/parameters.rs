//! What a decoder must know before the first picture: the parameter sets (H.264, 7.3.2), and the level.

use super::{BitWriter, COARSE, FRAME_NUMBER_BITS, Macroblocks, escape};

/// Pictures per second.
#[derive(Clone, Copy, Debug)]
pub(in crate::media) struct FrameRate(pub(in crate::media) u32);

/// A sequence and a picture parameter set, each a NAL unit without its length.
pub(in crate::media) struct ParameterSets {
    pub(in crate::media) sequence: Vec<u8>,
    pub(in crate::media) picture: Vec<u8>,
}

/// The profile Baseline, which with the first two constraints is Constrained Baseline (A.2.1.1).
const PROFILE: u32 = 66;
const CONSTRAINTS: u32 = 0b1100_0000;

/// Level times ten, most macroblocks per second and most per picture (Table A-1; bit rates and buffers are never
/// near their limits).
const LEVELS: [(u32, u64, u64); 18] = [
    (10, 1_485, 99),
    (11, 3_000, 396),
    (12, 6_000, 396),
    (13, 11_880, 396),
    (21, 19_800, 792),
    (22, 20_250, 1_620),
    (30, 40_500, 1_620),
    (31, 108_000, 3_600),
    (32, 216_000, 5_120),
    (40, 245_760, 8_192),
    (42, 522_240, 8_704),
    (50, 589_824, 22_080),
    (51, 983_040, 36_864),
    (52, 2_073_600, 36_864),
    (60, 4_177_920, 139_264),
    (61, 8_355_840, 139_264),
    (62, 16_711_680, 139_264),
    // Larger than any level allows (8192 by 8192 has 262,144): software decodes it all the same.
    (62, u64::MAX, u64::MAX),
];

/// The parameter sets for pictures of `width` by `height` pixels, both even.
pub(in crate::media) fn parameter_sets(width: usize, height: usize, rate: FrameRate) -> ParameterSets {
    let (mut sequence, mut picture) = (Vec::new(), Vec::new());
    escape(0x67, &sequence_parameters(width, height, rate), &mut sequence);
    escape(0x68, &picture_parameters(), &mut picture);
    ParameterSets { sequence, picture }
}

/// The lowest level that allows `size` at `rate`; a side may be up to the root of eight times the area (A.3.1).
fn level(size: Macroblocks, rate: FrameRate) -> u32 {
    let [area, longest] = [size.count(), size.width.max(size.height)].map(|count| count as u64);
    let allows = |&&(_, per_second, per_picture): &&(u32, u64, u64)| {
        area <= per_picture
            && area * u64::from(rate.0) <= per_second
            && longest * longest <= per_picture.saturating_mul(8)
    };
    LEVELS.iter().find(allows).map_or(62, |&(level, ..)| level)
}

/// 7.3.2.1.1.
fn sequence_parameters(width: usize, height: usize, rate: FrameRate) -> Vec<u8> {
    let size = Macroblocks::covering(width, height);
    let number = |count: usize| u32::try_from(count).expect("a side has at most 512 macroblocks");
    let mut set = BitWriter::default();
    set.put(PROFILE, 8);
    set.put(CONSTRAINTS, 8);
    set.put(level(size, rate), 8);
    set.unsigned(0); // seq_parameter_set_id
    set.unsigned(FRAME_NUMBER_BITS - 4); // log2_max_frame_num_minus4
    set.unsigned(2); // pic_order_cnt_type: shown in the order of decoding
    set.unsigned(1); // max_num_ref_frames
    set.flag(false); // gaps_in_frame_num_value_allowed_flag
    set.unsigned(number(size.width - 1)); // pic_width_in_mbs_minus1
    set.unsigned(number(size.height - 1)); // pic_height_in_map_units_minus1
    set.flag(true); // frame_mbs_only_flag
    set.flag(true); // direct_8x8_inference_flag
    let (right, bottom) = (size.width * 16 - width, size.height * 16 - height);
    set.flag(right + bottom > 0); // frame_cropping_flag
    if right + bottom > 0 {
        // left, right, top and bottom, in steps of two pixels
        for steps in [0, right / 2, 0, bottom / 2] {
            set.unsigned(number(steps));
        }
    }
    set.flag(true); // vui_parameters_present_flag
    usability_information(&mut set, rate);
    set.finish()
}

/// E.1.1: square pixels, BT.709, a fixed frame rate, and no picture waits for a later one.
fn usability_information(set: &mut BitWriter, FrameRate(rate): FrameRate) {
    set.flag(true); // aspect_ratio_info_present_flag
    set.put(1, 8); // aspect_ratio_idc: 1:1
    set.flag(false); // overscan_info_present_flag
    set.flag(true); // video_signal_type_present_flag
    set.put(5, 3); // video_format: unspecified
    set.flag(false); // video_full_range_flag
    set.flag(true); // colour_description_present_flag
    set.put(1, 8); // colour_primaries: BT.709
    set.put(1, 8); // transfer_characteristics
    set.put(1, 8); // matrix_coefficients
    set.flag(false); // chroma_loc_info_present_flag
    set.flag(true); // timing_info_present_flag
    set.put(1, 32); // num_units_in_tick
    set.put(rate * 2, 32); // time_scale: a tick is half a picture
    set.flag(true); // fixed_frame_rate_flag
    set.flag(false); // nal_hrd_parameters_present_flag
    set.flag(false); // vcl_hrd_parameters_present_flag
    set.flag(false); // pic_struct_present_flag
    set.flag(true); // bitstream_restriction_flag
    set.flag(true); // motion_vectors_over_pic_boundaries_flag
    set.unsigned(0); // max_bytes_per_pic_denom: unlimited
    set.unsigned(0); // max_bits_per_mb_denom: unlimited
    set.unsigned(0); // log2_max_mv_length_horizontal: nothing moves
    set.unsigned(0); // log2_max_mv_length_vertical
    set.unsigned(0); // max_num_reorder_frames
    set.unsigned(1); // max_dec_frame_buffering
}

/// 7.3.2.2.
fn picture_parameters() -> Vec<u8> {
    let mut set = BitWriter::default();
    set.unsigned(0); // pic_parameter_set_id
    set.unsigned(0); // seq_parameter_set_id
    set.flag(false); // entropy_coding_mode_flag: CAVLC
    set.flag(false); // bottom_field_pic_order_in_frame_present_flag
    set.unsigned(0); // num_slice_groups_minus1
    set.unsigned(0); // num_ref_idx_l0_default_active_minus1
    set.unsigned(0); // num_ref_idx_l1_default_active_minus1
    set.flag(false); // weighted_pred_flag
    set.put(0, 2); // weighted_bipred_idc
    set.signed(COARSE.parameter - 26); // pic_init_qp_minus26
    set.signed(0); // pic_init_qs_minus26
    set.signed(0); // chroma_qp_index_offset
    set.flag(true); // deblocking_filter_control_present_flag
    set.flag(false); // constrained_intra_pred_flag
    set.flag(false); // redundant_pic_cnt_present_flag
    set.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_no_higher_than_needed() {
        let check = |width, height, expected| {
            assert_eq!(
                level(Macroblocks::covering(width, height), FrameRate(24)),
                expected,
                "{width}x{height}"
            );
        };
        check(2, 2, 10);
        check(854, 480, 30);
        check(1280, 720, 31);
        check(1920, 1080, 40);
        check(3840, 2160, 51);
        check(8192, 16, 51); // for its length
        check(8192, 4320, 60);
        check(8192, 8192, 62);
    }
}
