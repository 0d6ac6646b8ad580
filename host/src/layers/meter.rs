//! What the host measures of an exchange itself, recorded or not.

use std::sync::Arc;

use http::{HeaderMap, Response, header};
use plugin_api::{End, SpanContext};

use crate::metrics::{Call, Request};

/// Where the measurements of an exchange go.
#[derive(Debug)]
pub(super) struct Meter {
    side: Side,
    /// The span that the plugin records of it, where that is sampled.
    span: Option<SpanContext>,
    is_measured: bool,
}

#[derive(Debug)]
enum Side {
    Server(Request),
    Client(Call),
}

impl Meter {
    pub(super) const fn of_request(request: Request) -> Self {
        Self::new(Side::Server(request))
    }

    pub(super) const fn of_call(call: Call) -> Self {
        Self::new(Side::Client(call))
    }

    const fn new(side: Side) -> Self {
        Self { side, span: None, is_measured: true }
    }

    /// The span that is recorded of it.
    pub(super) fn sampled_as(&mut self, span: &SpanContext) {
        self.span = Some(*span).filter(|span| span.is_valid() && span.is_sampled());
    }

    /// The template that matched the request.
    pub(super) fn route(&mut self, route: &Arc<str>) {
        if let Side::Server(request) = &mut self.side {
            request.route(route);
        }
    }

    /// A tunnel and a stream of events last as long as somebody wants them to: how long says nothing
    /// of how the service does.
    pub(super) fn answered<B>(&mut self, response: &Response<B>, is_tunnel: bool) {
        match &mut self.side {
            Side::Server(request) => request.answered(response.status()),
            Side::Client(call) => call.answered(response.status(), response.version()),
        }
        self.is_measured = !is_tunnel && !is_event_stream(response.headers());
    }

    /// The exchange is over.
    pub(super) fn end(&mut self, end: &End) {
        match &mut self.side {
            _ if !self.is_measured => {}
            Side::Server(request) => request.measure(end, self.span),
            Side::Client(call) => call.measure(end, self.span),
        }
    }
}

/// Looks at one after the other: a response has so few headers that a look-up by hash would take longer.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let content_type = headers.iter().find(|(name, _)| *name == header::CONTENT_TYPE);
    let name = b"text/event-stream";
    content_type
        .and_then(|(_, text)| text.as_bytes().get(..name.len()))
        .is_some_and(|start| start.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future, time::Duration};

    use http::{Request as HttpRequest, Uri};
    use http_body_util::BodyExt;
    use plugin_api::metrics::Exemplar;
    use tower::{ServiceExt, service_fn};

    use super::*;
    use crate::{
        Body, config,
        layers::{ServerExchange, testing::Journal},
        metrics::{Requests, testing::shown},
        stack::{Handler, ServerStack},
    };

    /// The stack around a handler, with a plugin that records nothing.
    fn stack<H>(handler: H, requests: &Arc<Requests>) -> ServerStack<H> {
        let config = config::Server {
            request_timeout: Duration::from_millis(10),
            max_in_flight: 1.try_into().unwrap(),
            ..config::Server::default()
        };
        let mut stack = ServerStack::new(handler, &config);
        stack.measure(requests);
        let plugin = Journal::default().plugin("unrecorded");
        stack.splice("scribe", plugin.server_layer().unwrap());
        stack
    }

    fn get(path: &'static str) -> HttpRequest<Body> {
        let mut request = HttpRequest::new(Body::empty());
        *request.uri_mut() = Uri::from_static(path);
        request
    }

    /// The attributes behind the version's, and the count, of each series.
    fn durations(requests: &Requests) -> Vec<(String, u64)> {
        let metrics = shown(|visit| requests.visit(visit));
        let active: f64 = metrics.last().unwrap().points.iter().map(|point| point.1).sum();
        assert_eq!(active, 0.0, "no request is active any more");
        let points = metrics[0].points.iter();
        let tail = |attributes: &str| attributes.split_once("version=1.1").unwrap().1.to_owned();
        points.map(|(attributes, _, count)| (tail(attributes).trim().to_owned(), *count)).collect()
    }

    /// What is measured of one request to this handler.
    async fn measured<H: Handler<Body>>(handler: H) -> Vec<(String, u64)> {
        let requests = Arc::<Requests>::default();
        let service = stack(handler, &requests).seal().into_service();
        let response = service.oneshot(get("/")).await.unwrap();
        // A body that breaks is measured too.
        let _ = response.into_body().collect().await;
        durations(&requests)
    }

    #[tokio::test]
    async fn a_request_is_measured_as_the_response_that_it_becomes() {
        let late = service_fn(|_| future::pending::<Result<Response<Body>, Infallible>>());
        let wanted = "http.response.status_code=504 error.type=timeout";
        assert_eq!(measured(late).await, [(wanted.to_owned(), 1)]);

        let panics = service_fn(|_| async {
            panic!("in a test");
            #[allow(unreachable_code)]
            Ok::<_, Infallible>(Response::new(Body::empty()))
        });
        let wanted = "http.response.status_code=500 error.type=panic";
        assert_eq!(measured(panics).await, [(wanted.to_owned(), 1)]);

        let fine = service_fn(|_| async {
            crate::telemetry::context::set_route(&Arc::from("/{x}"));
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        });
        let wanted = "http.route=/{x} http.response.status_code=200";
        assert_eq!(measured(fine).await, [(wanted.to_owned(), 1)]);
    }

    #[tokio::test]
    async fn a_shed_and_a_cancelled_request_are_measured() {
        let requests = Arc::<Requests>::default();
        let handler = service_fn(|_| future::pending::<Result<Response<Body>, Infallible>>());
        let service = stack(handler, &requests).seal().into_service();
        let mut cancelled = Box::pin(service.clone().oneshot(get("/")));
        assert!(futures_util::poll!(&mut cancelled).is_pending());
        let shed = service.oneshot(get("/")).await.unwrap();
        drop(shed.into_body().collect().await);
        drop(cancelled);
        let mut all = durations(&requests);
        all.sort();
        let shed = "http.response.status_code=503 error.type=shed";
        assert_eq!(all, [(String::new(), 1), (shed.to_owned(), 1)]);
    }

    #[tokio::test]
    async fn a_tunnel_and_a_stream_of_events_are_not_timed() {
        for (name, value, status) in [
            ("content-type", "text/event-stream", 200),
            ("content-type", "Text/Event-Stream; charset=utf-8", 200),
            ("upgrade", "websocket", 101),
        ] {
            let handler = service_fn(move |_| async move {
                let response = Response::builder().status(status).header(name, value);
                Ok::<_, Infallible>(response.body(Body::empty()).unwrap())
            });
            assert_eq!(measured(handler).await, [], "{value}");
        }
    }

    #[tokio::test]
    async fn a_measurement_names_the_span_that_is_recorded() {
        for (settings, wanted) in [("", Some(([1; 16], [2; 8]))), ("unrecorded", None)] {
            let requests = Arc::<Requests>::default();
            let layer = Journal::default().plugin(settings).server_layer().unwrap();
            let handler =
                service_fn(|_| async { Ok::<_, Infallible>(Response::new(Body::from("hello"))) });
            let service = ServerExchange::new(handler, layer, Arc::clone(&requests));
            let response = service.oneshot(get("/")).await.unwrap();
            response.into_body().collect().await.unwrap();
            let mut named = Vec::new();
            requests.visit(&mut |metric| {
                let exemplars = metric.points().iter().flat_map(|point| point.exemplars());
                named.extend(
                    exemplars.map(|Exemplar { trace_id, span_id, .. }| (*trace_id, *span_id)),
                );
            });
            assert_eq!(named, Vec::from_iter(wanted), "{settings:?}");
        }
    }
}
