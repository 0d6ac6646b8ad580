//! The current context: which exchange the running code works for.
//!
//! The host sets it around every poll of a handler's future and of its response body, so a call
//! made there finds its parent without any change in the handler, also after an await and on
//! another thread. A task spawned from a handler starts without one, unless it is given it:
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

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// What is known of the exchange that the thread works for just now.
#[derive(Debug, Clone, Default)]
pub(crate) struct Current {
    pub(crate) context: Context,
    /// Put here by whoever matches the route, taken by the layer that reports it.
    pub(crate) route: Option<Arc<str>>,
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
        let context = current().map(|context| Current { context, route: None });
        WithContext { future: self, context }
    }
}

impl<F: Future> FutureExt for F {}

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
        Some(Current { context, route: None })
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
