//! The settings that may change while requests are served.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind},
};
use opentelemetry_sdk::trace::{SamplingResult, ShouldSample};
use plugin_api::Level;

use crate::{config::Config, policy::Policy, sampling::Sampler};

/// The keys of [`Selection`].
pub(crate) const LIVE_SETTINGS: &[&str] =
    &["sampler", "sampler-arg", "rule", "exclude", "incoming", "trust", "log-level"];

/// Which requests are recorded, and which log lines.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(crate) sampler: Sampler,
    pub(crate) policy: Policy,
    /// The least serious lines that are exported; `None`: none are.
    pub(crate) log_level: Option<Level>,
}

impl Selection {
    fn of(config: &Config) -> Arc<Self> {
        let (sampler, policy) = (config.sampler, config.policy.clone());
        Arc::new(Self { sampler, policy, log_level: config.log_level })
    }
}

/// The selection in force. Whoever decides on a request loads it once, so that one request is
/// decided by one selection.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<ArcSwap<Selection>>);

impl Live {
    pub(crate) fn new(config: &Config) -> Self {
        Self(Arc::new(ArcSwap::new(Selection::of(config))))
    }

    /// The selection in force; takes no lock.
    pub(crate) fn load(&self) -> Guard<Arc<Selection>> {
        self.0.load()
    }

    /// From now on it is that of `config`.
    pub(crate) fn replace(&self, config: &Config) {
        self.0.store(Selection::of(config));
    }
}

/// For spans that are made through the OpenTelemetry API.
impl ShouldSample for Live {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let sampler = self.load().sampler.to_sdk();
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}
