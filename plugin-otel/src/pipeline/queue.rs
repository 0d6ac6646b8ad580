//! The chunks that wait for their export, and those that are on their way.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{batch::Batch, buffers::Chunk};

/// So many bytes are worth an export of their own: small exports one after the other cost more.
const WORTH_AN_EXPORT: usize = 256 * 1024;
/// An export has no more bytes than that: receivers have limits (gRPC's usual one is 4 MiB), and the
/// bursts of the export thread should be short.
const MOST_BYTES: usize = 1024 * 1024;

/// Takes chunks from any thread, gives batches of them to one.
#[derive(Debug)]
pub(super) struct Queue {
    batch: usize,
    inner: Mutex<Inner>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Chunk>,
    items: usize,
    bytes: usize,
    /// The number of the chunk at the front.
    front: u64,
    /// Chunks below this number do not wait for others.
    urgent: u64,
    flights: Vec<Flight>,
}

/// A batch on its way, by the number of its first chunk.
#[derive(Clone, Copy, Debug)]
struct Flight {
    first: u64,
    items: usize,
    units: usize,
    is_claimed: bool,
}

impl Inner {
    fn is_due(&self, batch: usize) -> bool {
        let is_urgent = self.front < self.urgent && !self.waiting.is_empty();
        is_urgent || self.items >= batch || self.bytes >= WORTH_AN_EXPORT
    }

    /// How many items below this number wait or are on their way.
    fn missing(&self, mark: u64) -> usize {
        let flying = self.flights.iter().filter(|flight| flight.first < mark);
        let flying: usize = flying.map(|flight| flight.items).sum();
        let waiting = self.waiting.iter().zip(self.front..mark);
        flying + waiting.map(|(chunk, _)| chunk.items).sum::<usize>()
    }
}

impl Queue {
    /// An empty queue whose batches have no more items than that.
    pub(super) fn new(batch: usize) -> Self {
        Self { batch, inner: Mutex::default(), settled: Condvar::new() }
    }

    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a chunk; answers whether an export is due.
    pub(super) fn add(&self, chunk: Chunk) -> bool {
        let mut inner = self.lock();
        inner.items += chunk.items;
        inner.bytes += chunk.bytes.len();
        inner.waiting.push_back(chunk);
        inner.is_due(self.batch)
    }

    /// Takes the oldest chunks, one batch at most, if an export is due.
    pub(super) fn take(&self) -> Option<Batch> {
        let mut inner = self.lock();
        if !inner.is_due(self.batch) {
            return None;
        }
        let mut batch = Batch::new(inner.front);
        while let Some(chunk) = inner.waiting.front() {
            let items = batch.items + chunk.items;
            let bytes = batch.bytes + chunk.bytes.len();
            if batch.items > 0 && (items > self.batch || bytes > MOST_BYTES) {
                break;
            }
            let Some(chunk) = inner.waiting.pop_front() else { break };
            batch.add(chunk);
            inner.front += 1;
        }
        inner.items -= batch.items;
        inner.bytes -= batch.bytes;
        let Batch { first, items, units, .. } = batch;
        inner.flights.push(Flight { first, items, units, is_claimed: false });
        Some(batch)
    }

    /// How many items are on their way, and how many units those are.
    pub(super) fn flying(&self) -> (usize, usize) {
        let inner = self.lock();
        let flights = inner.flights.iter();
        flights.fold((0, 0), |(items, units), one| (items + one.items, units + one.units))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Makes an export of all that waits due; answers the mark that [`Queue::wait_for`] takes.
    pub(super) fn urge(&self) -> u64 {
        let mut inner = self.lock();
        inner.urgent = inner.front + inner.waiting.len() as u64;
        inner.urgent
    }

    /// Asks whether the batch of this number, which is over, is still to be counted; it is not when
    /// it was written off. Whoever may count it says [`Queue::settle`] afterwards.
    pub(super) fn claim(&self, first: u64) -> bool {
        let mut inner = self.lock();
        let flight = inner.flights.iter_mut().find(|flight| flight.first == first);
        flight.is_some_and(|flight| {
            flight.is_claimed = true;
            true
        })
    }

    /// Says that the batch of this number is counted.
    pub(super) fn settle(&self, first: u64) {
        self.lock().flights.retain(|flight| flight.first != first);
        self.settled.notify_all();
    }

    /// Gives up all that waits and all that is on its way; answers how many items that were.
    pub(super) fn write_off(&self) -> usize {
        let mut inner = self.lock();
        let (claimed, open) = inner.flights.iter().partition(|flight| flight.is_claimed);
        inner.flights = open;
        let missing = inner.missing(u64::MAX);
        inner.flights = claimed;
        inner.front += inner.waiting.len() as u64;
        inner.waiting.clear();
        (inner.items, inner.bytes) = (0, 0);
        drop(inner);
        self.settled.notify_all();
        missing
    }

    /// Blocks until all chunks below the mark are done with, or until the deadline; answers how
    /// many items are not.
    pub(super) fn wait_for(&self, mark: u64, deadline: Instant) -> usize {
        let mut inner = self.lock();
        loop {
            let missing = inner.missing(mark);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn add(queue: &Queue, items: usize, length: usize) -> bool {
        queue.add(Chunk {
            items,
            units: items,
            bytes: vec![0; length].into(),
            runs: Default::default(),
        })
    }

    #[test]
    fn an_export_is_due_when_there_is_a_batch_or_enough_bytes_or_haste() {
        let queue = Queue::new(10);
        assert!(!add(&queue, 9, 1) && queue.take().is_none());
        assert!(add(&queue, 1, 1));
        assert_eq!(queue.take().unwrap().items, 10);
        assert!(!add(&queue, 1, WORTH_AN_EXPORT - 1) && add(&queue, 1, 1));
        assert_eq!(queue.take().unwrap().items, 2);
        assert!(!add(&queue, 1, 1));
        queue.urge();
        assert_eq!(queue.take().unwrap().items, 1);
        assert!(!add(&queue, 1, 1) && queue.take().is_none(), "haste is over");
    }

    #[test]
    fn a_batch_is_no_larger_than_allowed_unless_one_chunk_is() {
        let queue = Queue::new(10);
        for (items, length) in [(4, 1), (4, 1), (4, 1), (1, MOST_BYTES), (1, MOST_BYTES + 1)] {
            add(&queue, items, length);
        }
        queue.urge();
        let sizes: Vec<usize> =
            std::iter::from_fn(|| queue.take()).map(|batch| batch.items).collect();
        assert_eq!(sizes, [8, 4, 1, 1]);
    }

    #[test]
    fn who_waits_waits_for_the_older_ones_even_if_newer_ones_overtake() {
        let queue = Queue::new(1);
        let now = Instant::now();
        add(&queue, 2, 1);
        let first = queue.take().unwrap();
        add(&queue, 3, 1);
        let mark = queue.urge();
        add(&queue, 4, 1);
        assert_eq!(queue.wait_for(mark, now), 5);
        let second = queue.take().unwrap();
        let third = queue.take().unwrap();
        queue.settle(third.first);
        queue.settle(second.first);
        assert_eq!(queue.wait_for(mark, now), 2);
        queue.settle(first.first);
        assert_eq!(queue.wait_for(mark, now), 0);
    }

    #[test]
    fn what_is_written_off_is_not_counted_again() {
        let queue = Queue::new(1);
        add(&queue, 2, 1);
        let batch = queue.take().unwrap();
        add(&queue, 3, 1);
        let claimed = queue.take().unwrap();
        assert!(queue.claim(claimed.first));
        add(&queue, 4, 1);
        assert_eq!((queue.write_off(), queue.write_off()), (6, 0));
        assert!(!queue.claim(batch.first) && queue.is_empty());
        assert_eq!(queue.wait_for(u64::MAX, Instant::now()), 3, "being counted");
        queue.settle(claimed.first);
        assert_eq!(queue.wait_for(u64::MAX, Instant::now()), 0);
    }
}
