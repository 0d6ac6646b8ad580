//! Keeps what matters of what is not sampled: the spans of a request that nobody samples are held
//! until it ends, and exported only if it failed or was slow.
//!
//! A span that ends after its request follows what was decided on that: it is exported at once, or
//! gone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    config::Keep,
    record::{Record, Records},
};

/// How many locks the open requests are spread over, so that threads hardly ever meet at one.
const SHARDS: usize = 16;

/// All requests that are held.
#[derive(Debug)]
pub(crate) struct Tail {
    keep: Keep,
    /// By the id of every span that may become a parent.
    open: [Mutex<HashMap<[u8; 8], Arc<Held>>>; SHARDS],
    /// How many spans wait for a decision; the root counts from its beginning.
    held: AtomicUsize,
    /// What those take that are over.
    bytes: AtomicUsize,
    dropped: AtomicU64,
}

/// The spans of one request that wait for its end.
#[derive(Debug)]
struct Held(Mutex<State>);

#[derive(Debug)]
enum State {
    Open(Records),
    Kept,
    Discarded,
}

/// The counters of `GET /plugins`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Spans that wait for the end of their request.
    pub(crate) held: usize,
    /// What those take that are over.
    pub(crate) bytes: usize,
    /// Spans that were given up because too many waited.
    pub(crate) dropped: u64,
}

/// A span's place in a request that is held.
#[derive(Debug)]
pub(crate) struct Hold {
    tail: Arc<Tail>,
    held: Arc<Held>,
    role: Role,
}

#[derive(Clone, Copy, Debug)]
enum Role {
    /// Its end decides.
    Root([u8; 8]),
    /// Others may be below it.
    Parent([u8; 8]),
    Leaf,
}

// No code that holds a lock can panic half-way, so a poisoned value is a good one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Tail {
    /// A buffer that keeps by these rules; `None` where nothing would ever be kept.
    pub(super) fn new(keep: Keep) -> Option<Arc<Self>> {
        let keeps = keep.errors || keep.slower_than.is_some();
        keeps.then(|| {
            Arc::new(Self {
                keep,
                open: Default::default(),
                held: AtomicUsize::new(0),
                bytes: AtomicUsize::new(0),
                dropped: AtomicU64::new(0),
            })
        })
    }

    /// Begins to hold a request whose SERVER span has this id; `None` when too much is held already.
    pub(super) fn open(self: &Arc<Self>, root: [u8; 8]) -> Option<Hold> {
        if !self.reserve(0) {
            return None;
        }
        let held = Arc::new(Held(Mutex::new(State::Open(Vec::new()))));
        lock(self.shard(root)).insert(root, Arc::clone(&held));
        Some(Hold { tail: Arc::clone(self), held, role: Role::Root(root) })
    }

    /// The place of a span below this parent, if the parent belongs to a request that is held.
    pub(super) fn below(self: &Arc<Self>, parent: [u8; 8]) -> Option<Hold> {
        let held = lock(self.shard(parent)).get(&parent).cloned()?;
        Some(Hold { tail: Arc::clone(self), held, role: Role::Leaf })
    }

    /// The counters now.
    pub(super) fn tally(&self) -> Tally {
        Tally {
            held: self.held.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    fn keeps(&self, root: &Record) -> bool {
        let lasted = Duration::from_nanos(root.end.saturating_sub(root.start));
        let is_slow = self.keep.slower_than.is_some_and(|bound| lasted > bound);
        is_slow || (self.keep.errors && root.is_error)
    }

    /// Room for one more span of this size; counts the span as dropped where there is none.
    fn reserve(&self, bytes: usize) -> bool {
        let held = self.held.fetch_add(1, Ordering::Relaxed);
        let taken = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if held < self.keep.max_spans && taken + bytes <= self.keep.max_bytes {
            return true;
        }
        self.release(1, bytes);
        self.dropped.fetch_add(1, Ordering::Relaxed);
        false
    }

    fn release(&self, spans: usize, bytes: usize) {
        self.held.fetch_sub(spans, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn shard(&self, id: [u8; 8]) -> &Mutex<HashMap<[u8; 8], Arc<Held>>> {
        // The ids are random, so each byte of them is as good as any other.
        &self.open[usize::from(id[7]) % SHARDS]
    }
}

impl Hold {
    /// The place of another span of the same request, below which there may be others.
    pub(super) fn parent(&self, id: [u8; 8]) -> Self {
        lock(self.tail.shard(id)).insert(id, Arc::clone(&self.held));
        Self { role: Role::Parent(id), ..self.leaf() }
    }

    /// The place of another span of the same request.
    pub(super) fn leaf(&self) -> Self {
        Self { tail: Arc::clone(&self.tail), held: Arc::clone(&self.held), role: Role::Leaf }
    }

    /// Takes the span, which is over, and tells `export` those that are now to be exported.
    pub(super) fn settle(self, record: Box<Record>, export: impl FnMut(Box<Record>)) {
        if let Role::Root(id) | Role::Parent(id) = self.role {
            lock(self.tail.shard(id)).remove(&id);
        }
        match self.role {
            Role::Root(_) => self.decide(record, export),
            Role::Parent(_) | Role::Leaf => self.wait(record, export),
        }
    }

    fn decide(self, root: Box<Record>, mut export: impl FnMut(Box<Record>)) {
        let keeps = self.tail.keeps(&root);
        let decided = if keeps { State::Kept } else { State::Discarded };
        let was = std::mem::replace(&mut *lock(&self.held.0), decided);
        let State::Open(spans) = was else { return };
        self.tail.release(spans.len() + 1, spans.iter().map(|span| span.bytes()).sum());
        for span in spans.into_iter().chain([root]) {
            if keeps {
                export(span);
            } else {
                span.recycle();
            }
        }
    }

    fn wait(self, record: Box<Record>, mut export: impl FnMut(Box<Record>)) {
        let mut state = lock(&self.held.0);
        match &mut *state {
            State::Open(spans) => {
                if self.tail.reserve(record.bytes()) {
                    return spans.push(record);
                }
            }
            State::Kept => {
                drop(state);
                return export(record);
            }
            State::Discarded => {}
        }
        drop(state);
        record.recycle();
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::{Context, SpanContext};

    use super::*;
    use crate::record::Kind;

    const ROOT: [u8; 8] = [1; 8];

    fn tail(errors: bool, slower_than: Option<Duration>, max_spans: usize) -> Arc<Tail> {
        Tail::new(Keep { errors, slower_than, max_spans, max_bytes: 6000 }).unwrap()
    }

    /// A span that lasted this long.
    fn span(id: u8, nanos: u64, is_error: bool) -> Box<Record> {
        let context = Context::new(SpanContext::new([7; 16], [id; 8], 0));
        let mut record = Record::begin(Kind::Server, &context, None, "GET", 1_000);
        (record.end, record.is_error) = (1_000 + nanos, is_error);
        record
    }

    /// The ids of the spans that are exported when this one ends.
    fn settle(hold: Hold, record: Box<Record>) -> Vec<u8> {
        let mut exported = Vec::new();
        hold.settle(record, |record| exported.push(record.span.span_id[0]));
        exported
    }

    #[test]
    fn only_what_failed_or_was_slow_is_kept() {
        let bound = Some(Duration::from_nanos(500));
        for (errors, slower_than, nanos, is_error, is_kept) in [
            (true, None, 900, false, false),
            (true, None, 1, true, true),
            (false, bound, 1, true, false),
            (false, bound, 500, false, false),
            (false, bound, 501, false, true),
            (true, bound, 1, false, false),
        ] {
            let tail = tail(errors, slower_than, 9);
            let root = tail.open(ROOT).unwrap();
            let below = tail.below(ROOT).unwrap();
            assert!(settle(below, span(2, 1, true)).is_empty(), "the root decides");
            let exported = settle(root, span(1, nanos, is_error));
            assert_eq!(exported, if is_kept { vec![2, 1] } else { vec![] });
            assert!(tail.below(ROOT).is_none() && tail.tally() == Tally::default());
        }
    }

    #[test]
    fn what_ends_after_its_request_follows_the_decision() {
        for is_error in [true, false] {
            let tail = tail(true, None, 9);
            let root = tail.open(ROOT).unwrap();
            let late = tail.below(ROOT).unwrap();
            settle(root, span(1, 1, is_error));
            assert_eq!(settle(late, span(2, 1, false)), if is_error { vec![2] } else { vec![] });
            assert_eq!(tail.tally(), Tally::default());
        }
    }

    #[test]
    fn a_call_within_the_request_is_a_parent_until_it_ends() {
        let tail = tail(true, None, 9);
        let root = tail.open(ROOT).unwrap();
        let call = tail.below(ROOT).unwrap().parent([5; 8]);
        let attempt = tail.below([5; 8]).unwrap();
        settle(attempt, span(6, 1, true));
        settle(call, span(5, 1, true));
        assert!(tail.below([5; 8]).is_none());
        assert_eq!(settle(root, span(1, 1, true)), [6, 5, 1]);
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        let tail = tail(true, None, 2);
        let root = tail.open(ROOT).unwrap();
        settle(tail.below(ROOT).unwrap(), span(2, 1, false));
        assert!(tail.open([9; 8]).is_none());
        settle(tail.below(ROOT).unwrap(), span(3, 1, false));
        assert_eq!((tail.tally().held, tail.tally().dropped), (2, 2));
        assert_eq!(settle(root, span(1, 1, true)), [2, 1]);
        assert_eq!(tail.tally(), Tally { held: 0, bytes: 0, dropped: 2 });
    }

    #[test]
    fn what_is_held_takes_no_more_bytes_than_it_may() {
        let tail = tail(true, None, 9);
        let root = tail.open(ROOT).unwrap();
        for (id, bytes, is_held) in [(2, 2000, true), (3, 5000, false), (4, 10, true)] {
            let mut span = span(id, 1, false);
            span.text("url.full", &"x".repeat(bytes));
            let before = tail.tally().bytes;
            settle(tail.below(ROOT).unwrap(), span);
            let taken = tail.tally().bytes - before;
            assert_eq!(taken >= bytes, is_held, "{taken} of {bytes}");
        }
        assert_eq!((tail.tally().held, tail.tally().dropped), (3, 1));
        assert_eq!(settle(root, span(1, 1, true)), [2, 4, 1]);
        assert_eq!(tail.tally(), Tally { held: 0, bytes: 0, dropped: 1 });
    }
}
