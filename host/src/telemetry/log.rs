//! The host's log: `tracing` events as lines on standard error.

use std::{fmt, io, panic, sync::OnceLock};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    Layer, Registry,
    fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter, format::Writer},
    layer::{Layered, SubscriberExt as _},
    registry::LookupSpan,
};

use super::{
    bridge::{self, Bridge},
    context,
    directives::Directives,
    tap::Tap,
};
use crate::config::{Log, LogFilter, LogFormat};

/// What the lines are written of.
type Filtered = Layered<Directives, Registry>;

/// The filter of the log that [`start`] has installed.
static DIRECTIVES: OnceLock<Directives> = OnceLock::new();

/// Starts the log. Called once, before anything is logged; a second call keeps the first log.
pub(crate) fn start(log: &Log) {
    let directives = Directives::new(&log.level);
    let is_installed = match log.format {
        LogFormat::Text => install(text(io::stderr), &directives),
        LogFormat::Json => install(json(io::stderr), &directives),
    };
    if is_installed {
        _ = DIRECTIVES.set(directives);
    }
    report_panics();
}

/// Each format is a type of its own: a boxed layer is one more call for each step of a span.
fn install(lines: impl Layer<Filtered> + Send + Sync, directives: &Directives) -> bool {
    let subscriber = subscriber(lines, directives.clone(), &bridge::BRIDGE);
    // Another subscriber is there only when a service author installed one: then it is theirs.
    tracing::subscriber::set_global_default(subscriber).is_ok()
}

/// From now on `level` says what is logged. Without a log of the host's own it does nothing.
pub(crate) fn set_level(level: &LogFilter) {
    if let Some(directives) = DIRECTIVES.get() {
        directives.replace(level);
    }
}

/// The lines, filtered by `log.level`, within reach of the bridge, which has a filter of its own.
fn subscriber(
    lines: impl Layer<Filtered> + Send + Sync,
    directives: Directives,
    bridge: &'static Bridge,
) -> impl Subscriber + Send + Sync {
    Tap::new(Registry::default().with(directives).with(lines), bridge)
}

fn text<W>(writer: W) -> impl Layer<Filtered> + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    layer.map_event_format(|inner| Correlated { inner, format: LogFormat::Text })
}

fn json<W>(writer: W) -> impl Layer<Filtered> + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let layer = layer.json().flatten_event(true);
    layer.map_event_format(|inner| Correlated { inner, format: LogFormat::Json })
}

/// Writes a panic's message and place as one line of the log, in place of a report on several.
fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let message = info.payload_as_str().unwrap_or("no message");
        tracing::error!(target: "host::panic", place, "panicked: {message}");
    }));
}

/// Puts the ids of the innermost span that a line is written in behind it.
struct Correlated<F> {
    inner: F,
    format: LogFormat,
}

impl<F, S, N> FormatEvent<S, N> for Correlated<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let Some(span) = context::span() else {
            return self.inner.format_event(context, writer, event);
        };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let (trace, span) = (u128::from_be_bytes(span.trace_id), u64::from_be_bytes(span.span_id));
        let line = line.trim_end_matches('\n');
        match (self.format, line.strip_suffix('}')) {
            (LogFormat::Json, Some(open)) => {
                writeln!(writer, r#"{open},"trace_id":"{trace:032x}","span_id":"{span:016x}"}}"#)
            }
            _ => writeln!(writer, "{line} trace_id={trace:032x} span_id={span:016x}"),
        }
    }
}

/// What the current thread logs, for tests.
#[cfg(test)]
pub(crate) struct Captured {
    lines: Sink,
    _scope: tracing::subscriber::DefaultGuard,
}

#[cfg(test)]
impl Captured {
    /// Captures the lines that are written on this thread from now on.
    pub(crate) fn start(format: LogFormat) -> Self {
        Self::beside(&bridge::BRIDGE, format, &Log::default().level)
    }

    /// The same, with another bridge and another level.
    pub(super) fn beside(bridge: &'static Bridge, format: LogFormat, level: &LogFilter) -> Self {
        use tracing::subscriber::set_default;
        let (lines, directives) = (Sink::default(), Directives::new(level));
        let scope = match format {
            LogFormat::Text => set_default(subscriber(text(lines.writer()), directives, bridge)),
            LogFormat::Json => set_default(subscriber(json(lines.writer()), directives, bridge)),
        };
        Self { lines, _scope: scope }
    }

    /// The lines up to now.
    pub(crate) fn take(&self) -> String {
        self.lines.take()
    }
}

/// Where lines go in tests.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Sink(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Sink {
    pub(super) fn writer(&self) -> impl Fn() -> Self + Send + Sync + 'static {
        let sink = self.clone();
        move || sink.clone()
    }

    pub(super) fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
    }
}

#[cfg(test)]
impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::{Context, SpanContext};
    use serde_json::Value as Json;

    use super::*;
    use crate::telemetry::context::{Current, enter};

    fn within<R>(id: u8, body: impl FnOnce() -> R) -> R {
        let context = Context::new(SpanContext::new([id; 16], [id; 8], 0));
        enter(&mut Current::new(context), body)
    }

    #[test]
    fn a_line_of_a_request_has_its_ids() {
        let log = Captured::start(LogFormat::Text);
        within(0x0a, || tracing::info!(port = 7, "hello"));
        let line = log.take();
        let (trace, span) = ("0a".repeat(16), "0a".repeat(8));
        let end = format!("hello port=7 trace_id={trace} span_id={span}\n");
        assert!(line.ends_with(&end) && line.lines().count() == 1, "{line:?}");
    }

    #[test]
    fn a_line_of_json_stays_one() {
        let log = Captured::start(LogFormat::Json);
        within(0xfe, || tracing::info!(port = 7, "hello {{}}"));
        let line: Json = serde_json::from_str(&log.take()).unwrap();
        assert_eq!((&line["message"], &line["port"]), (&"hello {}".into(), &7.into()));
        assert_eq!(line["trace_id"], "fe".repeat(16));
        assert_eq!(line["span_id"], "fe".repeat(8));
    }

    #[test]
    fn a_line_of_no_request_has_none() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let log = Captured::start(format);
            tracing::info!("hello");
            within(0, || tracing::info!("hello"));
            let lines = log.take();
            assert!(lines.lines().count() == 2 && !lines.contains("trace_id"), "{lines:?}");
        }
    }
}
