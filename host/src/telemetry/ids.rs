//! The ids of spans that the log does not know, none of which its registry ever gives.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU64, Ordering},
};

use tracing::span::Id;

/// Set in the ids that are given here. In those of the registry it counts the slots of a thread's
/// spans: one thread would have to hold 2^36 of them open.
const OWN: u64 = 1 << 37;

/// The ids that a thread takes at a time.
const BLOCK: u64 = 4096;

/// The id of every span that neither the log nor the plugin knows.
pub(super) fn of_nobody() -> Id {
    Id::from_u64(OWN)
}

/// Whether the id was given here, and the registry does not know the span.
pub(super) fn is_own(id: &Id) -> bool {
    id.into_u64() & OWN != 0
}

/// An id that no other span has.
pub(super) fn next() -> Id {
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
        let ids = || (0..2 * BLOCK).map(|_| next().into_u64()).collect::<Vec<_>>();
        let threads: Vec<_> = (0..4).map(|_| thread::spawn(ids)).collect();
        let given: Vec<_> = threads.into_iter().flat_map(|one| one.join().unwrap()).collect();
        assert!(given.iter().all(|id| is_own(&Id::from_u64(*id)) && *id != OWN));
        assert_eq!(given.iter().collect::<HashSet<_>>().len(), given.len());
    }
}
