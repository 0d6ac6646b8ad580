//! A share of all traces, decided by the trace id alone: whoever sees the same trace decides alike.

/// Whether a trace is within this share (0 to 1) of all traces.
pub(crate) fn takes(ratio: f64, trace_id: &[u8; 16]) -> bool {
    ratio >= 1.0 || low_bits(trace_id) < bound(ratio)
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
