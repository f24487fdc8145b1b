//! Messages that are small, in one piece: a write of one piece takes the system less than one of several.

use std::io::IoSlice;

/// The largest message that is put together, in bytes: the head and the body of most answers.
pub const SMALL: usize = 1024;

/// `slices` as one, put together in `room` if need be; `None` where that would be too much to copy.
pub fn gather<'b>(slices: &'b [IoSlice<'_>], room: &'b mut [u8; SMALL]) -> Option<&'b [u8]> {
    if let [only] = slices {
        return Some(only);
    }
    let mut length = 0;
    for slice in slices {
        let end = length + slice.len();
        room.get_mut(length..end)?.copy_from_slice(slice);
        length = end;
    }
    Some(&room[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_small_comes_together_and_what_is_large_does_not() {
        let gathered = |parts: &[&[u8]]| {
            let slices: Vec<_> = parts.iter().map(|part| IoSlice::new(part)).collect();
            gather(&slices, &mut [0; SMALL]).map(<[u8]>::to_vec)
        };
        assert_eq!(gathered(&[]).unwrap(), b"");
        assert_eq!(gathered(&[b"head", b"", b"body"]).unwrap(), b"headbody");
        let large = [b'x'; SMALL];
        assert_eq!(gathered(&[&large]).unwrap(), large);
        assert_eq!(gathered(&[&large[1..], b"y"]).unwrap().len(), SMALL);
        assert_eq!(gathered(&[&large, b"y"]), None);
        assert_eq!(gathered(&[b"y", &[b'x'; 4 * SMALL]]), None);
    }
}
