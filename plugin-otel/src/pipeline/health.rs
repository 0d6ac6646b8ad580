//! How export is doing: counters, and a state whose changes are told once each.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use plugin_api::{Host, Level};

use super::{Units, export::Accepted};
use crate::signal::Signal;

const TARGET: &str = "plugin_otel::export";

/// How often a full queue is worth a line.
const DROPS_ARE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Counts what has become of the items in the queue and watches exports.
#[derive(Debug)]
pub(super) struct Health {
    signal: Signal,
    host: Host,
    exported: AtomicU64,
    dropped: AtomicU64,
    taken: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    export: Mutex<Export>,
    drops_told: Mutex<Option<Instant>>,
}

/// The state of export.
#[derive(Clone, Debug)]
pub(crate) struct Export {
    /// Whether the last export failed.
    pub(crate) is_failing: bool,
    /// Since when that is so.
    pub(crate) since: SystemTime,
    /// Why the last attempt that failed did so; kept when export works again.
    pub(crate) last_error: Option<String>,
    /// Whether the collector has taken nothing without a word since.
    pub(crate) is_last_error_new: bool,
    /// Items lost since export began to fail.
    pub(crate) lost: u64,
}

impl Export {
    fn failed_for(&mut self, reason: &str) {
        self.last_error = Some(reason.to_owned());
        self.is_last_error_new = true;
    }
}

impl Default for Export {
    /// Healthy, as of now.
    fn default() -> Self {
        Self {
            is_failing: false,
            since: SystemTime::now(),
            last_error: None,
            is_last_error_new: false,
            lost: 0,
        }
    }
}

impl Health {
    /// A healthy beginning; changes are told to the host's log.
    pub(super) fn new(signal: Signal, host: Host) -> Self {
        Self {
            signal,
            host,
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            export: Mutex::default(),
            drops_told: Mutex::new(None),
        }
    }

    /// This many items are gone for a reason that needs no telling.
    pub(super) fn dropped(&self, count: usize) {
        self.dropped.fetch_add(count as u64, Ordering::Release);
    }

    /// An item found no room within these bounds: items and bytes.
    pub(super) fn queue_full(&self, (items, bytes): (usize, usize), dropped: impl Fn() -> u64) {
        self.tell_drops(|| {
            let (noun, dropped) = (self.signal.noun(), dropped());
            format!(
                "the queue is full (at most {items} {noun} and {bytes} bytes): new {noun} are \
                 dropped, {dropped} so far"
            )
        });
    }

    /// Says that items are dropped, once a minute at most.
    fn tell_drops(&self, message: impl FnOnce() -> String) {
        // Whoever holds the lock tells, or knows that it was told: nobody waits for a log line.
        let Ok(mut told) = self.drops_told.try_lock() else { return };
        if told.is_none_or(|at| at.elapsed() >= DROPS_ARE_TOLD_EVERY) {
            *told = Some(Instant::now());
            drop(told);
            self.host.log(Level::WARN, TARGET, &message());
        }
    }

    /// An export of this many items and units was answered well; the collector may have refused
    /// some.
    pub(super) fn export_done(&self, items: usize, units: usize, accepted: &Accepted) {
        let noun = self.signal.noun();
        let refused = accepted.refused.min(units);
        // Of an item with many units that is taken in part something has arrived.
        let dropped = (refused * items).checked_div(units).unwrap_or_default();
        self.dropped(dropped);
        self.exported.fetch_add((items - dropped) as u64, Ordering::Release);
        self.rejected.fetch_add(refused as u64, Ordering::Relaxed);
        self.taken.fetch_add((units - refused) as u64, Ordering::Relaxed);
        let mut export = self.lock();
        export.is_last_error_new = false;
        if !accepted.message.is_empty() {
            export.failed_for(&accepted.message);
        }
        let has_failed = mem::take(&mut export.is_failing);
        let lost = mem::take(&mut export.lost);
        let seconds = export.since.elapsed().unwrap_or_default().as_secs();
        if has_failed {
            export.since = SystemTime::now();
        }
        drop(export);
        if has_failed {
            let message = format!("export works again after {seconds} s, {noun} lost: {lost}");
            self.host.log(Level::INFO, TARGET, &message);
        }
        if refused > 0 {
            self.tell_drops(|| {
                let reason = &accepted.message;
                format!(
                    "the collector refuses {noun}, {refused} of {units} in one export: {reason}"
                )
            });
        }
    }

    /// An attempt failed, and another one follows. Nothing is lost so far, so it is no change of state.
    pub(super) fn attempt_failed(&self, reason: &str) {
        self.lock().failed_for(reason);
    }

    /// An export of this many items and units failed, and they are gone.
    pub(super) fn export_failed(&self, count: usize, units: usize, reason: &str) {
        self.dropped(count);
        self.failed.fetch_add(units as u64, Ordering::Relaxed);
        let mut export = self.lock();
        export.lost += count as u64;
        export.failed_for(reason);
        if export.is_failing {
            return;
        }
        export.is_failing = true;
        export.since = SystemTime::now();
        drop(export);
        let noun = self.signal.noun();
        let message = format!("export fails, {noun} are lost until it works again: {reason}");
        self.host.log(Level::WARN, TARGET, &message);
    }

    /// How many of the items that were accepted are exported, and how many dropped.
    pub(super) fn settled(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Acquire), self.dropped.load(Ordering::Acquire))
    }

    /// What has become of the units of exports that are over.
    pub(super) fn units(&self) -> Units {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (taken, rejected) = (read(&self.taken), read(&self.rejected));
        Units { taken, rejected, failed: read(&self.failed), inflight: 0 }
    }

    /// The state of export now.
    pub(super) fn export(&self) -> Export {
        self.lock().clone()
    }

    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn lock(&self) -> MutexGuard<'_, Export> {
        self.export.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
