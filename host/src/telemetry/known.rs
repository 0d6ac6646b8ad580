//! The spans that the plugin knows.
//!
//! They are not among the extensions of the subscriber's registry: to find a span there and then an
//! extension of it takes several times as long, and each extension is an allocation. A span that the
//! log does not want is here alone, by an id that the registry never gives.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use plugin_api::Context;
use rustc_hash::FxBuildHasher;
use tracing::{Metadata, span::Id};

use super::recorder::Recorder;

/// So many locks that threads hardly ever meet at one.
const SHARDS: usize = 64;

/// Set in the ids that are given here. In those of the registry it counts the slots of a thread's
/// spans: one thread would have to hold 2^36 of them open.
const OWN: u64 = 1 << 37;

/// The ids that a thread takes at a time.
const BLOCK: u64 = 4096;

/// A span that the plugin knows.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) metadata: &'static Metadata<'static>,
    /// The context inside of it.
    pub(super) context: Context,
    /// `None` where the span is not recorded.
    pub(super) recorder: Option<Recorder>,
}

/// Those that are open, by their ids.
pub(super) struct Spans(Box<[Shard]>);

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Shard(Mutex<Open>);

type Open = HashMap<u64, Counted, FxBuildHasher>;

struct Counted {
    known: Known,
    /// Of a span with an id of its own, further handles than the first.
    clones: usize,
}

impl Default for Spans {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }
}

/// The id of every span that neither the log nor the plugin knows.
pub(super) fn nobody_s() -> Id {
    Id::from_u64(OWN)
}

/// Whether the id was given here, and the registry does not know the span.
pub(super) fn is_own(id: &Id) -> bool {
    id.into_u64() & OWN != 0
}

/// An id that no other span has.
fn next_id() -> Id {
    static BLOCKS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NEXT: Cell<u64> = const { Cell::new(0) };
    }
    let next = match NEXT.get() {
        // The first of a block is given to nobody.
        used if used % BLOCK == 0 => BLOCKS.fetch_add(1, Ordering::Relaxed) * BLOCK + 1,
        next => next,
    };
    NEXT.set(next + 1);
    let low = next & (OWN - 1);
    Id::from_u64((next - low) << 1 | OWN | low)
}

impl Spans {
    /// Keeps one with an id of the registry.
    pub(super) fn insert(&self, id: &Id, known: Known) {
        self.open(id).insert(id.into_u64(), Counted { known, clones: 0 });
    }

    /// Keeps one that the registry does not know.
    pub(super) fn add(&self, known: Known) -> Id {
        let id = next_id();
        self.insert(&id, known);
        id
    }

    pub(super) fn get(&self, id: &Id) -> Option<Known> {
        self.open(id).get(&id.into_u64()).map(|counted| counted.known.clone())
    }

    /// There is one more handle of it, whose id is not the registry's.
    pub(super) fn clone_handle(&self, id: &Id) {
        if let Some(counted) = self.open(id).get_mut(&id.into_u64()) {
            counted.clones += 1;
        }
    }

    /// One handle of it is gone; with the last one it is returned. The caller drops it, when the lock is
    /// free again: the plugin, which hears of it, may log.
    pub(super) fn drop_handle(&self, id: &Id) -> Option<Known> {
        let mut open = self.open(id);
        let counted = open.get_mut(&id.into_u64())?;
        if counted.clones == 0 {
            return open.remove(&id.into_u64()).map(|counted| counted.known);
        }
        counted.clones -= 1;
        None
    }

    fn open(&self, id: &Id) -> MutexGuard<'_, Open> {
        // The low bits count the spans of a thread, those above tell the threads apart.
        let spread = id.into_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shard = &self.0[(spread >> 58) as usize];
        // No code that holds the lock can panic half-way, so a poisoned value is a good one.
        shard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, thread};

    use tracing::{Dispatch, dispatcher, info_span, level_filters::LevelFilter};
    use tracing_subscriber::{Registry, layer::SubscriberExt as _};

    use super::*;

    #[test]
    fn the_registry_gives_no_id_that_is_given_here() {
        // A slot that was used as often has had every generation.
        let ids = || (0..10_000).all(|_| !is_own(&info_span!("one").id().unwrap()));
        // It is a layer that frees slots.
        let registry = Dispatch::new(Registry::default().with(LevelFilter::INFO));
        for _ in 0..3 {
            let registry = registry.clone();
            let thread = thread::spawn(move || dispatcher::with_default(&registry, ids));
            assert!(thread.join().unwrap());
        }
    }

    #[test]
    fn threads_are_given_different_ids() {
        let ids = || (0..2 * BLOCK).map(|_| next_id().into_u64()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(ids)).collect();
        let given: Vec<_> = threads.into_iter().flat_map(|one| one.join().unwrap()).collect();
        assert!(given.iter().all(|id| is_own(&Id::from_u64(*id)) && *id != OWN));
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    }
}
