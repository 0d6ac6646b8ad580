//! The spans that the plugin knows.
//!
//! They are not among the extensions of the subscriber's registry: to find a span there and then an
//! extension of it takes several times as long, and each extension is an allocation.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use plugin_api::Context;
use rustc_hash::FxBuildHasher;
use tracing::span::Id;

use super::recorder::Recorder;

/// So many locks that threads hardly ever meet at one.
const SHARDS: usize = 64;

/// A span that the plugin knows.
#[derive(Clone)]
pub(super) struct Known {
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
struct Shard(Mutex<HashMap<u64, Known, FxBuildHasher>>);

impl Default for Spans {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Shard::default()).collect())
    }
}

impl Spans {
    pub(super) fn insert(&self, id: &Id, known: Known) {
        self.shard(id).insert(id.into_u64(), known);
    }

    pub(super) fn get(&self, id: &Id) -> Option<Known> {
        self.shard(id).get(&id.into_u64()).cloned()
    }

    /// The caller drops it, when the lock is free again: the plugin, which hears of it, may log.
    pub(super) fn remove(&self, id: &Id) -> Option<Known> {
        self.shard(id).remove(&id.into_u64())
    }

    fn shard(&self, id: &Id) -> MutexGuard<'_, HashMap<u64, Known, FxBuildHasher>> {
        // The low bits count the spans of a thread, those above tell the threads apart.
        let spread = id.into_u64().wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shard = &self.0[(spread >> 58) as usize];
        // No code that holds the lock can panic half-way, so a poisoned value is a good one.
        shard.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
