//! The time of spans: wall-clock times that run evenly, so that a child never outlasts its parent.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// How many nanoseconds the wall clock is not looked at. A clock that is set, or a machine that slept,
/// shows in the times of spans after this long at the latest.
const MOST_AGE: u64 = 10_000_000_000;

/// A monotonic clock that was told the time.
#[derive(Debug)]
pub(crate) struct Clock {
    /// Wall-clock nanoseconds since the Unix epoch when the monotonic clock began.
    wall: AtomicU64,
    /// When the wall clock was looked at, by the monotonic one.
    looked: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self { wall: 0.into(), looked: 0.into() };
        clock.look();
        clock
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        self.at(nanos(ClockId::Monotonic))
    }

    /// As [`Clock::now`], of the moment that the host has told, where it has.
    pub(crate) fn told(&self, monotonic: Option<u64>) -> u64 {
        monotonic.map_or_else(|| self.now(), |monotonic| self.at(monotonic))
    }

    fn at(&self, monotonic: u64) -> u64 {
        if monotonic.saturating_sub(self.looked.load(Ordering::Relaxed)) > MOST_AGE {
            self.look();
        }
        self.wall.load(Ordering::Relaxed).saturating_add(monotonic)
    }

    /// Several threads may look at once; they see the same time.
    fn look(&self) {
        let now = nanos(ClockId::Monotonic);
        self.wall.store(nanos(ClockId::Realtime).saturating_sub(now), Ordering::Relaxed);
        self.looked.store(now, Ordering::Relaxed);
    }
}

/// What a clock shows: the same as the standard library's, which counts in two numbers and compares
/// both.
fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, nanos) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    seconds.wrapping_mul(1_000_000_000).wrapping_add(nanos)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn it_shows_the_time_and_never_runs_back() {
        let clock = Clock::new();
        let wall = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let mut last = clock.now();
        assert!(last.abs_diff(wall) < 1_000_000_000);
        let told = clock.told(Some(nanos(ClockId::Monotonic) - 5));
        assert!(told.abs_diff(clock.told(None)) < 1_000_000_000);
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
