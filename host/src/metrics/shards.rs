//! Values that many threads change, kept apart so that hardly two of them meet at one.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// More would cost memory and give little: a shard is held for some nanoseconds.
const MOST: usize = 16;

/// One value for each of some threads; whoever reads adds them up.
#[derive(Debug)]
pub(super) struct Shards<T>(Box<[Shard<T>]>);

/// Two cache lines, which are fetched together: neighbours do not slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard<T>(T);

impl<T: Default> Default for Shards<T> {
    fn default() -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        let count = threads.next_power_of_two().min(MOST);
        Self((0..count).map(|_| Shard::default()).collect())
    }
}

impl<T> Shards<T> {
    /// The calling thread's.
    pub(super) fn here(&self) -> &T {
        // The length is a power of two.
        let Shard(value) = &self.0[number() & (self.0.len() - 1)];
        value
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|Shard(value)| value)
    }
}

/// The thread's number, given to it when it asks for the first time.
fn number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.get().unwrap_or_else(|| {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        NUMBER.set(Some(number));
        number
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_stays_with_its_shard_and_the_sum_is_whole() {
        let shards = Shards::<AtomicUsize>::default();
        assert!(std::ptr::eq(shards.here(), shards.here()));
        thread::scope(|scope| {
            for _ in 0..MOST + 3 {
                scope.spawn(|| shards.here().fetch_add(1, Ordering::Relaxed));
            }
        });
        let sum: usize = shards.iter().map(|shard| shard.load(Ordering::Relaxed)).sum();
        assert_eq!(sum, MOST + 3);
        assert!(shards.iter().count().is_power_of_two());
    }
}
