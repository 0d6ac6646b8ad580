//! The time of spans: wall-clock times that run evenly, so that a child never outlasts its parent.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

/// How long the wall clock is not looked at. A clock that is set, or a machine that slept, shows in
/// the times of spans after this long at the latest.
const MOST_AGE: Duration = Duration::from_secs(10);

/// A monotonic clock that was told the time.
#[derive(Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Wall-clock nanoseconds since the Unix epoch when `start` was.
    wall: AtomicU64,
    /// Nanoseconds from `start` until the wall clock was looked at.
    looked: AtomicU64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        let clock = Self { start: Instant::now(), wall: 0.into(), looked: 0.into() };
        clock.look(nanos(clock.start.elapsed()));
        clock
    }

    /// Nanoseconds since the Unix epoch.
    pub(crate) fn now(&self) -> u64 {
        let since = nanos(self.start.elapsed());
        if since.saturating_sub(self.looked.load(Ordering::Relaxed)) > nanos(MOST_AGE) {
            self.look(since);
        }
        self.wall.load(Ordering::Relaxed).saturating_add(since)
    }

    /// Several threads may look at once; they see the same time.
    fn look(&self, since: u64) {
        let epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.wall.store(nanos(epoch).saturating_sub(since), Ordering::Relaxed);
        self.looked.store(since, Ordering::Relaxed);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_the_time_and_never_runs_back() {
        let clock = Clock::new();
        let wall = nanos(SystemTime::UNIX_EPOCH.elapsed().unwrap());
        let mut last = clock.now();
        assert!(last.abs_diff(wall) < nanos(Duration::from_secs(1)));
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}
