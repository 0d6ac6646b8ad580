//! A plugin that remembers what it is told of spans and events, for tests.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, Ordering},
};

use plugin_api::{
    Context, Level, SpanContext,
    telemetry::{self, Begun, Event, Fields, SpanHead, Telemetry, Value},
};

use super::context;

/// What the plugin was told, one line each.
#[derive(Clone, Default)]
pub(super) struct Journal(Arc<Told>);

#[derive(Default)]
struct Told {
    unsampled: bool,
    lines: Mutex<Vec<String>>,
    ended: Mutex<Vec<&'static str>>,
    next: AtomicU8,
    live: AtomicU8,
}

pub(super) struct Recorder {
    journal: Journal,
    name: &'static str,
}

impl Journal {
    /// One that wants spans below a context that is not sampled, too.
    pub(super) fn of_unsampled() -> Self {
        Self(Arc::new(Told { unsampled: true, ..Told::default() }))
    }

    /// The spans that are over, in this order.
    pub(super) fn ended(&self) -> Vec<&'static str> {
        self.0.ended.lock().unwrap().clone()
    }

    fn note(&self, line: String) {
        self.0.lines.lock().unwrap().push(line);
    }

    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lines.lock().unwrap().clone()
    }

    /// How many of its spans are open.
    pub(super) fn open(&self) -> u8 {
        self.0.live.load(Ordering::Relaxed)
    }

    /// The spans that were told, each below its parent's name.
    pub(super) fn spans(&self) -> Vec<String> {
        let lines = self.lines();
        lines.iter().filter_map(|line| line.strip_prefix("span ").map(str::to_owned)).collect()
    }
}

fn shown(fields: Fields<'_>) -> String {
    let one = |(key, value)| match value {
        Value::Error { message, causes } => format!(" {key}={message}/{causes}"),
        value => format!(" {key}={value:?}"),
    };
    fields.iter().map(one).collect()
}

impl Telemetry for Journal {
    type Span = Recorder;

    fn event_level(&self) -> Option<Level> {
        Some(Level::WARN)
    }

    fn unsampled(&self) -> bool {
        self.0.unsampled
    }

    fn on_span(&self, head: &SpanHead<'_>, parent: &Context) -> Begun<Recorder> {
        let id = 100 + self.0.next.fetch_add(1, Ordering::Relaxed);
        let name = head.callsite().name();
        let below = parent.span().span_id[0];
        self.note(format!("span {name} {id} below {below}{}", shown(head.fields())));
        self.0.live.fetch_add(1, Ordering::Relaxed);
        let span = SpanContext::new([9; 16], [id; 8], SpanContext::SAMPLED);
        let recorder = (name != "unrecorded").then(|| Recorder { journal: self.clone(), name });
        Begun { context: parent.with_span(span), span: recorder }
    }

    fn on_event(&self, event: &Event<'_>, context: &Context) {
        let id = context.span().span_id[0];
        self.note(format!("line in {id}: {}{}", event.message(), shown(event.fields())));
    }
}

impl telemetry::Span for Recorder {
    fn on_record(&mut self, fields: Fields<'_>) {
        self.journal.note(format!("{} has{}", self.name, shown(fields)));
    }

    fn on_event(&mut self, event: &Event<'_>) {
        self.journal.note(format!("event of {}: {}", self.name, event.message()));
    }

    fn on_follows_from(&mut self, context: &Context) {
        self.journal.note(format!("{} follows {}", self.name, context.span().span_id[0]));
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // One that logs here looks at the current context, which must not be locked then.
        _ = context::current();
        self.journal.0.ended.lock().unwrap().push(self.name);
        self.journal.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}
