//! A panic in the handler becomes a 500, and the connection lives on.

use std::{
    convert::Infallible,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use plugin_api::Outcome;
use tower::{Layer, Service};

use super::{cut, error_status::refusal};
use crate::Body;

/// Puts a [`CatchPanic`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CatchPanicLayer;

impl<S> Layer<S> for CatchPanicLayer {
    type Service = CatchPanic<S>;

    fn layer(&self, inner: S) -> CatchPanic<S> {
        CatchPanic { inner }
    }
}

/// Answers with 500 where the inner service panics; the panic hook has logged it by then.
#[derive(Debug, Clone)]
pub(crate) struct CatchPanic<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for CatchPanic<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CatchPanicFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    // A handler is dropped after its panic, so nobody sees it half-changed; what it shares with
    // others is as safe as it is with any task that panics.
    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Put where it stays: as the answer of the closure it would be copied on the way.
        let mut inner = None;
        _ = catch_unwind(AssertUnwindSafe(|| inner = Some(self.inner.call(request))));
        CatchPanicFuture { inner }
    }
}

pin_project! {
    /// A handler's future; none after a panic.
    pub(crate) struct CatchPanicFuture<F> {
        #[pin]
        inner: Option<F>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for CatchPanicFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut() {
            let mut polled = Poll::Pending;
            if catch_unwind(AssertUnwindSafe(|| polled = inner.poll(cx))).is_ok() {
                return polled;
            }
            // The calls of a handler that is no `async` block are still there.
            cut::with(Outcome::PANIC, || this.inner.set(None));
        }
        let refusal =
            refusal(StatusCode::INTERNAL_SERVER_ERROR, Outcome::PANIC, "internal error\n");
        Poll::Ready(Ok(refusal))
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_500() {
        let handler = service_fn(|request: Request<Body>| {
            assert_ne!(request.uri().path(), "/panics-at-once");
            async move {
                tokio::task::yield_now().await;
                assert_eq!(request.uri().path(), "/fine");
                Ok::<_, Infallible>(Response::new(Body::empty()))
            }
        });
        let service = CatchPanicLayer.layer(handler);
        for (path, status) in [("/fine", 200), ("/panics", 500), ("/panics-at-once", 500)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
        }
    }
}
