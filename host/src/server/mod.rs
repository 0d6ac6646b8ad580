//! The listeners: connections in, HTTP/1.1 and HTTP/2 on the same port.

mod answered;
mod connections;
mod cuttable;
mod draining;
mod handshakes;

use std::{
    future::Future,
    io::{
        self,
        ErrorKind::{ConnectionAborted, ConnectionReset},
    },
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::net::{TcpListener, TcpStream};

use self::connections::Connections;
pub(crate) use self::draining::Draining;
use crate::{metrics::Traffic, stack::Sealed, tls};

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
    connections: Connections<S>,
}

impl<S: Sealed> Server<S> {
    /// Serves `service` to whoever connects to `listener`, in plain text without `tls`.
    pub(crate) fn new(listener: TcpListener, tls: Option<tls::Acceptor>, service: S) -> Self {
        Self { listener, connections: Connections::new(tls, service) }
    }

    /// The same server, whose requests and connections are counted there.
    pub(crate) fn counted_by(self, traffic: &Arc<Traffic>) -> Self {
        Self { connections: self.connections.counted_by(traffic), ..self }
    }

    /// Accepts connections until `stop` is ready; more may come until the port is closed.
    pub(crate) async fn accept_until<T>(&mut self, stop: impl Future<Output = T>) -> T {
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                stopped = &mut stop => return stopped,
                accepted = self.listener.accept() => self.accepted(accepted).await,
                true = self.connections.go_on() => {}
            }
        }
    }

    /// From now on every response tells a client of HTTP/1.1 to bring its next request elsewhere;
    /// one of HTTP/2 is told when the port is closed, which loses no request there.
    pub(crate) fn leave(&self) {
        self.connections.leave();
    }

    /// Closes the port. Whoever is known to have connected by then is still served.
    pub(crate) async fn close(mut self) -> Draining<S> {
        while let Some(accepted @ Ok(_)) = self.listener.accept().now_or_never() {
            self.accepted(accepted).await;
        }
        Draining(self.connections)
    }

    async fn accepted(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>) {
        match accepted {
            Ok((stream, peer)) => self.connections.add(stream, peer),
            // The client was gone again before its turn came.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset) => {}
            Err(error) => {
                tracing::warn!("a connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future;

    use bytes::Bytes;
    use futures_util::{StreamExt, future::join, stream};
    use http::{Request, Response};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use hyper_util::{
        client::legacy::{Client, connect::HttpConnector},
        rt::TokioExecutor,
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional, duplex},
        sync::{Semaphore, oneshot},
        task::JoinHandle,
    };
    use tower::BoxError;

    use super::{connections::FIRST_REQUEST_TIMEOUT, *};
    use crate::{
        Body, Tunnel, config,
        layers::testing::Journal,
        stack::{Handler, ServerStack},
        tls::{ServerFiles, testing::Authority},
    };

    /// A server on loopback whose plugin writes a journal.
    struct Running<S> {
        journal: Journal,
        url: String,
        stop: oneshot::Sender<()>,
        served: JoinHandle<Draining<S>>,
    }

    async fn start<B>(handler: impl Handler<B>) -> Running<impl Sealed>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        start_with(None, handler).await
    }

    async fn start_with<B>(
        tls: Option<tls::Acceptor>,
        handler: impl Handler<B>,
    ) -> Running<impl Sealed>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let journal = Journal::default();
        let mut stack = ServerStack::new(handler, &config::Server::default());
        stack.splice("scribe", journal.plugin("").server_layer().unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let mut server = Server::new(listener, tls, stack.seal().into_service());
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(async move {
            server.accept_until(stopped).await.unwrap();
            server.close().await
        });
        Running { journal, url, stop, served }
    }

    impl<S: Sealed> Running<S> {
        /// Where it listens.
        fn place(&self) -> &str {
            self.url.trim_start_matches("http://").trim_end_matches('/')
        }

        /// Stops to accept.
        async fn stop(self) -> (Journal, Draining<S>) {
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
            let running = start(tower::service_fn(|request: Request<Body>| async move {
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
    async fn tunnel(running: &Running<impl Sealed>) -> (TcpStream, TcpStream) {
        let other = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = other.local_addr().unwrap();
        let mut client = TcpStream::connect(running.place()).await.unwrap();
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
        let running = start(tower::service_fn(connect)).await;
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
            let running = start(tower::service_fn(connect)).await;
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
        let running = start(tower::service_fn(connect)).await;
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
            let running = start(tower::service_fn(|_: Request<Body>| async {
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

    #[tokio::test]
    async fn a_handshake_that_is_under_way_when_the_port_closes_is_finished() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let [cert, key] = authority.issue(folder.path(), "own");
        let tls = ServerFiles::read(&config::ServerTls { cert, key, client_ca: None }).unwrap();
        let served = tower::service_fn(async |_: Request<Body>| {
            Ok::<_, BoxError>(Response::new(Body::empty()))
        });
        let running = start_with(Some(tls.follow()), served).await;
        let mut socket = TcpStream::connect(running.place()).await.unwrap();
        let (near, mut far) = duplex(1 << 14);
        let connector = authority.connector();
        let asking = tokio::spawn(async move {
            let mut stream =
                connector.connect("localhost".try_into().unwrap(), near).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            stream.read_u64().await.unwrap().to_be_bytes()
        });
        let mut hello = [0; 4096];
        let length = soon(far.read(&mut hello)).await.unwrap();
        socket.write_all(&hello[..length]).await.unwrap();
        soon(socket.readable()).await.unwrap();

        let (_, mut draining) = running.stop().await;
        tokio::spawn(async move { copy_bidirectional(&mut far, &mut socket).await });
        soon(draining.drain(Duration::from_secs(60))).await;
        assert_eq!(&soon(asking).await.unwrap(), b"HTTP/1.0");
    }

    /// The preface of HTTP/2, and SETTINGS without any.
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";

    #[tokio::test]
    async fn connections_without_a_request_are_in_no_stops_way() {
        let (asked, may_answer) = [(); 2].map(|()| Arc::new(Semaphore::new(0))).into();
        let (asks, waits) = (Arc::clone(&asked), Arc::clone(&may_answer));
        let running = start(tower::service_fn(move |_: Request<Body>| {
            asks.add_permits(1);
            let waits = Arc::clone(&waits);
            async move {
                waits.acquire().await?.forget();
                Ok::<_, BoxError>(Response::new(Body::empty()))
            }
        }))
        .await;
        let mut silent = Vec::new();
        for begun in [b"GET / HTT".as_slice(), b"PRI * HTT", PREFACE] {
            let mut client = TcpStream::connect(running.place()).await.unwrap();
            client.write_all(begun).await.unwrap();
            silent.push(client);
        }
        // It says that it has read the preface.
        soon(silent[2].read_exact(&mut [0; 9])).await.unwrap();
        let url = running.url.clone();
        let asking = clients().map(|client| tokio::spawn(client.get(url.parse().unwrap())));
        let _ = soon(asked.acquire_many(2)).await.unwrap();

        let (_, mut draining) = running.stop().await;
        let drained = draining.drain(Duration::from_secs(60));
        let others = async {
            for mut client in silent {
                client.read_to_end(&mut Vec::new()).await.unwrap();
            }
            may_answer.add_permits(2);
        };
        let _ = soon(join(drained, others)).await;
        for answer in asking {
            assert_eq!(soon(answer).await.unwrap().unwrap().status(), 200);
        }
    }

    #[tokio::test]
    async fn only_a_connection_that_never_asks_is_closed() {
        let running = start(tower::service_fn(async |_: Request<Body>| {
            Ok::<_, BoxError>(Response::new(Body::from("here")))
        }))
        .await;
        let mut silent = TcpStream::connect(running.place()).await.unwrap();
        let mut asking = TcpStream::connect(running.place()).await.unwrap();
        ask(&mut asking).await;
        tokio::time::pause();
        tokio::time::advance(FIRST_REQUEST_TIMEOUT * 2).await;
        tokio::time::resume();
        assert_eq!(soon(silent.read(&mut [0])).await.unwrap(), 0, "it is closed");
        ask(&mut asking).await;
    }

    /// One exchange over a connection that stays open.
    async fn ask(stream: &mut TcpStream) {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nhere") {
            answer.push(soon(stream.read_u8()).await.unwrap());
        }
    }
}
