//! The spans that a thread is in, as the registry of `tracing-subscriber` keeps its own.
//!
//! Those of [`context`](super::context) move with a task. A span that is entered around the poll of a
//! task with a context of its own is not among them, and is the current one all the same.

use std::cell::RefCell;

use tracing::{Metadata, span::Id};
use tracing_core::span::Current;

/// What is told of a span that the log does not know.
type Unlogged = Option<&'static Metadata<'static>>;

thread_local! {
    /// Those that were entered here and not yet left, innermost last.
    static ENTERED: RefCell<Vec<(Id, Unlogged)>> = const { RefCell::new(Vec::new()) };
}

/// The thread enters this span; its metadata where the log does not know it.
pub(super) fn push(id: &Id, unlogged: Unlogged) {
    // Where a thread ends nobody asks any more which span it is in.
    _ = ENTERED.try_with(|entered| entered.borrow_mut().push((id.clone(), unlogged)));
}

/// The thread leaves the span, which need not be the innermost one.
pub(super) fn remove(id: &Id) {
    _ = ENTERED.try_with(|entered| {
        let mut entered = entered.borrow_mut();
        // Nearly always it is the innermost one.
        if entered.pop_if(|(one, _)| one == id).is_none()
            && let Some(place) = entered.iter().rposition(|(one, _)| one == id)
        {
            entered.remove(place);
        }
    });
}

/// The innermost span, where the log does not know it.
pub(super) fn unlogged() -> Option<Current> {
    let innermost = ENTERED.try_with(|entered| entered.borrow().last().cloned()).ok().flatten();
    let (id, unlogged) = innermost?;
    Some(Current::new(id, unlogged?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_of_two_entries_is_left_first_and_any_other_too() {
        let [a, b] = [1, 2].map(Id::from_u64);
        let inside =
            || ENTERED.with_borrow(|all| all.iter().map(|(id, _)| id.into_u64()).collect());
        let after = |id: &Id| -> Vec<u64> {
            remove(id);
            inside()
        };
        [&a, &b, &a].into_iter().for_each(|id| push(id, None));
        assert_eq!(after(&a), [1, 2]);
        assert_eq!(after(&a), [2]);
        assert_eq!(after(&a), [2]);
        assert_eq!(after(&b), [0; 0]);
    }
}
