//! The bounded queue of finished spans, and the count of what has become of them.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use opentelemetry_sdk::trace::SpanData;

use crate::record::Record;

/// A finished span, from an exchange or from the OpenTelemetry API.
#[derive(Debug)]
pub(crate) enum Finished {
    /// From an exchange.
    Record(Box<Record>),
    /// From a tracer of the registered provider.
    Span(Box<SpanData>),
}

/// What became of a span that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// It waits.
    Waiting,
    /// It waits, and with it there is a whole batch.
    BatchIsFull,
    /// There was no room; the span is gone.
    NoRoom,
    /// The pipeline has stopped; the span is gone.
    Closed,
}

/// Takes spans from any thread, gives them to one.
#[derive(Debug)]
pub(crate) struct Queue {
    capacity: usize,
    batch_size: usize,
    inner: Mutex<Inner>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    // Grows with use: reserving all of it would touch many megabytes that nobody may ever need.
    waiting: VecDeque<Finished>,
    accepted: u64,
    settled: u64,
    closed: bool,
}

impl Queue {
    /// An empty queue for `capacity` spans that are taken `batch_size` at a time.
    pub(crate) fn new(capacity: usize, batch_size: usize) -> Self {
        Self { capacity, batch_size, inner: Mutex::default(), settled: Condvar::new() }
    }

    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a span. Never blocks for longer than another thread's push or take.
    pub(crate) fn push(&self, span: Finished) -> Pushed {
        let mut inner = self.lock();
        if inner.closed {
            return Pushed::Closed;
        }
        if inner.waiting.len() >= self.capacity {
            return Pushed::NoRoom;
        }
        inner.waiting.push_back(span);
        inner.accepted += 1;
        let full = inner.waiting.len() == self.batch_size;
        if full { Pushed::BatchIsFull } else { Pushed::Waiting }
    }

    /// Takes the oldest spans, one batch at most.
    pub(crate) fn take(&self) -> Vec<Finished> {
        let mut inner = self.lock();
        let count = inner.waiting.len().min(self.batch_size);
        inner.waiting.drain(..count).collect()
    }

    /// How many spans wait to be taken.
    pub(crate) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Whether a whole batch waits.
    pub(crate) fn has_full_batch(&self) -> bool {
        self.waiting() >= self.batch_size
    }

    /// Says that this many of the spans taken are done with, one way or the other.
    pub(crate) fn settle(&self, count: usize) {
        self.lock().settled += count as u64;
        self.settled.notify_all();
    }

    /// Refuses all spans from now on and takes what is left.
    pub(crate) fn close(&self) -> Vec<Finished> {
        let mut inner = self.lock();
        inner.closed = true;
        std::mem::take(&mut inner.waiting).into()
    }

    /// How many spans are neither exported nor given up yet, those being exported included.
    pub(crate) fn unsettled(&self) -> u64 {
        let inner = self.lock();
        inner.accepted.saturating_sub(inner.settled)
    }

    /// How many spans were accepted so far: the mark that [`Queue::wait_for`] takes.
    pub(crate) fn accepted(&self) -> u64 {
        self.lock().accepted
    }

    /// Blocks until `accepted` spans are done with, or until the deadline; answers how many of
    /// them are not.
    pub(crate) fn wait_for(&self, accepted: u64, deadline: Instant) -> u64 {
        let mut inner = self.lock();
        loop {
            let missing = accepted.saturating_sub(inner.settled);
            let now = Instant::now();
            if missing == 0 || now >= deadline {
                return missing;
            }
            inner = match self.settled.wait_timeout(inner, deadline - now) {
                Ok((inner, _)) => inner,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}
