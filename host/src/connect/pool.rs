//! Connections to instances: each carries one request at a time and is kept for the next one.
//!
//! hyper-util has such a pool, too. Its clones, boxes and hashes for every request were a fifth of what
//! a forwarded request costs in user space.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use rustc_hash::FxHashMap;
use tokio::{net::TcpStream, time::Instant};
use tower::{BoxError, Service};

use super::{SendError, Via, plain};
use crate::{Body, config};

/// How long a connection is kept that nobody needs.
const IDLE_TIMEOUT: Duration = Duration::from_secs(90);

/// How long a response may be on its way before its connection is not waited for any more: it ends
/// with the response. So those that are looked through in vain are few, whatever streams for hours.
const BUSY_TIMEOUT: Duration = Duration::from_secs(1);

/// The connections of one client; clones share them.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    connector: HttpConnector,
    connect_timeout: Duration,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    /// The newest last. A connection whose response body is still on its way is among them, and is
    /// not ready until that has ended. By `host:port` as it stands in URLs: an `Authority` hashes
    /// itself byte by byte.
    by_place: FxHashMap<Box<str>, Vec<Connection>>,
    is_swept: bool,
}

struct Connection {
    sender: http1::SendRequest<Body>,
    peer: SocketAddr,
    since: Instant,
}

impl Kept {
    /// The connection that was used last of those that are ready.
    fn take(&mut self, place: &str) -> Option<Connection> {
        let connections = self.by_place.get_mut(place)?;
        let mut index = connections.len();
        while index > 0 {
            index -= 1;
            let Connection { sender, since, .. } = &connections[index];
            if sender.is_ready() {
                return Some(connections.remove(index));
            }
            if sender.is_closed() || since.elapsed() >= BUSY_TIMEOUT {
                connections.remove(index);
            }
        }
        None
    }

    fn is_empty(&self, place: &str) -> bool {
        self.by_place.get(place).is_none_or(Vec::is_empty)
    }

    fn put(&mut self, place: &str, connection: Connection) {
        match self.by_place.get_mut(place) {
            Some(connections) => connections.push(connection),
            None => _ = self.by_place.insert(place.into(), vec![connection]),
        }
    }

    /// Drops what is closed or has not been used for too long.
    fn sweep(&mut self) {
        self.by_place.retain(|_, connections| {
            connections.retain(|Connection { sender, since, .. }| {
                !sender.is_closed() && since.elapsed() < IDLE_TIMEOUT
            });
            !connections.is_empty()
        });
    }
}

impl Pool {
    /// No connections yet, and the limits of `[client]` for those to come.
    pub(crate) fn new(config: &config::Client) -> Self {
        let connector = plain(config.connect_timeout);
        let connect_timeout = config.connect_timeout;
        Self(Arc::new(Inner { connector, connect_timeout, kept: Mutex::default() }))
    }

    /// Sends `request`, whose target is absolute, and waits for the response head. `via` is known as
    /// soon as there is a connection.
    ///
    /// The request is taken where it stands: moved through every future on its way, it would make each
    /// as large as all of them.
    ///
    /// Where it is dropped before, the connection is closed: its peer might still answer.
    pub(crate) async fn send(
        &self,
        request: &mut Request<Body>,
        via: &mut Via,
    ) -> Result<Response<Incoming>, SendError> {
        let Some(place) = take_place(request.uri_mut()) else {
            return Err(SendError::Connect("the request's target names no place".into()));
        };
        loop {
            let kept = self.kept(place.as_str()).await;
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => {
                    *via = Via::UNKNOWN;
                    // Rare, and larger than all the rest: every request would carry the room for it.
                    Box::pin(self.connect(&place)).await?
                }
            };
            *via = Via { peer: connection.peer.into(), is_pooled: Some(is_kept) };
            match connection.sender.try_send_request(std::mem::take(request)).await {
                Ok(response) => {
                    if !connection.sender.is_closed() {
                        connection.since = Instant::now();
                        self.0.kept().put(place.as_str(), connection);
                    }
                    return Ok(response);
                }
                Err(mut error) => match error.take_message() {
                    // It was closed while nobody looked, and nothing was written.
                    Some(unsent) if is_kept => *request = unsent,
                    _ => return Err(SendError::Exchange(error.into_error())),
                },
            }
        }
    }

    /// A kept connection that is ready.
    async fn kept(&self, place: &str) -> Option<Connection> {
        let kept = self.0.kept().take(place);
        if kept.is_some() || self.0.kept().is_empty(place) {
            return kept;
        }
        // A response that was read to its end just now: its connection is ready in a moment.
        tokio::task::yield_now().await;
        self.0.kept().take(place)
    }

    async fn connect(&self, place: &Authority) -> Result<Connection, SendError> {
        let stream = self.open(place).await.map_err(SendError::Connect)?;
        let peer = stream.inner().peer_addr().map_err(|error| SendError::Connect(error.into()))?;
        let (sender, connection) = http1::handshake(stream).await.map_err(SendError::Exchange)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                // Whoever waits for a response hears of it, too.
                tracing::debug!(%peer, "the connection to an instance ended: {error}");
            }
        });
        self.sweep_from_now_on();
        Ok(Connection { sender, peer, since: Instant::now() })
    }

    async fn open(&self, place: &Authority) -> Result<TokioIo<TcpStream>, BoxError> {
        let uri = Uri::builder().scheme(Scheme::HTTP).authority(place.clone());
        let connection = self.0.connector.clone().call(uri.path_and_query("/").build()?);
        // The connector's own limit begins only when the name is resolved.
        let limit = self.0.connect_timeout;
        let late =
            |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}"));
        Ok(tokio::time::timeout(limit, connection).await.map_err(late)??)
    }

    fn sweep_from_now_on(&self) {
        if !std::mem::replace(&mut self.0.kept().is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }
}

/// The place of an absolute target, which keeps its path: RFC 9112, section 3.2.1.
fn take_place(target: &mut Uri) -> Option<Authority> {
    let parts = std::mem::take(target).into_parts();
    *target = parts.path_and_query.map(Uri::from).unwrap_or_default();
    parts.authority
}

impl Inner {
    // No code that holds the lock can panic half-way, so a poisoned value is a good one.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of connections that nobody needs, as long as there is a client.
async fn sweep(inner: Weak<Inner>) {
    let mut interval = tokio::time::interval(IDLE_TIMEOUT / 3);
    loop {
        interval.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        inner.kept().sweep();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// How long anything may take on a busy machine.
    const DEADLINE: Duration = Duration::from_secs(20);
    const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi";

    /// A listener whose connections each answer so many requests and are closed then.
    async fn instance(answers: usize) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    for _ in 0..answers {
                        let mut request = [0; 4096];
                        let length = stream.read(&mut request).await.unwrap();
                        assert!(request[..length].ends_with(b"\r\n\r\n"));
                        stream.write_all(OK.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        place
    }

    fn request(place: &str) -> Request<Body> {
        Request::get(format!("http://{place}/x")).body(Body::empty()).unwrap()
    }

    /// How many are kept.
    fn count(pool: &Pool, place: &str) -> usize {
        pool.0.kept().by_place.get(place).map_or(0, Vec::len)
    }

    async fn send(pool: &Pool, place: &str) -> Response<Incoming> {
        pool.send(&mut request(place), &mut { Via::UNKNOWN }).await.unwrap()
    }

    /// One exchange; tells whether its connection was kept from another.
    async fn exchange(pool: &Pool, place: &str) -> bool {
        let mut via = Via::UNKNOWN;
        let response = pool.send(&mut request(place), &mut via).await.unwrap();
        assert_eq!(via.peer.address().unwrap().to_string(), place);
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
        via.is_pooled.unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_kept_for_the_next_request() {
        let pool = Pool::new(&config::Client::default());
        let place = instance(20).await;
        for nth in 0..10 {
            assert_eq!(exchange(&pool, &place).await, nth > 0);
            assert_eq!(count(&pool, &place), 1);
        }
    }

    #[tokio::test]
    async fn a_connection_that_was_closed_meanwhile_is_replaced() {
        let pool = Pool::new(&config::Client::default());
        let place = instance(1).await;
        for _ in 0..10 {
            assert!(!exchange(&pool, &place).await);
        }
    }

    #[tokio::test]
    async fn requests_at_the_same_time_do_not_wait_for_each_other() {
        let pool = Pool::new(&config::Client::default());
        let place = instance(10).await;
        let first = send(&pool, &place).await;
        // Its body is not read yet, so its connection may be busy; nobody waits for it.
        let second = tokio::time::timeout(DEADLINE, exchange(&pool, &place));
        second.await.expect("an answer in time");
        drop(first);
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_takes_its_connection_along() {
        let pool = Pool::new(&config::Client::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let mut sent = Box::pin(send(&pool, &place));
        let (mut stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            _ = &mut sent => unreachable!("nobody answers"),
        };
        let mut head = [0; 4096];
        tokio::select! {
            length = stream.read(&mut head) => assert!(length.unwrap() > 0),
            _ = &mut sent => unreachable!("nobody answers"),
        }
        drop(sent);
        assert_eq!(stream.read(&mut head).await.unwrap(), 0, "it is closed");
        assert_eq!(count(&pool, &place), 0);
    }

    #[tokio::test]
    async fn a_response_that_takes_long_is_in_no_ones_way_and_comes_whole() {
        let pool = Pool::new(&config::Client::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let (mut streams, mut responses) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let answer = async {
                let (mut stream, _) = listener.accept().await.unwrap();
                let length = stream.read(&mut [0; 4096]).await.unwrap();
                stream.write_all(&OK.as_bytes()[..OK.len() - 1]).await.unwrap();
                assert!(length > 0);
                stream
            };
            let (response, stream) = tokio::join!(send(&pool, &place), answer);
            responses.push(response);
            streams.push(stream);
        }
        assert_eq!(count(&pool, &place), 20, "each might be ready in a moment");
        tokio::time::pause();
        tokio::time::advance(BUSY_TIMEOUT).await;
        assert!(pool.0.kept().take(&place).is_none());
        assert_eq!(count(&pool, &place), 0);
        tokio::time::resume();
        for (mut stream, response) in streams.into_iter().zip(responses) {
            stream.write_all(b"i").await.unwrap();
            assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hi");
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "it is closed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_needs_is_let_go() {
        let pool = Pool::new(&config::Client::default());
        let place = instance(10).await;
        exchange(&pool, &place).await;
        pool.0.kept().sweep();
        assert_eq!(count(&pool, &place), 1);
        tokio::time::advance(IDLE_TIMEOUT).await;
        pool.0.kept().sweep();
        assert_eq!(count(&pool, &place), 0);
    }

    #[test]
    fn a_name_that_is_not_resolved_in_time_is_no_connection() {
        // Names are resolved on threads that may block. This one has something else to do.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let (over, until_over) = std::sync::mpsc::channel::<()>();
        runtime.spawn_blocking(move || until_over.recv());
        let connect_timeout = Duration::from_millis(100);
        let config = config::Client { connect_timeout, ..config::Client::default() };
        let error = runtime.block_on(async {
            let (pool, mut request) = (Pool::new(&config), request("localhost:1"));
            let mut via = Via::UNKNOWN;
            let sent = tokio::time::timeout(DEADLINE, pool.send(&mut request, &mut via));
            sent.await.expect("an answer in time").unwrap_err()
        });
        drop(over);
        assert!(error.is_connect(), "{error:?}");
    }

    #[tokio::test]
    async fn a_place_where_nobody_listens_is_no_connection() {
        let pool = Pool::new(&config::Client::default());
        let mut via = Via::UNKNOWN;
        let error = pool.send(&mut request("127.0.0.1:1"), &mut via).await.unwrap_err();
        assert!(error.is_connect() && error.is_unanswered());
        assert!(via.peer.address().is_none() && via.is_pooled.is_none());
        assert!(
            pool.send(&mut Request::new(Body::empty()), &mut via).await.unwrap_err().is_connect()
        );
    }
}
