//! What a connection is used for once it no longer speaks HTTP: RFC 9110, sections 7.8 and 9.3.6.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use http::{Request, Response};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use plugin_api::Outcome;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::recorder::Recorded;

/// How much of each direction is on its way inside the host at most.
const BUFFER: usize = 16 * 1024;

/// The open tunnels of a server; an extension of every request that may become one.
#[derive(Clone, Default)]
pub(crate) struct Tunnels {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Tunnels {
    /// How many are open.
    pub(crate) fn open(&self) -> usize {
        self.tasks.len()
    }

    /// Waits until the last of them is over.
    pub(crate) async fn ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Cuts them all.
    pub(crate) fn cut(&self) {
        self.stop.cancel();
    }
}

/// The connection of a request that asks for another protocol: an HTTP/1.1 `Upgrade`, or CONNECT.
///
/// The host's routes forward upgrades by themselves. A handler that answers 101, or 2xx to CONNECT,
/// joins the connection with any other that it has; the bytes of both directions are counted, and
/// the plugin is told how it ended. The exchange of the request is over with the response head.
///
/// A tunnel has no timeout. When the host stops, it may go on until `server.drain-timeout` has
/// passed, and is cut then.
///
/// ```
/// use host::{Body, Tunnel};
/// use http::{Request, Response, StatusCode};
///
/// /// A proxy: joins whoever asks for CONNECT with the place that the request names.
/// async fn connect(mut request: Request<Body>) -> std::io::Result<Response<Body>> {
///     let place = request.uri().authority().map(ToString::to_string).unwrap_or_default();
///     let mut response = Response::new(Body::empty());
///     match Tunnel::of(&mut request) {
///         Some(tunnel) => tunnel.join(tokio::net::TcpStream::connect(place).await?, &mut response),
///         None => *response.status_mut() = StatusCode::BAD_REQUEST,
///     }
///     Ok(response)
/// }
/// ```
pub struct Tunnel {
    client: OnUpgrade,
    tunnels: Tunnels,
}

impl Tunnel {
    /// The tunnel that `request` asks for, taken out of it; `None` where it asks for none.
    pub fn of<B>(request: &mut Request<B>) -> Option<Self> {
        let tunnels = request.extensions().get::<Tunnels>()?.clone();
        let client = request.extensions_mut().remove()?;
        Some(Self { client, tunnels })
    }

    /// Joins the connection with `other` once `response` has gone, whose status has to be 101, or
    /// 2xx where the request was CONNECT. Where it does not go, or says something else, `other` is
    /// dropped.
    ///
    /// The end of one direction is passed on, and the other goes on until it ends too.
    pub fn join<T, B>(self, other: T, response: &mut Response<B>)
    where
        T: AsyncRead + AsyncWrite + Send + 'static,
    {
        let followed = Followed::default();
        response.extensions_mut().insert(followed.clone());
        let Tunnels { tasks, stop } = self.tunnels;
        tasks.spawn(run(self.client, other, followed, stop));
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tunnel")
    }
}

/// Where the server's layer puts what follows a tunnel; an extension of the response that opens it.
#[derive(Clone, Default)]
pub(super) struct Followed(Arc<Mutex<Option<Recorded>>>);

impl Followed {
    /// `exchange` follows the tunnel.
    pub(super) fn by(&self, exchange: Option<Recorded>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = exchange;
    }

    fn take(&self) -> Option<Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

async fn run(
    client: OnUpgrade,
    other: impl AsyncRead + AsyncWrite + Send,
    followed: Followed,
    stop: CancellationToken,
) {
    // The response went another way, or nowhere.
    let Ok(client) = client.await else { return };
    // The layer has seen the response before it was sent.
    let exchange = followed.take();
    let (up, down) = (AtomicU64::new(0), AtomicU64::new(0));
    let outcome = tokio::select! {
        outcome = both(TokioIo::new(client), other, &up, &down) => outcome,
        () = stop.cancelled() => Outcome::STOPPED,
    };
    if let Some(exchange) = exchange {
        exchange.end_tunnel(outcome, up.into_inner(), down.into_inner());
    }
}

/// Copies both ways until both are at their end, or one side breaks.
async fn both(
    client: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    up: &AtomicU64,
    down: &AtomicU64,
) -> Outcome {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_upstream, to_upstream) = tokio::io::split(upstream);
    let up = copy(
        Side { io: from_client, gone: Outcome::CLIENT_GONE },
        Side { io: to_upstream, gone: Outcome::UPSTREAM_GONE },
        up,
    );
    let down = copy(
        Side { io: from_upstream, gone: Outcome::UPSTREAM_GONE },
        Side { io: to_client, gone: Outcome::CLIENT_GONE },
        down,
    );
    match tokio::try_join!(up, down) {
        Ok(_) => Outcome::COMPLETE,
        Err(outcome) => outcome,
    }
}

/// One end of a direction, and how the tunnel ends where it breaks.
struct Side<T> {
    io: T,
    gone: Outcome,
}

async fn copy(
    mut from: Side<impl AsyncRead + Unpin>,
    mut to: Side<impl AsyncWrite + Unpin>,
    bytes: &AtomicU64,
) -> Result<(), Outcome> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.io.read(&mut buffer).await.map_err(|_| from.gone)?;
        if length == 0 {
            // A side that is gone altogether is noticed by the other direction.
            let _ = to.io.shutdown().await;
            return Ok(());
        }
        to.io.write_all(&buffer[..length]).await.map_err(|_| to.gone)?;
        to.io.flush().await.map_err(|_| to.gone)?;
        bytes.fetch_add(length as u64, Ordering::Relaxed);
    }
}
