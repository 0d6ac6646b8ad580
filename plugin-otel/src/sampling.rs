//! Which spans are recorded: decided from the parent and the trace id, before anything is allocated.

use std::{fmt, sync::Arc, time::Instant};

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind},
};
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SamplingResult, ShouldSample};
use plugin_api::RequestHead;

use crate::{rate::Rate, ratio, remote_sampler::Remote, xray::Manifest};

/// One of the samplers of `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sampler {
    parent_based: bool,
    root: Root,
    /// Who says what `root` is; `None`: the settings do.
    remote: Option<Remote>,
}

/// The decision where no parent has made one.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Root {
    On,
    Off,
    /// This share of all traces.
    Ratio(f64),
    /// So many a second.
    Rate(Arc<Rate>),
    /// By rules of X-Ray.
    Xray(Arc<Manifest>),
}

/// What stands for a trace that does not begin with a request from outside: it has nothing to be told
/// apart by.
const NO_REQUEST: RequestHead<'_> = RequestHead::new("", "", &[]);

impl Sampler {
    /// The names that [`Sampler::of`] knows.
    pub(crate) const NAMES: [&str; 9] = [
        "always_on",
        "always_off",
        "traceidratio",
        "jaeger_remote",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "parentbased_jaeger_remote",
        "xray",
    ];

    /// The sampler of this name, with the default of its argument.
    pub(crate) fn of(name: &str) -> Option<Self> {
        if name == "xray" {
            // As in the SDKs that have it; it has no other form.
            return Some(Self::default().told_by(Remote::xray()));
        }
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => Root::Ratio(1.0),
            "jaeger_remote" => {
                let sampler = Self { parent_based, root: Root::Off, remote: None };
                return Some(sampler.told_by(Remote::jaeger()));
            }
            _ => return None,
        };
        Some(Self { parent_based, root, remote: None })
    }

    /// The same sampler with this ratio (0 to 1), where it has one.
    pub(crate) fn with_ratio(self, ratio: f64) -> Self {
        let root = if let Root::Ratio(_) = self.root { Root::Ratio(ratio) } else { self.root };
        Self { root, ..self }
    }

    /// The sampler that asks there.
    pub(crate) fn told_by(self, remote: Remote) -> Self {
        Self { root: remote.root(), remote: Some(remote), ..self }
    }

    /// Where it asks; `None` for those that are told nothing.
    pub(crate) const fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// The same sampler, now that it has been told.
    pub(crate) fn with_root(&self, root: Root) -> Self {
        Self { root, ..self.clone() }
    }

    /// Whether the span of this request is recorded, in this trace. `decided` is what the caller did,
    /// where it has decided; `rule` is asked for the decision that stands in place of the sampler's own.
    pub(crate) fn samples(
        &self,
        decided: Option<bool>,
        trace_id: &[u8; 16],
        head: &RequestHead<'_>,
        rule: impl FnOnce() -> Option<bool>,
    ) -> bool {
        match decided {
            Some(decided) if self.parent_based => decided,
            _ => rule().unwrap_or_else(|| self.root.samples(trace_id, head)),
        }
    }

    /// Whether a trace that begins inside this process is recorded.
    pub(crate) fn samples_own(&self, trace_id: &[u8; 16]) -> bool {
        self.root.samples(trace_id, &NO_REQUEST)
    }

    /// The same sampler for one span of this trace that is made through the OpenTelemetry API.
    pub(crate) fn to_sdk(&self, trace_id: TraceId) -> SdkSampler {
        if self.parent_based {
            // Not decided yet: a rate is asked only where no parent has decided.
            SdkSampler::ParentBased(Box::new(self.root.clone()))
        } else {
            self.root.to_sdk(trace_id)
        }
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self { parent_based: true, root: Root::On, remote: None }
    }
}

impl Root {
    fn samples(&self, trace_id: &[u8; 16], head: &RequestHead<'_>) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(ratio) => ratio::takes(*ratio, trace_id),
            Self::Rate(rate) => rate.takes(),
            Self::Xray(manifest) => manifest.samples(trace_id, head, Instant::now()),
        }
    }

    /// For one decision on this trace.
    fn to_sdk(&self, trace_id: TraceId) -> SdkSampler {
        match self {
            Self::On => SdkSampler::AlwaysOn,
            Self::Off => SdkSampler::AlwaysOff,
            Self::Ratio(ratio) => SdkSampler::TraceIdRatioBased(*ratio),
            Self::Rate(_) | Self::Xray(_) => {
                let is_sampled = self.samples(&trace_id.to_bytes(), &NO_REQUEST);
                if is_sampled { SdkSampler::AlwaysOn } else { SdkSampler::AlwaysOff }
            }
        }
    }
}

/// Below a parent's decision: asked only where there is none.
impl ShouldSample for Root {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        self.to_sdk(trace_id).should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.parent_based && !matches!(self.root, Root::Xray(_)) {
            f.write_str("parentbased_")?;
        }
        match &self.remote {
            Some(remote) => remote.fmt(f),
            None => self.root.fmt(f),
        }
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::On => f.write_str("always_on"),
            Self::Off => f.write_str("always_off"),
            Self::Ratio(ratio) => write!(f, "traceidratio {ratio}"),
            Self::Rate(_) => f.write_str("a rate"),
            Self::Xray(manifest) => write!(f, "rules for this service: {}", manifest.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{
        SpanContext as SdkSpanContext, SpanId, SpanKind, TraceContextExt, TraceFlags, TraceId,
        TraceState,
    };
    use opentelemetry_sdk::trace::{SamplingDecision, ShouldSample};
    use plugin_api::SpanContext;
    use proptest::prelude::*;

    use super::*;

    const SAMPLED: SpanContext = SpanContext::new([1; 16], [1; 8], SpanContext::SAMPLED);
    const UNSAMPLED: SpanContext = SpanContext::new([1; 16], [1; 8], 0);

    fn sampler(name: &str, ratio: f64) -> Sampler {
        Sampler::of(name).unwrap().with_ratio(ratio)
    }

    #[test]
    fn each_sampler_decides_by_its_rule() {
        for (name, ratio, root, below_sampled, below_unsampled) in [
            ("always_on", 1.0, true, true, true),
            ("always_off", 1.0, false, false, false),
            ("traceidratio", 1.0, true, true, true),
            ("traceidratio", 0.0, false, false, false),
            ("parentbased_always_on", 1.0, true, true, false),
            ("parentbased_always_off", 1.0, false, true, false),
            ("parentbased_traceidratio", 1.0, true, true, false),
            ("parentbased_traceidratio", 0.0, false, true, false),
        ] {
            let sampler = sampler(name, ratio);
            let decisions = [None, Some(true), Some(false)]
                .map(|decided| sampler.samples(decided, &[1; 16], &NO_REQUEST, || None));
            assert_eq!(decisions, [root, below_sampled, below_unsampled], "{name} {ratio}");
            assert_eq!(sampler.samples_own(&[1; 16]), root, "{name} {ratio}");
        }
    }

    #[test]
    fn a_rule_stands_in_place_of_the_sampler_s_own_ratio_and_not_of_a_caller_that_counts() {
        for (name, rule, root, below_sampled, below_unsampled) in [
            ("always_on", false, false, false, false),
            ("always_off", true, true, true, true),
            ("traceidratio", false, false, false, false),
            ("parentbased_always_on", false, false, true, false),
            ("parentbased_always_off", true, true, true, false),
            ("parentbased_traceidratio", false, false, true, false),
        ] {
            let sampler = sampler(name, 1.0);
            let decisions = [None, Some(true), Some(false)]
                .map(|decided| sampler.samples(decided, &[1; 16], &NO_REQUEST, || Some(rule)));
            assert_eq!(decisions, [root, below_sampled, below_unsampled], "{name} {rule}");
        }
    }

    #[test]
    fn every_listed_name_is_known_and_no_other() {
        for name in Sampler::NAMES {
            assert!(sampler(name, 0.5).to_string().starts_with(name));
        }
        for name in [
            "",
            "alway_on",
            "parentbased_",
            "parentbased_parentbased_always_on",
            "parentbased_xray",
        ] {
            assert_eq!(Sampler::of(name), None, "{name}");
        }
    }

    fn sdk_samples(sampler: &Sampler, parent: Option<SpanContext>, trace_id: [u8; 16]) -> bool {
        let context = parent.map(|parent| {
            let span = SdkSpanContext::new(
                TraceId::from_bytes(parent.trace_id),
                SpanId::from_bytes(parent.span_id),
                TraceFlags::new(u8::from(parent.is_sampled())),
                true,
                TraceState::default(),
            );
            opentelemetry::Context::new().with_remote_span_context(span)
        });
        let trace_id = TraceId::from_bytes(trace_id);
        let sampler = sampler.to_sdk(trace_id);
        let result =
            sampler.should_sample(context.as_ref(), trace_id, "", &SpanKind::Server, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    proptest! {
        #[test]
        fn it_decides_as_the_sdk_does(
            // What X-Ray decides is not decided by the trace alone.
            name in prop::sample::select(Sampler::NAMES[..8].to_vec()),
            ratio in 0.0..=1.0_f64,
            trace_id: [u8; 16],
            parent in prop::sample::select(vec![None, Some(SAMPLED), Some(UNSAMPLED)]),
        ) {
            let sampler = sampler(name, ratio);
            prop_assert_eq!(
                sampler.samples(
                    parent.map(|parent| parent.is_sampled()),
                    &trace_id,
                    &NO_REQUEST,
                    || None,
                ),
                sdk_samples(&sampler, parent, trace_id)
            );
        }
    }

    #[test]
    fn a_rate_counts_only_what_nobody_has_decided() {
        let one = |name| Sampler::of(name).unwrap().with_root(Root::Rate(Rate::of(1.0).into()));
        let decided = [Some(true), Some(false), Some(true), None, None];
        let based = one("parentbased_jaeger_remote");
        let decide = |sampler: &Sampler| {
            decided.map(|decided| sampler.samples(decided, &[1; 16], &NO_REQUEST, || None))
        };
        let decisions = decide(&based);
        assert_eq!(decisions, [true, false, true, true, false]);
        let every = one("jaeger_remote");
        let decisions = decide(&every);
        assert_eq!(decisions, [true, false, false, false, false]);

        let api = one("parentbased_jaeger_remote");
        let decisions = [Some(SAMPLED), Some(UNSAMPLED), None, None]
            .map(|parent| sdk_samples(&api, parent, [1; 16]));
        assert_eq!(decisions, [true, false, true, false]);
    }
}
