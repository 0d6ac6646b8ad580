//! What the boundary to a plugin costs: one request through the sealed server stack, and one call
//! of the client layer's hook.
//!
//! `cargo bench -p host --bench stack`. The plugins are linked in, so what is measured is the
//! host's work and the crossing itself, not a particular library. The client stack begins a
//! connection with every request, so of it only the hook is measured.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench has nothing to do but end when it cannot measure"
)]
#![allow(missing_docs, reason = "criterion's macros make functions without documentation")]

use std::{convert::Infallible, future, hint::black_box, net::SocketAddr, time::Duration};

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use futures_util::FutureExt;
use host::{
    Body,
    config::Server,
    stack::{Sealed, ServerStack},
};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::BodyExt;
use plugin_api::{
    Accepted, ClientLayer, Context, End, Exchange, Header, Headers, Host, Level, Plugin,
    PluginError, RequestHead, ResponseHead, ServerLayer, Service, SpanContext,
    abi::PluginObject,
    adapter::{self, HeaderMap as _, HostServices, Lent, lend_headers},
};
use tower::{ServiceExt, service_fn};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Is asked about every request and follows none.
#[derive(Clone, Copy)]
struct Noop;

impl Plugin for Noop {
    const NAME: &'static str = "noop";
    const VERSION: &'static str = "0";
    type ServerLayer = Self;
    type ClientLayer = Self;

    fn create(_: &str, _: Host) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn server_layer(&self) -> Option<Self> {
        Some(Self)
    }

    fn client_layer(&self) -> Option<Self> {
        Some(Self)
    }
}

impl ServerLayer for Noop {
    type Exchange = ();

    fn on_request(&self, _: &RequestHead<'_>) -> Accepted<()> {
        Accepted { context: Context::default(), exchange: None }
    }
}

impl ClientLayer for Noop {
    type Exchange = ();

    fn on_request(&self, _: &RequestHead<'_>, _: &Context, _: &mut Headers<'_>) -> Option<()> {
        None
    }
}

/// Follows every exchange to its end and keeps next to nothing of it.
#[derive(Clone, Copy)]
struct Follower;

impl Plugin for Follower {
    const NAME: &'static str = "follower";
    const VERSION: &'static str = "0";
    type ServerLayer = Self;
    type ClientLayer = Self;

    fn create(_: &str, _: Host) -> Result<Self, PluginError> {
        Ok(Self)
    }

    fn server_layer(&self) -> Option<Self> {
        Some(Self)
    }

    fn client_layer(&self) -> Option<Self> {
        Some(Self)
    }
}

/// What a follower keeps.
#[derive(Default)]
struct Followed {
    route: usize,
    status: u32,
}

impl Exchange for Followed {
    fn on_route(&mut self, route: &str) {
        self.route = route.len();
    }

    fn on_response(&mut self, head: &ResponseHead<'_>) {
        self.status = head.status();
    }

    fn on_end(&mut self, end: &End) {
        black_box((self.route, self.status, end.response_bytes));
    }
}

impl ServerLayer for Follower {
    type Exchange = Followed;

    fn on_request(&self, _: &RequestHead<'_>) -> Accepted<Followed> {
        Accepted { context: context(), exchange: Some(Followed::default()) }
    }
}

impl ClientLayer for Follower {
    type Exchange = Followed;

    fn on_request(
        &self,
        _: &RequestHead<'_>,
        _: &Context,
        headers: &mut Headers<'_>,
    ) -> Option<Followed> {
        headers.set("traceparent", TRACEPARENT);
        Some(Followed::default())
    }
}

fn context() -> Context {
    Context::new(SpanContext::new([1; 16], [2; 8], SpanContext::SAMPLED))
}

/// A host that is asked for nothing.
struct Silent;

impl HostServices for Silent {
    fn log(&self, _: Level, _: &str, _: &str) {}

    fn service(&self) -> Service {
        Service::default()
    }
}

fn plugin<P: Plugin>() -> PluginObject {
    let host = adapter::host_object(Silent);
    adapter::plugin_object::<P>("{}", host).expect("a plugin that always starts")
}

/// The stack around a handler that answers at once.
fn stack(plugin: Option<&PluginObject>) -> impl Sealed {
    let handler = service_fn(|_: Request<Body>| {
        future::ready(Ok::<_, Infallible>(Response::new(Body::from("hello\n"))))
    });
    let mut stack = ServerStack::new(handler, &Server::default());
    if let Some(layer) = plugin.and_then(|plugin| plugin.server_layer().into_option()) {
        stack.splice("plugin", layer);
    }
    let sealed = stack.seal();
    assert_eq!(sealed.layers().contains(&"plugin".to_owned()), plugin.is_some());
    sealed.into_service()
}

/// A request as a browser's or a service's would be, on its way in.
fn request() -> Request<Body> {
    let peer = host::Peer(SocketAddr::from(([127, 0, 0, 1], 50000)));
    Request::get("/hello/ada?lang=en")
        .header("host", "localhost:8080")
        .header("user-agent", "bench/1.0")
        .header("accept", "*/*")
        .header("traceparent", TRACEPARENT)
        .extension(peer)
        .body(Body::empty())
        .expect("a request")
}

/// From the request head to the last byte of the response.
async fn exchange(stack: impl Sealed, request: Request<Body>) -> usize {
    let Ok(response) = stack.oneshot(request).await;
    let body = response.into_body().collect().await.expect("a body");
    body.to_bytes().len()
}

fn server(criterion: &mut Criterion) {
    // The timeout layer wants a runtime's clock. Nothing ever waits, so nothing need be driven.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    let mut group = criterion.benchmark_group("server stack");
    for (name, plugin) in [
        ("no plugin", None),
        ("plugin that follows nothing", Some(plugin::<Noop>())),
        ("plugin that follows everything", Some(plugin::<Follower>())),
    ] {
        let stack = stack(plugin.as_ref());
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter_batched(
                request,
                |request| exchange(stack.clone(), request).now_or_never().expect("no waiting"),
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

/// The host's side of the headers of an outgoing request.
struct Outgoing(HeaderMap);

impl adapter::HeaderMap for Outgoing {
    fn set(&mut self, name: &str, value: &str) {
        let name: http::HeaderName = name.parse().expect("a name");
        self.0.insert(name, HeaderValue::from_str(value).expect("a value"));
    }

    fn remove(&mut self, name: &str) {
        self.0.remove(name);
    }

    fn append(&mut self, name: &str, value: &str) {
        let name: http::HeaderName = name.parse().expect("a name");
        self.0.append(name, HeaderValue::from_str(value).expect("a value"));
    }
}

fn client(criterion: &mut Criterion) {
    let headers = [Header::new("accept", b"*/*"), Header::new("user-agent", b"bench/1.0")];
    let head = RequestHead::new("GET", "/greeter/ada", &headers)
        .to("http", "127.0.0.1:8080")
        .with_query("lang=en")
        .with_service("greeter");
    let parent = context();
    let mut group = criterion.benchmark_group("client hook");
    for (name, plugin) in [
        ("plugin that follows nothing", plugin::<Noop>()),
        ("plugin that follows everything", plugin::<Follower>()),
    ] {
        let layer = plugin.client_layer().into_option().expect("a layer");
        let mut outgoing = Outgoing(HeaderMap::with_capacity(8));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| {
                let mut lent = Lent(&mut outgoing);
                let followed = layer.on_request(&head, &parent, lend_headers(&mut lent));
                if let Some(mut exchange) = followed.into_option() {
                    exchange.on_response(&ResponseHead::new(200, &headers));
                    exchange.on_end(&End::new(plugin_api::Outcome::COMPLETE, 0, 6));
                }
            });
        });
        outgoing.remove("traceparent");
    }
    group.finish();
}

fn configured() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3))
}

criterion_group! {
    name = boundary;
    config = configured();
    targets = server, client
}
criterion_main!(boundary);
