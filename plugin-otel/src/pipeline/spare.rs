//! The memory of buffers whose items are exported, for the next ones.
//!
//! What one thread allocates and another frees may go back to the system, and comes again a page at a
//! time while the code that is traced waits.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

/// Empty buffers of one size.
#[derive(Debug)]
pub(super) struct Spare {
    size: usize,
    most: usize,
    buffers: Mutex<Vec<Vec<u8>>>,
}

/// What a buffer had in it, until nobody needs it any more.
struct Lent {
    bytes: Vec<u8>,
    spare: Arc<Spare>,
}

impl Spare {
    /// Keeps `most` buffers of this size at most, and none yet.
    pub(super) const fn new(size: usize, most: usize) -> Self {
        Self { size, most, buffers: Mutex::new(Vec::new()) }
    }

    /// An empty buffer with room for so many bytes; one of another size is not from here.
    pub(super) fn take(&self, room: usize) -> Vec<u8> {
        let kept = if room == self.size { self.lock().pop() } else { None };
        kept.unwrap_or_else(|| Vec::with_capacity(room))
    }

    /// The content of a buffer that was taken here; its memory comes back when it is dropped.
    pub(super) fn lend(self: &Arc<Self>, bytes: Vec<u8>) -> Bytes {
        Bytes::from_owner(Lent { bytes, spare: Arc::clone(self) })
    }

    // Nothing that can panic is done while it is locked.
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut bytes = mem::take(&mut self.bytes);
        let mut kept = self.spare.lock();
        if bytes.capacity() == self.spare.size && kept.len() < self.spare.most {
            bytes.clear();
            kept.push(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(buffer: &[u8]) -> usize {
        buffer.as_ptr().addr()
    }

    #[test]
    fn a_buffer_comes_back_when_nobody_needs_what_was_in_it() {
        let spare = Arc::new(Spare::new(100, 2));
        let mut first = spare.take(100);
        first.extend_from_slice(b"abc");
        let known = place(&first);
        let content = spare.lend(first);
        let part = content.slice(1..);
        drop(content);
        assert_ne!(place(&spare.take(100)), known, "a part is still read");
        assert_eq!(part, b"bc"[..]);
        drop(part);
        let again = spare.take(100);
        assert_eq!((place(&again), again.len()), (known, 0));
    }

    #[test]
    fn no_more_are_kept_than_is_said_and_none_of_another_size() {
        let spare = Arc::new(Spare::new(100, 2));
        for room in [10, 1000] {
            drop(spare.lend(spare.take(room)));
            assert!(spare.lock().is_empty());
        }
        drop([1, 2, 3].map(|_| spare.lend(spare.take(100))));
        assert_eq!(spare.lock().len(), 2);
    }
}
