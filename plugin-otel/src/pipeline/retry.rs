//! Tries an export again as OTLP demands: after failures that may pass, less and less often, and
//! when the collector says so.

use std::{
    future::poll_fn,
    hash::{BuildHasher, Hasher, RandomState},
    pin::pin,
    task::Poll,
    time::{Duration, Instant},
};

use plugin_api::guard;
use tokio::{
    select,
    sync::watch,
    time::{self, timeout_at},
};

use super::{
    batch::Batch,
    export::{Accepted, Export, Failure},
};

/// The deadline of the stop, once there is one.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Exports a batch within this time, its retries included; `failed` is told why an attempt failed that is
/// followed by another one.
///
/// Once the pipeline stops there is one more attempt at most: a collector that is away then would
/// only hold up the stop.
pub(super) async fn export(
    exporter: &impl Export,
    batch: &Batch,
    timeout: Duration,
    mut stop: Stop,
    failed: impl Fn(&str),
) -> Result<Accepted, String> {
    let deadline = super::deadline_after(timeout).into();
    let mut pause = FIRST_PAUSE;
    loop {
        let is_last = stop.borrow().is_some();
        let Ok(answer) = timeout_at(deadline, attempt(exporter, batch)).await else {
            return Err(format!("no answer within {}", humantime::format_duration(timeout)));
        };
        let failure = match answer {
            Ok(accepted) => return Ok(accepted),
            Err(failure) if is_last || !failure.may_pass => return Err(failure.reason),
            Err(failure) => failure,
        };
        let again = super::deadline_after(jittered(pause).max(failure.wait)).into();
        if again >= deadline {
            return Err(failure.reason);
        }
        failed(&failure.reason);
        select! {
            () = time::sleep_until(again) => {}
            () = stopping(&mut stop) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Returns when the pipeline stops.
pub(super) async fn stopping(stop: &mut Stop) {
    // The sender lives as long as the pipeline.
    _ = stop.wait_for(Option::is_some).await;
}

/// Between half of the pause and all of it: exporters that failed together should not come back
/// together.
fn jittered(pause: Duration) -> Duration {
    // Its keys are random.
    let random = RandomState::new().build_hasher().finish();
    #[expect(clippy::cast_precision_loss, reason = "any fraction will do")]
    let share = random as f64 / u64::MAX as f64;
    pause.mul_f64(0.5 + share / 2.0)
}

/// One attempt; a panic in it is a failure, too.
pub(super) async fn attempt(exporter: &impl Export, batch: &Batch) -> Result<Accepted, Failure> {
    let mut export = pin!(exporter.export(batch));
    // A future that has panicked is not polled again, whatever it left half-done.
    let panicked = || Poll::Ready(Err(Failure::lasting("the exporter panicked")));
    poll_fn(|context| guard::call(panicked, || export.as_mut().poll(context))).await
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Wants to be left alone for so long, once.
    struct Busy {
        wait: Duration,
        calls: Mutex<Vec<time::Instant>>,
    }

    impl Export for Busy {
        async fn export(&self, _: &Batch) -> Result<Accepted, Failure> {
            let mut calls = self.calls.lock().unwrap();
            calls.push(time::Instant::now());
            if calls.len() > 1 {
                return Ok(Accepted::default());
            }
            Err(Failure { wait: self.wait, ..Failure::passing("busy") })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_is_left_alone_for_as_long_as_it_wants() {
        let wait = LONGEST_PAUSE * 2;
        let busy = Busy { wait, calls: Mutex::default() };
        let (_stop, stop) = watch::channel(None);
        let done = export(&busy, &Batch::default(), wait * 2, stop, |_| {}).await;
        assert_eq!(done, Ok(Accepted::default()));
        let calls = busy.calls.lock().unwrap();
        assert!(calls[1] - calls[0] >= wait, "{calls:?}");
    }

    #[test]
    fn a_pause_is_shortened_by_half_at_most_and_not_always_by_the_same() {
        let pauses: Vec<Duration> = (0..20).map(|_| jittered(FIRST_PAUSE)).collect();
        assert!(pauses.iter().all(|pause| (FIRST_PAUSE / 2..=FIRST_PAUSE).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]), "{pauses:?}");
    }
}
