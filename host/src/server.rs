//! The listeners: connections in, HTTP/1.1 and HTTP/2 on the same port.

use std::{
    convert::Infallible,
    future::Future,
    io::{
        self,
        ErrorKind::{ConnectionAborted, ConnectionReset},
    },
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt;

use crate::{Body, stack::Sealed};

/// How long the first request of a connection may take to come. hyper has a timeout for every
/// request's head, whose timer costs a forwarder a twentieth of its throughput.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when no connection can be accepted, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The other end of the socket that a request came by; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// A listener that serves one stack.
pub(crate) struct Server<S> {
    listener: TcpListener,
    service: S,
    builder: Builder<TokioExecutor>,
    connections: JoinSet<()>,
    graceful: GracefulShutdown,
}

impl<S: Sealed> Server<S> {
    /// Serves `service` to whoever connects to `listener`.
    pub(crate) fn new(listener: TcpListener, service: S) -> Self {
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().header_read_timeout(None);
        builder.http2().timer(TokioTimer::new());
        let (connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        Self { listener, service, builder, connections, graceful }
    }

    /// Accepts connections until `stop` is ready, then none any more.
    pub(crate) async fn accept_until<T>(mut self, stop: impl Future<Output = T>) -> (T, Draining) {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                stopped = &mut stop => {
                    let draining =
                        Draining { connections: self.connections, graceful: self.graceful };
                    return (stopped, draining);
                }
                accepted = self.listener.accept() => self.accepted(accepted).await,
                // Only ended connections are taken out, so that the set does not grow.
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => self.connection(stream, peer),
            // The client was gone again before its turn came.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset) => {}
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn connection(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, "TCP_NODELAY could not be set: {error}");
        }
        let service = self.service.clone();
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&has_asked);
        let service = service_fn(move |request| {
            asks.store(true, Ordering::Relaxed);
            answer(service.clone(), request, peer)
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection.into_owned());
        self.connections.spawn(async move {
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    // Clients go away all the time; a broken request is theirs to mend.
                    tracing::debug!(%peer, "the connection ended: {error}");
                },
                () = stays_silent(&has_asked) => {
                    tracing::debug!(%peer, "closed: no request came in {FIRST_REQUEST_TIMEOUT:?}");
                }
            }
        });
    }
}

/// Returns once the first request is overdue; never, where it has come.
async fn stays_silent(has_asked: &AtomicBool) {
    tokio::time::sleep(FIRST_REQUEST_TIMEOUT).await;
    if has_asked.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

fn answer(
    service: impl Sealed,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> impl Future<Output = Result<Response<Body>, Infallible>> {
    let mut request = request.map(Body::from);
    request.extensions_mut().insert(Peer(peer));
    service.oneshot(request)
}

/// Connections that finish what they have begun.
pub(crate) struct Draining {
    connections: JoinSet<()>,
    graceful: GracefulShutdown,
}

impl Draining {
    /// Waits for every open request; idle connections are closed at once. Cancelling it is fine.
    pub(crate) async fn drain(&mut self) {
        std::mem::take(&mut self.graceful).shutdown().await;
    }

    /// Cuts what is still open, and returns once the last of it is gone.
    pub(crate) async fn cut(mut self) {
        self.connections.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_connection_that_never_asks_is_closed() {
        let patience = FIRST_REQUEST_TIMEOUT * 10;
        for (has_asked, is_closed) in [(false, true), (true, false)] {
            let silent = AtomicBool::new(has_asked);
            let ended = tokio::time::timeout(patience, stays_silent(&silent)).await;
            assert_eq!(ended.is_ok(), is_closed, "{has_asked}");
        }
    }
}
