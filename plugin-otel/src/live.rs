//! The settings that may change while requests are served.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind},
};
use opentelemetry_sdk::trace::{SamplingResult, ShouldSample};
use plugin_api::Level;
use tokio::sync::watch;

use crate::{
    config::Config,
    policy::Policy,
    remote_sampler::{Remote, Strategy},
    sampling::Sampler,
};

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
        let (sampler, policy) = (config.sampler.clone(), config.policy.clone());
        Arc::new(Self { sampler, policy, log_level: config.log_level })
    }

    /// The same with what the sampler has been told; the operator's own rules come first.
    fn told(&self, strategy: Strategy) -> Arc<Self> {
        let mut policy = self.policy.clone();
        policy.rules.0.extend(strategy.operations);
        let sampler = self.sampler.with_root(strategy.root);
        Arc::new(Self { sampler, policy, log_level: self.log_level })
    }
}

/// The selection in force. Whoever decides on a request loads it once, so that one request is
/// decided by one selection.
#[derive(Clone, Debug)]
pub(crate) struct Live(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    in_force: ArcSwap<Selection>,
    /// What it is made of.
    parts: Mutex<Parts>,
    /// Where the sampler asks.
    remote: watch::Sender<Option<Remote>>,
}

#[derive(Debug)]
struct Parts {
    settings: Arc<Selection>,
    /// What the sampler was told last.
    strategy: Option<Strategy>,
}

impl Live {
    pub(crate) fn new(config: &Config) -> Self {
        let settings = Selection::of(config);
        Self(Arc::new(Inner {
            in_force: ArcSwap::new(Arc::clone(&settings)),
            parts: Mutex::new(Parts { settings, strategy: None }),
            remote: watch::Sender::new(config.sampler.remote().cloned()),
        }))
    }

    /// The selection in force; takes no lock.
    pub(crate) fn load(&self) -> Guard<Arc<Selection>> {
        self.0.in_force.load()
    }

    /// From now on it is that of `config`. What the sampler was told stays in force where it goes on
    /// asking there.
    pub(crate) fn replace(&self, config: &Config) {
        let mut parts = self.0.parts();
        parts.settings = Selection::of(config);
        let asks = config.sampler.remote();
        let is_new = self.0.remote.send_if_modified(|remote| {
            let is_new = remote.as_ref() != asks;
            if is_new {
                *remote = asks.cloned();
            }
            is_new
        });
        if is_new {
            parts.strategy = None;
        }
        self.0.in_force.store(parts.selection());
    }

    /// The server of the sampler wants this from now on.
    pub(crate) fn told(&self, remote: &Remote, strategy: Strategy) {
        let mut parts = self.0.parts();
        // Another one may be asked meanwhile, or none.
        if parts.settings.sampler.remote() == Some(remote) {
            parts.strategy = Some(strategy);
            self.0.in_force.store(parts.selection());
        }
    }

    /// Where the sampler asks, now and later.
    pub(crate) fn remote(&self) -> watch::Receiver<Option<Remote>> {
        self.0.remote.subscribe()
    }
}

impl Inner {
    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn parts(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Parts {
    fn selection(&self) -> Arc<Selection> {
        match self.strategy.clone() {
            Some(strategy) => self.settings.told(strategy),
            None => Arc::clone(&self.settings),
        }
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
        let sampler = self.load().sampler.to_sdk(trace_id);
        sampler.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::RequestHead;

    use super::*;
    use crate::{rules::Rule, sampling::Root, template::Template};

    fn config(settings: &str) -> Config {
        Config::read(settings, &|_| None).unwrap()
    }

    fn strategy(ratio: f64, route: &str) -> Strategy {
        let (route, method) = (Some(Template::of_route(route).unwrap()), Some("GET".to_owned()));
        let operations = vec![Rule { route, method, header: None, ratio: 1.0, at_least: None }];
        Strategy { root: Root::Ratio(ratio), operations }
    }

    #[test]
    fn what_a_sampler_is_told_holds_below_the_rules_and_as_long_as_it_asks_there() {
        let here = r#""sampler": "jaeger_remote", "sampler-arg": "initialSamplingRate=0""#;
        let rule = r#""rule": [{"route": "/never", "ratio": 0}]"#;
        let live = Live::new(&config(&format!("{{{here}}}")));
        let is_sampled = |path| {
            let selection = live.load();
            let head = RequestHead::new("GET", path, &[]);
            let rule = || selection.policy.rules.samples(&[1; 16], &head);
            selection.sampler.samples(None, &[1; 16], &head, rule)
        };
        let asked = live.load().sampler.remote().cloned().unwrap();
        assert!(!is_sampled("/") && !is_sampled("/always"));

        live.told(&asked, strategy(1.0, "/never"));
        assert!(is_sampled("/"));
        live.replace(&config(&format!("{{{here}, {rule}}}")));
        assert!(is_sampled("/") && !is_sampled("/never"), "the operator's word comes first");
        live.told(&asked, strategy(0.0, "/always"));
        assert!(!is_sampled("/") && is_sampled("/always"), "what was told before is gone");

        live.replace(&config(r#"{"sampler": "always_on"}"#));
        live.told(&asked, strategy(0.0, "/x"));
        assert!(is_sampled("/"), "nobody asks any more");
        live.replace(&config(&format!("{{{here}}}")));
        assert!(!is_sampled("/always"), "it begins anew");
    }
}
