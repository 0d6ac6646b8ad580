//! One line for each request, written at its true end: `[log] access = true`.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{self, Poll},
};

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};
use pin_project_lite::pin_project;
use plugin_api::{Context, End, Outcome};
use tower::Service;

use super::{
    exchange::{Exchange, Follower},
    request_id::X_REQUEST_ID,
};
use crate::{
    Body,
    connect::Via,
    monotonic, server,
    telemetry::context::{self, Current},
};

/// Logs every request of the inner service.
#[derive(Debug, Clone)]
pub(crate) struct AccessLog<S>(pub(crate) S);

impl<S> Service<Request<Body>> for AccessLog<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = AccessFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let version = request.version();
        let mut exchange = Exchange::new(Line::of(&request), request.method());
        exchange.count_request(request.body_mut());
        AccessFuture { inner: self.0.call(request), version, exchange: Some(exchange) }
    }
}

pin_project! {
    /// A response that will be logged.
    pub(crate) struct AccessFuture<F> {
        #[pin]
        inner: F,
        version: Version,
        exchange: Option<Exchange<Line>>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for AccessFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut polled = this.inner.poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Some(exchange) = this.exchange.take()
        {
            exchange.respond(response, *this.version, Via::UNKNOWN);
        }
        polled
    }
}

/// What the line says.
struct Line {
    /// On the monotonic clock.
    start: u64,
    method: Method,
    /// Only its path is shown: a query may hold secrets.
    uri: Uri,
    peer: Option<server::Peer>,
    request_id: Option<HeaderValue>,
    status: Option<StatusCode>,
    /// The line belongs to the request, also where the end is noticed elsewhere.
    context: Option<Context>,
}

impl Line {
    fn of(request: &Request<Body>) -> Self {
        Self {
            start: monotonic::now(),
            method: request.method().clone(),
            uri: request.uri().clone(),
            peer: request.extensions().get().copied(),
            request_id: request.headers().get(X_REQUEST_ID).cloned(),
            status: None,
            context: context::current(),
        }
    }

    fn write(&self, end: &End) {
        let now = end.monotonic().unwrap_or_else(monotonic::now);
        let peer = self.peer.map(|server::Peer(address)| tracing::field::display(address));
        tracing::info!(
            target: "access",
            method = self.method.as_str(),
            path = self.uri.path(),
            status = self.status.map(|status| status.as_u16()),
            bytes_in = end.request_bytes,
            bytes_out = end.response_bytes,
            duration_ms = millis(monotonic::seconds(self.start, now)),
            outcome = name(end.outcome),
            peer,
            request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok()),
        );
    }
}

impl Follower for Line {
    fn on_response(&mut self, response: &Response<Body>, _: Via) {
        self.status = Some(response.status());
        // The layer below has given one to a request that came without.
        self.request_id = response.headers().get(X_REQUEST_ID).cloned();
    }

    fn on_trailers(&mut self, _: &HeaderMap) {}

    fn on_end(&mut self, end: &End) {
        let mut current = self.context.take().map(Current::new).unwrap_or_default();
        context::enter(&mut current, || self.write(end));
    }
}

const fn name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::COMPLETE => "complete",
        Outcome::CLIENT_GONE => "client gone",
        Outcome::UPSTREAM_GONE => "upstream gone",
        Outcome::TIMEOUT => "timeout",
        Outcome::SHED => "shed",
        Outcome::PANIC => "panic",
        Outcome::CONNECT_FAILED => "connect failed",
        Outcome::STOPPED => "stopped",
        _ => "other",
    }
}

/// In whole microseconds.
fn millis(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::{Value as Json, json};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::{
        config::LogFormat,
        layers::{RequestIdLayer, cut},
        telemetry::log::Captured,
    };

    fn request() -> Request<Body> {
        let peer = server::Peer("127.0.0.1:5".parse().unwrap());
        let request = Request::put("/a/b?secret=1").header(X_REQUEST_ID, "seven");
        request.extension(peer).body(Body::from("four")).unwrap()
    }

    #[test]
    fn a_time_has_no_more_digits_than_it_means() {
        for (seconds, text) in [(22.8e-6, "0.023"), (1.25, "1250"), (0.0, "0")] {
            assert_eq!(millis(seconds).to_string(), text);
        }
    }

    /// The one line, without what is another each time.
    fn line(log: &Captured) -> Json {
        let text = log.take();
        let mut line: Json = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text:?}"));
        let line = line.as_object_mut().unwrap();
        assert!(line.remove("timestamp").is_some());
        assert!(line.remove("duration_ms").unwrap().as_f64().unwrap() >= 0.0);
        Json::Object(std::mem::take(line))
    }

    #[tokio::test]
    async fn a_request_is_a_line_at_its_end() {
        let log = Captured::start(LogFormat::Json);
        let handler = service_fn(|request: Request<Body>| async {
            request.into_body().collect().await.unwrap();
            let mut response = Response::new(Body::from("hello"));
            *response.status_mut() = StatusCode::ACCEPTED;
            Ok::<_, Infallible>(response)
        });
        let service = AccessLog(RequestIdLayer::new().layer(handler));
        let response = service.oneshot(request()).await.unwrap();
        assert_eq!(log.take(), "");
        response.into_body().collect().await.unwrap();
        let wanted = json!({
            "level": "INFO",
            "target": "access",
            "method": "PUT",
            "path": "/a/b",
            "status": 202,
            "bytes_in": 4,
            "bytes_out": 5,
            "outcome": "complete",
            "peer": "127.0.0.1:5",
            "request_id": "seven",
        });
        assert_eq!(line(&log), wanted);
    }

    #[tokio::test]
    async fn a_request_that_is_cut_says_so() {
        let log = Captured::start(LogFormat::Json);
        let handler = service_fn(|_| std::future::pending::<Result<Response<Body>, Infallible>>());
        let mut answer = Box::pin(AccessLog(handler).oneshot(request()));
        assert!(futures_util::poll!(&mut answer).is_pending());
        cut::with(Outcome::STOPPED, || drop(answer));
        let line = line(&log);
        assert_eq!(line["outcome"], "stopped");
        assert_eq!(line["request_id"], "seven");
        assert!(line.get("status").is_none());
    }
}
