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

use super::recorder::Recorder;

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// What is known of the exchange that the thread works for just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Current {
    pub(crate) context: Context,
    /// Put here by whoever matches the route, taken by the layer that reports it.
    pub(crate) route: Option<Arc<str>>,
    /// The spans that were entered and not yet left, innermost last. They move with the task: one
    /// that is left on another thread than it was entered on finds its way back.
    entered: Vec<Entered>,
}

/// A span that was entered.
#[derive(Debug, Clone)]
struct Entered {
    span: u64,
    /// `None` where it is not recorded.
    recorder: Option<Recorder>,
    /// The context around it; `None` where there was none.
    around: Option<Context>,
}

impl Current {
    /// The beginning of an exchange.
    pub(crate) const fn new(context: Context) -> Self {
        Self { context, route: None, entered: Vec::new() }
    }
}

/// Makes the context of a span that is entered the current one. The first span of an exchange
/// allocates the place where the context around it waits; further ones find it.
pub(crate) fn enter_span(span: u64, context: Context, recorder: Option<Recorder>) {
    // Where a thread ends there is no context any more, and nobody who asks for one.
    _ = CURRENT.try_with(|current| {
        let mut current = current.borrow_mut();
        match &mut *current {
            Some(current) => {
                let around = Some(std::mem::replace(&mut current.context, context));
                current.entered.push(Entered { span, recorder, around });
            }
            None => {
                let entered = vec![Entered { span, recorder, around: None }];
                *current = Some(Current { entered, ..Current::new(context) });
            }
        }
    });
}

/// Puts the context around a span that is left back. Spans may be left in another order than they
/// were entered in; one that was not entered here changes nothing.
pub(crate) fn exit_span(span: u64) {
    _ = CURRENT.try_with(|current| {
        let mut slot = current.borrow_mut();
        let Some(current) = &mut *slot else { return };
        // Nearly always it is the innermost one.
        if let Some(Entered { around, .. }) = current.entered.pop_if(|entered| entered.span == span)
        {
            match around {
                Some(around) => current.context = around,
                None => *slot = None,
            }
            return;
        }
        let place = current.entered.iter().rposition(|entered| entered.span == span);
        if let Some(place) = place {
            let Entered { around, .. } = current.entered.remove(place);
            // There is one above, or it would be the innermost one.
            current.entered[place].around = around;
        }
    });
}

/// The current context, without ids where there is none, and what records the innermost span that was
/// entered, where `wanted`.
pub(crate) fn inside(wanted: bool) -> (Context, Option<Recorder>) {
    let inside = |current: &RefCell<Option<Current>>| {
        let current = current.borrow();
        let current = current.as_ref()?;
        let innermost = current.entered.last().filter(|_| wanted);
        let recorder = innermost.and_then(|entered| entered.recorder.clone());
        Some((current.context.clone(), recorder))
    };
    CURRENT.try_with(inside).ok().flatten().unwrap_or_default()
}

/// The context of the exchange that the calling code works for; `None` outside of any, and always
/// where no plugin is loaded.
#[must_use]
pub fn current() -> Option<Context> {
    CURRENT.with_borrow(|current| current.as_ref().map(|current| current.context.clone()))
}

/// The span of the current context, where there is a valid one. Whoever logs may be anywhere, also
/// where a thread ends.
pub(crate) fn span() -> Option<SpanContext> {
    let span = |current: &RefCell<Option<Current>>| {
        let current = current.try_borrow().ok()?;
        current.as_ref().map(|current| *current.context.span())
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
        if let Some(current) = current {
            current.route = Some(Arc::clone(template));
        }
    });
}

/// Runs `body` with `slot` as the current context and puts it back, changed or not, afterwards.
pub(crate) fn enter<R>(slot: &mut Option<Current>, body: impl FnOnce() -> R) -> R {
    let _swapped = Swapped::new(slot);
    body()
}

/// The slot and the thread's context, exchanged until this is dropped, also by a panic.
struct Swapped<'a>(&'a mut Option<Current>);

impl<'a> Swapped<'a> {
    fn new(slot: &'a mut Option<Current>) -> Self {
        swap(slot);
        Self(slot)
    }
}

impl Drop for Swapped<'_> {
    fn drop(&mut self) {
        swap(self.0);
    }
}

fn swap(slot: &mut Option<Current>) {
    CURRENT.with_borrow_mut(|current| std::mem::swap(current, slot));
}

/// Carries the current context into a future that runs elsewhere.
pub trait FutureExt: Future + Sized {
    /// This future, run in the context that is current now.
    fn with_current_context(self) -> WithContext<Self> {
        let context = current().map(Current::new);
        WithContext { future: self, context }
    }
}

impl<F: Future> FutureExt for F {}

/// Carries the current context into a function that runs elsewhere:
/// `tokio::task::spawn_blocking(work.with_current_context())`.
pub trait FnOnceExt<R>: FnOnce() -> R + Sized {
    /// This function, run in the context that is current now.
    fn with_current_context(self) -> impl FnOnce() -> R {
        let mut context = current().map(Current::new);
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
        context: Option<Current>,
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
    use super::*;

    fn slot(id: u8) -> Option<Current> {
        let context = Context::new(SpanContext::new([id; 16], [id; 8], 1));
        Some(Current::new(context))
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

    fn span_context(id: u8) -> Context {
        Context::new(SpanContext::new([id; 16], [id; 8], 1))
    }

    #[test]
    fn a_span_s_context_is_current_from_its_entry_to_its_exit() {
        for mut around in [None, slot(1)] {
            let outer = around.as_ref().map(|current| current.context.span().span_id[0]);
            enter(&mut around, || {
                enter_span(2, span_context(2), None);
                enter_span(3, span_context(3), None);
                enter_span(3, span_context(3), None);
                exit_span(3);
                assert_eq!(current_id(), Some(3));
                exit_span(3);
                assert_eq!(current_id(), Some(2));
                exit_span(2);
                exit_span(2);
                assert_eq!(current_id(), outer);
            });
        }
    }

    #[test]
    fn spans_may_be_left_in_any_order() {
        for (mut around, outer) in [(slot(1), Some(1)), (None, None)] {
            enter(&mut around, || {
                for id in [2, 3, 4] {
                    enter_span(id.into(), span_context(id), None);
                }
                for (left, current) in [(3, Some(4)), (2, Some(4)), (4, outer)] {
                    exit_span(left);
                    assert_eq!(current_id(), current, "{left} is left");
                }
            });
        }
    }

    #[test]
    fn a_span_that_stays_entered_moves_with_its_task() {
        let mut task = slot(1);
        enter(&mut task, || enter_span(2, span_context(2), None));
        assert_eq!(current_id(), None, "nothing stays on the thread");
        let back = std::thread::spawn(move || {
            enter(&mut task, || {
                assert_eq!(current_id(), Some(2));
                exit_span(2);
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
        assert_eq!(own.unwrap().route.as_deref(), Some("/a/{b}"));
        set_route(&Arc::from("/nobody/listens"));
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
