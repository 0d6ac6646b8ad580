//! The way of the host's own spans and log lines to the plugin. It is there from the beginning, and
//! asleep until a plugin is spliced.
//!
//! What the plugin does not want is filtered here, once for each callsite, before anything is
//! formatted. A span that is recorded gives the current context between its entry and its exit. Below
//! a context that is not sampled no span is told, unless the plugin wants those too, and the context
//! stays as it is.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use plugin_api::{Level, abi::TelemetryObject};
use tracing::{Metadata, level_filters::LevelFilter};

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

/// What listens.
pub(super) struct Spliced {
    pub(super) plugin: TelemetryObject,
    spans: LevelFilter,
    /// Whether spans below a context that is not sampled are wanted too.
    pub(super) unsampled: bool,
    events: Threshold,
}

/// What an event is to the plugin. One that is too slight for the log may still be one of its span.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    /// A line of the log.
    pub(super) line: bool,
    /// Something that happened in the span around it.
    pub(super) of_a_span: bool,
}

impl Spliced {
    /// Whether anything is made of a span or an event like this.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.is_span() {
            return metadata.level() <= &self.spans;
        }
        self.wants_event(metadata).is_some()
    }

    /// What an event like this is; `None` where nobody wants it.
    pub(super) fn wants_event(&self, metadata: &Metadata<'_>) -> Option<Wanted> {
        let level = metadata.level();
        let wanted = Wanted { line: *level <= self.events.get(), of_a_span: level <= &self.spans };
        let is_any = wanted.line || wanted.of_a_span;
        (is_any && metadata.target() != PLUGIN_TARGET).then_some(wanted)
    }
}

/// The least serious of what is wanted, as the place of the level among all: it may change while many
/// threads look.
pub(super) struct Threshold(AtomicUsize);

const LEVELS: [LevelFilter; 6] = [
    LevelFilter::OFF,
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

impl Threshold {
    pub(super) fn new(level: LevelFilter) -> Self {
        let threshold = Self(AtomicUsize::new(0));
        threshold.set(level);
        threshold
    }

    pub(super) fn set(&self, level: LevelFilter) {
        let place = LEVELS.iter().position(|one| *one == level);
        self.0.store(place.unwrap_or_default(), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> LevelFilter {
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
        let events = Threshold::new(filter(plugin.event_level().into_option()));
        if self.spliced.set(Spliced { plugin, spans, unsampled, events }).is_ok() {
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// The plugin may want other events from now on.
    pub(crate) fn refresh(&self) {
        if let Some(Spliced { plugin, events, .. }) = self.spliced() {
            events.set(filter(plugin.event_level().into_option()));
            tracing::callsite::rebuild_interest_cache();
        }
    }

    /// Lets nothing cross any more: the plugin is about to be stopped.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        tracing::callsite::rebuild_interest_cache();
    }

    /// What listens now.
    pub(super) fn spliced(&self) -> Option<&Spliced> {
        self.spliced.get().filter(|_| !self.is_closed.load(Ordering::Relaxed))
    }

    /// Whether anything has ever listened.
    pub(super) fn is_awake(&self) -> bool {
        self.spliced.get().is_some()
    }

    /// Whether anything is made of a span or an event like this.
    pub(super) fn wants(&self, metadata: &Metadata<'_>) -> bool {
        self.spliced().is_some_and(|spliced| spliced.wants(metadata))
    }

    /// The least serious of what is wanted.
    pub(super) fn most(&self) -> LevelFilter {
        let most = |spliced: &Spliced| spliced.spans.max(spliced.events.get());
        self.spliced().map_or(LevelFilter::OFF, most)
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
