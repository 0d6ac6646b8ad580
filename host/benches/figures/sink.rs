//! A collector that takes every OTLP export, over gRPC or HTTP, counts its spans and forgets them.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::{net::TcpListener, runtime, time};

use crate::spans;

/// Not compressed, and without a byte: an `ExportTraceServiceResponse` with nothing to say.
const EMPTY_MESSAGE: &[u8] = &[0; 5];

/// The flag and the length before a message of gRPC.
const GRPC_PREFIX: usize = 5;

/// A collector that runs.
#[derive(Debug)]
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    counts: Arc<Counts>,
}

/// What has arrived.
#[derive(Debug, Default)]
struct Counts {
    spans: AtomicU64,
    logs: AtomicU64,
}

impl Sink {
    /// Starts it on a thread that lives as long as the program. It answers after `delay`.
    pub(crate) fn start(delay: Duration) -> Self {
        let runtime =
            runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind(("127.0.0.1", 0))).expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        thread::spawn(move || runtime.block_on(accept(listener, counted, delay)));
        Self { address, counts }
    }

    /// How many spans have arrived.
    pub(crate) fn spans(&self) -> u64 {
        self.counts.spans.load(Ordering::Relaxed)
    }

    /// How many log records have arrived.
    pub(crate) fn logs(&self) -> u64 {
        self.counts.logs.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, counts: Arc<Counts>, delay: Duration) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        // A small answer would wait for the acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let counts = Arc::clone(&counts);
        tokio::spawn(async move {
            let answer = service_fn(move |request| answer(request, Arc::clone(&counts), delay));
            let server = Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    counts: Arc<Counts>,
    delay: Duration,
) -> Result<Response<impl Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let kind = request.headers().get(CONTENT_TYPE).cloned();
    let is_grpc = kind.as_ref().is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
    // All signals come by the same connection. Log records stand in their export as spans do.
    let path = request.uri().path().to_ascii_lowercase();
    let count = [("trace", &counts.spans), ("log", &counts.logs)];
    let count = count.into_iter().find(|(signal, _)| path.contains(signal));
    let body = request.into_body().collect().await.map(|body| body.to_bytes());
    let skipped = if is_grpc { GRPC_PREFIX } else { 0 };
    let body = body.unwrap_or_default();
    if let Some((_, count)) = count {
        let arrived = spans::count(body.get(skipped..).unwrap_or_default());
        count.fetch_add(arrived, Ordering::Relaxed);
    }
    if !delay.is_zero() {
        time::sleep(delay).await;
    }
    let (message, trailers) = if is_grpc {
        let status = ("grpc-status".parse().unwrap(), HeaderValue::from_static("0"));
        (EMPTY_MESSAGE, Some(Ok(HeaderMap::from_iter([status]))))
    } else {
        (&[] as &[u8], None)
    };
    let message = Full::new(Bytes::from_static(message));
    let mut response = Response::new(message.with_trailers(async { trailers }));
    response.headers_mut().extend(kind.map(|kind| (CONTENT_TYPE, kind)));
    Ok(response)
}
