//! Identifiers in hexadecimal digits.

/// The two digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let (mut pairs, mut byte) = ([[0; 2]; 256], 0);
    while byte < pairs.len() {
        pairs[byte] = [DIGITS[byte >> 4], DIGITS[byte & 0x0f]];
        byte += 1;
    }
    pairs
};

/// Exactly `2 * N` lower-case digits.
pub(super) fn read<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(bytes)
}

/// 1 to `2 * N` lower-case digits; those that are missing in front are zeros.
pub(super) fn read_short<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.is_empty() || digits.len() > 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().rev().zip(digits.rchunks(2)) {
        *byte = match *pair {
            [high, low] => nibble(high)? << 4 | nibble(low)?,
            [low] => nibble(low)?,
            _ => return None,
        };
    }
    Some(bytes)
}

/// Writes as many bytes as `place` has room for.
pub(super) fn write(place: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in place.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&PAIRS[usize::from(*byte)]);
    }
}

const fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_read_at_their_full_length_only() {
        assert_eq!(read(b"0af7"), Some([0x0a, 0xf7]));
        for bad in ["", "0", "0af", "0af70", "0AF7", "0xf7", "0ag7", " af7"] {
            assert_eq!(read::<2>(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn missing_digits_in_front_are_zeros() {
        for (digits, bytes) in
            [("7", [0, 7]), ("f7", [0, 0xf7]), ("af7", [0x0a, 0xf7]), ("0af7", [0x0a, 0xf7])]
        {
            assert_eq!(read_short(digits.as_bytes()), Some(bytes), "{digits}");
        }
        for bad in ["", "00af7", "g", "A", "-1"] {
            assert_eq!(read_short::<2>(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
