//! Which spans are recorded: decided from the parent and the trace id, before anything is allocated.

use std::fmt;

use opentelemetry_sdk::trace::Sampler as SdkSampler;

/// One of the six samplers of `OTEL_TRACES_SAMPLER`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampler {
    parent_based: bool,
    root: Root,
}

/// The decision where no parent has made one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Root {
    On,
    Off,
    Ratio(f64),
}

impl Sampler {
    /// The names that [`Sampler::of`] knows.
    pub(crate) const NAMES: [&str; 6] = [
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ];

    /// The sampler of this name; `ratio` (0 to 1) is used by those that want one.
    pub(crate) fn of(name: &str, ratio: f64) -> Option<Self> {
        let (parent_based, root) = match name.strip_prefix("parentbased_") {
            Some(root) => (true, root),
            None => (false, name),
        };
        let root = match root {
            "always_on" => Root::On,
            "always_off" => Root::Off,
            "traceidratio" => Root::Ratio(ratio),
            _ => return None,
        };
        Some(Self { parent_based, root })
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
            _ => rule().map_or(self.root, Root::Ratio).samples(trace_id),
        }
    }

    /// The same sampler for spans that are made through the OpenTelemetry API.
    pub(crate) fn to_sdk(self) -> SdkSampler {
        let root = match self.root {
            Root::On => SdkSampler::AlwaysOn,
            Root::Off => SdkSampler::AlwaysOff,
            Root::Ratio(ratio) => SdkSampler::TraceIdRatioBased(ratio),
        };
        if self.parent_based { SdkSampler::ParentBased(Box::new(root)) } else { root }
    }
}

impl Root {
    fn samples(self, trace_id: &[u8; 16]) -> bool {
        match self {
            Self::On => true,
            Self::Off => false,
            Self::Ratio(ratio) => ratio >= 1.0 || low_bits(trace_id) < bound(ratio),
        }
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
        match self.root {
            Root::On => write!(f, "{prefix}always_on"),
            Root::Off => write!(f, "{prefix}always_off"),
            Root::Ratio(ratio) => write!(f, "{prefix}traceidratio {ratio}"),
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
            let sampler = Sampler::of(name, ratio).unwrap();
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
            let sampler = Sampler::of(name, 1.0).unwrap();
            let decisions = [None, Some(true), Some(false)]
                .map(|decided| sampler.samples(decided, &[1; 16], || Some(rule)));
            assert_eq!(decisions, [root, below_sampled, below_unsampled], "{name} {rule}");
        }
    }

    #[test]
    fn every_listed_name_is_known_and_no_other() {
        for name in Sampler::NAMES {
            assert!(Sampler::of(name, 0.5).unwrap().to_string().starts_with(name));
        }
        for name in ["", "alway_on", "parentbased_", "parentbased_parentbased_always_on"] {
            assert_eq!(Sampler::of(name, 0.5), None, "{name}");
        }
    }

    fn sdk_samples(sampler: Sampler, parent: Option<SpanContext>, trace_id: [u8; 16]) -> bool {
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
            let sampler = Sampler::of(name, ratio).unwrap();
            prop_assert_eq!(
                sampler.samples(parent.map(|parent| parent.is_sampled()), &trace_id, || None),
                sdk_samples(sampler, parent, trace_id)
            );
        }
    }
}
