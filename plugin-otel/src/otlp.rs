//! OTLP's messages, written by hand into bytes: the few forms of protobuf that spans need.
//!
//! A field that has its default value is left out, as protobuf wants, where a function says so.

/// Where a list of attributes stands: the tag of its members in the message around them.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// `Span.attributes`.
    Span = 0x4a,
    /// `Span.Event.attributes` and `InstrumentationScope.attributes`.
    EventOrScope = 0x1a,
    /// `Span.Link.attributes`.
    Link = 0x22,
    /// `Resource.attributes`.
    Resource = 0x0a,
    /// `LogRecord.attributes`.
    Log = 0x32,
}

/// How long a number is as a varint: seven bits a byte, one byte at least.
pub(crate) const fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()).div_ceil(7)) as usize
}

/// How long a text or a message of this length is with its tag (of one byte) and its length.
pub(crate) const fn field_len(content: usize) -> usize {
    1 + varint_len(content as u64) + content
}

/// Writes a varint.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits of it are meant")]
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    #[expect(clippy::cast_possible_truncation, reason = "less than 0x80 is left")]
    out.push(value as u8);
}

/// Writes the tag and the length of a field whose content follows.
pub(crate) fn head(out: &mut Vec<u8>, tag: u8, content: usize) {
    out.push(tag);
    varint(out, content as u64);
}

/// Writes a field of bytes, empty or not.
pub(crate) fn bytes(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    head(out, tag, content.len());
    out.extend_from_slice(content);
}

/// Writes a field of bytes or text that is left out when it is empty.
pub(crate) fn bytes_if_any(out: &mut Vec<u8>, tag: u8, content: &[u8]) {
    if !content.is_empty() {
        bytes(out, tag, content);
    }
}

/// Writes a number that is left out when it is zero.
pub(crate) fn number_if_any(out: &mut Vec<u8>, tag: u8, number: u64) {
    if number > 0 {
        out.push(tag);
        varint(out, number);
    }
}

/// Writes eight bytes, little endian.
pub(crate) fn fixed64(out: &mut Vec<u8>, tag: u8, number: u64) {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    out.extend_from_slice(&[tag, a, b, c, d, e, f, g, h]);
}

/// Writes four bytes, little endian.
pub(crate) fn fixed32(out: &mut Vec<u8>, tag: u8, number: u32) {
    let [a, b, c, d] = number.to_le_bytes();
    out.extend_from_slice(&[tag, a, b, c, d]);
}

/// Writes a message whose length is known only when it is written, and is expected to be `about` this:
/// one whose length takes more or fewer bytes is moved.
pub(crate) fn message(out: &mut Vec<u8>, tag: u8, about: usize, write: impl FnOnce(&mut Vec<u8>)) {
    let place = out.len() + 1;
    let start = place + varint_len(about as u64);
    // A varint takes ten bytes at most.
    out.extend_from_slice(&[tag, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    out.truncate(start);
    write(out);
    let end = out.len();
    let length = end - start;
    let moved = place + varint_len(length as u64);
    if moved != start {
        out.resize(end.max(moved + length), 0);
        out.copy_within(start..end, moved);
        out.truncate(moved + length);
    }
    varint_into(&mut out[place..moved], length as u64);
}

/// Writes a varint into its place, which is as long as it is.
pub(crate) fn varint_into(place: &mut [u8], mut value: u64) {
    for byte in place {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits of it are meant")]
        let low = value as u8 & 0x7f;
        value >>= 7;
        *byte = if value > 0 { low | 0x80 } else { low };
    }
}

/// How long an attribute is whose `AnyValue` has this length.
const fn attribute_len(key: &str, value: usize) -> usize {
    field_len(field_len(key.len()) + field_len(value))
}

/// Writes an attribute up to its `AnyValue`, which has this length and follows.
#[inline]
fn attribute_head(out: &mut Vec<u8>, place: Place, key: &str, value: usize) {
    out.reserve(attribute_len(key, value));
    head(out, place as u8, field_len(key.len()) + field_len(value));
    bytes(out, 0x0a, key.as_bytes());
    head(out, 0x12, value);
}

/// Writes a field that is an `AnyValue` with a text.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths up to `SHORT`")]
pub(crate) fn text_value(out: &mut Vec<u8>, tag: u8, text: &str) {
    let length = text.len();
    if length + 2 <= SHORT {
        out.extend_from_slice(&[tag, length as u8 + 2, 0x0a, length as u8]);
        out.extend_from_slice(text.as_bytes());
    } else {
        head(out, tag, field_len(length));
        bytes(out, 0x0a, text.as_bytes());
    }
}

/// How long an attribute with a value of this length is at most: quicker to say than how long it is.
#[inline(always)]
pub(crate) const fn most_len(key: &str, value: usize) -> usize {
    // Four tags of one byte, each with a length of five bytes at most.
    key.len() + value + 4 * (1 + 5)
}

/// How long the attribute that [`text`] writes is.
#[inline]
pub(crate) const fn text_len(key: &str, text: usize) -> usize {
    attribute_len(key, field_len(text))
}

/// The longest message whose length is a varint of one byte.
const SHORT: usize = 0x7f;

/// Writes an attribute that is a text.
///
/// Nearly every attribute is so short that each length in it is one byte. Inlined, what stands before
/// the text is known when this is compiled.
#[inline(always)]
pub(crate) fn text(out: &mut Vec<u8>, place: Place, key: &str, text: &str) {
    utf8(out, place, key, text.as_bytes());
}

/// As [`text`], of bytes that are known to be UTF-8.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths up to `SHORT`")]
pub(crate) fn utf8(out: &mut Vec<u8>, place: Place, key: &str, text: &[u8]) {
    let message = key.len() + text.len() + 6;
    if message > SHORT {
        return long_utf8(out, place, key, text);
    }
    out.reserve(message + 2);
    out.extend_from_slice(&[place as u8, message as u8, 0x0a, key.len() as u8]);
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&[0x12, text.len() as u8 + 2, 0x0a, text.len() as u8]);
    out.extend_from_slice(text);
}

fn long_utf8(out: &mut Vec<u8>, place: Place, key: &str, text: &[u8]) {
    attribute_head(out, place, key, field_len(text.len()));
    bytes(out, 0x0a, text);
}

/// Writes an attribute with this `AnyValue`, which has its tag and its length, where that is short
/// enough, as above; tells whether.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "lengths up to `SHORT`")]
fn short<const N: usize>(out: &mut Vec<u8>, place: Place, key: &str, value: [u8; N]) -> bool {
    let message = key.len() + N + 2;
    if message > SHORT {
        return false;
    }
    out.reserve(message + 2);
    out.extend_from_slice(&[place as u8, message as u8, 0x0a, key.len() as u8]);
    out.extend_from_slice(key.as_bytes());
    out.extend_from_slice(&value);
    true
}

/// Writes an attribute whose text comes in parts.
pub(crate) fn concat(out: &mut Vec<u8>, place: Place, key: &str, parts: &[&str]) {
    let length = parts.iter().map(|part| part.len()).sum();
    attribute_head(out, place, key, field_len(length));
    head(out, 0x0a, length);
    for part in parts {
        out.extend_from_slice(part.as_bytes());
    }
}

/// Writes an attribute that is a number.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "seven bits of each byte are meant")]
pub(crate) fn number(out: &mut Vec<u8>, place: Place, key: &str, number: i64) {
    let number = number.cast_unsigned();
    let more = |shift: u32| (number >> shift) as u8 | 0x80;
    let last = |shift: u32| (number >> shift) as u8;
    // Status codes and most sizes have two bytes, ports three.
    let is_written = match number {
        0..0x80 => short(out, place, key, [0x12, 2, 0x18, last(0)]),
        0x80..0x4000 => short(out, place, key, [0x12, 3, 0x18, more(0), last(7)]),
        0x4000..0x20_0000 => short(out, place, key, [0x12, 4, 0x18, more(0), more(7), last(14)]),
        _ => false,
    };
    if !is_written {
        long_number(out, place, key, number);
    }
}

fn long_number(out: &mut Vec<u8>, place: Place, key: &str, number: u64) {
    attribute_head(out, place, key, 1 + varint_len(number));
    out.push(0x18);
    varint(out, number);
}

/// How long the attribute that [`flag`] writes is.
pub(crate) const fn flag_len(key: &str) -> usize {
    attribute_len(key, 2)
}

/// Writes an attribute that is true or false.
#[inline(always)]
pub(crate) fn flag(out: &mut Vec<u8>, place: Place, key: &str, flag: bool) {
    if short(out, place, key, [0x12, 2, 0x10, flag.into()]) {
        return;
    }
    attribute_head(out, place, key, 2);
    out.extend_from_slice(&[0x10, flag.into()]);
}

/// Writes an attribute that is a fraction.
#[inline(always)]
pub(crate) fn fraction(out: &mut Vec<u8>, place: Place, key: &str, fraction: f64) {
    let [a, b, c, d, e, f, g, h] = fraction.to_le_bytes();
    if short(out, place, key, [0x12, 9, 0x21, a, b, c, d, e, f, g, h]) {
        return;
    }
    attribute_head(out, place, key, 9);
    fixed64(out, 0x21, fraction.to_bits());
}

/// How long the attribute that [`texts`] writes is.
pub(crate) fn texts_len<'a>(key: &str, texts: impl Iterator<Item = &'a str>) -> usize {
    attribute_len(key, field_len(list_len(texts)))
}

fn list_len<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| field_len(field_len(text.len()))).sum()
}

/// Writes an attribute that is a list of texts.
pub(crate) fn texts<'a>(
    out: &mut Vec<u8>,
    place: Place,
    key: &str,
    texts: impl Iterator<Item = &'a str> + Clone,
) {
    let length = list_len(texts.clone());
    attribute_head(out, place, key, field_len(length));
    head(out, 0x2a, length);
    for text in texts {
        head(out, 0x0a, field_len(text.len()));
        bytes(out, 0x0a, text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        common::v1::{AnyValue, any_value::Value},
        trace::v1::Span,
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    /// The only attribute of a span of these bytes.
    fn read(bytes: &[u8]) -> (String, Value) {
        let mut span = Span::decode(bytes).unwrap();
        let pair = span.attributes.remove(0);
        assert_eq!(span, Span::default());
        (pair.key, pair.value.unwrap().value.unwrap())
    }

    /// Numbers of every length.
    fn any_number() -> impl Strategy<Value = i64> {
        (any::<i64>(), 0..64).prop_map(|(number, shift)| number >> shift)
    }

    proptest! {
        #[test]
        fn a_varint_is_as_long_as_announced_and_is_read_back(value: u64, shift in 0..64) {
            let value = value >> shift;
            let mut out = Vec::new();
            varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(prost::decode_length_delimiter(&out[..]).unwrap() as u64, value);
        }

        #[test]
        fn an_attribute_is_as_long_as_announced_and_is_read_back(
            key in ".{0,200}", parts in prop::collection::vec(".{0,200}", 0..4), number_ in any_number(),
            flag_: bool,
        ) {
            let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
            let mut out = Vec::new();
            let whole = parts.concat();
            concat(&mut out, Place::Span, &key, &parts);
            prop_assert_eq!(out.len(), text_len(&key, whole.len()));
            prop_assert_eq!(read(&out), (key.clone(), Value::StringValue(whole.clone())));

            let written = std::mem::take(&mut out);
            text(&mut out, Place::Span, &key, &whole);
            prop_assert_eq!(written, &out[..]);
            prop_assert!(out.len() <= most_len(&key, whole.len()));

            out.clear();
            number(&mut out, Place::Span, &key, number_);
            prop_assert!(out.len() <= most_len(&key, 10));
            prop_assert_eq!(read(&out), (key.clone(), Value::IntValue(number_)));

            out.clear();
            flag(&mut out, Place::Span, &key, flag_);
            prop_assert_eq!(out.len(), flag_len(&key));
            prop_assert_eq!(read(&out), (key.clone(), Value::BoolValue(flag_)));

            out.clear();
            texts(&mut out, Place::Span, &key, parts.iter().copied());
            prop_assert_eq!(out.len(), texts_len(&key, parts.iter().copied()));
            let (read_key, Value::ArrayValue(list)) = read(&out) else { panic!() };
            let wanted: Vec<AnyValue> = parts
                .iter()
                .map(|part| AnyValue { value: Some(Value::StringValue((*part).to_owned())) })
                .collect();
            prop_assert_eq!((read_key, list.values), (key, wanted));
        }
    }
}
