//! Why work is cut off: said by whoever drops it, heard by the exchanges that are dropped with it.

use std::{cell::Cell, thread};

use plugin_api::Outcome;

thread_local! {
    static REASON: Cell<Option<Outcome>> = const { Cell::new(None) };
}

/// Runs `body`, which drops what was under way; every exchange in it ends with `reason`.
pub(crate) fn with<R>(reason: Outcome, body: impl FnOnce() -> R) -> R {
    let _before = Before(REASON.replace(Some(reason)));
    body()
}

/// The reason of a drop that is going on now: whoever asked went away, where nobody gave another.
pub(super) fn reason() -> Outcome {
    if thread::panicking() {
        return Outcome::PANIC;
    }
    REASON.get().unwrap_or(Outcome::CLIENT_GONE)
}

/// The reason from before, put back when this is dropped, also by a panic.
struct Before(Option<Outcome>);

impl Drop for Before {
    fn drop(&mut self) {
        REASON.set(self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn the_innermost_reason_counts_and_is_forgotten_afterwards() {
        let inner = with(Outcome::STOPPED, || {
            let inner = with(Outcome::TIMEOUT, reason);
            assert_eq!(reason(), Outcome::STOPPED);
            inner
        });
        assert_eq!((inner, reason()), (Outcome::TIMEOUT, Outcome::CLIENT_GONE));
    }

    #[test]
    fn what_a_panic_drops_says_so() {
        struct Dropped<'a>(&'a Cell<Option<Outcome>>);
        impl Drop for Dropped<'_> {
            fn drop(&mut self) {
                self.0.set(Some(reason()));
            }
        }
        let found = Cell::new(None);
        let dropped = Dropped(&found);
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let _dropped = dropped;
            with(Outcome::STOPPED, || panic!("handler"))
        }));
        assert!(caught.is_err());
        assert_eq!((found.get(), reason()), (Some(Outcome::PANIC), Outcome::CLIENT_GONE));
    }
}
