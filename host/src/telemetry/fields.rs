//! The fields of a span or an event, as they cross to the plugin.

use std::{
    cell::RefCell,
    error::Error,
    fmt::{self, Write as _},
    ops::Range,
};

use plugin_api::telemetry::{Field, Value};
use smallvec::SmallVec;
use tracing::field::{self, Visit};

/// More fields than most events have.
const USUAL: usize = 8;
/// A buffer for texts that has grown beyond is not kept.
const LARGEST_KEPT: usize = 16 * 1024;

thread_local! {
    /// The texts of the last event on this thread, whose memory the next one takes.
    static TEXTS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Collects fields; the texts that they have, or are shown as, go into one buffer.
struct Fields {
    texts: String,
    message: Range<usize>,
    found: SmallVec<[(&'static str, Found); USUAL]>,
}

enum Found {
    Value(Value<'static>),
    Text(Range<usize>),
    Error { message: Range<usize>, causes: Range<usize> },
}

/// Calls `body` with the message and the other fields that `record` visits.
pub(super) fn collect<R>(
    record: impl FnOnce(&mut dyn Visit),
    body: impl FnOnce(&str, &[Field<'_>]) -> R,
) -> R {
    // Nobody has it where a field is shown by code that logs itself, or where a thread ends.
    let texts =
        TEXTS.try_with(|texts| texts.try_borrow_mut().map(|mut one| std::mem::take(&mut *one)));
    let texts = texts.ok().and_then(Result::ok).unwrap_or_default();
    let mut fields = Fields { texts, message: 0..0, found: SmallVec::new() };
    record(&mut fields);
    // In place: the lists are large, and to move them costs more than what is in them.
    let Fields { texts, message, found } = &mut fields;
    let mut all = SmallVec::<[Field<'_>; USUAL]>::new();
    all.extend(found.iter().map(|(key, found)| Field::new(key, found.value(texts))));
    let result = body(&texts[message.clone()], &all);
    drop(all);
    let mut texts = std::mem::take(texts);
    if texts.capacity() <= LARGEST_KEPT {
        texts.clear();
        _ = TEXTS.try_with(|kept| kept.replace(texts));
    }
    result
}

impl Found {
    fn value<'a>(&self, texts: &'a str) -> Value<'a> {
        let text = |range: &Range<usize>| &texts[range.clone()];
        match self {
            Self::Value(value) => *value,
            Self::Text(range) => Value::Text(text(range)),
            Self::Error { message, causes } => {
                Value::Error { message: text(message), causes: text(causes) }
            }
        }
    }
}

impl Fields {
    fn write(&mut self, write: impl FnOnce(&mut String)) -> Range<usize> {
        let start = self.texts.len();
        write(&mut self.texts);
        start..self.texts.len()
    }

    fn text(&mut self, key: &'static str, write: impl FnOnce(&mut String)) {
        let range = self.write(write);
        if key == "message" {
            self.message = range;
        } else {
            self.found.push((key, Found::Text(range)));
        }
    }

    fn value(&mut self, key: &'static str, value: Value<'static>) {
        self.found.push((key, Found::Value(value)));
    }
}

// Writing to a string cannot fail; what a value's own code says of itself, or fails to, is its own.
impl Visit for Fields {
    fn record_bool(&mut self, field: &field::Field, value: bool) {
        self.value(field.name(), Value::Bool(value));
    }

    fn record_i64(&mut self, field: &field::Field, value: i64) {
        self.value(field.name(), Value::I64(value));
    }

    fn record_u64(&mut self, field: &field::Field, value: u64) {
        self.value(field.name(), Value::U64(value));
    }

    fn record_f64(&mut self, field: &field::Field, value: f64) {
        self.value(field.name(), Value::F64(value));
    }

    fn record_str(&mut self, field: &field::Field, value: &str) {
        self.text(field.name(), |texts| texts.push_str(value));
    }

    fn record_error(&mut self, field: &field::Field, error: &(dyn Error + 'static)) {
        let message = self.write(|texts| _ = write!(texts, "{error}"));
        let causes = self.write(|texts| {
            let mut source = error.source();
            while let Some(cause) = source {
                _ = write!(texts, "{cause}");
                source = cause.source();
                if source.is_some() {
                    texts.push('\n');
                }
            }
        });
        self.found.push((field.name(), Found::Error { message, causes }));
    }

    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        self.text(field.name(), |texts| _ = write!(texts, "{value:?}"));
    }
}
