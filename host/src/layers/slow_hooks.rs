//! How often a hook of the plugin took long: a histogram for `GET /plugins`.
//!
//! Every hook is timed, so the clock is the kernel's coarse one: it moves every few milliseconds
//! and costs a fifth of the exact one. A hook that takes less than that is none to worry about.

use std::sync::atomic::{AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value as Json, json};

const BOUNDS: [(i64, &str); 3] = [(10, "10ms"), (100, "100ms"), (1000, "1s")];

/// Counts hooks by how long they took, over all threads.
#[derive(Debug, Default)]
pub(crate) struct SlowHooks([AtomicU64; BOUNDS.len()]);

impl SlowHooks {
    /// Runs a hook and counts it where it was slow.
    pub(crate) fn time<R>(&self, hook: impl FnOnce() -> R) -> R {
        let start = coarse_millis();
        let answer = hook();
        let took = coarse_millis() - start;
        if took >= BOUNDS[0].0 {
            self.count(took);
        }
        answer
    }

    #[cold]
    fn count(&self, took: i64) {
        for ((bound, _), count) in BOUNDS.iter().zip(&self.0) {
            if took >= *bound {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// For each bound, how many hooks took at least that long.
    pub(crate) fn report(&self) -> Json {
        let counts = BOUNDS.iter().zip(&self.0);
        counts.map(|((_, name), count)| ((*name).to_owned(), json!(count))).collect()
    }
}

fn coarse_millis() -> i64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_is_counted_below_every_bound_that_it_reached() {
        let hooks = SlowHooks::default();
        for took in [9, 10, 99, 100, 2000] {
            hooks.count(took);
        }
        assert_eq!(hooks.report(), json!({"10ms": 4, "100ms": 2, "1s": 1}));
    }

    #[test]
    fn a_quick_hook_is_not_counted() {
        let hooks = SlowHooks::default();
        assert_eq!(hooks.time(|| 7), 7);
        assert_eq!(hooks.report(), SlowHooks::default().report());
    }
}
