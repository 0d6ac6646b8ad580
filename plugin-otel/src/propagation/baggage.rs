//! The `baggage` header: W3C Baggage, section 3.

use std::borrow::Cow;

use super::list::{all, join, members, split_once, trim};

/// How many members are sent on at most; the rest is left out.
const MOST_MEMBERS: usize = 180;

/// How many bytes are sent on at most, commas included; members past it are left out.
const MOST_BYTES: usize = 8192;

/// How many members that are empty or malformed are skipped; what follows the last is left out.
const MOST_SKIPPED: usize = 32;

/// How many properties are looked at one by one; of those behind them, only the bytes are.
const MOST_PROPERTIES: usize = 16;

/// The list to send on: the members that keep to the grammar, as far as the limits allow.
///
/// `lines` are the values of all `baggage` headers in order. Nothing is allocated when one line can
/// be sent on as it came.
pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a [u8]> + Clone) -> Cow<'a, str> {
    let mut kept: [&[u8]; MOST_MEMBERS] = [&[]; MOST_MEMBERS];
    let (mut count, mut bytes, mut skipped) = (0, 0, 0);
    let mut properties = MOST_PROPERTIES;
    for member in members(lines.clone()) {
        // Lengths first: what has no room need not be looked at.
        let with_comma = member.len() + usize::from(count > 0);
        if count == MOST_MEMBERS || bytes + with_comma > MOST_BYTES || skipped == MOST_SKIPPED {
            break;
        }
        if !is_valid(member, &mut properties) {
            skipped += 1;
            continue;
        }
        bytes += with_comma;
        kept[count] = member;
        count += 1;
    }
    join(lines, &kept[..count])
}

/// Whether the member is `key=value` with any number of properties, of which so many may be looked at
/// one by one.
fn is_valid(member: &[u8], left: &mut usize) -> bool {
    match split_once(member, b';') {
        None => is_pair(member),
        Some((pair, properties)) => is_pair(pair) && are_properties(properties, left),
    }
}

/// `left` is how many more may be looked at one by one.
fn are_properties(mut properties: &[u8], left: &mut usize) -> bool {
    while *left > 0 {
        *left -= 1;
        let Some((property, after)) = split_once(properties, b';') else {
            return is_property(properties);
        };
        if !is_property(property) {
            return false;
        }
        properties = after;
    }
    all(properties, is_property_byte)
}

fn is_property(text: &[u8]) -> bool {
    is_token(trim(text)) || is_pair(text)
}

fn is_pair(text: &[u8]) -> bool {
    let Some((key, value)) = split_once(text, b'=') else { return false };
    is_token(trim(key)) && all(trim(value), is_value_byte)
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && all(text, is_token_byte)
}

// Comparisons without branches, which the compiler makes for many bytes at a time.

/// `tchar` of RFC 9110.
const fn is_token_byte(byte: u8) -> bool {
    (byte == b'!')
        | ((byte >= b'#') & (byte <= b'\''))
        | (byte == b'*')
        | (byte == b'+')
        | (byte == b'-')
        | (byte == b'.')
        | byte.is_ascii_digit()
        | byte.is_ascii_uppercase()
        | ((byte >= b'^') & (byte <= b'z'))
        | (byte == b'|')
        | (byte == b'~')
}

/// `baggage-octet`.
const fn is_value_byte(byte: u8) -> bool {
    (byte >= b'!')
        & (byte <= b'~')
        & (byte != b'"')
        & (byte != b',')
        & (byte != b';')
        & (byte != b'\\')
}

/// What a value, semicolons and blanks are made of; a comma has ended the member before.
const fn is_property_byte(byte: u8) -> bool {
    ((byte >= b' ') & (byte <= b'~') & (byte != b'"') & (byte != b'\\')) | (byte == b'\t')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(lines: &[&str]) -> String {
        parse(lines.iter().map(|line| line.as_bytes())).into_owned()
    }

    #[test]
    fn good_members_are_sent_on_as_they_came() {
        for line in [
            "userId=alice",
            "userId=alice,serverNode=DF%2028",
            "key=value;property",
            "key=value;property=1;other = 2",
            "key = value",
            "key=",
            "key=a=b",
            "!#$%&'*+-.^_`|~1=value",
        ] {
            assert_eq!(read(&[line]), line);
        }
    }

    #[test]
    fn malformed_members_are_left_out_and_the_others_stay() {
        for bad in [
            "nothing",
            "=value",
            "ke y=value",
            "k\u{e9}y=value",
            "key=va lue",
            "key=va\"lue",
            "key=va\\lue",
            "key=\u{e9}",
            "key=value;",
            "key=value;pro perty",
            "key=value;=1",
            "key=value;p=a b",
            "(key)=value",
        ] {
            assert_eq!(read(&[&format!("a=1,{bad},b=2")]), "a=1,b=2", "{bad:?}");
        }
    }

    #[test]
    fn of_many_properties_the_last_are_looked_at_by_their_bytes() {
        let with = |count: usize, last: &str| format!("a=1{};{last}", ";p".repeat(count));
        for (count, last, is_good) in [
            (15, "p = 1", true),
            (15, "p q", false),
            (4000, "p = 1", true),
            (4000, "p\"", false),
            (4000, "\u{e9}", false),
        ] {
            let line = with(count, last);
            assert_eq!(read(&[&line]), if is_good { line.as_str() } else { "" }, "{count} {last}");
        }
        let members = format!("{},b=2;p\"", with(40, "p"));
        assert_eq!(read(&[&format!("{members},{}", with(40, "p"))]).matches("a=1").count(), 2);
    }

    #[test]
    fn lines_are_joined_in_order_and_trimmed() {
        for (lines, wanted) in [
            (&["a=1", "b=2"][..], "a=1,b=2"),
            (&[" a=1\t,, b=2 "], "a=1,b=2"),
            (&["a=1,a=2"], "a=1,a=2"),
            (&["", ","], ""),
            (&[], ""),
        ] {
            assert_eq!(read(lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn members_past_the_limits_are_left_out() {
        let many: Vec<String> = (0..200).map(|nth| format!("k{nth}=1")).collect();
        assert_eq!(read(&[&many.join(",")]), many[..180].join(","));
        let full = format!("a={}", "v".repeat(8190));
        assert_eq!(read(&[&full]), full);
        assert_eq!(read(&[&format!("{full}v")]), "");
        assert_eq!(read(&["b=2", &full]), "b=2");
    }

    #[test]
    fn what_follows_too_much_nonsense_is_left_out() {
        for nonsense in ["bad,", ",", " ,", "=,"] {
            let list = |count: usize| format!("a=1,{}b=2", nonsense.repeat(count));
            assert_eq!(read(&[&list(31)]), "a=1,b=2", "{nonsense:?}");
            assert_eq!(read(&[&list(32)]), "a=1", "{nonsense:?}");
        }
    }

    #[test]
    fn every_character_is_judged_as_the_grammar_has_it() {
        for byte in 0..=0x7f_u8 {
            let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            assert_eq!(is_token_byte(byte), token, "{byte:#x}");
            let octet = byte.is_ascii_graphic() && !b"\",;\\".contains(&byte);
            assert_eq!(is_value_byte(byte), octet, "{byte:#x}");
        }
        assert!(!(0x80..=0xff).any(|byte| is_token_byte(byte) || is_value_byte(byte)));
    }

    #[test]
    fn a_line_in_order_is_borrowed() {
        assert!(matches!(parse([&b"a=1,b=2;c"[..]].into_iter()), Cow::Borrowed(_)));
    }

    proptest! {
        #[test]
        fn whatever_is_sent_on_is_read_again_unchanged_and_within_the_limits(
            lines in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..5),
        ) {
            let once = parse(lines.iter().map(Vec::as_slice)).into_owned();
            prop_assert!(once.len() <= MOST_BYTES);
            prop_assert_eq!(read(&[&once]), once);
        }

        #[test]
        fn lists_of_plausible_text_are_read_again_unchanged(line in "[a-c=,; \t\"1]{0,60}") {
            let once = read(&[&line]);
            prop_assert_eq!(read(&[&once]), once);
        }
    }
}
