//! A layer by hand: as little as a service can do on the SDK with the stable HTTP attributes.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context as Task, Poll},
};

use http::{HeaderMap, Request, Response, Uri, header};
use hyper::body::Incoming;
use opentelemetry::{
    Context, KeyValue, global,
    trace::{Span, SpanBuilder, SpanKind, TraceContextExt, Tracer},
};
use opentelemetry_http::HeaderExtractor;
use opentelemetry_sdk::trace::SdkTracer;
use tower::Service;

use crate::forward::{self, Body, Forwarder};

/// The forwarder with a SERVER and a CLIENT span around each request.
#[derive(Clone)]
pub(crate) struct Sdk {
    tracer: SdkTracer,
    forwarder: Forwarder,
}

impl Sdk {
    pub(crate) const fn new(tracer: SdkTracer, forwarder: Forwarder) -> Self {
        Self { tracer, forwarder }
    }

    fn begin(&self, kind: SpanKind, request: &Request<Incoming>, parent: &Context) -> Context {
        let builder = SpanBuilder::from_name(request.method().to_string()).with_kind(kind);
        let mut span = self.tracer.build_with_context(builder, parent);
        // What is not recorded is not put together.
        if span.is_recording() {
            span.set_attributes(attributes(
                request.method().to_string(),
                request.uri(),
                request.headers(),
            ));
        }
        parent.with_span(span)
    }
}

impl Service<Request<Incoming>> for Sdk {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let parent = global::get_text_map_propagator(|propagator| {
            propagator.extract_with_context(&Context::new(), &HeaderExtractor(request.headers()))
        });
        let server = self.begin(SpanKind::Server, &request, &parent);
        let client = self.begin(SpanKind::Client, &request, &server);
        let request = forward::in_context(request, &client);
        let response = self.forwarder.clone().forward(request);
        Box::pin(async move {
            let response = response.await?;
            for context in [client, server] {
                let span = context.span();
                if span.is_recording() {
                    let status = i64::from(response.status().as_u16());
                    span.set_attribute(KeyValue::new("http.response.status_code", status));
                }
                span.end();
            }
            Ok(response)
        })
    }
}

fn attributes(method: String, uri: &Uri, headers: &HeaderMap) -> [KeyValue; 8] {
    let text = |name| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    [
        KeyValue::new("http.request.method", method),
        KeyValue::new("url.scheme", "http"),
        KeyValue::new("url.path", uri.path().to_owned()),
        KeyValue::new("server.address", text(header::HOST)),
        KeyValue::new("server.port", 8080),
        KeyValue::new("network.protocol.version", "1.1"),
        KeyValue::new("http.route", "/hello"),
        KeyValue::new("user_agent.original", text(header::USER_AGENT)),
    ]
}
