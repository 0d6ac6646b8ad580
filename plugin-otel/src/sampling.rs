//! Which spans are recorded: decided from the parent and the trace id, before anything is allocated.

use std::{fmt, sync::Arc};

use opentelemetry::{
    Context, KeyValue, TraceId,
    trace::{Link, SpanKind},
};
use opentelemetry_sdk::trace::{Sampler as SdkSampler, SamplingResult, ShouldSample};

use crate::{rate::Rate, redact::shown_url, remote_sampler::Remote};

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
}

impl Sampler {
    /// The names that [`Sampler::of`] knows.
    pub(crate) const NAMES: [&str; 8] = [
        "always_on",
        "always_off",
        "traceidratio",
        "jaeger_remote",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
        "parentbased_jaeger_remote",
    ];

    /// The sampler of this name, with the default of its argument.
    pub(crate) fn of(name: &str) -> Option<Self> {
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
                return Some(sampler.told_by(Remote::default()));
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
        Self { root: Root::Ratio(remote.initial), remote: Some(remote), ..self }
    }

    /// Where it asks; `None` for those that are told nothing.
    pub(crate) const fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// The same sampler, now that it has been told.
    pub(crate) fn with_root(&self, root: Root) -> Self {
        Self { root, ..self.clone() }
    }

    /// Whether the span of this trace is recorded. `decided` is what the caller did, where it has
    /// decided; `rule` is asked for the ratio that stands in place of the sampler's own.
    pub(crate) fn samples(
        &self,
        decided: Option<bool>,
        trace_id: &[u8; 16],
        rule: impl FnOnce() -> Option<f64>,
    ) -> bool {
        match decided {
            Some(decided) if self.parent_based => decided,
            _ => match rule() {
                Some(ratio) => Root::Ratio(ratio).samples(trace_id),
                None => self.root.samples(trace_id),
            },
        }
    }

    /// The same sampler for spans that are made through the OpenTelemetry API.
    pub(crate) fn to_sdk(&self) -> SdkSampler {
        if self.parent_based {
            SdkSampler::ParentBased(Box::new(self.root.clone()))
        } else {
            self.root.to_sdk()
        }
    }
}

impl Default for Sampler {
    fn default() -> Self {
        Self { parent_based: true, root: Root::On, remote: None }
    }
}

impl Root {
    fn samples(&self, trace_id: &[u8; 16]) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(ratio) => *ratio >= 1.0 || low_bits(trace_id) < bound(*ratio),
            Self::Rate(rate) => rate.takes(),
        }
    }

    /// For one decision.
    fn to_sdk(&self) -> SdkSampler {
        match self {
            Self::On => SdkSampler::AlwaysOn,
            Self::Ratio(ratio) => SdkSampler::TraceIdRatioBased(*ratio),
            Self::Rate(rate) if rate.takes() => SdkSampler::AlwaysOn,
            Self::Off | Self::Rate(_) => SdkSampler::AlwaysOff,
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
        self.to_sdk().should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// The part of a trace id that is random by every version of the specification. The SDK's ratio
/// sampler uses the same bits, so both decide alike.
fn low_bits(trace_id: &[u8; 16]) -> u64 {
    let [.., a, b, c, d, e, f, g, h] = *trace_id;
    u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "the SDK computes its bound this way"
)]
fn bound(ratio: f64) -> u64 {
    (ratio.max(0.0) * (1_u64 << 63) as f64) as u64
}

impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.parent_based { "parentbased_" } else { "" };
        match &self.remote {
            Some(remote) => write!(f, "{prefix}jaeger_remote {}", shown_url(&remote.endpoint)),
            None => write!(f, "{prefix}{}", self.root),
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
                .map(|decided| sampler.samples(decided, &[1; 16], || None));
            assert_eq!(decisions, [root, below_sampled, below_unsampled], "{name} {ratio}");
        }
    }

    #[test]
    fn a_rule_stands_in_place_of_the_sampler_s_own_ratio_and_not_of_a_caller_that_counts() {
        for (name, rule, root, below_sampled, below_unsampled) in [
            ("always_on", 0.0, false, false, false),
            ("always_off", 1.0, true, true, true),
            ("traceidratio", 0.0, false, false, false),
            ("parentbased_always_on", 0.0, false, true, false),
            ("parentbased_always_off", 1.0, true, true, false),
            ("parentbased_traceidratio", 0.0, false, true, false),
        ] {
            let sampler = sampler(name, 1.0);
            let decisions = [None, Some(true), Some(false)]
                .map(|decided| sampler.samples(decided, &[1; 16], || Some(rule)));
            assert_eq!(decisions, [root, below_sampled, below_unsampled], "{name} {rule}");
        }
    }

    #[test]
    fn every_listed_name_is_known_and_no_other() {
        for name in Sampler::NAMES {
            assert!(sampler(name, 0.5).to_string().starts_with(name));
        }
        for name in ["", "alway_on", "parentbased_", "parentbased_parentbased_always_on"] {
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
        let result = sampler.to_sdk().should_sample(
            context.as_ref(),
            trace_id,
            "",
            &SpanKind::Server,
            &[],
            &[],
        );
        result.decision == SamplingDecision::RecordAndSample
    }

    proptest! {
        #[test]
        fn it_decides_as_the_sdk_does(
            name in prop::sample::select(Sampler::NAMES.to_vec()),
            ratio in 0.0..=1.0_f64,
            trace_id: [u8; 16],
            parent in prop::sample::select(vec![None, Some(SAMPLED), Some(UNSAMPLED)]),
        ) {
            let sampler = sampler(name, ratio);
            prop_assert_eq!(
                sampler.samples(parent.map(|parent| parent.is_sampled()), &trace_id, || None),
                sdk_samples(&sampler, parent, trace_id)
            );
        }
    }

    #[test]
    fn a_rate_counts_only_what_nobody_has_decided() {
        let one = |name| Sampler::of(name).unwrap().with_root(Root::Rate(Rate::of(1.0).into()));
        let decided = [Some(true), Some(false), Some(true), None, None];
        let based = one("parentbased_jaeger_remote");
        let decisions = decided.map(|decided| based.samples(decided, &[1; 16], || None));
        assert_eq!(decisions, [true, false, true, true, false]);
        let every = one("jaeger_remote");
        let decisions = decided.map(|decided| every.samples(decided, &[1; 16], || None));
        assert_eq!(decisions, [true, false, false, false, false]);

        let api = one("parentbased_jaeger_remote");
        let decisions = [Some(SAMPLED), Some(UNSAMPLED), None, None]
            .map(|parent| sdk_samples(&api, parent, [1; 16]));
        assert_eq!(decisions, [true, false, true, false]);
    }
}
