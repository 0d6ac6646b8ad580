//! A short text on the stack: numbers and addresses are shown without an allocation.

use std::{
    fmt::{Display, Write},
    net::IpAddr,
    ops::Deref,
};

/// The longest thing to show is an IPv6 address, which takes 39.
const MOST: usize = 48;

/// Each number of a byte with a dot behind it, and how long that is.
const DOTTED: [([u8; 4], u8); 256] = {
    let (mut all, mut octet) = ([([b'.'; 4], 2); 256], 0);
    while octet < all.len() {
        let (text, length) = &mut all[octet];
        if octet >= 100 {
            *length = 4;
        } else if octet >= 10 {
            *length = 3;
        }
        let (mut place, mut rest) = (*length as usize - 1, octet);
        while place > 0 {
            place -= 1;
            text[place] = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        octet += 1;
    }
    all
};

/// What something looks like, cut off where it would be longer than any number or address.
#[derive(Debug)]
pub(crate) struct Short {
    bytes: [u8; MOST],
    length: usize,
}

impl Short {
    /// The text of this.
    pub(crate) fn of(shown: impl Display) -> Self {
        let mut short = Self { bytes: [0; MOST], length: 0 };
        // The only error is that there was more to write.
        _ = write!(short, "{shown}");
        short
    }

    /// The text of this address. Every span has some, and the standard library takes ten times as
    /// long for one of IPv4.
    pub(crate) fn of_address(address: IpAddr) -> Self {
        let IpAddr::V4(address) = address else { return Self::of(address) };
        let mut bytes = [0; MOST];
        let mut end = 0;
        for octet in address.octets() {
            let (text, length) = DOTTED[usize::from(octet)];
            bytes[end..end + text.len()].copy_from_slice(&text);
            end += usize::from(length);
        }
        // No dot stands behind the last number.
        Self { bytes, length: end - 1 }
    }

    /// The same text; all of it is UTF-8.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = MOST - self.length;
        let text = &text[..text.floor_char_boundary(room)];
        self.bytes[self.length..self.length + text.len()].copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

impl Deref for Short {
    type Target = str;

    fn deref(&self) -> &str {
        // Never empty in place of a text: only whole characters are written.
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_shown_whole() {
        assert_eq!(&*Short::of(503), "503");
        assert_eq!(&*Short::of(u64::MAX), u64::MAX.to_string());
        for address in [
            "10.0.0.1",
            "255.100.99.9",
            "192.168.205.30",
            "::1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0",
        ] {
            assert_eq!(&*Short::of_address(address.parse().unwrap()), address);
        }
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(&*Short::of("x".repeat(60)), "x".repeat(MOST));
        assert_eq!(&*Short::of(format!("{}é", "x".repeat(MOST - 1))), "x".repeat(MOST - 1));
    }
}
