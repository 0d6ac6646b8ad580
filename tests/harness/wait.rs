//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before its test fails.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The pause between two looks at a condition that nobody announces.
const POLL: Duration = Duration::from_millis(5);

/// Looks until `condition` gives a value.
///
/// # Panics
/// Past [`DEADLINE`], with `what` was waited for.
pub async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain for {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Awaits `future`, but not longer than [`DEADLINE`].
///
/// # Panics
/// Past the deadline, with `what` was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {DEADLINE:?} in vain for {what}"),
    }
}
