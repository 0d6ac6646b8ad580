//! The `tracestate` header: W3C Trace Context level 2, section 3.3.

use std::borrow::Cow;

use super::list::{all, join, members, split_once};

/// A list with more members than this is dropped whole.
const MOST_MEMBERS: usize = 32;
/// So is a list with more empty members than this: they cost time and mean nothing.
const MOST_EMPTY: usize = 32;
const LONGEST_KEY: usize = 256;
const LONGEST_VALUE: usize = 256;

/// The list to send on, empty when there is none or when any member is against the grammar.
///
/// `lines` are the values of all `tracestate` headers in order. Nothing is allocated when one line
/// can be sent on as it came.
pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone) -> Cow<'a, str> {
    let mut kept: [&[u8]; MOST_MEMBERS] = [&[]; MOST_MEMBERS];
    let mut keys = kept;
    let (mut seen, mut empty, mut count) = (0, 0, 0);
    for member in members(lines.clone()) {
        if member.is_empty() {
            empty += 1;
        } else {
            seen += 1;
        }
        if seen > MOST_MEMBERS || empty > MOST_EMPTY {
            return Cow::Borrowed("");
        }
        if member.is_empty() {
            continue;
        }
        let Some(key) = key_of(member) else { return Cow::Borrowed("") };
        if !keys[..count].contains(&key) {
            keys[count] = key;
            kept[count] = member;
            count += 1;
        }
    }
    join(lines, &kept[..count])
}

/// The key of a member that keeps to the grammar.
fn key_of(member: &[u8]) -> Option<&[u8]> {
    if member.len() > LONGEST_KEY + 1 + LONGEST_VALUE {
        return None;
    }
    let (key, value) = split_once(member, b'=')?;
    (key_is_valid(key) && value_is_valid(value)).then_some(key)
}

fn key_is_valid(key: &[u8]) -> bool {
    let Some(first) = key.first() else { return false };
    let starts_well = first.is_ascii_lowercase() || first.is_ascii_digit();
    starts_well && key.len() <= LONGEST_KEY && all(key, is_key_byte)
}

fn value_is_valid(value: &[u8]) -> bool {
    let ends_well = value.last().is_some_and(|last| *last != b' ');
    ends_well && value.len() <= LONGEST_VALUE && all(value, is_value_byte)
}

// Comparisons without branches, which the compiler makes for many bytes at a time.

const fn is_key_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase()
        | byte.is_ascii_digit()
        | (byte == b'_')
        | (byte == b'-')
        | (byte == b'*')
        | (byte == b'/')
        | (byte == b'@')
}

const fn is_value_byte(byte: u8) -> bool {
    (byte >= b' ') & (byte <= b'~') & (byte != b',') & (byte != b'=')
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
            "foo= in  between",
            "a=1",
            "0=0",
            "tenant@system@too=1",
            "foo=\"1\";x",
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
            "fOO=1",
            "@foo=1",
            "_foo=1",
            "foo =1",
            "foo.bar=1",
            "foo=1=2",
            "foo=a\tb",
            "foo=bar baz\t=",
            "foo\t=1",
            "foo",
            "fo\u{e9}=1",
            "foo=1;bar=2=",
            "-foo=1",
            "*foo=1",
            "/foo=1",
            "foo:bar=1",
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
    fn empty_members_do_not_count_until_they_are_too_many() {
        let list = |empty: usize| format!("a=1{},b=2", ",".repeat(empty));
        assert_eq!(read(&[&list(32)]), "a=1,b=2");
        assert_eq!(read(&[&list(33)]), "");
        assert_eq!(read(&[&",".repeat(8192)]), "");
        let full: Vec<String> = (0..32).map(|nth| format!("k{nth}=1")).collect();
        assert_eq!(read(&[&full.join(", ,")]), full.join(","));
    }

    #[test]
    fn one_bad_member_anywhere_drops_the_whole_list() {
        for lines in [&["bad", "a=1"][..], &["a=1,bad,b=2"], &["a=1", "b=2,bad"], &["a=1,\u{e9}=2"]]
        {
            assert_eq!(read(lines), "", "{lines:?}");
        }
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
