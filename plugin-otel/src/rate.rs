//! A limit of so many a second.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Lets so many pass in a second, evenly, and after a pause at most a second's worth at once (one,
/// where that is more). Takes no lock.
#[derive(Debug)]
pub(crate) struct Rate {
    /// What each one costs, in nanoseconds.
    cost: u64,
    /// The most that is saved up.
    most: u64,
    since: Instant,
    /// The nanoseconds that are spent, of those that have passed; unused ones are lost past `most`.
    spent: AtomicU64,
}

const SECOND: f64 = 1e9;

impl Rate {
    /// A limit; `per_second` is above 0.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "as many nanoseconds as there may be"
    )]
    pub(crate) fn of(per_second: f64) -> Self {
        let cost = (SECOND / per_second) as u64;
        let most = cost.max(SECOND as u64);
        Self { cost, most, since: Instant::now(), spent: AtomicU64::new(0) }
    }

    /// Whether one more may pass now.
    pub(crate) fn takes(&self) -> bool {
        self.takes_at(Instant::now())
    }

    /// The same at this time.
    pub(crate) fn takes_at(&self, now: Instant) -> bool {
        self.takes_after(now.saturating_duration_since(self.since))
    }

    fn takes_after(&self, elapsed: Duration) -> bool {
        let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        // It begins with all that it may save.
        let have = elapsed.saturating_add(self.most);
        let take = |spent: u64| {
            let spent = spent.max(elapsed).saturating_add(self.cost);
            (spent <= have).then_some(spent)
        };
        self.spent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Limits are equal where they let as many pass.
impl PartialEq for Rate {
    fn eq(&self, other: &Self) -> bool {
        self.cost == other.cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_in_a_second_and_no_more_are_saved_up() {
        let rate = Rate::of(4.0);
        let passed = |at: u64| {
            let at = Duration::from_millis(at);
            (0..100).filter(|_| rate.takes_after(at)).count()
        };
        for (at, wanted) in
            [(0, 4), (100, 0), (249, 0), (250, 1), (1000, 3), (60_000, 4), (60_250, 1)]
        {
            assert_eq!(passed(at), wanted, "{at} ms");
        }
    }

    #[test]
    fn a_rate_below_one_a_second_lets_one_pass_at_once() {
        let rate = Rate::of(0.1);
        for (at, wanted) in [(0, true), (1, false), (9, false), (10, true), (11, false)] {
            assert_eq!(rate.takes_after(Duration::from_secs(at)), wanted, "{at} s");
        }
        assert!(Rate::of(1.0).takes());
    }
}
