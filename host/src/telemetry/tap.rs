//! Tells the bridge of the spans and events of a subscriber.
//!
//! It is around the subscriber and not one of its layers: while the bridge sleeps it is one look at
//! whether it does, where a layer with a filter of its own would look every span up at each step. And a
//! span that the log does not want never comes to the log's registry, as it would not without a plugin.

use plugin_api::{
    Context, Level,
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
    bridge::{Bridge, Spliced, Threshold, Wanted},
    context::{self, enter_span, exit_span},
    entered,
    fields::collect,
    ids,
    known::Known,
    place::Place,
    spans::Spans,
};

/// A subscriber that the bridge listens to.
pub(super) struct Tap<S> {
    /// The log. It filters as a whole: with a filter for each of its layers it would remember between
    /// [`Subscriber::enabled`] and the next span or event what it has said.
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

    /// Whether `inner` takes a span or an event like this. Most that it does not are too slight for
    /// any of it.
    fn is_logged(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.lines.get() && self.inner.enabled(metadata)
    }

    /// This span, if it is recorded, while something listens.
    fn recorded(&self, id: &Id) -> Option<Known> {
        self.bridge.spliced().and_then(|_| self.spans.get(id)).filter(Known::is_recorded)
    }

    /// Where what has this parent is, if it is told.
    fn place(&self, parent: Option<&Id>, is_contextual: bool) -> Place {
        match parent.and_then(|id| self.spans.get(id)) {
            Some(span) => Place::Span(span),
            // The plugin may not know the span, nor those around it.
            None => context::inside(is_contextual),
        }
    }

    /// A span of the log. What the log does not know it cannot be below.
    fn log_span(&self, attributes: &Attributes<'_>) -> Id {
        if attributes.parent().is_some_and(ids::is_own) {
            let values = attributes.values();
            return self.inner.new_span(&Attributes::new_root(attributes.metadata(), values));
        }
        self.inner.new_span(attributes)
    }

    /// A span of the plugin, unless nobody wants to hear of it.
    fn begin(&self, spliced: &Spliced, attributes: &Attributes<'_>) -> Option<Known> {
        let place = match attributes.parent() {
            None if attributes.is_root() => Place::Context(Context::default()),
            parent => self.place(parent, attributes.is_contextual()),
        };
        let span = place.context().span();
        if !spliced.unsampled && span.is_valid() && !span.is_sampled() {
            return None;
        }
        let metadata = attributes.metadata();
        let callsite = callsite(metadata);
        Some(collect(
            |visit| attributes.record(visit),
            |_, fields| {
                let head = SpanHead::new(&callsite, fields);
                let begun = spliced.plugin.on_span(&head, place.context());
                Known::new(metadata, begun, place.into_span())
            },
        ))
    }

    fn tell(&self, spliced: &Spliced, wanted: Wanted, event: &tracing::Event<'_>) {
        let Wanted { line, of_a_span } = wanted;
        let place = self.place(event.parent(), of_a_span && event.is_contextual());
        let span = place.span().filter(|span| of_a_span && span.is_recorded());
        if !line && span.is_none() {
            return;
        }
        let callsite = callsite(event.metadata());
        collect(
            |visit| event.record(visit),
            |message, fields| {
                let event = Event::new(&callsite, message, fields);
                if let Some(span) = span {
                    span.tell(|span| span.on_event(&event));
                }
                if line {
                    spliced.plugin.on_event(&event, place.context());
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
        // Of what is told the log is asked when it comes.
        if self.bridge.wants(metadata) { Interest::always() } else { interest }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.bridge.wants(metadata) || self.inner.enabled(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // It is asked for whenever it may have changed.
        let lines = self.inner.max_level_hint();
        self.lines.set(lines.unwrap_or(LevelFilter::TRACE));
        lines.map(|lines| lines.max(self.bridge.most()))
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        if !self.bridge.is_awake() {
            return self.inner.new_span(attributes);
        }
        let metadata = attributes.metadata();
        let told = self.bridge.spliced().filter(|spliced| spliced.wants(metadata));
        // What is not told is here because it is logged.
        let is_logged = told.is_none() || self.is_logged(metadata);
        let logged = is_logged.then(|| self.log_span(attributes));
        let known = told.and_then(|spliced| self.begin(spliced, attributes));
        match (logged, known) {
            (Some(id), Some(known)) => {
                self.spans.insert(&id, known);
                id
            }
            (Some(id), None) => id,
            (None, Some(known)) => self.spans.add(known),
            (None, None) => ids::of_nobody(),
        }
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        if !ids::is_own(id) {
            self.inner.record(id, values);
        }
        if let Some(span) = self.recorded(id) {
            collect(
                |visit| values.record(visit),
                |_, fields| span.tell(|span| span.on_record(fields)),
            );
        }
    }

    fn record_follows_from(&self, id: &Id, follows: &Id) {
        if !ids::is_own(id) && !ids::is_own(follows) {
            self.inner.record_follows_from(id, follows);
        }
        if let Some(span) = self.recorded(id)
            && let Some(cause) = self.spans.get(follows)
        {
            span.tell(|span| span.on_follows_from(cause.context()));
        }
    }

    fn event(&self, event: &tracing::Event<'_>) {
        if !self.bridge.is_awake() {
            return self.inner.event(event);
        }
        let metadata = event.metadata();
        let spliced = self.bridge.spliced();
        let told = spliced.and_then(|spliced| Some((spliced, spliced.wants_event(metadata)?)));
        // What is not told is here because it is logged.
        if told.is_none() || self.is_logged(metadata) {
            self.inner.event(event);
        }
        if let Some((spliced, wanted)) = told {
            self.tell(spliced, wanted, event);
        }
    }

    fn enter(&self, id: &Id) {
        let is_own = ids::is_own(id);
        if !is_own {
            self.inner.enter(id);
        }
        if !self.bridge.is_awake() {
            return;
        }
        let Some(span) = self.spans.get(id) else {
            // One that nobody knows is as if it was not there.
            if !is_own {
                entered::push(id, None);
            }
            return;
        };
        entered::push(id, is_own.then(|| span.metadata()));
        enter_span(id, span);
    }

    fn exit(&self, id: &Id) {
        if !ids::is_own(id) {
            self.inner.exit(id);
        }
        if self.bridge.is_awake() {
            entered::remove(id);
            exit_span(id);
        }
    }

    fn clone_span(&self, id: &Id) -> Id {
        if ids::is_own(id) {
            self.spans.clone_handle(id);
            return id.clone();
        }
        self.inner.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        let is_own = ids::is_own(&id);
        if !is_own && !self.inner.try_close(id.clone()) {
            return false;
        }
        if !self.bridge.is_awake() {
            return true;
        }
        let closed = self.spans.drop_handle(&id).map(Known::close);
        !is_own || closed.is_some()
    }

    fn current_span(&self) -> Current {
        entered::unlogged().unwrap_or_else(|| self.inner.current_span())
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
