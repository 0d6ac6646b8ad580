//! A service behind the host.

use std::{fmt, net::SocketAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, Full, channel};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

use crate::{client::Body, traceparent::Traceparent, wait::within};

/// A service on loopback that keeps the head of every request and answers as its test says.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    received: watch::Sender<Vec<Received>>,
    task: JoinHandle<()>,
}

/// The head of a request that came.
#[derive(Clone, Debug)]
pub struct Received {
    /// The method.
    pub method: Method,
    /// The path, with the query if there was one.
    pub target: String,
    /// The version that it came with.
    pub version: Version,
    /// The header lines.
    pub headers: HeaderMap,
}

type Answering = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;
type Handler = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

impl Upstream {
    /// Answers every request as `handler` does.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Request<Incoming>) -> R + Send + Sync + 'static,
        R: Future<Output = Response<Body>> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let received = watch::Sender::new(Vec::new());
        let task = tokio::spawn(accept(listener, received.clone(), handler));
        Self { address, received, task }
    }

    /// Answers 200 and a line of text at once.
    pub async fn ready() -> Self {
        Self::start(async |_| Response::new(text("from upstream\n"))).await
    }

    /// Answers every request with its own body as it comes.
    pub async fn echo() -> Self {
        Self::start(async |request| Response::new(body(request.into_body()))).await
    }

    /// Answers 200 and a line of text when `gate` is opened.
    pub async fn behind(gate: &Gate) -> Self {
        let gate = gate.clone();
        Self::start(move |_| {
            let gate = gate.clone();
            async move {
                gate.passed().await;
                Response::new(text("from upstream\n"))
            }
        })
        .await
    }

    /// The base URL, for `[discovery.static]`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that have come so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.received.borrow().clone()
    }

    /// Waits until `count` requests have come, and returns them.
    ///
    /// # Panics
    /// Past the deadline.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut receiver = self.received.subscribe();
        let enough = receiver.wait_for(|received| received.len() >= count);
        within(&format!("{count} requests upstream"), enough)
            .await
            .expect("the upstream has the other end")
            .clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, received: watch::Sender<Vec<Received>>, handler: Handler) {
    while let Ok((stream, _)) = listener.accept().await {
        let (received, handler) = (received.clone(), handler.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            received.send_modify(|all| all.push(Received::of(&request)));
            let answer = handler(request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        tokio::spawn(async move {
            // A connection that the host closes early is for the test to judge.
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

impl Received {
    fn of(request: &Request<Incoming>) -> Self {
        let target = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        Self {
            method: request.method().clone(),
            target,
            version: request.version(),
            headers: request.headers().clone(),
        }
    }

    /// The value of the header `name`, if there is one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The one `traceparent` that came.
    ///
    /// # Panics
    /// When there is not exactly one valid one.
    #[must_use]
    pub fn traceparent(&self) -> Traceparent {
        let lines: Vec<_> = self.headers.get_all("traceparent").iter().collect();
        let [line] = lines[..] else { panic!("not one traceparent: {lines:?} in {self:?}") };
        Traceparent::parse(line.to_str().expect("a traceparent of text"))
    }
}

/// Holds whoever waits at it until it is opened.
#[derive(Clone)]
pub struct Gate(watch::Sender<bool>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn closed() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Lets everyone pass, now and later.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Returns once the gate is open.
    pub async fn passed(&self) {
        // The gate itself keeps the channel open.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Gate").field(&*self.0.borrow()).finish()
    }
}

/// A whole body.
#[must_use]
pub fn text(content: impl Into<Bytes>) -> Body {
    Full::new(content.into()).map_err(|never| match never {}).boxed()
}

/// A body that comes from elsewhere.
#[must_use]
pub fn body(incoming: Incoming) -> Body {
    incoming.map_err(Into::into).boxed()
}

/// A body that is sent chunk by chunk, and ends when its sender is dropped.
#[must_use]
pub fn channel() -> (channel::Sender<Bytes, Box<dyn std::error::Error + Send + Sync>>, Body) {
    let (sender, body) = channel::Channel::new(1);
    (sender, body.boxed())
}
