//! The way of the host's own spans and log lines to the plugin: a layer of the subscriber that is
//! there from the beginning and asleep until a plugin is spliced.
//!
//! What the plugin does not want is filtered here, once for each callsite, before anything is
//! formatted. A span that is recorded gives the current context between its entry and its exit. Below
//! a context that is not sampled no span is told, unless the plugin wants those too, and the context
//! stays as it is.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use plugin_api::{
    Context, Level,
    abi::{AbiBegun, TelemetryObject},
    telemetry::{Callsite, Event, SpanHead},
};
use tracing::{
    Metadata, Subscriber,
    level_filters::LevelFilter,
    span::{Attributes, Id, Record},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer,
    layer::{self, Filter},
    registry::{LookupSpan, SpanRef},
};

use super::{
    context::{self, enter_span, exit_span},
    fields::collect,
    recorder::Recorder,
};

/// The target of the plugin's own lines. They go to standard error alone: a line about an export
/// that fails would otherwise be the next to be exported.
pub(crate) const PLUGIN_TARGET: &str = "plugin";

/// The bridge of this process.
pub(crate) static BRIDGE: Bridge = Bridge::new();

/// Where a plugin is spliced into the log.
pub(crate) struct Bridge {
    spliced: OnceLock<Spliced>,
    is_closed: AtomicBool,
}

struct Spliced {
    plugin: TelemetryObject,
    spans: LevelFilter,
    /// Whether spans below a context that is not sampled are wanted too.
    unsampled: bool,
    events: Threshold,
}

/// The least serious events that are wanted, as the place of the level among all: it may change
/// while many threads look.
struct Threshold(AtomicUsize);

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

impl Threshold {
    fn of(plugin: &TelemetryObject) -> Self {
        let threshold = Self(AtomicUsize::new(0));
        threshold.ask(plugin);
        threshold
    }

    fn ask(&self, plugin: &TelemetryObject) {
        let wanted = filter(plugin.event_level().into_option());
        let place = LEVELS.iter().position(|level| *level == wanted);
        self.0.store(place.unwrap_or_default(), Ordering::Relaxed);
    }

    fn get(&self) -> LevelFilter {
        LEVELS.get(self.0.load(Ordering::Relaxed)).copied().unwrap_or(LevelFilter::OFF)
    }
}

impl Bridge {
    pub(crate) const fn new() -> Self {
        Self { spliced: OnceLock::new(), is_closed: AtomicBool::new(false) }
    }

    /// Switches the bridge on. Spans that are open already stay unknown to the plugin.
    pub(crate) fn splice(&self, plugin: TelemetryObject) {
        let spans = filter(plugin.span_level().into_option());
        let unsampled = plugin.unsampled();
        let events = Threshold::of(&plugin);
        if self.spliced.set(Spliced { plugin, spans, unsampled, events }).is_ok() {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// The plugin may want other events from now on.
    pub(crate) fn refresh(&self) {
        if let Some(Spliced { plugin, events, .. }) = self.spliced() {
            events.ask(plugin);
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// Lets nothing cross any more: the plugin is about to be stopped.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    fn spliced(&self) -> Option<&Spliced> {
        self.spliced.get().filter(|_| !self.is_closed.load(Ordering::Relaxed))
    }
}

fn filter(level: Option<Level>) -> LevelFilter {
    match level {
        Some(Level::ERROR) => LevelFilter::ERROR,
        Some(Level::WARN) => LevelFilter::WARN,
        Some(Level::INFO) => LevelFilter::INFO,
        Some(Level::DEBUG) => LevelFilter::DEBUG,
        Some(_) => LevelFilter::TRACE,
        None => LevelFilter::OFF,
    }
}

/// The layer of a bridge, with its filter.
pub(crate) fn layer<S>(bridge: &'static Bridge) -> impl Layer<S>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    Tap(bridge).with_filter(Wanted(bridge))
}

/// Lets through what the plugin wants.
struct Wanted(&'static Bridge);

impl Wanted {
    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let Some(Spliced { spans, events, .. }) = self.0.spliced() else { return false };
        if metadata.is_span() {
            return metadata.level() <= spans;
        }
        // An event that is too slight for the log may still be one of its span.
        *metadata.level() <= events.get().max(*spans) && metadata.target() != PLUGIN_TARGET
    }
}

impl<S> Filter<S> for Wanted {
    fn enabled(&self, metadata: &Metadata<'_>, _: &layer::Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        let most = |spliced: &Spliced| spliced.spans.max(spliced.events.get());
        Some(self.0.spliced().map_or(LevelFilter::OFF, most))
    }
}

/// A span that the plugin knows, among the extensions of the registry's.
#[derive(Clone)]
struct Known {
    /// The context inside of it.
    context: Context,
    /// `None` where the span is not recorded.
    recorder: Option<Recorder>,
}

struct Tap(&'static Bridge);

impl Tap {
    /// What records this span, while something listens.
    fn recorder<'a, R: LookupSpan<'a>>(&self, span: Option<SpanRef<'a, R>>) -> Option<Recorder> {
        self.0.spliced().and_then(|_| known(span)?.recorder)
    }
}

impl<S> Layer<S> for Tap
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, registry: layer::Context<'_, S>) {
        let (Some(spliced), Some(span)) = (self.0.spliced(), registry.span(id)) else { return };
        let parent = match attributes.parent() {
            Some(parent) => context_of(registry.span(parent)),
            None if attributes.is_root() => Context::default(),
            None => context::current().unwrap_or_default(),
        };
        if !spliced.unsampled && parent.span().is_valid() && !parent.span().is_sampled() {
            return;
        }
        let callsite = callsite(attributes.metadata());
        let AbiBegun { context, span: recorder } = collect(
            |visit| attributes.record(visit),
            |_, fields| spliced.plugin.on_span(&SpanHead::new(callsite, fields), &parent),
        );
        let recorder = recorder.into_option().map(Recorder::new);
        span.extensions_mut().insert(Known { context, recorder });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, registry: layer::Context<'_, S>) {
        let Some(recorder) = self.recorder(registry.span(id)) else { return };
        collect(
            |visit| values.record(visit),
            |_, fields| recorder.tell(|span| span.on_record(fields.into())),
        );
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, registry: layer::Context<'_, S>) {
        if let (Some(recorder), Some(cause)) =
            (self.recorder(registry.span(id)), known(registry.span(follows)))
        {
            recorder.tell(|span| span.on_follows_from(&cause.context));
        }
    }

    fn on_event(&self, event: &tracing::Event<'_>, registry: layer::Context<'_, S>) {
        let Some(spliced) = self.0.spliced() else { return };
        let metadata = event.metadata();
        let is_line = *metadata.level() <= spliced.events.get();
        let is_of_a_span = metadata.level() <= &spliced.spans;
        let (context, recorder) = match event.parent().and_then(|id| known(registry.span(id))) {
            Some(parent) => (parent.context, parent.recorder.filter(|_| is_of_a_span)),
            None => context::inside(is_of_a_span && event.is_contextual()),
        };
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

    fn on_enter(&self, id: &Id, registry: layer::Context<'_, S>) {
        if let Some(known) = known(registry.span(id)) {
            enter_span(id.into_u64(), known.context, known.recorder);
        }
    }

    fn on_exit(&self, id: &Id, _: layer::Context<'_, S>) {
        exit_span(id.into_u64());
    }

    fn on_close(&self, id: Id, registry: layer::Context<'_, S>) {
        let known = registry.span(&id).and_then(|span| span.extensions_mut().remove::<Known>());
        // The span ends here, outside of the registry's lock.
        drop(known);
    }
}

fn known<'a, R: LookupSpan<'a>>(span: Option<SpanRef<'a, R>>) -> Option<Known> {
    span?.extensions().get().cloned()
}

/// The context inside of a span; that of the running code where the plugin does not know the span.
fn context_of<'a, R: LookupSpan<'a>>(span: Option<SpanRef<'a, R>>) -> Context {
    let known = known(span).map(|known| known.context);
    known.or_else(context::current).unwrap_or_default()
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
