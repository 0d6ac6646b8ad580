//! Tells the bridge of the spans and events of a subscriber.
//!
//! It is around the subscriber and not one of its layers: while the bridge sleeps it is one look at
//! whether it does, where a layer with a filter of its own would look every span up at each step.

use plugin_api::{
    Context, Level,
    abi::AbiBegun,
    telemetry::{Callsite, Event, SpanHead},
};
use tracing::{
    Dispatch, Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_core::span::Current;

use super::{
    bridge::{Bridge, Spliced, Threshold},
    context::{self, enter_span, exit_span},
    fields::collect,
    known::{Known, Spans},
    recorder::Recorder,
};

/// A subscriber that the bridge listens to.
pub(super) struct Tap<S> {
    inner: S,
    bridge: &'static Bridge,
    spans: Spans,
    /// The least serious events that `inner` may want.
    lines: Threshold,
}

impl<S: Subscriber> Tap<S> {
    pub(super) fn new(inner: S, bridge: &'static Bridge) -> Self {
        let lines = Threshold::new(inner.max_level_hint().unwrap_or(LevelFilter::TRACE));
        Self { inner, bridge, spans: Spans::default(), lines }
    }

    /// Whether `inner` wants no event like this: it need not even be asked. With a line that it was
    /// asked for and is not told it would refuse the next one.
    fn is_slight(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && *metadata.level() > self.lines.get()
    }

    /// What records this span, while something listens.
    fn recorder(&self, id: &Id) -> Option<Recorder> {
        self.bridge.spliced().and_then(|_| self.spans.get(id)?.recorder)
    }

    /// Where what has this parent is, if it is told: the context and what records it.
    fn place(&self, parent: Option<&Id>, is_contextual: bool) -> (Context, Option<Recorder>) {
        match parent.and_then(|id| self.spans.get(id)) {
            Some(Known { context, recorder }) => (context, recorder),
            // The plugin may not know the span, nor those around it.
            None => context::inside(is_contextual),
        }
    }

    fn begin(&self, spliced: &Spliced, attributes: &Attributes<'_>, id: &Id) {
        let (parent, around) = match attributes.parent() {
            None if attributes.is_root() => (Context::default(), None),
            parent => self.place(parent, attributes.is_contextual()),
        };
        if !spliced.unsampled && parent.span().is_valid() && !parent.span().is_sampled() {
            return;
        }
        let callsite = callsite(attributes.metadata());
        let AbiBegun { context, span } = collect(
            |visit| attributes.record(visit),
            |_, fields| spliced.plugin.on_span(&SpanHead::new(callsite, fields), &parent),
        );
        let recorder = span.into_option().map(|span| Recorder::new(span, around));
        self.spans.insert(id, Known { context, recorder });
    }

    fn tell(&self, spliced: &Spliced, event: &tracing::Event<'_>) {
        let metadata = event.metadata();
        let (is_line, is_of_a_span) = spliced.wants_event(metadata);
        if !is_line && !is_of_a_span {
            return;
        }
        let (context, recorder) = self.place(event.parent(), is_of_a_span && event.is_contextual());
        let recorder = recorder.filter(|_| is_of_a_span);
        if !is_line && recorder.is_none() {
            return;
        }
        let callsite = callsite(metadata);
        collect(
            |visit| event.record(visit),
            |message, fields| {
                let event = Event::new(callsite, message, fields);
                if let Some(recorder) = recorder {
                    recorder.tell(|span| span.on_event(&event));
                }
                if is_line {
                    spliced.plugin.on_event(&event, &context);
                }
            },
        );
    }
}

impl<S: Subscriber> Subscriber for Tap<S> {
    fn on_register_dispatch(&self, dispatch: &Dispatch) {
        self.inner.on_register_dispatch(dispatch);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        let interest = self.inner.register_callsite(metadata);
        if interest.is_always() || !self.bridge.wants(metadata) {
            return interest;
        }
        if self.is_slight(metadata) {
            return Interest::always();
        }
        // The subscriber's own filters are asked each time: they remember what they said.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !self.is_slight(metadata) && self.inner.enabled(metadata) || self.bridge.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // It is asked for whenever it may have changed.
        let lines = self.inner.max_level_hint();
        self.lines.set(lines.unwrap_or(LevelFilter::TRACE));
        lines.map(|lines| lines.max(self.bridge.most()))
    }

    fn event_enabled(&self, event: &tracing::Event<'_>) -> bool {
        // Whoever is told of it looks again.
        let metadata = event.metadata();
        self.is_slight(metadata) || self.inner.event_enabled(event) || self.bridge.wants(metadata)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.inner.new_span(attributes);
        if let Some(spliced) = self.bridge.spliced()
            && spliced.wants(attributes.metadata())
        {
            self.begin(spliced, attributes, &id);
        }
        id
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        self.inner.record(id, values);
        if let Some(recorder) = self.recorder(id) {
            collect(
                |visit| values.record(visit),
                |_, fields| recorder.tell(|span| span.on_record(fields.into())),
            );
        }
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        self.inner.record_follows_from(id, follows);
        if let Some(recorder) = self.recorder(id)
            && let Some(cause) = self.spans.get(follows)
        {
            recorder.tell(|span| span.on_follows_from(&cause.context));
        }
    }

    fn event(&self, event: &tracing::Event<'_>) {
        if !self.bridge.is_awake() {
            return self.inner.event(event);
        }
        if !self.is_slight(event.metadata()) {
            self.inner.event(event);
        }
        if let Some(spliced) = self.bridge.spliced() {
            self.tell(spliced, event);
        }
    }

    fn enter(&self, id: &Id) {
        self.inner.enter(id);
        if self.bridge.is_awake()
            && let Some(known) = self.spans.get(id)
        {
            enter_span(id.into_u64(), known.context, known.recorder);
        }
    }

    fn exit(&self, id: &Id) {
        self.inner.exit(id);
        if self.bridge.is_awake() {
            exit_span(id.into_u64());
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.inner.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        let is_closed = self.inner.try_close(id.clone());
        if is_closed && self.bridge.is_awake() {
            // With what is known of it, it ends.
            drop(self.spans.remove(&id));
        }
        is_closed
    }

    fn current_span(&self) -> Current {
        self.inner.current_span()
    }
}

fn callsite(metadata: &'static Metadata<'static>) -> Callsite {
    let level = match *metadata.level() {
        tracing::Level::ERROR => Level::ERROR,
        tracing::Level::WARN => Level::WARN,
        tracing::Level::INFO => Level::INFO,
        tracing::Level::DEBUG => Level::DEBUG,
        tracing::Level::TRACE => Level::TRACE,
    };
    Callsite::new(level, metadata.target(), metadata.name()).at(
        metadata.module_path().unwrap_or_default(),
        metadata.file().unwrap_or_default(),
        metadata.line().unwrap_or_default(),
    )
}
