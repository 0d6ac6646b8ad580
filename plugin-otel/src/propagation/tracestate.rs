//! The `tracestate` header: W3C Trace Context level 2, section 3.3.

use std::borrow::Cow;

use super::{join, members};

/// A list with more members than this is dropped whole.
const MOST_MEMBERS: usize = 32;
const LONGEST_KEY: usize = 256;
const LONGEST_VALUE: usize = 256;

/// The list to send on, empty when there is none or when any member is against the grammar.
///
/// `lines` are the values of all `tracestate` headers in order. Nothing is allocated when one line
/// can be sent on as it came.
pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone) -> Cow<'a, str> {
    let mut kept = [""; MOST_MEMBERS];
    let mut seen = 0;
    let mut count = 0;
    for member in members(lines.clone()) {
        let Some((key, text)) = key_of(member) else { return Cow::Borrowed("") };
        seen += 1;
        if seen > MOST_MEMBERS {
            return Cow::Borrowed("");
        }
        let duplicate = kept[..count].iter().any(|earlier| has_key(earlier, key));
        if !duplicate {
            kept[count] = text;
            count += 1;
        }
    }
    join(lines, &kept[..count])
}

fn has_key(member: &str, key: &str) -> bool {
    member.strip_prefix(key).is_some_and(|rest| rest.starts_with('='))
}

/// The key of a member and the member's text, if it keeps to the grammar.
fn key_of(member: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(member).ok()?;
    let (key, value) = text.split_once('=')?;
    (key_is_valid(key.as_bytes()) && value_is_valid(value.as_bytes())).then_some((key, text))
}

fn key_is_valid(key: &[u8]) -> bool {
    let Some(first) = key.first() else { return false };
    let starts_well = first.is_ascii_lowercase() || first.is_ascii_digit();
    starts_well && key.len() <= LONGEST_KEY && key.iter().all(|byte| is_key_byte(*byte))
}

const fn is_key_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@')
}

fn value_is_valid(value: &[u8]) -> bool {
    let ends_well = value.last().is_some_and(|last| *last != b' ');
    ends_well && value.len() <= LONGEST_VALUE && value.iter().all(|byte| is_value_byte(*byte))
}

const fn is_value_byte(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b',' && byte != b'='
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str]) -> String {
        parse(lines.iter().map(|line| line.as_bytes())).into_owned()
    }

    #[test]
    fn a_good_list_is_sent_on() {
        let long_key = format!("{}=1", "k".repeat(256));
        let long_value = format!("k={}", "v".repeat(256));
        for line in [
            "foo=1",
            "foo=1,bar=2",
            "fw529a3039@dt=FfGsE3MBqp",
            "0digit=1",
            "foo@@bar=1",
            "foo@=1",
            "a_-*/@z=1",
            "foo=!~ +-<>",
            "foo= leading",
            &long_key,
            &long_value,
        ] {
            assert_eq!(read(&[line]), line);
        }
    }

    #[test]
    fn one_bad_member_drops_the_whole_list() {
        let long_key = format!("{}=1", "k".repeat(257));
        let long_value = format!("k={}", "v".repeat(257));
        for bad in [
            "foo",
            "=1",
            "foo=",
            "Foo=1",
            "@foo=1",
            "_foo=1",
            "foo =1",
            "foo.bar=1",
            "foo=1=2",
            "foo=a\tb",
            "foo=\u{e9}",
            "foo=\u{7f}",
            &long_key,
            &long_value,
        ] {
            assert_eq!(read(&["good=1", bad]), "", "{bad:?}");
        }
    }

    #[test]
    fn lines_are_joined_in_order_and_cleaned() {
        for (lines, wanted) in [
            (&["foo=1", "bar=2"][..], "foo=1,bar=2"),
            (&["", "foo=1", ""], "foo=1"),
            (&[" foo=1\t,\t bar=2 "], "foo=1,bar=2"),
            (&["foo=1,,bar=2,"], "foo=1,bar=2"),
            (&[", ,\t,"], ""),
            (&["foo=1,bar=2,foo=3"], "foo=1,bar=2"),
            (&["foo=1", "foo=2"], "foo=1"),
            (&["foo=1,fo=2,foobar=3"], "foo=1,fo=2,foobar=3"),
            (&["foo=1 , bar=2"], "foo=1,bar=2"),
            (&[], ""),
        ] {
            assert_eq!(read(lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn thirty_two_members_are_allowed_and_one_more_is_not() {
        let list = |count: usize| {
            let members: Vec<String> = (0..count).map(|nth| format!("k{nth}=1")).collect();
            members.join(",")
        };
        assert_eq!(read(&[&list(32)]), list(32));
        assert_eq!(read(&[&list(33)]), "");
        assert_eq!(read(&[&list(31), "k0=2,k0=3"]), "");
    }

    #[test]
    fn more_than_512_characters_are_sent_on() {
        let line = format!("a={0},b={0},c={0}", "v".repeat(250));
        assert_eq!(read(&[&line]), line);
    }

    #[test]
    fn a_line_in_order_is_borrowed() {
        assert!(matches!(parse([&b"foo=1,bar=2"[..]].into_iter()), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_on_is_read_again_unchanged(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..5),
        ) {
            let once = parse(lines.iter().map(Vec::as_slice)).into_owned();
            prop_assert_eq!(read(&[&once]), once);
        }

        #[test]
        fn lists_of_plausible_text_are_read_again_unchanged(line in "[a-c=, \t@1]{0,60}") {
            let once = read(&[&line]);
            prop_assert_eq!(read(&[&once]), once);
        }
    }
}
