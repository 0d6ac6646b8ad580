//! The plugin's place in the server stack: outermost, so that everything below is seen.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{self, Poll},
};

use http::{HeaderMap, Request, Response, Version};
use pin_project_lite::pin_project;
use plugin_api::{
    Context,
    abi::{AbiAccepted, ExchangeObject, ServerLayerObject},
    adapter::{Lent, lend_headers},
};
use tower::Service;

use super::{
    Hooks, head,
    meter::Meter,
    recorder::{Recorded, Recorder},
};
use crate::{Body, connect::Via, metrics::Requests, monotonic, telemetry::context::Entered};

/// Asks the plugin about every request and tells it how each one went; measures them all.
#[derive(Clone)]
pub(crate) struct ServerExchange<S> {
    inner: S,
    spliced: Arc<Spliced>,
}

/// The plugin's layer and the host's way to it.
struct Spliced {
    plugin: ServerLayerObject,
    tells_clients: bool,
    hooks: Arc<Hooks>,
    requests: Arc<Requests>,
}

impl<S> ServerExchange<S> {
    pub(crate) fn new(inner: S, plugin: ServerLayerObject, requests: Arc<Requests>) -> Self {
        let (hooks, tells_clients) = (Arc::default(), plugin.tells_clients());
        Self { inner, spliced: Arc::new(Spliced { plugin, tells_clients, hooks, requests }) }
    }

    /// The hooks of incoming requests.
    pub(crate) fn hooks(&self) -> &Arc<Hooks> {
        &self.spliced.hooks
    }
}

impl Spliced {
    fn accept(
        &self,
        request: &Request<Body>,
        scheme: &'static str,
        now: u64,
    ) -> (Context, Option<ExchangeObject>) {
        let accepted = head::with_headers(request.headers(), |headers| {
            let head = head::request(request, scheme, headers)
                .over(head::version(request.version()), head::peer(request))
                .seen_at(now);
            self.hooks.call(|| self.plugin.on_request(&head))
        });
        accepted.map_or_else(Default::default, |AbiAccepted { context, exchange }| {
            (context, exchange.into_option())
        })
    }

    /// Lets the plugin tell the client of its trace, recorded or not.
    fn tell_client(&self, context: &Context, headers: &mut HeaderMap) {
        if !self.tells_clients {
            return;
        }
        let mut changes = head::Changes::default();
        let mut lent = Lent(&mut changes);
        self.hooks.call(|| self.plugin.on_response(context, lend_headers(&mut lent)));
        changes.apply(headers);
    }
}

impl<S> Service<Request<Body>> for ServerExchange<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Spliced { hooks, requests, .. } = &*self.spliced;
        let (scheme, now) = (head::scheme(&request), monotonic::now());
        let meter = Meter::of_request(requests.begin(&request, scheme == "https", now));
        let (context, exchange) = self.spliced.accept(&request, scheme, now);
        let mut exchange = Recorder::follow(exchange, meter, hooks, request.method());
        exchange.follower().measured_in(&context);
        exchange.count_request(request.body_mut());
        let version = request.version();
        exchange.current().begin(context);
        let spliced = Arc::clone(&self.spliced);
        let entered = Entered::new(exchange.current());
        let inner = self.inner.call(request);
        drop(entered);
        ServerFuture { inner, version, spliced, exchange: Some(exchange) }
    }
}

pin_project! {
    /// The handler's future in the context of its exchange.
    pub(crate) struct ServerFuture<F> {
        #[pin]
        inner: F,
        version: Version,
        spliced: Arc<Spliced>,
        exchange: Option<Recorded>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for ServerFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // It is gone once it has answered.
        let Some(exchange) = this.exchange else { return this.inner.poll(cx) };
        let current = exchange.current();
        let entered = Entered::new(current);
        let mut polled = this.inner.poll(cx);
        drop(entered);
        let Poll::Ready(Ok(response)) = &mut polled else { return polled };
        if let Some(context) = current.outer() {
            this.spliced.tell_client(context, response.headers_mut());
        }
        if let Some(route) = current.take_route() {
            exchange.follower().route(&route);
        }
        let Some(mut exchange) = this.exchange.take() else { return polled };
        if exchange.follower().ends_http(response.status()) {
            exchange.upgrade(response);
        } else {
            exchange.respond(response, *this.version, Via::UNKNOWN);
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use std::future;

    use http::{HeaderName, HeaderValue, StatusCode};
    use http_body::Frame;
    use http_body_util::{BodyExt, Full, StreamBody};
    use tower::{BoxError, Layer, ServiceExt};
    use tower_test::mock::{self, Handle, Mock, SendResponse};

    use super::*;
    use crate::{
        layers::{AccessLog, ErrorStatusLayer, error_status::ErrorStatus, testing::Journal},
        telemetry::context,
    };

    type Handler = Mock<Request<Body>, Response<Body>>;

    /// The layer around a handler whose answers are the test's.
    struct Bench {
        journal: Journal,
        service: ServerExchange<ErrorStatus<Handler>>,
        handle: Handle<Request<Body>, Response<Body>>,
    }

    impl Bench {
        fn new() -> Self {
            let journal = Journal::default();
            let (handler, handle) = mock::pair();
            let inner = ErrorStatusLayer.layer(handler);
            let service = ServerExchange::new(inner, journal.server_layer(), Arc::default());
            Self { journal, service, handle }
        }

        /// Sends a request as far as the handler.
        async fn accepted(&mut self, request: Request<Body>) -> Accepted {
            let mut future = Box::pin(self.service.clone().oneshot(request));
            assert!(futures_util::poll!(&mut future).is_pending());
            let (request, send) = self.handle.next_request().await.unwrap();
            Accepted { request, send, future }
        }

        /// The response to a GET that the handler answers with this.
        async fn answered(&mut self, answer: Response<Body>) -> Response<Body> {
            let Accepted { send, future, .. } = self.accepted(Request::default()).await;
            send.send_response(answer);
            let response = future.await.unwrap();
            let [serve, head] = &self.journal.take()[..] else { panic!("two hooks") };
            assert!(serve.starts_with("serve GET ") && head.starts_with("response "));
            response
        }
    }

    struct Accepted {
        request: Request<Body>,
        send: SendResponse<Response<Body>>,
        future: Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>>>>,
    }

    /// A body of these chunks, the last of them followed by `end`.
    fn chunks(chunks: &[&'static str], end: Option<BoxError>) -> Body {
        let chunks =
            chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes()))));
        let all: Vec<_> = chunks.chain(end.map(Err)).collect();
        Body::new(StreamBody::new(futures_util::stream::iter(all)))
    }

    #[tokio::test]
    async fn an_exchange_is_told_from_its_head_to_its_last_byte() {
        let mut bench = Bench::new();
        let request = Request::post("/x?y=z").header("host", "there:80");
        let request = request.body(Body::from("four")).unwrap();
        let Accepted { request, send, future } = bench.accepted(request).await;
        assert_eq!(bench.journal.take(), ["serve POST http://there:80/x ? y=z"]);
        request.into_body().collect().await.unwrap();
        send.send_response(Response::new(Body::from("hello")));
        let response = future.await.unwrap();
        assert_eq!(bench.journal.take(), ["response 200"]);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        assert_eq!(bench.journal.take(), ["end complete 4 5"]);
    }

    #[tokio::test]
    async fn a_request_that_nobody_waits_for_any_more_ends_at_once() {
        let mut bench = Bench::new();
        let accepted = bench.accepted(Request::default()).await;
        bench.journal.take();
        drop(accepted);
        assert_eq!(bench.journal.take(), ["end client gone 0 0"]);
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_halfway_ends_as_cut() {
        let mut bench = Bench::new();
        let response = bench.answered(Response::new(chunks(&["one", "two"], None))).await;
        let mut body = response.into_body();
        body.frame().await.unwrap().unwrap();
        assert!(bench.journal.take().is_empty());
        drop(body);
        assert_eq!(bench.journal.take(), ["end client gone 0 3"]);
    }

    #[tokio::test]
    async fn a_body_that_breaks_says_so() {
        let mut bench = Bench::new();
        let broken = chunks(&["one"], Some("reset".into()));
        let response = bench.answered(Response::new(broken)).await;
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(bench.journal.take(), ["end upstream gone 0 3"]);
    }

    #[tokio::test]
    async fn a_response_tells_its_client_of_the_trace() {
        for settings in ["", "unrecorded"] {
            let journal = Journal::default();
            let layer = journal.plugin(settings).server_layer().unwrap();
            let handler = tower::service_fn(|_: Request<Body>| async {
                let response = Response::builder().header("server-timing", "db;dur=1");
                Ok::<_, Infallible>(response.header("x-gone", "1").body(Body::empty()).unwrap())
            });
            let service = ServerExchange::new(handler, layer, Arc::default());
            let response = service.oneshot(Request::default()).await.unwrap();
            let headers = response.headers();
            assert_eq!(headers["traceresponse"], "of 2", "{settings}");
            let timing: Vec<_> = headers.get_all("server-timing").iter().collect();
            assert_eq!(timing, ["db;dur=1", "trace"], "{settings}");
            assert!(!headers.contains_key("x-gone"), "{settings}");
        }
    }

    #[tokio::test]
    async fn trailers_are_told_before_the_end() {
        let mut bench = Bench::new();
        let trailers = HeaderMap::from_iter([(
            HeaderName::from_static("grpc-status"),
            HeaderValue::from_static("0"),
        )]);
        let body = Full::new(Bytes::from("four")).with_trailers(future::ready(Some(Ok(trailers))));
        let mut request = Request::default();
        // HTTP/1.1 has no trailers after a body of known length.
        *request.version_mut() = Version::HTTP_2;
        let Accepted { send, future, .. } = bench.accepted(request).await;
        send.send_response(Response::new(Body::new(body)));
        let body = future.await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(bench.journal.take()[2..], ["trailers grpc-status=0", "end complete 0 4"]);
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_last_frame() {
        let mut bench = Bench::new();
        let response = bench.answered(Response::new(chunks(&["one", "two"], None))).await;
        response.into_body().collect().await.unwrap();
        assert_eq!(bench.journal.take(), ["end complete 0 6"]);
    }

    #[tokio::test]
    async fn a_body_that_nobody_reads_is_complete_where_there_is_nothing_to_read() {
        for (method, status, body, end) in [
            ("HEAD", 200, "five!", "end complete 0 0"),
            ("GET", 304, "", "end complete 0 0"),
            ("GET", 200, "", "end complete 0 0"),
            ("GET", 200, "five!", "end client gone 0 0"),
        ] {
            let mut bench = Bench::new();
            let request = Request::builder().method(method).body(Body::empty()).unwrap();
            let Accepted { send, future, .. } = bench.accepted(request).await;
            let mut answer = Response::new(Body::from(body));
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            send.send_response(answer);
            drop(future.await.unwrap());
            assert_eq!(bench.journal.take().last().unwrap(), end, "{method} {status} {body}");
        }
    }

    #[tokio::test]
    async fn a_refusal_ends_with_its_reason() {
        let mut bench = Bench::new();
        let Accepted { send, future, .. } = bench.accepted(Request::default()).await;
        send.send_error(tower::load_shed::error::Overloaded::new());
        let response = future.await.unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        response.into_body().collect().await.unwrap();
        assert_eq!(bench.journal.take()[1..], ["response 503", "end shed 0 11"]);
    }

    #[tokio::test]
    async fn a_route_is_told_before_the_response() {
        let journal = Journal::default();
        let handler = tower::service_fn(|_: Request<Body>| async {
            context::set_route(&Arc::from("/a/{b}"));
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let service = ServerExchange::new(handler, journal.server_layer(), Arc::default());
        drop(service.oneshot(Request::default()).await);
        let told = journal.take();
        assert_eq!(told[1..], ["route /a/{b}", "response 200", "end complete 0 0"]);
    }

    #[tokio::test]
    async fn code_in_a_response_body_finds_the_context_whatever_else_follows_it() {
        let handler = tower::service_fn(|_: Request<Body>| async {
            let chunk = futures_util::stream::once(async {
                let found = context::current().is_some().to_string();
                Ok::<_, BoxError>(Frame::data(Bytes::from(found)))
            });
            Ok::<_, Infallible>(Response::new(Body::new(StreamBody::new(chunk))))
        });
        let layer = Journal::default().server_layer();
        let service = ServerExchange::new(AccessLog(handler), layer, Arc::default());
        let response = service.oneshot(Request::default()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "true");
        assert!(context::current().is_none());
    }

    #[tokio::test]
    async fn two_requests_on_one_thread_never_mix() {
        let journal = Journal::default();
        let handler = tower::service_fn(|request: Request<Body>| async move {
            let route: Arc<str> = request.uri().path().into();
            for _ in 0..10 {
                tokio::task::yield_now().await;
                assert!(context::current().is_some());
            }
            context::set_route(&route);
            tokio::task::yield_now().await;
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let service = ServerExchange::new(handler, journal.server_layer(), Arc::default());
        let get = |path| service.clone().oneshot(Request::get(path).body(Body::empty()).unwrap());
        let (one, two) = tokio::join!(get("/one"), get("/two"));
        drop((one, two));
        let told = journal.take();
        for route in ["route /one", "route /two"] {
            assert_eq!(told.iter().filter(|line| *line == route).count(), 1, "{told:?}");
        }
        assert!(context::current().is_none());
    }
}
