//! How export is doing: counters, and a state whose changes are told once each.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use plugin_api::{Host, Level};

const TARGET: &str = "plugin_otel::export";

/// How often a full queue is worth a line.
const DROPS_ARE_TOLD_EVERY: Duration = Duration::from_secs(60);

/// Counts spans and watches exports. Written by any thread.
#[derive(Debug)]
pub(crate) struct Health {
    host: Host,
    started: AtomicU64,
    sampled: AtomicU64,
    exported: AtomicU64,
    dropped: AtomicU64,
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
    /// Why the last failed export failed; kept when export works again.
    pub(crate) last_error: Option<String>,
    /// Spans lost since export began to fail.
    pub(crate) lost: u64,
}

impl Default for Export {
    /// Healthy, as of now.
    fn default() -> Self {
        Self { is_failing: false, since: SystemTime::now(), last_error: None, lost: 0 }
    }
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Spans begun, recorded or not.
    pub(crate) started: u64,
    /// Spans begun and recorded.
    pub(crate) sampled: u64,
    /// Spans that the exporter took.
    pub(crate) exported: u64,
    /// Spans that were recorded and lost.
    pub(crate) dropped: u64,
}

impl Health {
    /// A healthy beginning; changes are told to the host's log.
    pub(crate) fn new(host: Host) -> Self {
        Self {
            host,
            started: AtomicU64::new(0),
            sampled: AtomicU64::new(0),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            export: Mutex::default(),
            drops_told: Mutex::new(None),
        }
    }

    /// A span has begun.
    pub(crate) fn started(&self, is_sampled: bool) {
        self.started.fetch_add(1, Ordering::Relaxed);
        if is_sampled {
            self.sampled.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A span that was not sampled is exported all the same.
    pub(crate) fn kept(&self) {
        self.sampled.fetch_add(1, Ordering::Relaxed);
    }

    /// This many spans are gone for a reason that needs no telling.
    pub(crate) fn dropped(&self, count: u64) {
        self.dropped.fetch_add(count, Ordering::Relaxed);
    }

    /// A span found no room in a queue of this capacity. Told once a minute at most.
    pub(crate) fn queue_full(&self, capacity: usize) {
        self.dropped(1);
        let mut told = self.drops_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= DROPS_ARE_TOLD_EVERY) {
            *told = Some(Instant::now());
            drop(told);
            let dropped = self.counts().dropped;
            let message = format!(
                "the queue of {capacity} spans is full: new spans are dropped, {dropped} so far"
            );
            self.host.log(Level::WARN, TARGET, &message);
        }
    }

    /// An export of this many spans went well.
    pub(crate) fn export_done(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
        let mut export = self.lock();
        if !export.is_failing {
            return;
        }
        let lost = std::mem::take(&mut export.lost);
        let seconds = export.since.elapsed().unwrap_or_default().as_secs();
        export.is_failing = false;
        export.since = SystemTime::now();
        drop(export);
        let message = format!("export works again after {seconds} s, spans lost: {lost}");
        self.host.log(Level::INFO, TARGET, &message);
    }

    /// An export of this many spans failed, and they are gone.
    pub(crate) fn export_failed(&self, count: u64, reason: &str) {
        self.dropped(count);
        let mut export = self.lock();
        export.lost += count;
        export.last_error = Some(reason.to_owned());
        if export.is_failing {
            return;
        }
        export.is_failing = true;
        export.since = SystemTime::now();
        drop(export);
        let message = format!("export fails, spans are lost until it works again: {reason}");
        self.host.log(Level::WARN, TARGET, &message);
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> Counts {
        Counts {
            started: self.started.load(Ordering::Relaxed),
            sampled: self.sampled.load(Ordering::Relaxed),
            exported: self.exported.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// The state of export now.
    pub(crate) fn export(&self) -> Export {
        self.lock().clone()
    }

    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn lock(&self) -> MutexGuard<'_, Export> {
        self.export.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
