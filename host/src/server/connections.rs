//! The connections of a server, and the handshakes that are to become some.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use http::{Request, Response, Version};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    ByTls, Peer,
    answered::Answered,
    cuttable::Streams,
    handshakes::{Handshakes, Secured},
};
use crate::{Body, layers::Tunnels, metrics::Traffic, stack::Sealed, tls};

/// How long the first request of a connection may take to come. hyper has a timeout for every
/// request's head, whose timer costs a forwarder a twentieth of its throughput.
pub(super) const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that are served by one stack.
pub(super) struct Connections<S> {
    /// `None` where plain text is served.
    handshakes: Option<Handshakes>,
    service: S,
    builder: Builder<Streams>,
    streams: Streams,
    tunnels: Tunnels,
    open: JoinSet<()>,
    graceful: GracefulShutdown,
    /// No first request is waited for any more.
    overdue: CancellationToken,
    traffic: Arc<Traffic>,
    is_leaving: Arc<AtomicBool>,
}

impl<S: Sealed> Connections<S> {
    /// None yet; those to come are in plain text without `tls`.
    pub(super) fn new(tls: Option<tls::Acceptor>, service: S) -> Self {
        let streams = Streams::default();
        let mut builder = Builder::new(streams.clone());
        builder.http1().header_read_timeout(None);
        builder.http2().timer(TokioTimer::new());
        Self {
            handshakes: tls.map(Handshakes::new),
            service,
            builder,
            streams,
            tunnels: Tunnels::default(),
            open: JoinSet::new(),
            graceful: GracefulShutdown::new(),
            overdue: CancellationToken::new(),
            traffic: Arc::default(),
            is_leaving: Arc::default(),
        }
    }

    /// The same, counted there.
    pub(super) fn counted_by(self, traffic: &Arc<Traffic>) -> Self {
        Self { traffic: Arc::clone(traffic), ..self }
    }

    /// A client has connected.
    pub(super) fn add(&mut self, stream: TcpStream, peer: SocketAddr) {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, "TCP_NODELAY could not be set: {error}");
        }
        match &mut self.handshakes {
            None => self.serve(stream, peer),
            Some(handshakes) => handshakes.begin(stream, peer),
        }
    }

    /// Waits until a handshake has made a connection, or a connection has ended; `false` where there
    /// is none of either. Cancelling it loses none.
    pub(super) async fn go_on(&mut self) -> bool {
        tokio::select! {
            Some((stream, peer)) = secured(&mut self.handshakes) => self.serve(stream, peer),
            // Only ended connections are taken out, so that the set does not grow.
            Some(_) = self.open.join_next() => {}
            else => return false,
        }
        true
    }

    /// From now on every response tells a client of HTTP/1.1 to bring its next request elsewhere.
    pub(super) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Closes each as soon as it is idle, and returns once the last is closed. One that has brought
    /// no request has so much `time` to come to its first, or to agree to its end.
    pub(super) async fn close(&mut self, time: Duration) {
        self.handshakes = None;
        let mut closed = pin!(std::mem::take(&mut self.graceful).shutdown());
        if timeout(time, &mut closed).await.is_err() {
            self.overdue.cancel();
            closed.await;
        }
    }

    /// The connections that no longer speak HTTP.
    pub(super) const fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Cuts what is still open, and returns once the last of it is gone.
    pub(super) async fn cut(mut self) {
        self.streams.deadline().pass();
        self.tunnels.cut();
        self.open.shutdown().await;
        self.streams.ended().await;
        self.tunnels.ended().await;
    }

    fn serve<T>(&mut self, stream: T, peer: SocketAddr)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let is_tls = self.handshakes.is_some();
        let service = self.service.clone();
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&has_asked);
        let (tunnels, traffic) = (self.tunnels.clone(), Arc::clone(&self.traffic));
        let is_leaving = Arc::clone(&self.is_leaving);
        let (counted, overdue) = (traffic.connection(), self.overdue.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            asks.store(true, Ordering::Relaxed);
            if request.extensions().get::<OnUpgrade>().is_some() {
                request.extensions_mut().insert(tunnels.clone());
            }
            if is_tls {
                request.extensions_mut().insert(ByTls);
            }
            let is_last = is_leaving.load(Ordering::Relaxed) && request.version() < Version::HTTP_2;
            let inner = answer(service.clone(), request, peer);
            Answered { inner, ticket: Some(traffic.request()), is_last }
        });
        let stream = TokioIo::new(stream);
        let connection = self.builder.serve_connection_with_upgrades(stream, service);
        let connection = self.graceful.watch(connection.into_owned());
        self.open.spawn(self.streams.deadline().over(async move {
            let _counted = counted;
            tokio::select! {
                // What there is to read is read before it counts as silent.
                biased;
                ended = connection => if let Err(error) = ended {
                    // Clients go away all the time; a broken request is theirs to mend.
                    tracing::debug!(%peer, "the connection ended: {error}");
                },
                () = stays_silent(&has_asked, &overdue) => {
                    tracing::debug!(%peer, "closed: no request came in time");
                }
            }
        }));
    }
}

/// The next connection over TLS; `None` where none is on its way.
async fn secured(handshakes: &mut Option<Handshakes>) -> Option<Secured> {
    handshakes.as_mut()?.next().await
}

/// Returns once the first request is overdue; never, where it has come.
async fn stays_silent(has_asked: &AtomicBool, overdue: &CancellationToken) {
    let mut silence = pin!(timeout(FIRST_REQUEST_TIMEOUT, overdue.cancelled()));
    std::future::poll_fn(|cx| match has_asked.load(Ordering::Relaxed) {
        true => Poll::Pending,
        false => silence.as_mut().poll(cx).map(|_| ()),
    })
    .await;
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
