//! The clock that exchanges are timed by. The plugin is told its time, so that both read it once.

use rustix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` now, in nanoseconds. It is a number, as it crosses; an `Instant` hides it.
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // It begins with the system, and is never negative.
    time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned()
}

/// Seconds between two times of it.
pub(crate) fn seconds(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / 1e9
}
