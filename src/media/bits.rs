//! Writing what is not made of whole bytes.

/// Collects bits, the most significant first.
#[derive(Default)]
pub(super) struct BitWriter {
    bytes: Vec<u8>,
    /// The last `held` bits, not yet a byte; the bits above them are left over and mean nothing.
    accumulator: u64,
    held: u32,
}

impl BitWriter {
    /// The lowest `count` (up to 32) bits of `value`, of which the others must be zero.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(value) < 1 << count, "{value} has more than {count} bits");
        self.accumulator = self.accumulator << count | u64::from(value);
        self.held += count;
        while self.held >= 8 {
            self.held -= 8;
            self.bytes.push((self.accumulator >> self.held & 0xff) as u8);
        }
    }

    /// One bit.
    pub(super) fn flag(&mut self, value: bool) {
        self.put(u32::from(value), 1);
    }

    /// A code word as tables print it, such as `"0001 01"`; anything but `0` and `1` is there for the eye.
    pub(super) fn code(&mut self, word: &str) {
        for digit in word.bytes().filter(u8::is_ascii_digit) {
            self.flag(digit == b'1');
        }
    }

    /// ue(v), an unsigned Exp-Golomb code (H.264, 9.1). `value` must be below 2^31.
    pub(super) fn unsigned(&mut self, value: u32) {
        let length = (value + 1).ilog2();
        self.put(0, length);
        self.put(value + 1, length + 1);
    }

    /// se(v), a signed Exp-Golomb code (H.264, 9.1.1).
    pub(super) fn signed(&mut self, value: i32) {
        self.unsigned(value.unsigned_abs() * 2 - u32::from(value > 0));
    }

    /// Zeros up to `length` bytes, of which no more may be written already, then the bytes.
    pub(super) fn padded(mut self, length: usize) -> Vec<u8> {
        self.put(0, (8 - self.held) % 8);
        debug_assert!(self.bytes.len() <= length, "{} bytes, not {length}", self.bytes.len());
        self.bytes.resize(length, 0);
        self.bytes
    }

    /// A one and the zeros to the next whole byte, then the bytes: `rbsp_trailing_bits` (H.264, 7.3.2.11).
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.put(1, 1);
        self.put(0, (8 - self.held) % 8);
        self.bytes
    }
}

/// Collects bits, the least significant first.
#[derive(Default)]
pub(super) struct LowBitWriter {
    bytes: Vec<u8>,
    accumulator: u64,
    held: u32,
}

impl LowBitWriter {
    /// The lowest `count` (up to 32) bits of `value`, of which the others must be zero.
    pub(super) fn put(&mut self, value: u32, count: u32) {
        debug_assert!(count <= 32 && u64::from(value) < 1 << count, "{value} has more than {count} bits");
        self.accumulator |= u64::from(value) << self.held;
        self.held += count;
        while self.held >= 8 {
            self.held -= 8;
            self.bytes.push((self.accumulator & 0xff) as u8);
            self.accumulator >>= 8;
        }
    }

    /// The `count` bits of a code word, which are read from its top.
    pub(super) fn code(&mut self, word: u32, count: u32) {
        self.put(if count == 0 { 0 } else { word.reverse_bits() >> (32 - count) }, count);
    }

    /// Zeros to the next whole byte, then the bytes.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.put(0, (8 - self.held) % 8);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_the_codes_of_the_standard() {
        let bits = |write: fn(&mut BitWriter)| {
            let mut bits = BitWriter::default();
            write(&mut bits);
            bits.finish().iter().fold(String::new(), |text, byte| text + &format!("{byte:08b}"))
        };
        let check =
            |write, expected: &str| assert_eq!(bits(write).trim_end_matches('0'), format!("{expected}1"));
        check(|b| b.unsigned(0), "1");
        check(|b| b.unsigned(3), "00100");
        check(|b| b.unsigned(8), "0001001");
        check(|b| b.signed(1), "010");
        check(|b| b.signed(-2), "00101");
        check(|b| b.code("0001 01"), "000101");
        check(|b| b.put(u32::MAX, 32), &"1".repeat(32));
    }

    #[test]
    fn low_bits_first_fills_bytes_from_below() {
        let mut bits = LowBitWriter::default();
        bits.put(0b101, 3);
        bits.code(0b110, 3);
        bits.put(0x1ff, 9);
        assert_eq!(bits.finish(), [0b1101_1101, 0b0111_1111]);
    }
}
