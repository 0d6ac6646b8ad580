//! The listeners: connections in, HTTP/1.1 and HTTP/2 on the same port.

mod answered;
mod cuttable;
mod draining;
mod handshakes;

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

use futures_util::FutureExt;
use http::{Request, Response, Version};
use hyper::{body::Incoming, service::service_fn, upgrade::OnUpgrade};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::ServiceExt;

pub(crate) use self::draining::Draining;
use self::{
    answered::Answered,
    cuttable::Streams,
    handshakes::{Handshakes, Secured},
};
use crate::{Body, layers::Tunnels, metrics::Traffic, stack::Sealed, tls};

/// How long the first request of a connection may take to come. hyper has a timeout for every
/// request's head, whose timer costs a forwarder a twentieth of its throughput.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait when no connection can be accepted, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The other end of the socket that a request came by; an extension of every request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// An extension of every request that came over TLS.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByTls;

/// A listener that serves one stack.
pub(crate) struct Server<S> {
    listener: TcpListener,
    /// `None` where plain text is served.
    handshakes: Option<Handshakes>,
    service: S,
    builder: Builder<Streams>,
    streams: Streams,
    tunnels: Tunnels,
    connections: JoinSet<()>,
    graceful: GracefulShutdown,
    traffic: Arc<Traffic>,
    is_leaving: Arc<AtomicBool>,
}

impl<S: Sealed> Server<S> {
    /// Serves `service` to whoever connects to `listener`, in plain text without `tls`.
    pub(crate) fn new(listener: TcpListener, tls: Option<tls::Acceptor>, service: S) -> Self {
        let streams = Streams::default();
        let mut builder = Builder::new(streams.clone());
        builder.http1().header_read_timeout(None);
        builder.http2().timer(TokioTimer::new());
        let (connections, graceful) = (JoinSet::new(), GracefulShutdown::new());
        let (tunnels, traffic) = (Tunnels::default(), Arc::default());
        Self {
            listener,
            handshakes: tls.map(Handshakes::new),
            service,
            builder,
            streams,
            tunnels,
            connections,
            graceful,
            traffic,
            is_leaving: Arc::default(),
        }
    }

    /// The same server, whose requests and connections are counted there.
    pub(crate) fn counted_by(self, traffic: &Arc<Traffic>) -> Self {
        Self { traffic: Arc::clone(traffic), ..self }
    }

    /// Accepts connections until `stop` is ready; more may come until the port is closed.
    pub(crate) async fn accept_until<T>(&mut self, stop: impl Future<Output = T>) -> T {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                stopped = &mut stop => return stopped,
                accepted = self.listener.accept() => self.accepted(accepted).await,
                Some((stream, peer)) = secured(&mut self.handshakes) => {
                    self.connection(stream, peer);
                }
                // Only ended connections are taken out, so that the set does not grow.
                Some(_) = self.connections.join_next() => {}
            }
        }
    }

    /// From now on every response tells a client of HTTP/1.1 to bring its next request elsewhere;
    /// one of HTTP/2 is told when the port is closed, which loses no request there.
    pub(crate) fn leave(&self) {
        self.is_leaving.store(true, Ordering::Relaxed);
    }

    /// Closes the port. Whoever is known to have connected by then is still served.
    pub(crate) async fn close(mut self) -> Draining {
        while let Some(accepted @ Ok(_)) = self.listener.accept().now_or_never() {
            self.accepted(accepted).await;
        }
        let Self { streams, tunnels, connections, graceful, .. } = self;
        Draining { streams, tunnels, connections, graceful }
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%peer, "TCP_NODELAY could not be set: {error}");
                }
                match &mut self.handshakes {
                    None => self.connection(stream, peer),
                    Some(handshakes) => handshakes.begin(stream, peer),
                }
            }
            // The client was gone again before its turn came.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset) => {}
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }

    fn connection<T>(&mut self, stream: T, peer: SocketAddr)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let is_tls = self.handshakes.is_some();
        let service = self.service.clone();
        let has_asked = Arc::new(AtomicBool::new(false));
        let asks = Arc::clone(&has_asked);
        let (tunnels, traffic) = (self.tunnels.clone(), Arc::clone(&self.traffic));
        let is_leaving = Arc::clone(&self.is_leaving);
        let open = traffic.connection();
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
        self.connections.spawn(self.streams.deadline().over(async move {
            let _open = open;
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    // Clients go away all the time; a broken request is theirs to mend.
                    tracing::debug!(%peer, "the connection ended: {error}");
                },
                () = stays_silent(&has_asked) => {
                    tracing::debug!(%peer, "closed: no request came in {FIRST_REQUEST_TIMEOUT:?}");
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

#[cfg(test)]
mod tests {
    use std::future;

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        sync::oneshot,
        task::JoinHandle,
    };
    use tower::BoxError;

    use super::*;
    use crate::{
        Tunnel, config,
        layers::testing::Journal,
        stack::{Handler, ServerStack},
    };

    /// A server on loopback whose plugin writes a journal.
    struct Running {
        journal: Journal,
        url: String,
        stop: oneshot::Sender<()>,
        served: JoinHandle<Draining>,
    }

    impl Running {
        async fn start<B>(handler: impl Handler<B>) -> Self
        where
            B: http_body::Body<Data = Bytes> + Send + 'static,
            B::Error: Into<BoxError>,
        {
            let journal = Journal::default();
            let mut stack = ServerStack::new(handler, &config::Server::default());
            stack.splice("scribe", journal.plugin("").server_layer().unwrap());
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/", listener.local_addr().unwrap());
            let mut server = Server::new(listener, None, stack.seal().into_service());
            let (stop, stopped) = oneshot::channel::<()>();
            let served = tokio::spawn(async move {
                server.accept_until(stopped).await.unwrap();
                server.close().await
            });
            Self { journal, url, stop, served }
        }

        /// Stops to accept.
        async fn stop(self) -> (Journal, Draining) {
            self.stop.send(()).unwrap();
            (self.journal, soon(self.served).await.unwrap())
        }
    }

    /// Waits for this, and fails where it takes too long.
    async fn soon<T>(future: impl Future<Output = T>) -> T {
        let patience = Duration::from_secs(10);
        tokio::time::timeout(patience, future).await.expect("over within ten seconds")
    }

    /// A client of each version.
    fn clients() -> [Client<HttpConnector, Body>; 2] {
        [false, true].map(|http2| {
            Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Body>()
        })
    }

    #[tokio::test]
    async fn what_the_deadline_cuts_says_that_the_host_stopped() {
        for client in clients() {
            let running = Running::start(tower::service_fn(|request: Request<Body>| async move {
                if request.uri().path() == "/never" {
                    future::pending::<()>().await;
                }
                let chunk = Frame::data(Bytes::from_static(b"one"));
                let endless = stream::iter([Ok::<_, BoxError>(chunk)]).chain(stream::pending());
                Ok::<_, BoxError>(Response::new(StreamBody::new(endless)))
            }))
            .await;
            let url = running.url.clone();
            let mut body = soon(client.get(url.parse().unwrap())).await.unwrap().into_body();
            soon(body.frame()).await.unwrap().unwrap();
            let never = client.get(format!("{url}never").parse().unwrap());
            let never = tokio::spawn(never);
            running.journal.until("response 200").await;
            running.journal.until("serve GET").await;

            let (journal, draining) = running.stop().await;
            soon(draining.cut()).await;
            let mut told = journal.take();
            told.sort();
            assert_eq!(told, ["end stopped 0 0", "end stopped 0 3"]);
            assert!(soon(body.collect()).await.is_err());
            assert!(soon(never).await.unwrap().is_err());
        }
    }

    /// Answers CONNECT as a proxy does.
    async fn connect(mut request: Request<Body>) -> io::Result<Response<Body>> {
        let place = request.uri().authority().unwrap().to_string();
        let mut response = Response::new(Body::empty());
        let tunnel = Tunnel::of(&mut request).unwrap();
        tunnel.join(TcpStream::connect(place).await?, &mut response);
        Ok(response)
    }

    /// The client's and the other end of an open tunnel.
    async fn tunnel(running: &Running) -> (TcpStream, TcpStream) {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = other.local_addr().unwrap();
        let server = running.url.trim_start_matches("http://").trim_end_matches('/');
        let mut client = TcpStream::connect(server).await.unwrap();
        let head = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\n\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        let (other, _) = soon(other.accept()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n") {
            answer.push(soon(client.read_u8()).await.unwrap().into());
        }
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(running.journal.until("upgrade").await[1..], ["response 200", "upgrade"]);
        (client, other)
    }

    async fn pass(from: &mut TcpStream, to: &mut TcpStream, text: &str) {
        from.write_all(text.as_bytes()).await.unwrap();
        let mut passed = vec![0; text.len()];
        soon(to.read_exact(&mut passed)).await.unwrap();
        assert_eq!(String::from_utf8(passed).unwrap(), text);
    }

    #[tokio::test]
    async fn a_tunnel_is_followed_to_the_end_of_both_directions() {
        let running = Running::start(tower::service_fn(connect)).await;
        let (mut client, mut other) = tunnel(&running).await;
        pass(&mut client, &mut other, "ping").await;
        pass(&mut other, &mut client, "pong!").await;
        client.shutdown().await.unwrap();
        assert_eq!(soon(other.read(&mut [0])).await.unwrap(), 0, "the end is passed on");
        pass(&mut other, &mut client, "and more").await;
        assert_eq!(running.journal.take(), [""; 0], "half of it is still open");
        drop(other);
        assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
        assert_eq!(running.journal.until("tunnel").await, ["tunnel: end complete 4 13"]);
    }

    #[tokio::test]
    async fn a_tunnel_says_who_broke_it() {
        for (client_breaks, end) in [(true, "client gone"), (false, "upstream gone")] {
            let running = Running::start(tower::service_fn(connect)).await;
            let (client, other) = tunnel(&running).await;
            let (breaks, stays) = if client_breaks { (client, other) } else { (other, client) };
            // Closing it sends a reset.
            breaks.set_zero_linger().unwrap();
            drop(breaks);
            let told = running.journal.until("tunnel").await;
            assert_eq!(told, [format!("tunnel: end {end} 0 0")]);
            drop(stays);
        }
    }

    #[tokio::test]
    async fn a_tunnel_is_in_no_requests_way_and_is_cut_at_the_deadline() {
        let running = Running::start(tower::service_fn(connect)).await;
        let (mut client, mut other) = tunnel(&running).await;
        let (journal, mut draining) = running.stop().await;
        soon(draining.drain(Duration::from_secs(60))).await;
        pass(&mut client, &mut other, "still there").await;
        assert_eq!(draining.tunnels().open(), 1);
        soon(draining.cut()).await;
        assert_eq!(journal.take(), ["tunnel: end stopped 11 0"]);
        assert_eq!(soon(client.read(&mut [0])).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_panic_in_a_response_body_is_told_as_one() {
        for client in clients() {
            let running = Running::start(tower::service_fn(|_: Request<Body>| async {
                let chunk = Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"one")));
                let panics = stream::once(async {
                    // What there is by then is sent first.
                    tokio::task::yield_now().await;
                    panic!("halfway")
                });
                let chunks = stream::iter([chunk]).chain(panics);
                Ok::<_, BoxError>(Response::new(StreamBody::new(chunks)))
            }))
            .await;
            let answer = soon(client.get(running.url.parse().unwrap())).await.unwrap();
            assert!(soon(answer.into_body().collect()).await.is_err());
            let told = running.journal.until("end ").await;
            assert!(told.contains(&"end panic 0 3".to_owned()), "{told:?}");
        }
    }

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
