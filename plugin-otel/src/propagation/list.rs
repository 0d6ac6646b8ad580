//! Headers whose value is a list: lines, members, and one line of them again.
//!
//! Everyone may send such headers, and much of them: bytes are looked at many at a time, which a
//! loop that ends at the first bad one does not allow.

use std::{borrow::Cow, iter};

use memchr::memchr;
use plugin_api::Header;

/// The values of all lines of this name, in order.
pub(super) fn lines<'a>(
    headers: &'a [Header<'a>],
    name: &'static str,
) -> impl Iterator<Item = &'a [u8]> + Clone {
    headers.iter().filter(move |header| header.name() == name).map(Header::value)
}

/// The members of a list: split at commas, trimmed, empty ones among them.
pub(super) fn members<'a>(lines: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = &'a [u8]> {
    lines.flat_map(|line| split(line, b',')).map(trim)
}

/// The parts between these separators; one empty part of an empty text.
pub(super) fn split(text: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    iter::from_fn(move || {
        let text = rest?;
        let Some((part, after)) = split_once(text, separator) else { return rest.take() };
        rest = Some(after);
        Some(part)
    })
}

/// What stands before and after the first separator.
pub(super) fn split_once(text: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = memchr(separator, text)?;
    let (before, after) = text.split_at(at);
    Some((before, &after[1..]))
}

/// Whether every byte is good.
pub(super) fn all(text: &[u8], is_good: impl Fn(u8) -> bool) -> bool {
    text.iter().fold(true, |good, byte| good & is_good(*byte))
}

/// Without the optional whitespace of HTTP, which is blanks and tabs, at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    const MANY: usize = 32;
    while let Some((first, rest)) = text.split_first_chunk::<MANY>()
        && all(first, is_blank)
    {
        text = rest;
    }
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let Some((rest, last)) = text.split_last_chunk::<MANY>()
        && all(last, is_blank)
    {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

const fn is_blank(byte: u8) -> bool {
    (byte == b' ') | (byte == b'\t')
}

/// The members, which are ASCII, as one line: the line that they came in, when nothing was left out of
/// it.
pub(super) fn join<'a>(
    mut lines: impl Iterator<Item = &'a [u8]>,
    kept: &[&'a [u8]],
) -> Cow<'a, str> {
    let length = kept.iter().map(|member| member.len() + 1).sum::<usize>().saturating_sub(1);
    match (lines.next(), lines.next()) {
        (Some(line), None) if line.len() == length => {
            std::str::from_utf8(line).map_or(Cow::Borrowed(""), Cow::Borrowed)
        }
        _ if kept.is_empty() => Cow::Borrowed(""),
        _ => Cow::Owned(String::from_utf8(kept.join(&b',')).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_are_split_at_commas_and_trimmed() {
        let all = |lines: &[&'static str]| -> Vec<&[u8]> {
            members(lines.iter().map(|line| line.as_bytes())).collect()
        };
        assert_eq!(all(&["a , b", "c"]), [b"a", b"b", b"c"]);
        assert_eq!(all(&["a,,"]), [&b"a"[..], b"", b""]);
        assert_eq!(all(&[""]), [b""]);
    }

    proptest! {
        #[test]
        fn whatever_is_trimmed_has_no_blank_at_its_ends(
            before in "[ \t]{0,70}", middle in "([a-z]([a-z \t]{0,70}[a-z])?)?", after in "[ \t]{0,70}",
        ) {
            let text = format!("{before}{middle}{after}");
            prop_assert_eq!(trim(text.as_bytes()), middle.as_bytes());
        }

        #[test]
        fn parts_joined_again_are_the_text(text in "[a,]{0,20}") {
            let parts: Vec<&[u8]> = split(text.as_bytes(), b',').collect();
            prop_assert_eq!(parts.join(&b','), text.as_bytes());
        }
    }
}
