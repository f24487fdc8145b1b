//! Context-adaptive variable-length coding of transform coefficients (H.264, 9.2): the tables, and their use.
//!
//! As AC coefficients are never coded, every block has empty neighbours (nC is 0), and of the tables of
//! `coeff_token` only two columns are needed. Code words stand as the standard prints them.

use super::BitWriter;

/// Codes the 16 DC levels of a macroblock, given by rows, in zig-zag order (8.5.6).
pub(super) fn luma_dc(out: &mut BitWriter, levels: &[[i32; 4]; 4]) {
    const ZIGZAG: [(usize, usize); 16] = [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 0),
        (1, 1),
        (0, 2),
        (0, 3),
        (1, 2),
        (2, 1),
        (3, 0),
        (3, 1),
        (2, 2),
        (1, 3),
        (2, 3),
        (3, 2),
        (3, 3),
    ];
    block(out, &ZIGZAG.map(|(y, x)| levels[y][x]), &COEFF_TOKEN, |coefficients| {
        TOTAL_ZEROS[coefficients - 1]
    });
}

/// Codes the 4 DC levels of a chroma plane, given by rows, which is also the order of coding.
pub(super) fn chroma_dc(out: &mut BitWriter, levels: &[i32; 4]) {
    block(out, levels, &CHROMA_COEFF_TOKEN, |coefficients| CHROMA_TOTAL_ZEROS[coefficients - 1]);
}

/// `residual_block_cavlc` (7.3.5.3.2): how many levels are not zero, which, and between how many zeros.
fn block(
    out: &mut BitWriter,
    levels: &[i32],
    tokens: &[[&str; 4]],
    total_zeros: impl Fn(usize) -> &'static [&'static str],
) {
    if levels.iter().all(|&level| level == 0) {
        return out.code(tokens[0][0]); // by far the most frequent
    }
    let backwards: Vec<(usize, i32)> =
        levels.iter().copied().enumerate().rev().filter(|&(_, level)| level != 0).collect();
    let trailing_ones = backwards.iter().take(3).take_while(|(_, level)| level.abs() == 1).count();
    out.code(tokens[backwards.len()][trailing_ones]);
    for &(_, level) in &backwards[..trailing_ones] {
        out.flag(level < 0);
    }
    write_levels(out, &backwards, trailing_ones);
    let mut zeros = backwards[0].0 + 1 - backwards.len();
    if backwards.len() < levels.len() {
        out.code(total_zeros(backwards.len())[zeros]);
    }
    for pair in backwards.windows(2) {
        if zeros > 0 {
            let run = pair[0].0 - pair[1].0 - 1;
            out.code(RUN_BEFORE[zeros.min(7) - 1][run]);
            zeros -= run;
        }
    }
}

/// The levels after the trailing ones (9.2.2.1), each with a suffix as long as the last ones suggest.
fn write_levels(out: &mut BitWriter, backwards: &[(usize, i32)], trailing_ones: usize) {
    let mut suffix_length = u32::from(backwards.len() > 10 && trailing_ones < 3);
    for (index, &(_, level)) in backwards.iter().enumerate().skip(trailing_ones) {
        let magnitude = level.unsigned_abs();
        // The first cannot be 1 or -1 unless three of those went before.
        let known = if index == trailing_ones && trailing_ones < 3 { 2 } else { 0 };
        write_level(out, magnitude * 2 - if level > 0 { 2 } else { 1 } - known, suffix_length);
        suffix_length = suffix_length.max(1);
        if magnitude > 3 << (suffix_length - 1) && suffix_length < 6 {
            suffix_length += 1;
        }
    }
}

/// `level_prefix` (Table 9-6) and `level_suffix`. A code must be below 4096 + 15: a level of up to 2047.
fn write_level(out: &mut BitWriter, code: u32, suffix_length: u32) {
    let prefix = |out: &mut BitWriter, zeros| out.put(1, zeros + 1);
    match suffix_length {
        0 if code < 14 => prefix(out, code),
        0 if code < 30 => {
            prefix(out, 14);
            out.put(code - 14, 4);
        }
        _ if suffix_length > 0 && code < 15 << suffix_length => {
            prefix(out, code >> suffix_length);
            out.put(code & ((1 << suffix_length) - 1), suffix_length);
        }
        _ => {
            prefix(out, 15);
            out.put(code - if suffix_length == 0 { 30 } else { 15 << suffix_length }, 12);
        }
    }
}

/// `coeff_token` for nC of 0 or 1, by number of levels and by trailing ones (Table 9-5).
const COEFF_TOKEN: [[&str; 4]; 17] = [
    ["1", "", "", ""],
    ["0001 01", "01", "", ""],
    ["0000 0111", "0001 00", "001", ""],
    ["0000 0011 1", "0000 0110", "0000 101", "00011"],
    ["0000 0001 11", "0000 0011 0", "0000 0101", "0000 11"],
    ["0000 0000 111", "0000 0001 10", "0000 0010 1", "0000 100"],
    ["0000 0000 0111 1", "0000 0000 110", "0000 0001 01", "0000 0100"],
    ["0000 0000 0101 1", "0000 0000 0111 0", "0000 0000 101", "0000 0010 0"],
    ["0000 0000 0100 0", "0000 0000 0101 0", "0000 0000 0110 1", "0000 0001 00"],
    ["0000 0000 0011 11", "0000 0000 0011 10", "0000 0000 0100 1", "0000 0000 100"],
    ["0000 0000 0010 11", "0000 0000 0010 10", "0000 0000 0011 01", "0000 0000 0110 0"],
    ["0000 0000 0001 111", "0000 0000 0001 110", "0000 0000 0010 01", "0000 0000 0011 00"],
    ["0000 0000 0001 011", "0000 0000 0001 010", "0000 0000 0001 101", "0000 0000 0010 00"],
    ["0000 0000 0000 1111", "0000 0000 0000 001", "0000 0000 0001 001", "0000 0000 0001 100"],
    ["0000 0000 0000 1011", "0000 0000 0000 1110", "0000 0000 0000 1101", "0000 0000 0001 000"],
    ["0000 0000 0000 0111", "0000 0000 0000 1010", "0000 0000 0000 1001", "0000 0000 0000 1100"],
    ["0000 0000 0000 0100", "0000 0000 0000 0110", "0000 0000 0000 0101", "0000 0000 0000 1000"],
];

/// `coeff_token` for chroma DC, where nC is -1 (Table 9-5).
const CHROMA_COEFF_TOKEN: [[&str; 4]; 5] = [
    ["01", "", "", ""],
    ["0001 11", "1", "", ""],
    ["0001 00", "0001 10", "001", ""],
    ["0000 11", "0000 011", "0000 010", "0001 01"],
    ["0000 10", "0000 0011", "0000 0010", "0000 000"],
];

/// Zeros before the last level, by number of levels from 1 (Tables 9-7 and 9-8).
const TOTAL_ZEROS: [&[&str]; 15] = [
    &[
        "1",
        "011",
        "010",
        "0011",
        "0010",
        "00011",
        "00010",
        "000011",
        "000010",
        "0000011",
        "0000010",
        "00000011",
        "00000010",
        "000000011",
        "000000010",
        "000000001",
    ],
    &[
        "111", "110", "101", "100", "011", "0101", "0100", "0011", "0010", "00011", "00010", "000011",
        "000010", "000001", "000000",
    ],
    &[
        "0101", "111", "110", "101", "0100", "0011", "100", "011", "0010", "00011", "00010", "000001",
        "00001", "000000",
    ],
    &["00011", "111", "0101", "0100", "110", "101", "100", "0011", "011", "0010", "00010", "00001", "00000"],
    &["0101", "0100", "0011", "111", "110", "101", "100", "011", "0010", "00001", "0001", "00000"],
    &["000001", "00001", "111", "110", "101", "100", "011", "010", "0001", "001", "000000"],
    &["000001", "00001", "101", "100", "011", "11", "010", "0001", "001", "000000"],
    &["000001", "0001", "00001", "011", "11", "10", "010", "001", "000000"],
    &["000001", "000000", "0001", "11", "10", "001", "01", "00001"],
    &["00001", "00000", "001", "11", "10", "01", "0001"],
    &["0000", "0001", "001", "010", "1", "011"],
    &["0000", "0001", "01", "1", "001"],
    &["000", "001", "1", "01"],
    &["00", "01", "1"],
    &["0", "1"],
];

/// The same for chroma DC (Table 9-9 (a)).
const CHROMA_TOTAL_ZEROS: [&[&str]; 3] = [&["1", "01", "001", "000"], &["1", "01", "00"], &["1", "0"]];

/// Zeros before a level, by zeros left from 1; the last line is for 7 and more (Table 9-10).
const RUN_BEFORE: [&[&str]; 7] = [
    &["1", "0"],
    &["1", "01", "00"],
    &["11", "10", "01", "00"],
    &["11", "10", "01", "001", "000"],
    &["11", "10", "011", "010", "001", "000"],
    &["11", "000", "001", "011", "010", "101", "100"],
    &[
        "111",
        "110",
        "101",
        "100",
        "011",
        "010",
        "001",
        "0001",
        "00001",
        "000001",
        "0000001",
        "00000001",
        "000000001",
        "0000000001",
        "00000000001",
    ],
];

#[cfg(test)]
mod tests {
    use super::*;

    /// A slip in a table shows: no code word starts another.
    #[test]
    fn code_words_can_be_told_apart() {
        let tokens = [COEFF_TOKEN.as_flattened(), CHROMA_COEFF_TOKEN.as_flattened()];
        for table in tokens.into_iter().chain(TOTAL_ZEROS).chain(CHROMA_TOTAL_ZEROS).chain(RUN_BEFORE) {
            let words: Vec<String> =
                table.iter().filter(|word| !word.is_empty()).map(|word| word.replace(' ', "")).collect();
            for (index, word) in words.iter().enumerate() {
                let other =
                    words.iter().enumerate().find(|(at, other)| *at != index && other.starts_with(word));
                assert_eq!(other, None, "{word} starts it");
            }
        }
    }

    /// The example is 16 levels with trailing ones, zeros and a large level, as a decoder would read them.
    #[test]
    fn a_block_is_coded_as_the_standard_says() {
        let mut out = BitWriter::default();
        // In zig-zag order: 0, 3, 0, 1, -1, -1, 0, 1, 0 and so on.
        luma_dc(&mut out, &[[0, 3, -1, 0], [0, -1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]);
        let bits = out.finish().iter().fold(String::new(), |text, byte| text + &format!("{byte:08b}"));
        // coeff_token 5/3, signs + - -, level 1, level 3, total_zeros 3, runs 1, 0, 0, 1
        assert_eq!(
            bits.trim_end_matches('0'),
            ["0000100", "011", "1", "0010", "111", "10", "1", "1", "01", "1"].concat()
        );
    }
}
