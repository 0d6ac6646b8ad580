//! What a span or an event says, as it crosses to the plugin.

use std::{cell::Cell, error::Error, fmt, fmt::Write as _};

use plugin_api::telemetry::{FieldBuffer, Fields, Value};
use tracing::field::{Field, Visit};

/// A buffer for texts that has grown beyond is not kept.
const LARGEST_KEPT: usize = 16 * 1024;

thread_local! {
    /// What the last span or event on this thread said, whose memory the next one takes. Boxed, to be
    /// moved from here and back.
    static KEPT: Cell<Option<Box<Said>>> = const { Cell::new(None) };
}

/// Takes what is visited.
#[derive(Default)]
struct Said {
    message: String,
    fields: FieldBuffer,
}

/// Calls `body` with the message and the other fields that `record` visits.
pub(super) fn collect<R>(
    record: impl FnOnce(&mut dyn Visit),
    body: impl FnOnce(&str, Fields<'_>) -> R,
) -> R {
    // Nothing is kept where a field is shown by code that logs itself, or where a thread ends.
    let mut said = KEPT.try_with(Cell::take).ok().flatten().unwrap_or_default();
    record(&mut *said);
    let result = body(&said.message, said.fields.fields());
    said.message.clear();
    said.fields.clear();
    if said.message.capacity() + said.fields.capacity() <= LARGEST_KEPT {
        _ = KEPT.try_with(|kept| kept.set(Some(said)));
    }
    result
}

impl Said {
    /// Where there are two, the last one counts.
    fn message(&mut self, write: impl FnOnce(&mut String)) {
        self.message.clear();
        write(&mut self.message);
    }
}

// Writing to a string cannot fail; what a value's own code says of itself, or fails to, is its own.
impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.fields.push(field.name(), Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.fields.push(field.name(), Value::I64(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.fields.push(field.name(), Value::U64(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.fields.push(field.name(), Value::F64(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message(|message| message.push_str(value)),
            name => self.fields.push(name, Value::Text(value)),
        }
    }

    fn record_error(&mut self, field: &Field, error: &(dyn Error + 'static)) {
        let causes = |texts: &mut String| {
            let mut source = error.source();
            while let Some(cause) = source {
                _ = write!(texts, "{cause}");
                source = cause.source();
                if source.is_some() {
                    texts.push('\n');
                }
            }
        };
        self.fields.error(field.name(), |texts| _ = write!(texts, "{error}"), causes);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message(|message| _ = write!(message, "{value:?}")),
            name => self.fields.text(name, |texts| _ = write!(texts, "{value:?}")),
        }
    }
}
