//! The trace context of one operation, as a value that the host carries from hook to hook.

use abi_stable::{
    StableAbi,
    std_types::{RArc, RNone, ROption, RSome, RString},
};

/// Identity of one span: W3C Trace Context level 2, section 3.2 (`traceparent`).
///
/// Plain data. The all-zero value means "no span".
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanContext {
    /// 16 bytes, big endian as on the wire; all zero when there is no trace.
    pub trace_id: [u8; 16],
    /// 8 bytes, big endian as on the wire; all zero when there is no span.
    pub span_id: [u8; 8],
    /// The trace flags: [`SpanContext::SAMPLED`] and [`SpanContext::RANDOM`]. Bits 2 to 7 are zero;
    /// those above belong to the plugin that made the context, and never leave the process.
    pub flags: u32,
    reserved: u32,
}

impl SpanContext {
    /// The caller may have recorded this trace.
    pub const SAMPLED: u32 = 0x01;
    /// At least the right-most seven bytes of the trace id are random.
    pub const RANDOM: u32 = 0x02;

    /// A context of these ids and flags.
    #[must_use]
    pub const fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u32) -> Self {
        Self { trace_id, span_id, flags, reserved: 0 }
    }

    /// Whether both ids are other than zero.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.trace_id != [0; 16] && self.span_id != [0; 8]
    }

    /// Whether the sampled flag is set.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

/// What travels beside the ids, already validated by the plugin that made it.
#[repr(C)]
#[derive(StableAbi, Debug)]
struct Carried {
    tracestate: RString,
    baggage: RString,
}

/// A span's identity with the trace state and the baggage that belong to it.
///
/// A plugin makes it in [`ServerLayer::on_request`](crate::ServerLayer::on_request); the host keeps
/// it for the life of the exchange and hands it to
/// [`ClientLayer::on_request`](crate::ClientLayer::on_request) as the parent of every call made
/// meanwhile. A clone copies 32 bytes and, where there is text, counts one reference.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default)]
pub struct Context {
    span: SpanContext,
    carried: ROption<RArc<Carried>>,
}

impl Context {
    /// A context without trace state and baggage.
    #[must_use]
    pub const fn new(span: SpanContext) -> Self {
        Self { span, carried: RNone }
    }

    /// The same context with the values of the `tracestate` and `baggage` headers to send on.
    ///
    /// Empty text means "none"; two empty texts cost nothing.
    #[must_use]
    pub fn with_state(self, tracestate: &str, baggage: &str) -> Self {
        if tracestate.is_empty() && baggage.is_empty() {
            return Self { carried: RNone, ..self };
        }
        let carried = Carried { tracestate: tracestate.into(), baggage: baggage.into() };
        Self { span: self.span, carried: RSome(RArc::new(carried)) }
    }

    /// The same trace state and baggage under another span.
    #[must_use]
    pub fn with_span(&self, span: SpanContext) -> Self {
        Self { span, carried: self.carried.clone() }
    }

    /// The span's identity; invalid when there is no span.
    #[must_use]
    pub const fn span(&self) -> &SpanContext {
        &self.span
    }

    /// The value of the `tracestate` header, empty when there is none.
    #[must_use]
    pub fn tracestate(&self) -> &str {
        self.carried.as_ref().map_or("", |carried| carried.tracestate.as_str())
    }

    /// The value of the `baggage` header, empty when there is none.
    #[must_use]
    pub fn baggage(&self) -> &str {
        self.carried.as_ref().map_or("", |carried| carried.baggage.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_without_text_holds_no_allocation() {
        let context = Context::new(SpanContext::new([1; 16], [2; 8], 3)).with_state("", "");
        assert!(context.carried.is_none());
        assert_eq!(context.tracestate(), "");
    }

    #[test]
    fn trace_state_and_baggage_move_to_a_child() {
        let parent = Context::default().with_state("a=1", "b=2");
        let child = parent.with_span(SpanContext::new([1; 16], [2; 8], SpanContext::SAMPLED));
        assert_eq!((child.tracestate(), child.baggage()), ("a=1", "b=2"));
        assert!(child.span().is_valid() && child.span().is_sampled());
        assert!(!parent.span().is_valid());
    }
}
