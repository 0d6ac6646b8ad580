//! A server of sampling strategies, as Jaeger's collector is one over gRPC.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use http::{Request, Response};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service},
    server::{Grpc, NamedService, UnaryService},
    transport::server::TcpIncoming,
};
use tonic_prost::ProstCodec;

/// `jaeger.api_v2.SamplingManager`, which answers as its test says.
#[derive(Debug)]
pub struct SamplingManager {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    answer: Result<Strategy, Status>,
    services: Vec<String>,
}

/// `SamplingStrategyParameters`
#[derive(Clone, PartialEq, Eq, Message)]
struct Parameters {
    #[prost(string, tag = "1")]
    service_name: String,
}

/// `SamplingStrategyResponse`, without its type and its strategy of a rate.
#[derive(Clone, PartialEq, Message)]
pub struct Strategy {
    /// For all traces.
    #[prost(message, optional, tag = "2")]
    pub ratio: Option<Ratio>,
    /// By the operation that begins a trace.
    #[prost(message, optional, tag = "4")]
    pub operations: Option<Operations>,
}

/// `ProbabilisticSamplingStrategy`
#[derive(Clone, Copy, PartialEq, Message)]
pub struct Ratio {
    /// From 0 to 1.
    #[prost(double, tag = "1")]
    pub rate: f64,
}

/// `PerOperationSamplingStrategies`
#[derive(Clone, PartialEq, Message)]
pub struct Operations {
    /// The share of all others.
    #[prost(double, tag = "1")]
    pub default: f64,
    /// The traces of each operation that are sampled in a second, at least.
    #[prost(double, tag = "2")]
    pub lower_bound: f64,
    /// Those that are listed.
    #[prost(message, repeated, tag = "3")]
    pub listed: Vec<Operation>,
}

/// `OperationSamplingStrategy`
#[derive(Clone, PartialEq, Message)]
pub struct Operation {
    /// `{method} {route}`
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its share.
    #[prost(message, optional, tag = "2")]
    pub ratio: Option<Ratio>,
}

impl SamplingManager {
    /// Starts a server that answers with this strategy.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(strategy: Strategy) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State { answer: Ok(strategy), services: Vec::new() }));
        let server = tonic::transport::Server::builder().add_service(Calls(Arc::clone(&state)));
        let server = server.serve_with_incoming(TcpIncoming::from(listener));
        let task = tokio::spawn(async { server.await.expect("gRPC is served") });
        Self { address, state, task }
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers this from now on.
    ///
    /// # Panics
    /// When a call panicked.
    pub fn now(&self, answer: Result<Strategy, Status>) {
        self.state.lock().unwrap().answer = answer;
    }

    /// The services that it was asked for.
    ///
    /// # Panics
    /// When a call panicked.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        self.state.lock().unwrap().services.clone()
    }
}

impl Drop for SamplingManager {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Clone)]
struct Calls(Arc<Mutex<State>>);

impl NamedService for Calls {
    const NAME: &'static str = "jaeger.api_v2.SamplingManager";
}

impl Service<Request<Body>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let calls = self.clone();
        Box::pin(async move {
            if request.uri().path() != "/jaeger.api_v2.SamplingManager/GetSamplingStrategy" {
                return Ok(Status::unimplemented("").into_http());
            }
            Ok(Grpc::new(ProstCodec::default()).unary(calls, request).await)
        })
    }
}

impl UnaryService<Parameters> for Calls {
    type Response = Strategy;
    type Future = Ready<Result<tonic::Response<Strategy>, Status>>;

    fn call(&mut self, request: tonic::Request<Parameters>) -> Self::Future {
        let mut state = self.0.lock().unwrap();
        state.services.push(request.into_inner().service_name);
        ready(state.answer.clone().map(tonic::Response::new))
    }
}
