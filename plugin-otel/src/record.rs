//! A finished span as plain data: exchanges fill it, the pipeline takes it, neither knows the other.
//!
//! Whatever has no fixed size is kept as OTLP will have it, in one flat buffer: the end of a span
//! copies it and allocates nothing.

use std::{cell::RefCell, mem, ops::Range};

use plugin_api::{Context, SpanContext};

use crate::{
    otlp::{self, Place},
    short::Short,
};

/// As the SDKs' default: an attribute past it is dropped and counted.
const MOST_ATTRIBUTES: u32 = 128;

/// As the SDKs' default: an event past it is dropped and counted.
const MOST_EVENTS: u32 = 128;

/// What the attributes, events and links of one span take at most; what would go past it is dropped and
/// counted. Without it one request could fill the queue.
const MOST_BYTES: usize = 32 * 1024;

/// What is longer may be anything that a caller sends, and leaves room for what is shorter: its
/// status and its end, say, that a span must have.
const SHORT: usize = 256;
const ROOM_FOR_SHORT: usize = 2 * 1024;

/// Most events take more, and less than a hundred times as much.
const USUAL_EVENT: usize = 128;

/// One span.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The span's identity.
    pub(crate) span: SpanContext,
    /// The parent span; all zero for a root.
    pub(crate) parent_span_id: [u8; 8],
    /// Whether the parent lives in another process.
    pub(crate) parent_is_remote: bool,
    /// Which end of an exchange this is.
    pub(crate) kind: Kind,
    /// Nanoseconds since the Unix epoch.
    pub(crate) start: u64,
    /// Nanoseconds since the Unix epoch.
    pub(crate) end: u64,
    /// Whether the span's status is Error; otherwise it is Unset, or Ok by [`Record::is_ok`].
    pub(crate) is_error: bool,
    /// Whether the code itself says that all is well.
    pub(crate) is_ok: bool,
    /// What went wrong; empty where nothing did, or nothing is known of it.
    pub(crate) status_message: String,
    name: Name,
    fields: Vec<u8>,
    attributes: u32,
    dropped_attributes: u32,
    dropped_links: u32,
    events: u32,
    dropped_events: u32,
}

/// Which end of an exchange a span describes. The numbers are OTLP's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Neither end.
    #[default]
    Internal = 1,
    /// The answering end.
    Server = 2,
    /// The asking end.
    Client = 3,
    /// The end that asks and does not wait.
    Producer = 4,
    /// The end that answers nobody.
    Consumer = 5,
}

/// A span's name.
#[derive(Debug)]
enum Name {
    /// Not among the fields yet.
    Known(&'static str),
    /// Among the fields, there.
    Written(Range<usize>),
}

impl Default for Name {
    fn default() -> Self {
        Self::Known("")
    }
}

impl Record {
    /// A span that begins at `start`, below `parent` if it has one. Boxed, because it is large and is
    /// moved more than once on its way across the boundary.
    pub(crate) fn begin(
        kind: Kind,
        context: &Context,
        parent: Option<&SpanContext>,
        name: &'static str,
        start: u64,
    ) -> Box<Self> {
        // A thread that ends has none any more, and its last spans get new ones.
        let kept = KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
        let mut record = kept.unwrap_or_default();
        let Self { fields, status_message, .. } = &mut *record;
        let (mut fields, status_message) = (mem::take(fields), mem::take(status_message));
        fields.reserve(USUAL);
        otlp::bytes_if_any(&mut fields, 0x1a, context.tracestate().as_bytes());
        *record = Self {
            span: *context.span(),
            parent_span_id: parent.map_or([0; 8], |parent| parent.span_id),
            parent_is_remote: parent.is_some() && kind == Kind::Server,
            kind,
            start,
            end: start,
            is_error: false,
            is_ok: false,
            status_message,
            name: Name::Known(name),
            fields,
            attributes: 0,
            dropped_attributes: 0,
            dropped_links: 0,
            events: 0,
            dropped_events: 0,
        };
        record
    }

    /// Gives its memory to the next span on this thread, but for what has grown too large.
    pub(crate) fn recycle(mut self: Box<Self>) {
        let Self { fields, status_message, .. } = &mut *self;
        fields.clear();
        status_message.clear();
        if fields.capacity() > LARGEST_KEPT {
            *fields = Vec::new();
        }
        if status_message.capacity() > LARGEST_MESSAGE_KEPT {
            *status_message = String::new();
        }
        _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST_KEPT {
                kept.push(self);
            }
        });
    }

    /// Changes the name; the new one comes in parts.
    pub(crate) fn rename(&mut self, parts: &[&str]) {
        let fields = &mut self.fields;
        if let Name::Written(place) = &self.name {
            fields.drain(place.clone());
        }
        let start = fields.len();
        otlp::head(fields, NAME, parts.iter().map(|part| part.len()).sum());
        for part in parts {
            fields.extend_from_slice(part.as_bytes());
        }
        self.name = Name::Written(start..fields.len());
    }

    /// The name, unless it is among the fields.
    pub(crate) fn name(&self) -> Option<&'static str> {
        match self.name {
            Name::Known(name) => Some(name),
            Name::Written(_) => None,
        }
    }

    /// Fields of the `Span` message, ready to be sent: trace state, attributes, links, and the name
    /// if [`Record::name`] has none.
    pub(crate) fn fields(&self) -> &[u8] {
        &self.fields
    }

    /// About how much memory it takes.
    pub(crate) const fn bytes(&self) -> usize {
        size_of::<Self>() + self.fields.capacity() + self.status_message.capacity()
    }

    /// How many attributes, events and links found no room.
    pub(crate) const fn dropped(&self) -> (u32, u32, u32) {
        (self.dropped_attributes, self.dropped_events, self.dropped_links)
    }

    /// Adds an attribute that is a number.
    #[inline(always)]
    pub(crate) fn number(&mut self, key: &str, number: i64) {
        if let Some(out) = self.attribute(otlp::most_len(key, 10)) {
            otlp::number(out, Place::Span, key, number);
        }
    }

    /// Adds an attribute that is a text.
    #[inline(always)]
    pub(crate) fn text(&mut self, key: &str, text: &str) {
        self.utf8(key, text.as_bytes());
    }

    /// Adds an attribute that is a number or an address as it is shown.
    #[inline(always)]
    pub(crate) fn shown(&mut self, key: &str, shown: &Short) {
        self.utf8(key, shown.as_bytes());
    }

    #[inline(always)]
    fn utf8(&mut self, key: &str, text: &[u8]) {
        if let Some(out) = self.attribute(otlp::most_len(key, text.len())) {
            otlp::utf8(out, Place::Span, key, text);
        }
    }

    /// Adds an attribute that is a text, unless the text is empty.
    #[inline(always)]
    pub(crate) fn text_if_any(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.text(key, text);
        }
    }

    /// Adds an attribute that is a text in parts.
    pub(crate) fn concat(&mut self, key: &str, parts: &[&str]) {
        let length = parts.iter().map(|part| part.len()).sum();
        if let Some(out) = self.attribute(otlp::text_len(key, length)) {
            otlp::concat(out, Place::Span, key, parts);
        }
    }

    /// Adds an attribute that is a fraction.
    pub(crate) fn fraction(&mut self, key: &str, fraction: f64) {
        if let Some(out) = self.attribute(otlp::most_len(key, 8)) {
            otlp::fraction(out, Place::Span, key, fraction);
        }
    }

    /// Adds an attribute that is true or false.
    #[inline(always)]
    pub(crate) fn flag(&mut self, key: &str, flag: bool) {
        if let Some(out) = self.attribute(otlp::flag_len(key)) {
            otlp::flag(out, Place::Span, key, flag);
        }
    }

    /// Adds an attribute that is a list of texts.
    pub(crate) fn texts<'a>(&mut self, key: &str, texts: impl Iterator<Item = &'a str> + Clone) {
        if let Some(out) = self.attribute(otlp::texts_len(key, texts.clone())) {
            otlp::texts(out, Place::Span, key, texts);
        }
    }

    /// Adds so many attributes that are encoded already, all of them or none.
    pub(crate) fn encoded(&mut self, attributes: u32, bytes: &[u8]) {
        if self.has_room(attributes, bytes.len()) {
            self.attributes += attributes;
            self.fields.extend_from_slice(bytes);
        } else {
            self.dropped_attributes += attributes;
        }
    }

    /// Adds a link to the span of another trace, or of this one, with a few attributes.
    pub(crate) fn link(&mut self, to: &Link<'_>, attributes: &[(&str, &str)]) {
        let start = self.fields.len();
        otlp::message(&mut self.fields, LINK, 0, |out| {
            otlp::bytes(out, 0x0a, &to.span.trace_id);
            otlp::bytes(out, 0x12, &to.span.span_id);
            otlp::bytes_if_any(out, 0x1a, to.tracestate.as_bytes());
            for (key, value) in attributes {
                otlp::text(out, Place::Link, key, value);
            }
            otlp::fixed32(out, 0x35, flags(to.span.flags, to.is_remote));
        });
        if self.fields.len() > MOST_BYTES {
            self.fields.truncate(start);
            self.dropped_links += 1;
        }
    }

    /// Adds something that happened at this time, in nanoseconds since the Unix epoch; `write` adds
    /// its attributes.
    pub(crate) fn event(&mut self, name: &str, time: u64, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.fields.len();
        if self.events < MOST_EVENTS {
            otlp::message(&mut self.fields, EVENT, USUAL_EVENT, |out| {
                otlp::fixed64(out, 0x09, time);
                otlp::bytes_if_any(out, 0x12, name.as_bytes());
                write(out);
            });
        }
        if self.events < MOST_EVENTS && self.fields.len() <= MOST_BYTES {
            self.events += 1;
        } else {
            self.fields.truncate(start);
            self.dropped_events += 1;
        }
    }

    /// Takes the attribute of this key out, where there is one: OTLP wants each key once.
    pub(crate) fn forget(&mut self, key: &str) {
        let Some(place) = find(&self.fields, key) else { return };
        if let Name::Written(name) = &mut self.name
            && name.start > place.start
        {
            *name = name.start - place.len()..name.end - place.len();
        }
        self.fields.drain(place);
        self.attributes -= 1;
    }

    /// The place for an attribute of this length, if there is one.
    #[inline]
    fn attribute(&mut self, length: usize) -> Option<&mut Vec<u8>> {
        if !self.has_room(1, length) {
            self.dropped_attributes += 1;
            return None;
        }
        self.attributes += 1;
        Some(&mut self.fields)
    }

    #[inline]
    fn has_room(&self, attributes: u32, length: usize) -> bool {
        let most = if length > SHORT { MOST_BYTES - ROOM_FOR_SHORT } else { MOST_BYTES };
        self.attributes + attributes <= MOST_ATTRIBUTES && self.fields.len() + length <= most
    }
}

/// Where the attribute of this key is among these fields of a span, all of which have a length.
fn find(fields: &[u8], key: &str) -> Option<Range<usize>> {
    let mut rest = fields;
    while let Some((tag, content)) = next_field(&mut rest) {
        if tag == ATTRIBUTE && next_field(&mut &*content) == Some((KEY, key.as_bytes())) {
            let end = fields.len() - rest.len();
            return Some(end - otlp::field_len(content.len())..end);
        }
    }
    None
}

/// The next field, which is cut off.
fn next_field<'a>(fields: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, mut rest) = fields.split_first()?;
    let length = prost::decode_length_delimiter(&mut rest).ok()?;
    let (content, rest) = rest.split_at_checked(length)?;
    *fields = rest;
    Some((*tag, content))
}

/// The tag of `Span.attributes`,
const ATTRIBUTE: u8 = 0x4a;
/// and in it that of `KeyValue.key`.
const KEY: u8 = 0x0a;
/// The tag of `Span.name`.
pub(crate) const NAME: u8 = 0x2a;
/// The tag of `Span.events`.
pub(crate) const EVENT: u8 = 0x5a;
/// The tag of `Span.links`.
pub(crate) const LINK: u8 = 0x6a;

/// The span at the other end of a link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link<'a> {
    /// Its identity.
    pub(crate) span: &'a SpanContext,
    /// The trace state that belongs to it.
    pub(crate) tracestate: &'a str,
    /// Whether it lives in another process.
    pub(crate) is_remote: bool,
}

/// `Span.flags`: what W3C defines in the lowest eight bits, and whether the span that a parent or a
/// link names is a remote one, in the two above.
pub(crate) const fn flags(w3c: u32, is_remote: bool) -> u32 {
    const HAS_IS_REMOTE: u32 = 0x100;
    const IS_REMOTE: u32 = 0x200;
    (w3c & 0xff) | HAS_IS_REMOTE | if is_remote { IS_REMOTE } else { 0 }
}

/// How many records a thread keeps for the next spans.
const MOST_KEPT: usize = 64;
/// A record has room for the fields of a usual span.
const USUAL: usize = 512;
/// Fields that have grown beyond this are not kept,
const LARGEST_KEPT: usize = 4096;
/// nor a message that has grown beyond this.
const LARGEST_MESSAGE_KEPT: usize = 256;

/// Records as each was begun: boxed, and so never copied.
pub(crate) type Records = Vec<Box<Record>>;

thread_local! {
    static KEPT: RefCell<Records> = const { RefCell::new(Records::new()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(name: &'static str) -> Box<Record> {
        let context = Context::new(SpanContext::new([1; 16], [2; 8], 1));
        Record::begin(Kind::Internal, &context, None, name, 7)
    }

    /// Says all that a record can.
    fn fill(record: &mut Record) {
        let span = SpanContext::new([3; 16], [4; 8], 1);
        (record.is_ok, record.is_error) = (true, true);
        record.status_message.push_str("refused");
        record.parent_is_remote = true;
        record.rename(&["another"]);
        for _ in 0..=MOST_ATTRIBUTES {
            record.number("n", 1);
        }
        for _ in 0..=MOST_EVENTS {
            record.event("event", 1, |_| {});
        }
        let long = "x".repeat(MOST_BYTES);
        record.link(&Link { span: &span, tracestate: &long, is_remote: true }, &[]);
        assert_eq!(record.dropped(), (1, 1, 1));
    }

    #[test]
    fn nothing_of_a_span_is_in_the_next_one() {
        let fresh = format!("{:?}", begin("fresh"));
        let mut record = begin("one");
        fill(&mut record);
        let place = std::ptr::from_ref(&*record);
        record.recycle();
        let next = begin("fresh");
        assert_eq!(std::ptr::from_ref(&*next), place, "it is the same memory");
        assert_eq!(format!("{next:?}"), fresh);
    }

    #[test]
    fn what_has_grown_too_large_is_not_kept_and_the_rest_is() {
        let mut record = begin("one");
        record.text("key", &"x".repeat(LARGEST_KEPT));
        record.status_message = "x".repeat(LARGEST_MESSAGE_KEPT + 1);
        record.recycle();
        let kept = KEPT.with_borrow(|kept| {
            let record = kept.last().unwrap();
            (record.fields.capacity(), record.status_message.capacity())
        });
        assert_eq!(kept, (0, 0));
        let records: Vec<_> = (0..2 * MOST_KEPT).map(|_| begin("many")).collect();
        records.into_iter().for_each(Record::recycle);
        assert_eq!(KEPT.with_borrow(Vec::len), MOST_KEPT);
    }

    #[test]
    fn what_is_forgotten_is_as_if_it_had_never_been_there() {
        let long = "x".repeat(300);
        let fill = |record: &mut Record, forgets: bool| {
            record.text("first", "1");
            if forgets {
                record.text("key", &long);
            }
            record.event("key", 1, |out| otlp::text(out, Place::EventOrScope, "key", "kept"));
            record.rename(&["a name"]);
            record.text("last", "2");
            if forgets {
                record.forget("key");
                record.forget("unknown");
            }
            record.rename(&["another"]);
        };
        let shown = |forgets| {
            let mut record = begin("one");
            fill(&mut record, forgets);
            (record.fields().to_vec(), record.attributes)
        };
        assert_eq!(shown(true), shown(false));
    }

    #[test]
    fn attributes_that_are_encoded_already_are_within_the_same_bounds() {
        let mut record = begin("one");
        record.encoded(MOST_ATTRIBUTES - 1, b"short");
        record.encoded(2, b"no number left");
        assert_eq!((record.fields(), record.dropped().0), (&b"short"[..], 2));
        let mut record = begin("one");
        record.encoded(1, &vec![0; MOST_BYTES - ROOM_FOR_SHORT]);
        record.encoded(3, &[1; SHORT + 1]);
        assert_eq!(record.dropped().0, 3, "what is long leaves room for what is short");
        record.encoded(1, &[1; SHORT]);
        assert_eq!(record.dropped().0, 3);
        assert_eq!(record.fields().len(), MOST_BYTES - ROOM_FOR_SHORT + SHORT);
    }

    #[test]
    fn the_next_span_on_a_thread_allocates_nothing() {
        let span = || {
            let mut record = begin("one");
            record.text("key", "value");
            record.recycle();
        };
        span();
        assert_eq!(allocation_counter::measure(span).count_total, 0);
    }
}
