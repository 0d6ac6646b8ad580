//! The spans that the plugin knows and that are open.
//!
//! They are not among the extensions of the subscriber's registry: to find a span there and then an
//! extension of it takes several times as long, and each extension is an allocation. A span that the
//! log does not want is here alone, by an id of [`ids`].

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustc_hash::FxBuildHasher;
use tracing::span::Id;

use super::{ids, known::Known};

/// So many locks that threads hardly ever meet at one.
const SHARDS: usize = 64;

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

impl Spans {
    /// Keeps one with an id of the registry.
    pub(super) fn insert(&self, id: &Id, known: Known) {
        self.open(id).insert(id.into_u64(), Counted { known, clones: 0 });
    }

    /// Keeps one that the registry does not know.
    pub(super) fn add(&self, known: Known) -> Id {
        let id = ids::next();
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

    /// One handle of it is gone; with the last one it is returned. The caller closes it, when the lock is
    /// free again: the plugin, which hears of it, may log.
    pub(super) fn drop_handle(&self, id: &Id) -> Option<Known> {
        let mut open = self.open(id);
        let mut counted = open.remove(&id.into_u64())?;
        if counted.clones == 0 {
            return Some(counted.known);
        }
        // Rare, and so it is this that looks twice.
        counted.clones -= 1;
        open.insert(id.into_u64(), counted);
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
