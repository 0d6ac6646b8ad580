//! Brings what the OpenTelemetry crates have to say into the host's log.
//!
//! They speak through `tracing`, and this library has a copy of `tracing` of its own.

use std::{
    cell::Cell,
    fmt::{self, Write as _},
};

use plugin_api::{Host, Level};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::{Interest, set_global_default},
};

thread_local! {
    /// Whether this thread is inside the host's log already.
    static SPEAKING: Cell<bool> = const { Cell::new(false) };
}

/// Sends warnings and errors of the OpenTelemetry crates to the host's log from now on.
///
/// A second call changes nothing.
pub(crate) fn forward_to(host: Host) {
    // It fails when there is one already, which then goes on.
    _ = set_global_default(Forward { host });
}

struct Forward {
    host: Host,
}

/// Whether lines of this kind are passed on.
fn is_wanted(metadata: &Metadata<'_>) -> bool {
    metadata.is_event()
        && *metadata.level() <= tracing::Level::WARN
        && metadata.target().starts_with("opentelemetry")
        // The pipeline tells of failed exports by itself: once, not for every batch.
        && !metadata.name().starts_with("Export.Failed")
}

impl Subscriber for Forward {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        // A host whose log speaks through this very copy of `tracing` would never come to an end.
        if SPEAKING.replace(true) {
            return;
        }
        let metadata = event.metadata();
        let level =
            if *metadata.level() == tracing::Level::ERROR { Level::ERROR } else { Level::WARN };
        let mut line = Line(metadata.name().to_owned());
        event.record(&mut line);
        self.host.log(level, metadata.target(), &line.0);
        SPEAKING.set(false);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The event's name, followed by its fields.
struct Line(String);

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        // The macros of these crates repeat the event's name in a field.
        if field.name() != "name" {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        _ = write!(self.0, " {}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Journal;

    #[test]
    fn a_warning_of_the_opentelemetry_crates_reaches_the_host_s_log_once() {
        let journal = Journal::default();
        let forward = Forward { host: journal.host() };
        tracing::subscriber::with_default(forward, || {
            tracing::warn!(name: "Odd", target: "opentelemetry-otlp", name = "Odd", count = 3);
            tracing::warn!(name: "Odd", target: "hyper", count = 4);
            tracing::info!(name: "Odd", target: "opentelemetry-otlp", count = 5);
            tracing::warn!(name: "Export.Failed.X", target: "opentelemetry-otlp", count = 6);
        });
        let lines = journal.lines();
        assert_eq!(lines, [(Level::WARN, "opentelemetry-otlp: Odd count=3".to_owned())]);
    }
}
