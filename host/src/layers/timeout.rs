//! A deadline for a future. tower's own says nothing to what it drops, so that a call cut by it
//! would look like one whose caller went away.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::Map};
use http::Request;
use pin_project_lite::pin_project;
use plugin_api::Outcome;
use tokio::time::Sleep;
use tower::{BoxError, Layer, Service};

use super::cut;
use crate::Body;

/// The deadline passed first.
#[derive(Debug, thiserror::Error)]
#[error("the request timeout passed")]
pub(crate) struct Elapsed;

pin_project! {
    /// A future that is dropped at its deadline; see [`within`].
    pub(crate) struct Within<F> {
        #[pin]
        inner: Option<F>,
        #[pin]
        sleep: Sleep,
    }
}

/// What `inner` gives, unless it takes longer than `timeout`: then every exchange in it ends with
/// [`Outcome::TIMEOUT`].
pub(crate) fn within<F>(timeout: Duration, inner: F) -> Within<F> {
    Within { inner: Some(inner), sleep: tokio::time::sleep(timeout) }
}

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(inner) = this.inner.as_mut().as_pin_mut()
            && let Poll::Ready(output) = inner.poll(cx)
        {
            return Poll::Ready(Ok(output));
        }
        this.sleep.poll(cx).map(|()| {
            cut::with(Outcome::TIMEOUT, || this.inner.set(None));
            Err(Elapsed)
        })
    }
}

/// Puts a [`Timeout`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeoutLayer(pub(crate) Duration);

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout { inner, timeout: self.0 }
    }
}

/// Fails with [`Elapsed`] where the inner service has no response head in time.
#[derive(Debug, Clone)]
pub(crate) struct Timeout<S> {
    inner: S,
    timeout: Duration,
}

type Answer<R> = Result<R, BoxError>;

impl<S, R> Service<Request<Body>> for Timeout<S>
where
    S: Service<Request<Body>, Response = R, Error = BoxError>,
{
    type Response = R;
    type Error = BoxError;
    type Future = Map<Within<S::Future>, fn(Result<Answer<R>, Elapsed>) -> Answer<R>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        within(self.timeout, self.inner.call(request)).map(answer)
    }
}

fn answer<R>(answered: Result<Answer<R>, Elapsed>) -> Answer<R> {
    answered.unwrap_or_else(|elapsed| Err(elapsed.into()))
}

#[cfg(test)]
mod tests {
    use std::{
        future,
        sync::{Arc, Mutex},
    };

    use tower::{ServiceExt, service_fn};

    use super::*;

    /// Tells why it was dropped.
    struct Dropped(Arc<Mutex<Option<Outcome>>>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = Some(cut::reason());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_slow_is_dropped_with_its_reason() {
        let reason = Arc::default();
        let dropped = Dropped(Arc::clone(&reason));
        let slow = async move {
            let _dropped = dropped;
            future::pending::<()>().await;
        };
        assert!(within(Duration::from_secs(1), slow).await.is_err());
        assert_eq!(*reason.lock().unwrap(), Some(Outcome::TIMEOUT));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_in_time_passes() {
        let handler = service_fn(|request: Request<Body>| async move {
            let pause = if request.uri().path() == "/slow" { 3 } else { 1 };
            tokio::time::sleep(Duration::from_secs(pause)).await;
            Ok::<_, BoxError>(())
        });
        let service = TimeoutLayer(Duration::from_secs(2)).layer(handler);
        let get = |path| service.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        assert!(get("/quick").await.is_ok());
        assert!(get("/slow").await.unwrap_err().is::<Elapsed>());
    }
}
