//! The current context: which exchange the running code works for.
//!
//! The host sets it around every poll of a handler's future and of its response body, so a call
//! made there finds its parent without any change in the handler, also after an await and on
//! another thread. A span of the code (`#[tracing::instrument]`) that is recorded is the
//! current context between its entry and its exit. A task spawned from a handler starts without one,
//! unless it is given it, as a function that blocks is by [`FnOnceExt`]:
//!
//! ```
//! use host::telemetry::context::FutureExt as _;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! tokio::spawn(async { /* calls made here belong to the request */ }.with_current_context())
//! # .await.unwrap() });
//! ```

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use pin_project_lite::pin_project;
use plugin_api::{Context, SpanContext};
use tracing::span::Id;

use super::{known::Known, place::Place};

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(Current::nothing()) };
}

/// What is known of what the thread works for just now.
#[derive(Debug, Default)]
pub(crate) struct Current {
    /// The context around the spans below: that of the exchange, or what a task was given.
    pub(crate) outer: Option<Context>,
    /// Put here by whoever matches the route, taken by the layer that reports it.
    pub(crate) route: Option<Arc<str>>,
    /// The spans that were entered and not yet left, innermost last. They move with the task: one
    /// that is left on another thread than it was entered on finds its way back.
    entered: Vec<(Id, Known)>,
}

impl Current {
    /// Work in this context, before any span of it is entered.
    pub(crate) fn new(context: Context) -> Self {
        Self { outer: Some(context), ..Self::nothing() }
    }

    /// Work for nobody.
    const fn nothing() -> Self {
        Self { outer: None, route: None, entered: Vec::new() }
    }

    fn innermost(&self) -> Option<&Known> {
        self.entered.last().map(|(_, span)| span)
    }

    /// That of the innermost span, or the one around them all.
    fn context(&self) -> Option<&Context> {
        self.innermost().map(Known::context).or(self.outer.as_ref())
    }
}

/// Makes the context of a span that is entered the current one. The first one of an exchange allocates
/// the list of those that are.
pub(super) fn enter_span(id: &Id, span: Known) {
    // Where a thread ends there is no context any more, and nobody who asks for one.
    _ = CURRENT.try_with(|current| current.borrow_mut().entered.push((id.clone(), span)));
}

/// Puts the context around a span that is left back. Spans may be left in another order than they
/// were entered in; one that was not entered here changes nothing.
pub(super) fn exit_span(id: &Id) {
    let left = |current: &RefCell<Current>| {
        let entered = &mut current.borrow_mut().entered;
        // Nearly always it is the innermost one.
        entered.pop_if(|(one, _)| one == id).or_else(|| {
            let place = entered.iter().rposition(|(one, _)| one == id)?;
            Some(entered.remove(place))
        })
    };
    // The plugin may hear that it is over, and log.
    drop(CURRENT.try_with(left));
}

/// The innermost span that was entered, where `wanted`, or else the current context.
pub(super) fn inside(wanted: bool) -> Place {
    let inside = |current: &RefCell<Current>| {
        let current = current.borrow();
        match current.innermost() {
            Some(span) if wanted => Place::Span(span.clone()),
            _ => Place::Context(current.context().cloned().unwrap_or_default()),
        }
    };
    CURRENT.try_with(inside).unwrap_or_else(|_| Place::Context(Context::default()))
}

/// The context of the innermost span, or of the exchange, that the calling code works for; `None` outside
/// of any, and always where no plugin is loaded.
#[must_use]
pub fn current() -> Option<Context> {
    CURRENT.with_borrow(|current| current.context().cloned())
}

/// The span of the current context, where there is a valid one. Whoever logs may be anywhere, also
/// where a thread ends.
pub(crate) fn span() -> Option<SpanContext> {
    let span = |current: &RefCell<Current>| {
        let current = current.try_borrow().ok()?;
        current.context().map(|context| *context.span())
    };
    CURRENT.try_with(span).ok().flatten().filter(SpanContext::is_valid)
}

/// Tells the template that matched the current request: a low-cardinality name such as
/// `/users/{id}`, OpenTelemetry's `http.route`.
///
/// The host's own routes do this by themselves; a handler that routes on its own calls it once it
/// knows. Without a plugin it does nothing.
pub fn set_route(template: &Arc<str>) {
    CURRENT.with_borrow_mut(|current| {
        if current.outer.is_some() {
            current.route = Some(Arc::clone(template));
        }
    });
}

/// Runs `body` with `slot` as the current context and puts it back, changed or not, afterwards.
pub(crate) fn enter<R>(slot: &mut Current, body: impl FnOnce() -> R) -> R {
    let _swapped = Swapped::new(slot);
    body()
}

/// The slot and the thread's context, exchanged until this is dropped, also by a panic.
struct Swapped<'a>(&'a mut Current);

impl<'a> Swapped<'a> {
    fn new(slot: &'a mut Current) -> Self {
        swap(slot);
        Self(slot)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

fn swap(slot: &mut Current) {
    CURRENT.with_borrow_mut(|current| std::mem::swap(current, slot));
}

/// Carries the current context into a future that runs elsewhere.
pub trait FutureExt: Future + Sized {
    /// This future, run in the context that is current now.
    fn with_current_context(self) -> WithContext<Self> {
        let context = current().map(Current::new).unwrap_or_default();
        WithContext { future: self, context }
    }
}

impl<F: Future> FutureExt for F {}

/// Carries the current context into a function that runs elsewhere:
/// `tokio::task::spawn_blocking(work.with_current_context())`.
pub trait FnOnceExt<R>: FnOnce() -> R + Sized {
    /// This function, run in the context that is current now.
    fn with_current_context(self) -> impl FnOnce() -> R {
        let mut context = current().map(Current::new).unwrap_or_default();
        move || enter(&mut context, self)
    }
}

impl<R, F: FnOnce() -> R> FnOnceExt<R> for F {}

pin_project! {
    /// A future that runs in a context of its own; see [`FutureExt::with_current_context`].
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct WithContext<F> {
        #[pin]
        future: F,
        context: Current,
    }
}

impl<F: Future> Future for WithContext<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<F::Output> {
        let this = self.project();
        enter(this.context, || this.future.poll(cx))
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::{
        Level,
        abi::AbiBegun,
        adapter::telemetry_object,
        telemetry::{Callsite, Fields, SpanHead},
    };

    use super::*;
    use crate::telemetry::{journal::Journal, tests::metadata};

    fn context(id: u8) -> Context {
        Context::new(SpanContext::new([id; 16], [id; 8], 1))
    }

    fn slot(id: u8) -> Current {
        Current::new(context(id))
    }

    fn current_id() -> Option<u8> {
        current().map(|context| context.span().span_id[0])
    }

    #[test]
    fn the_inner_context_hides_the_outer_one_until_it_ends() {
        assert_eq!(current_id(), None);
        enter(&mut slot(1), || {
            enter(&mut slot(2), || assert_eq!(current_id(), Some(2)));
            assert_eq!(current_id(), Some(1));
        });
        assert_eq!(current_id(), None);
    }

    fn enter_one(id: u8) {
        let begun = AbiBegun { context: context(id), span: None.into() };
        enter_span(&Id::from_u64(id.into()), Known::new(metadata(), begun, None));
    }

    fn exit_one(id: u8) {
        exit_span(&Id::from_u64(id.into()));
    }

    #[test]
    fn a_span_s_context_is_current_from_its_entry_to_its_exit() {
        for (mut around, outer) in [(Current::default(), None), (slot(1), Some(1))] {
            enter(&mut around, || {
                [2, 3, 3].into_iter().for_each(enter_one);
                for (left, current) in [(3, Some(3)), (3, Some(2)), (2, outer), (2, outer)] {
                    exit_one(left);
                    assert_eq!(current_id(), current);
                }
            });
        }
    }

    #[test]
    fn spans_may_be_left_in_any_order() {
        for (mut around, outer) in [(Current::default(), None), (slot(1), Some(1))] {
            enter(&mut around, || {
                [2, 3, 4].into_iter().for_each(enter_one);
                for (left, current) in [(3, Some(4)), (2, Some(4)), (4, outer)] {
                    exit_one(left);
                    assert_eq!(current_id(), current, "{left} is left");
                }
            });
        }
    }

    #[test]
    fn a_span_may_end_where_it_is_left() {
        let journal = Journal::default();
        let callsite = Callsite::new(Level::INFO, "tests", "one");
        let head = SpanHead::new(&callsite, Fields::default());
        let begun = telemetry_object(journal.clone()).on_span(&head, &Context::default());
        enter_span(&Id::from_u64(1), Known::new(metadata(), begun, None));
        exit_one(1);
        assert_eq!(journal.ended(), ["one"]);
    }

    #[test]
    fn a_span_that_stays_entered_moves_with_its_task() {
        let mut task = slot(1);
        enter(&mut task, || enter_one(2));
        assert_eq!(current_id(), None, "nothing stays on the thread");
        let back = std::thread::spawn(move || {
            enter(&mut task, || {
                assert_eq!(current_id(), Some(2));
                exit_one(2);
                current_id()
            })
        });
        assert_eq!(back.join().unwrap(), Some(1));
    }

    #[tokio::test]
    async fn a_function_that_blocks_keeps_the_context() {
        let blocking = enter(&mut slot(7), || {
            tokio::task::spawn_blocking(FnOnceExt::with_current_context(current_id))
        });
        assert_eq!(blocking.await.unwrap(), Some(7));
    }

    #[test]
    fn a_panic_leaves_no_context_behind() {
        let caught = std::panic::catch_unwind(|| enter(&mut slot(1), || panic!("handler")));
        assert!(caught.is_err());
        assert_eq!(current_id(), None);
    }

    #[test]
    fn the_route_comes_back_in_the_slot() {
        let mut own = slot(1);
        enter(&mut own, || set_route(&Arc::from("/a/{b}")));
        assert_eq!(own.route.as_deref(), Some("/a/{b}"));
        set_route(&Arc::from("/nobody/listens"));
        assert_eq!(CURRENT.with_borrow(|current| current.route.clone()), None);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_spawned_future_keeps_the_context_across_awaits() {
        let task = enter(&mut slot(7), || {
            tokio::spawn(
                async {
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                        assert_eq!(current_id(), Some(7));
                    }
                }
                .with_current_context(),
            )
        });
        task.await.unwrap();
        assert_eq!(current_id(), None);
    }
}
