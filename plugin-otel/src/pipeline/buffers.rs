//! Where threads write finished spans and log records: each into a buffer that it shares with as few others as can
//! be. A full buffer goes to the queue.

use std::{
    cell::Cell,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use bytes::Bytes;
use smallvec::{SmallVec, smallvec};

use super::{
    batch::Scope,
    budget::{Budget, Limit},
    queue::Queue,
    spare::Spare,
};

/// What a buffer takes of the budget at once: so much fits in one frame of HTTP/2.
const MOST_BYTES: usize = 16 * 1024;
/// What a buffer takes of the budget at once.
const MOST_ITEMS: usize = 64;
/// This part of the most that may wait is kept for the next buffers where nothing waits.
const SPARE_SHARE: usize = 8;

/// Finished items, one after the other as they will be sent.
#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) items: usize,
    /// How many spans, log records or data points these are.
    pub(super) units: usize,
    pub(super) bytes: Bytes,
    /// Whose they are, in order.
    pub(super) runs: Runs,
}

/// Mostly all of a chunk are of one scope.
pub(super) type Runs = SmallVec<[Run; 1]>;

/// Items of one scope in a chunk.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) scope: Scope,
    /// Where they end.
    pub(super) end: usize,
}

/// What became of an item that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It waits.
    Waiting,
    /// It waits, and there is enough for an export.
    ExportIsDue,
    /// There was no room; it is gone.
    NoRoom,
    /// The pipeline has stopped; it is gone.
    Closed,
}

/// The counters of those who make spans.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Made {
    /// Spans under way that are recorded.
    pub(super) live: u64,
    /// Spans begun, recorded or not.
    pub(super) started: u64,
    /// Spans begun and recorded.
    pub(super) sampled: u64,
    /// Items that are finished and were taken.
    pub(super) accepted: u64,
    /// Items that are finished and were not.
    pub(super) dropped: u64,
}

/// The buffers of one pipeline.
#[derive(Debug)]
pub(super) struct Buffers {
    shards: Box<[Shard]>,
    budget: Budget,
    /// What a buffer takes of the budget at once: items and bytes.
    grant: (usize, usize),
    spare: Arc<Spare>,
}

/// A buffer, on cache lines of its own: threads on other shards do not slow this one down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard {
    /// Spans begun that are not sampled.
    unsampled: AtomicU64,
    /// Spans begun that are sampled: under way until they are pushed.
    sampled: AtomicU64,
    /// Of those that are not sampled, how many were pushed all the same.
    kept: AtomicU64,
    /// Of those that are not sampled, how many are recorded and under way. They may end on another
    /// thread than they began on, so one of these alone may be below zero.
    recorded: AtomicI64,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    accepted: u64,
    dropped: u64,
    items: usize,
    bytes: Vec<u8>,
    runs: Runs,
    /// What is left of the grant.
    room: (usize, usize),
    closed: bool,
}

/// The number of the next thread that makes a span.
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// This thread's number; without a destructor, so that it is there as long as the thread.
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

fn number() -> usize {
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

impl Buffers {
    /// Empty buffers for so many items and bytes in all, those in the queue and on their way
    /// included, whose chunks are no larger than a batch.
    pub(super) fn new(items: usize, bytes: usize, batch: usize) -> Self {
        // More than there are threads at a time: two threads on one shard wait for each other.
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let shards = (2 * threads).next_power_of_two().min(64);
        // Idle buffers hold grants, which must not add up to what busy ones need.
        let share = 8 * shards;
        let grant =
            ((items / share).clamp(1, MOST_ITEMS.min(batch)), (bytes / share).min(MOST_BYTES));
        Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            budget: Budget { items: Limit::new(items), bytes: Limit::new(bytes) },
            grant,
            spare: Arc::new(Spare::new(grant.1, bytes / SPARE_SHARE / grant.1.max(1))),
        }
    }

    fn mine(&self) -> &Shard {
        // There is a power of two of them.
        &self.shards[number() & (self.shards.len() - 1)]
    }

    /// The most that may wait, in items and bytes.
    pub(super) const fn bounds(&self) -> (usize, usize) {
        (self.budget.items.most(), self.budget.bytes.most())
    }

    /// Counts a span that begins. One that is sampled is under way until it is pushed.
    pub(super) fn started(&self, is_sampled: bool) {
        let shard = self.mine();
        let counter = if is_sampled { &shard.sampled } else { &shard.unsampled };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a span that was not sampled and is pushed all the same.
    pub(super) fn kept(&self) {
        self.mine().kept.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a span that is not sampled and recorded from now on.
    pub(super) fn began_unsampled(&self) {
        self.mine().recorded.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts such a span that is over, kept or not.
    pub(super) fn ended_unsampled(&self) {
        self.mine().recorded.fetch_sub(1, Ordering::Relaxed);
    }

    /// Adds an item of `most` bytes at most, which `write` appends. Never blocks for longer than it
    /// takes another thread to add its own.
    pub(super) fn push(
        &self,
        queue: &Queue,
        scope: Scope,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Pushed {
        let mut open = self.mine().lock();
        if open.closed {
            return open.refuse(Pushed::Closed);
        }
        let mut is_due = false;
        if open.room.0 == 0 || open.room.1 < most {
            is_due = self.seal(&mut open, queue);
            let Some(room) = self.budget.take(most, self.grant) else {
                return open.refuse(Pushed::NoRoom);
            };
            open.room = room;
            open.bytes = self.spare.take(room.1);
        }
        let start = open.bytes.len();
        write(&mut open.bytes);
        let end = open.bytes.len();
        match open.runs.last_mut() {
            Some(run) if run.scope.is(&scope) => run.end = end,
            _ => open.runs.push(Run { scope, end }),
        }
        open.accepted += 1;
        open.items += 1;
        open.room.0 -= 1;
        open.room.1 -= end - start;
        if open.room.0 == 0 {
            is_due |= self.seal(&mut open, queue);
        }
        if is_due { Pushed::ExportIsDue } else { Pushed::Waiting }
    }

    /// Adds an item of so many units as a chunk of its own.
    pub(super) fn push_alone(
        &self,
        queue: &Queue,
        scope: Scope,
        units: usize,
        bytes: Vec<u8>,
    ) -> Pushed {
        let mut open = self.mine().lock();
        if open.closed {
            return open.refuse(Pushed::Closed);
        }
        if self.budget.take(bytes.len(), (1, 0)).is_none() {
            return open.refuse(Pushed::NoRoom);
        }
        open.accepted += 1;
        let runs = smallvec![Run { scope, end: bytes.len() }];
        let is_due = queue.add(Chunk { items: 1, units, bytes: bytes.into(), runs });
        if is_due { Pushed::ExportIsDue } else { Pushed::Waiting }
    }

    /// Sends a buffer to the queue, and gives back what it has taken and not used. Answers whether
    /// an export is due.
    fn seal(&self, open: &mut Open, queue: &Queue) -> bool {
        let (items, bytes) = mem::take(&mut open.room);
        self.budget.give_back(items, bytes);
        let items = mem::take(&mut open.items);
        let (bytes, runs) = (mem::take(&mut open.bytes), mem::take(&mut open.runs));
        items > 0 && queue.add(Chunk { items, units: items, bytes: self.spare.lend(bytes), runs })
    }

    /// Sends all buffers to the queue.
    pub(super) fn seal_all(&self, queue: &Queue) {
        for shard in &self.shards {
            _ = self.seal(&mut shard.lock(), queue);
        }
    }

    /// Sends all buffers to the queue and refuses items from now on.
    pub(super) fn close(&self, queue: &Queue) {
        for shard in &self.shards {
            let mut open = shard.lock();
            open.closed = true;
            _ = self.seal(&mut open, queue);
        }
    }

    /// Makes room for new items: these are exported or given up.
    pub(super) fn settled(&self, items: usize, bytes: usize) {
        self.budget.give_back(items, bytes);
    }

    /// The counters now.
    pub(super) fn made(&self) -> Made {
        let mut made = Made::default();
        // What has ended is read first: what ends meanwhile counts as under way.
        for shard in &self.shards {
            let open = shard.lock();
            made.accepted += open.accepted;
            made.dropped += open.dropped;
        }
        let mut recorded = 0;
        for shard in &self.shards {
            let sampled = shard.sampled.load(Ordering::Relaxed);
            made.sampled += sampled + shard.kept.load(Ordering::Relaxed);
            made.started += sampled + shard.unsampled.load(Ordering::Relaxed);
            recorded += shard.recorded.load(Ordering::Relaxed);
        }
        // Log records and metrics end and are never begun.
        let open = made.sampled.saturating_sub(made.accepted + made.dropped);
        made.live = open.saturating_add_signed(recorded);
        made
    }
}

impl Open {
    const fn refuse(&mut self, why: Pushed) -> Pushed {
        self.dropped += 1;
        why
    }
}

impl Shard {
    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
