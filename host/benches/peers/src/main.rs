//! A forwarder on bare hyper and hyper-util, traced in a way that others use.
//!
//! `peers TRACING LISTEN UPSTREAM COLLECTOR RATIO` sends every request on LISTEN to the same path at
//! UPSTREAM, with the context of its span, and its spans to COLLECTOR, OTLP over gRPC. TRACING is
//! `tower` (opentelemetry-instrumentation-tower), `axum` (axum-tracing-opentelemetry) or `sdk` (a
//! layer by hand on `opentelemetry_sdk`, which makes the span of the call as well); or `stack`, which is
//! not traced and has the layers of the host around it.
//!
//! `inside` forwards nothing: it makes events and spans of `tracing`, as `host/examples/instrumented.rs`
//! does.
#![forbid(unsafe_code)]

mod export;
mod forward;
mod inside;
mod sdk;
mod stack;
mod work;

use std::{convert::Infallible, env, error::Error, future};

use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use opentelemetry_instrumentation_tower::http::server::Layer as TowerLayer;
use tokio::net::TcpListener;
use tower::{Layer, Service, service_fn};

use crate::{export::Export, forward::Forwarder, sdk::Sdk};

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [tracing, listen, upstream, collector, ratio] = &arguments[..] else {
        return Err(
            "usage: peers tower|axum|sdk|stack|inside LISTEN UPSTREAM COLLECTOR RATIO".into()
        );
    };
    let forwarder = Forwarder::new(upstream.parse()?);
    let listener = TcpListener::bind(listen).await?;
    if tracing == "stack" {
        return serve(listener, stack::around(forwarder)).await;
    }
    let export = Export::start(collector, ratio.parse()?)?;
    if tracing == "sdk" {
        return serve(listener, Sdk::new(export.tracer(), forwarder)).await;
    }
    if tracing == "inside" {
        inside::subscribe(&export, collector)?;
        let tracer = export.tracer();
        let answer = service_fn(move |request| {
            future::ready(Ok::<_, Infallible>(inside::answer(&tracer, &request)))
        });
        return serve(listener, answer).await;
    }
    let forwarding = service_fn(move |request| {
        let forwarder = forwarder.clone();
        async move { forwarder.forward(forward::in_current_context(request)).await }
    });
    match &**tracing {
        "tower" => serve(listener, TowerLayer::new().layer(forwarding)).await,
        "axum" => {
            export.subscribe();
            let layer = axum_tracing_opentelemetry::middleware::OtelAxumLayer::default();
            serve(listener, layer.layer(forwarding)).await
        }
        _ => Err(format!("no such tracing: {tracing}").into()),
    }
}

async fn serve<S, B>(listener: TcpListener, service: S) -> Result<(), Failure>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error: Into<Failure>>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
    B: Body<Data: Send, Error: Into<Failure>> + Send + 'static,
{
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(async move {
            let server = Builder::new(TokioExecutor::new());
            // A client that goes away is no failure of the forwarder.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
