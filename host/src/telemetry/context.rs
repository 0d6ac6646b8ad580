//! The current context: which exchange the running code works for.
//!
//! The host sets it around every poll of a handler's future and of a response body of its own making, so
//! a call made there finds its parent without any change in the handler, also after an await and on
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

/// What is known of what the thread works for just now; nothing, where that is for nobody. Boxed, so that
/// it changes places with the thread's around every poll as one word.
#[derive(Debug, Default)]
pub(crate) struct Current(Option<Box<Work>>);

#[derive(Debug, Default)]
struct Work {
    /// The context around the spans below: that of the exchange, or what a task was given.
    outer: Option<Context>,
    /// Put here by whoever matches the route, taken by the layer that reports it.
    route: Option<Arc<str>>,
    /// The spans that were entered and not yet left, innermost last. They move with the task: one
    /// that is left on another thread than it was entered on finds its way back.
    entered: Vec<(Id, Known)>,
}

/// A list of entered spans that had room for more is not kept for the next exchange.
const MOST_ENTERED_KEPT: usize = 64;

impl Current {
    /// Work in this context, before any span of it is entered.
    pub(crate) fn new(context: Context) -> Self {
        let mut current = Self::nothing();
        current.begin(context);
        current
    }

    /// Work for nobody.
    const fn nothing() -> Self {
        Self(None)
    }

    /// Begins work in this context, in the memory of what is over.
    pub(crate) fn begin(&mut self, context: Context) {
        self.0.get_or_insert_default().outer = Some(context);
    }

    /// Forgets all but the memory.
    pub(crate) fn clear(&mut self) {
        let Some(work) = &mut self.0 else { return };
        (work.outer, work.route) = (None, None);
        work.entered.clear();
        if work.entered.capacity() > MOST_ENTERED_KEPT {
            work.entered = Vec::new();
        }
    }

    /// The context around the spans, where the work is for somebody.
    pub(crate) fn outer(&self) -> Option<&Context> {
        self.0.as_ref()?.outer.as_ref()
    }

    /// The template that matched the request, once.
    pub(crate) fn take_route(&mut self) -> Option<Arc<str>> {
        self.0.as_mut()?.route.take()
    }

    fn innermost(&self) -> Option<&Known> {
        self.0.as_ref()?.entered.last().map(|(_, span)| span)
    }

    /// That of the innermost span, or the one around them all.
    fn context(&self) -> Option<&Context> {
        self.innermost().map(Known::context).or_else(|| self.outer())
    }
}

/// Makes the context of a span that is entered the current one.
pub(super) fn enter_span(id: &Id, span: Known) {
    let entered = |current: &RefCell<Current>| {
        let Current(work) = &mut *current.borrow_mut();
        work.get_or_insert_default().entered.push((id.clone(), span));
    };
    // Where a thread ends there is no context any more, and nobody who asks for one.
    _ = CURRENT.try_with(entered);
}

/// Puts the context around a span that is left back. Spans may be left in another order than they
/// were entered in; one that was not entered here changes nothing.
pub(super) fn exit_span(id: &Id) {
    let left = |current: &RefCell<Current>| {
        let Current(work) = &mut *current.borrow_mut();
        let entered = &mut work.as_mut()?.entered;
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
    CURRENT.with_borrow_mut(|Current(work)| {
        if let Some(work) = work.as_mut().filter(|work| work.outer.is_some()) {
            work.route = Some(Arc::clone(template));
        }
    });
}

/// Runs `body` with `slot` as the current context and puts it back, changed or not, afterwards.
pub(crate) fn enter<R>(slot: &mut Current, body: impl FnOnce() -> R) -> R {
    let _entered = Entered::new(slot);
    body()
}

/// The slot and the thread's context, exchanged until this is dropped, also by a panic. For what is too
/// large to be moved through [`enter`].
#[must_use]
pub(crate) struct Entered<'a>(&'a mut Current);

impl<'a> Entered<'a> {
    pub(crate) fn new(slot: &'a mut Current) -> Self {
        swap(slot);
        Self(slot)
    }
}

impl Drop for Entered<'_> {
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

    #[test]
    fn what_is_over_leaves_its_memory_to_the_next_and_nothing_else() {
        let mut current = slot(1);
        let mut exchange = |spans: u8| {
            current.begin(context(1));
            enter(&mut current, || (1..=spans).for_each(enter_one));
            current.clear();
            assert!(current.context().is_none() && current.take_route().is_none());
            current.0.as_ref().map_or(0, |work| work.entered.capacity())
        };
        let kept = exchange(3);
        assert!(kept >= 3);
        assert_eq!(exchange(1), kept);
        assert_eq!(exchange(u8::MAX), 0, "a list that has grown long is given back");
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
        assert_eq!(own.take_route().as_deref(), Some("/a/{b}"));
        enter_one(2);
        set_route(&Arc::from("/nobody/listens"));
        exit_one(2);
        assert_eq!(CURRENT.with_borrow_mut(Current::take_route), None);
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
