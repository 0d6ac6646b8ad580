//! What may wait or be on its way at a time, in items and in bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A bound that many threads take from and give back to.
#[derive(Debug)]
pub(super) struct Limit {
    most: usize,
    used: AtomicUsize,
}

impl Limit {
    pub(super) const fn new(most: usize) -> Self {
        Self { most, used: AtomicUsize::new(0) }
    }

    pub(super) const fn most(&self) -> usize {
        self.most
    }

    /// Takes `wanted`, or what is left if that is `least` at least; answers how much it took.
    pub(super) fn take(&self, least: usize, wanted: usize) -> Option<usize> {
        let mut used = self.used.load(Ordering::Relaxed);
        loop {
            let granted = wanted.min(self.most - used);
            if granted < least {
                return None;
            }
            let order = Ordering::Relaxed;
            match self.used.compare_exchange_weak(used, used + granted, order, order) {
                Ok(_) => return Some(granted),
                Err(now) => used = now,
            }
        }
    }

    pub(super) fn give_back(&self, count: usize) {
        self.used.fetch_sub(count, Ordering::Relaxed);
    }
}

/// How many items and how many bytes there may be.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) items: Limit,
    pub(super) bytes: Limit,
}

impl Budget {
    /// Takes room for one item of `least` bytes, and for more of them if there is more.
    pub(super) fn take(&self, least: usize, wanted: (usize, usize)) -> Option<(usize, usize)> {
        let items = self.items.take(1, wanted.0)?;
        if let Some(bytes) = self.bytes.take(least, wanted.1.max(least)) {
            return Some((items, bytes));
        }
        self.items.give_back(items);
        None
    }

    pub(super) fn give_back(&self, items: usize, bytes: usize) {
        self.items.give_back(items);
        self.bytes.give_back(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_given_than_there_is_and_what_comes_back_is_given_again() {
        let limit = Limit::new(10);
        assert_eq!(limit.take(1, 6), Some(6));
        assert_eq!(limit.take(1, 6), Some(4));
        assert_eq!(limit.take(1, 6), None);
        limit.give_back(3);
        assert_eq!(limit.take(4, 6), None);
        assert_eq!(limit.take(3, 6), Some(3));
    }

    #[test]
    fn an_item_without_room_for_its_bytes_takes_nothing() {
        let budget = Budget { items: Limit::new(2), bytes: Limit::new(100) };
        assert_eq!(budget.take(101, (2, 0)), None);
        assert_eq!(budget.take(60, (2, 80)), Some((2, 80)));
        assert_eq!(budget.take(1, (2, 80)), None, "no item is left");
    }
}
