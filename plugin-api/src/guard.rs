//! Keeps a panic on its own side of the boundary.
//!
//! Every entry point and every drop runs inside [`call`]. The panic hook counts a panic and sends
//! its message to the host's log, and the neutral value is returned. After
//! [`MOST_PER_MINUTE`] panics within a minute the plugin is off for good: its layers answer every
//! request with the neutral value and are not entered again.
//!
//! The counters are statics: each library has its own copy of this crate, so they count for one
//! plugin.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, set_hook},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::host::{Host, Level};

/// How many panics within a minute switch a plugin off.
pub const MOST_PER_MINUTE: u32 = 10;

static PANICS: AtomicU64 = AtomicU64::new(0);
static OFF: AtomicBool = AtomicBool::new(false);
static MINUTE: Mutex<Minute> = Mutex::new(Minute { start: None, panics: 0 });

/// The panics since the first one of the running minute.
#[derive(Debug)]
struct Minute {
    start: Option<Instant>,
    panics: u32,
}

impl Minute {
    /// Counts a panic at `now`; true when it is one too many.
    fn count(&mut self, now: Instant) -> bool {
        let fresh = self.start.is_none_or(|start| now - start > Duration::from_secs(60));
        if fresh {
            *self = Self { start: Some(now), panics: 0 };
        }
        self.panics += 1;
        self.panics >= MOST_PER_MINUTE
    }
}

/// How many panics there were in this library since `create`, those of a thread of its own that
/// nobody caught included.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Whether the plugin has panicked too often and is off.
pub fn is_off() -> bool {
    OFF.load(Ordering::Relaxed)
}

/// Runs `body`; answers `neutral()` when it panics, which the panic hook has counted by then. Around every entry point already; a
/// plugin puts it around what its own threads do.
///
/// `AssertUnwindSafe` holds because a value seen half-changed by a later call belongs to the plugin
/// itself, and what may be wrong with it then is at worst another panic, which is caught as well.
pub fn call<T>(neutral: impl FnOnce() -> T, body: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        // A payload may panic when it is dropped; a few leaked bytes cannot.
        std::mem::forget(payload);
        neutral()
    })
}

/// Like [`call`], but does not enter `body` at all once the plugin is off.
pub(crate) fn hook<T>(neutral: impl FnOnce() -> T, body: impl FnOnce() -> T) -> T {
    if is_off() { neutral() } else { call(neutral, body) }
}

/// Sends the message and the place of every panic of this library to the host's log.
pub(crate) fn report_to(host: &Host) {
    let host = host.clone();
    set_hook(Box::new(move |info| {
        let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let message = info.payload_as_str().unwrap_or("no message");
        host.log(Level::ERROR, "panic", &format!("panicked at {place}: {message}"));
        count(&host);
    }));
}

/// Counts a panic, wherever in the library it was, and switches the plugin off after too many.
fn count(host: &Host) {
    PANICS.fetch_add(1, Ordering::Relaxed);
    let mut minute = MINUTE.lock().unwrap_or_else(PoisonError::into_inner);
    let one_too_many = minute.count(Instant::now());
    drop(minute);
    if one_too_many && !OFF.swap(true, Ordering::Relaxed) {
        let message =
            format!("switched off: {MOST_PER_MINUTE} panics within a minute; requests go on");
        host.log(Level::WARN, "plugin_api::guard", &message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_that_are_far_apart_do_not_add_up() {
        let start = Instant::now();
        let mut minute = Minute { start: None, panics: 0 };
        for nth in 0..MOST_PER_MINUTE * 3 {
            assert!(!minute.count(start + Duration::from_secs(7) * nth));
        }
    }

    #[test]
    fn too_many_panics_within_a_minute_are_too_many() {
        let start = Instant::now();
        let mut minute = Minute { start: None, panics: 0 };
        let verdicts: Vec<bool> = (0..MOST_PER_MINUTE)
            .map(|nth| minute.count(start + Duration::from_secs(5) * nth))
            .collect();
        assert_eq!(verdicts.iter().position(|&verdict| verdict), Some(9));
    }
}
