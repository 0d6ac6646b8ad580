//! The one place where an error becomes a status code.

use std::{
    convert::Infallible,
    error::Error,
    future::{self, Ready},
    task::{Context, Poll, ready},
};

use futures_util::{
    FutureExt,
    future::{Either, Map},
};
use http::{Request, Response, StatusCode, header};
use plugin_api::Outcome;
use tower::{BoxError, Layer, Service, load_shed::error::Overloaded};

use super::{exchange::Ended, head, timeout::Elapsed};
use crate::{Body, CallError};

/// Puts an [`ErrorStatus`] around a service.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorStatusLayer;

impl<S> Layer<S> for ErrorStatusLayer {
    type Service = ErrorStatus<S>;

    fn layer(&self, inner: S) -> ErrorStatus<S> {
        ErrorStatus { inner, not_ready: None }
    }
}

/// Answers in place of a service that fails, also where it fails to become ready, and to a request
/// that it should not see. The client learns the kind of failure and nothing of the inside; the reason
/// is in the log.
#[derive(Debug)]
pub(crate) struct ErrorStatus<S> {
    inner: S,
    /// Why the service did not become ready, kept for the request that it was to be ready for.
    not_ready: Option<BoxError>,
}

impl<S: Clone> Clone for ErrorStatus<S> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), not_ready: None }
    }
}

/// RFC 9112, section 3.2.
#[derive(Debug, thiserror::Error)]
#[error("refused: a request without one valid Host")]
struct NoHost;

type Answer = Result<Response<Body>, Infallible>;
type Answered<F> = Map<F, fn(Result<Response<Body>, BoxError>) -> Answer>;

impl<S> Service<Request<Body>> for ErrorStatus<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Ready<Answer>, Answered<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.not_ready = ready!(self.inner.poll_ready(cx)).err();
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        match self.not_ready.take() {
            Some(error) => Either::Left(future::ready(answer(Err(error)))),
            None if !head::has_its_host(&request) => {
                Either::Left(future::ready(answer(Err(NoHost.into()))))
            }
            None => Either::Right(self.inner.call(request).map(answer)),
        }
    }
}

fn answer(result: Result<Response<Body>, BoxError>) -> Answer {
    Ok(result.unwrap_or_else(|error| respond(&*error)))
}

fn respond(error: &(dyn Error + Send + Sync + 'static)) -> Response<Body> {
    if error.is::<Overloaded>() {
        tracing::debug!("shed: too many requests in flight");
        return refusal(StatusCode::SERVICE_UNAVAILABLE, Outcome::SHED, "overloaded\n");
    }
    if error.is::<Elapsed>() {
        tracing::warn!("{error}");
        return refusal(StatusCode::GATEWAY_TIMEOUT, Outcome::TIMEOUT, "timeout\n");
    }
    if error.is::<NoHost>() {
        tracing::debug!("{error}");
        return refusal(StatusCode::BAD_REQUEST, Outcome::COMPLETE, "wanted one valid Host\n");
    }
    if let Some(CallError::RequestBody { .. }) = error.downcast_ref() {
        // Anybody can break off an upload; it is not worth a line for each.
        tracing::debug!("{}", Chain(error));
        return refusal(StatusCode::BAD_REQUEST, Outcome::CLIENT_GONE, "incomplete request\n");
    }
    tracing::warn!("{}", Chain(error));
    match error.downcast_ref::<CallError>() {
        Some(CallError::NoInstance { .. } | CallError::NotSealed { .. }) => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, Outcome::COMPLETE, "no instance\n")
        }
        Some(CallError::Timeout { .. }) => {
            refusal(StatusCode::GATEWAY_TIMEOUT, Outcome::TIMEOUT, "upstream timeout\n")
        }
        Some(
            CallError::Connect { .. }
            | CallError::Upstream { .. }
            | CallError::Switch { .. }
            | CallError::Coding { .. },
        ) => refusal(StatusCode::BAD_GATEWAY, Outcome::UPSTREAM_GONE, "upstream unavailable\n"),
        Some(CallError::Request { .. } | CallError::RequestBody { .. }) | None => {
            refusal(StatusCode::INTERNAL_SERVER_ERROR, Outcome::COMPLETE, "internal error\n")
        }
    }
}

/// A response of the host's own, with the reason that the exchange's span ends with.
pub(super) fn refusal(status: StatusCode, outcome: Outcome, text: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response.extensions_mut().insert(Ended(outcome));
    response
}

/// An error with all its sources, on one line.
struct Chain<'a>(&'a (dyn Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt;
    use tower_test::mock;

    use super::*;

    #[tokio::test]
    async fn a_service_that_does_not_become_ready_is_answered_for() {
        let (handler, mut handle) = mock::pair::<Request<Body>, Response<Body>>();
        handle.send_error(Overloaded::new());
        let answer = ErrorStatusLayer.layer(handler).oneshot(Request::default()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn each_kind_of_failure_has_its_status() {
        let service = || "a".to_owned();
        let (at, source) = (|| "http://a".to_owned(), || BoxError::from("why"));
        let failures: [(BoxError, u16); 8] = [
            (Elapsed.into(), 504),
            (NoHost.into(), 400),
            (Overloaded::new().into(), 503),
            (CallError::NotSealed { service: service() }.into(), 503),
            (CallError::NoInstance { service: service(), reason: "" }.into(), 503),
            (
                CallError::Connect { service: service(), instance: at(), source: source() }.into(),
                502,
            ),
            (CallError::Coding { service: service() }.into(), 502),
            (source(), 500),
        ];
        for (error, status) in failures {
            let shown = error.to_string();
            assert_eq!(respond(&*error).status(), status, "{shown}");
        }
    }
}
