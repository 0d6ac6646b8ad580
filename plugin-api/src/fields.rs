//! The fields of the host's spans and events: names with typed values.

use abi_stable::{
    StableAbi,
    std_types::{RSlice, RStr},
};

/// The value of a field. A later minor version may add kinds; a plugin that does not know one sees
/// its text.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// True or false.
    Bool(bool),
    /// A whole number.
    I64(i64),
    /// A whole number that is not negative.
    U64(u64),
    /// A number.
    F64(f64),
    /// A text; anything that has no kind of its own is shown as one.
    Text(&'a str),
    /// An error.
    Error {
        /// What it says.
        message: &'a str,
        /// What its sources say, one a line, the nearest first.
        causes: &'a str,
    },
}

/// A name with a value. Its text is a part of what all fields together have.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
struct Field {
    key: RStr<'static>,
    /// The value; of a text and an error where it begins.
    number: u64,
    length: u64,
    /// How long the causes are, which follow the text.
    causes: u64,
    kind: u32,
    reserved: u32,
}

const TEXT: u32 = 0;
const BOOL: u32 = 1;
const I64: u32 = 2;
const U64: u32 = 3;
const F64: u32 = 4;
const ERROR: u32 = 5;

impl Field {
    const fn empty(key: &'static str, kind: u32) -> Self {
        Self { key: RStr::from_str(key), number: 0, length: 0, causes: 0, kind, reserved: 0 }
    }

    /// Inlined, it is taken apart where it is asked for, and never put together.
    #[inline(always)]
    fn value<'a>(&self, texts: &'a str) -> Value<'a> {
        match self.kind {
            BOOL => Value::Bool(self.number != 0),
            I64 => Value::I64(self.number.cast_signed()),
            U64 => Value::U64(self.number),
            F64 => Value::F64(f64::from_bits(self.number)),
            ERROR => {
                let message = part(texts, self.number, self.length);
                let behind = self.number.saturating_add(self.length);
                Value::Error { message, causes: part(texts, behind, self.causes) }
            }
            _ => Value::Text(part(texts, self.number, self.length)),
        }
    }
}

/// A part of the texts, by its first byte and its length; empty where there is none.
#[inline]
fn part(texts: &str, start: u64, length: u64) -> &str {
    let end = start.saturating_add(length);
    let range = usize::try_from(start).ok().zip(usize::try_from(end).ok());
    range.and_then(|(start, end)| texts.get(start..end)).unwrap_or_default()
}

/// Fields as they cross, in the order of the code.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct Fields<'a> {
    list: RSlice<'a, Field>,
    texts: RStr<'a>,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Self { list: RSlice::EMPTY, texts: RStr::from_str("") }
    }
}

impl<'a> Fields<'a> {
    /// Each name with its value.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Value<'a>)> + use<'a> {
        let texts = self.texts.as_str();
        let fields = self.list.as_slice().iter();
        fields.map(move |field| (field.key.as_str(), field.value(texts)))
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// How many bytes of text the values and the names have together.
    #[must_use]
    pub fn text_len(&self) -> usize {
        let keys = self.list.as_slice().iter().map(|field| field.key.len());
        self.texts.len() + keys.sum::<usize>()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Fields while they are put together. Once cleared it has its memory for the next ones.
#[derive(Debug, Default)]
pub struct FieldBuffer {
    list: Vec<Field>,
    texts: String,
}

impl FieldBuffer {
    /// Adds a field. Inlined, the kind is known when this is compiled.
    #[inline(always)]
    pub fn push(&mut self, key: &'static str, value: Value<'_>) {
        let (kind, number) = match value {
            Value::Bool(flag) => (BOOL, flag.into()),
            Value::I64(number) => (I64, number.cast_unsigned()),
            Value::U64(number) => (U64, number),
            Value::F64(number) => (F64, number.to_bits()),
            Value::Text(text) => return self.text(key, |texts| texts.push_str(text)),
            Value::Error { message, causes } => {
                let (message, causes) = (|texts: &mut String| texts.push_str(message), causes);
                return self.error(key, message, |texts| texts.push_str(causes));
            }
        };
        self.list.push(Field { number, ..Field::empty(key, kind) });
    }

    /// Adds a text, which `write` appends.
    #[inline]
    pub fn text(&mut self, key: &'static str, write: impl FnOnce(&mut String)) {
        let (number, length) = self.write(write);
        self.list.push(Field { number, length, ..Field::empty(key, TEXT) });
    }

    /// Adds an error: what it says and what its sources say, as both append it.
    pub fn error(
        &mut self,
        key: &'static str,
        message: impl FnOnce(&mut String),
        causes: impl FnOnce(&mut String),
    ) {
        let (number, length) = self.write(message);
        let (_, causes) = self.write(causes);
        self.list.push(Field { number, length, causes, ..Field::empty(key, ERROR) });
    }

    /// Where the text begins that is written, and how long it is.
    fn write(&mut self, write: impl FnOnce(&mut String)) -> (u64, u64) {
        let start = self.texts.len();
        write(&mut self.texts);
        (start as u64, (self.texts.len() - start) as u64)
    }

    /// What has been added.
    #[must_use]
    pub fn fields(&self) -> Fields<'_> {
        Fields { list: RSlice::from_slice(&self.list), texts: RStr::from_str(&self.texts) }
    }

    /// Forgets what has been added.
    pub fn clear(&mut self) {
        self.list.clear();
        self.texts.clear();
    }

    /// How many bytes of text it holds memory for.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.texts.capacity()
    }
}

impl<'a> FromIterator<(&'static str, Value<'a>)> for FieldBuffer {
    fn from_iter<T: IntoIterator<Item = (&'static str, Value<'a>)>>(fields: T) -> Self {
        let mut buffer = Self::default();
        fields.into_iter().for_each(|(key, value)| buffer.push(key, value));
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_keeps_its_kind_and_its_value() {
        let all = [
            ("bool", Value::Bool(true)),
            ("i64", Value::I64(-7)),
            ("error", Value::Error { message: "né", causes: "gone\naway" }),
            ("u64", Value::U64(u64::MAX)),
            ("none", Value::Text("")),
            ("f64", Value::F64(0.5)),
            ("text", Value::Text("x")),
        ];
        let mut buffer = FieldBuffer::default();
        for _ in 0..2 {
            all.iter().for_each(|(key, value)| buffer.push(key, *value));
            let fields = buffer.fields();
            assert_eq!(fields.iter().collect::<Vec<_>>(), all);
            assert_eq!((fields.len(), fields.is_empty()), (all.len(), false));
            let keys = all.iter().map(|(key, _)| key.len()).sum::<usize>();
            assert_eq!(fields.text_len(), keys + "négone\nawayx".len());
            buffer.clear();
            assert!(buffer.fields().is_empty());
        }
        assert!(Fields::default().iter().next().is_none());
    }

    #[test]
    fn a_kind_of_value_that_is_new_is_seen_as_its_text() {
        let field = Field { length: 5, ..Field::empty("key", 99) };
        assert_eq!(field.value("shown"), Value::Text("shown"));
    }

    #[test]
    fn a_text_that_is_not_there_is_empty() {
        for (start, length) in [(0, 7), (7, 0), (1, u64::MAX), (u64::MAX, 1), (2, 1)] {
            assert_eq!(part("aé...", start, length), "", "{start}, {length}");
        }
        assert_eq!(part("aé...", 1, 2), "é");
    }
}
