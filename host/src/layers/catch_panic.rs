//! A panic in the handler becomes a 500, and the connection lives on.

use std::{
    any::Any,
    convert::Infallible,
    panic::AssertUnwindSafe,
    task::{Context, Poll},
};

use futures_util::{
    FutureExt,
    future::{CatchUnwind, Map},
};
use http::{Request, Response, StatusCode};
use plugin_api::Outcome;
use tower::{Layer, Service};

use super::error_status::refusal;
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

type Answer = Result<Response<Body>, Infallible>;
type Caught = Result<Answer, Box<dyn Any + Send>>;

impl<S> Service<Request<Body>> for CatchPanic<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Map<CatchUnwind<AssertUnwindSafe<S::Future>>, fn(Caught) -> Answer>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // A handler is dropped after its panic, so nobody sees it half-changed; what it shares
        // with others is as safe as it is with any task that panics.
        AssertUnwindSafe(self.inner.call(request)).catch_unwind().map(answer)
    }
}

fn answer(caught: Caught) -> Answer {
    caught.unwrap_or_else(|_| {
        Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, Outcome::PANIC, "internal error\n"))
    })
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_a_500() {
        let handler = service_fn(|request: Request<Body>| async move {
            tokio::task::yield_now().await;
            assert_eq!(request.uri().path(), "/fine");
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let service = CatchPanicLayer.layer(handler);
        for (path, status) in [("/fine", 200), ("/panics", 500)] {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let answer = service.clone().oneshot(request).await.unwrap();
            assert_eq!(answer.status(), status, "{path}");
        }
    }
}
