//! TLS handshakes: under way they hold up neither the listener nor a stop.

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::tls::Acceptor;

/// How long a handshake may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection over TLS, and its other end.
pub(super) type Secured = (TlsStream<TcpStream>, SocketAddr);

/// The handshakes of one listener. Dropped, those under way are given up.
pub(super) struct Handshakes {
    tls: Acceptor,
    under_way: JoinSet<Option<Secured>>,
}

impl Handshakes {
    pub(super) fn new(tls: Acceptor) -> Self {
        Self { tls, under_way: JoinSet::new() }
    }

    pub(super) fn begin(&mut self, stream: TcpStream, peer: SocketAddr) {
        self.under_way.spawn(handshake(self.tls.now(), stream, peer));
    }

    /// Waits for the next that goes well; `None` where none is under way. Cancelling it loses none.
    pub(super) async fn next(&mut self) -> Option<Secured> {
        loop {
            if let Ok(Some(secured)) = self.under_way.join_next().await? {
                return Some(secured);
            }
        }
    }
}

/// Whoever scans ports, or trusts somebody else, makes it fail all the time; it is theirs to mend.
async fn handshake(tls: TlsAcceptor, stream: TcpStream, peer: SocketAddr) -> Option<Secured> {
    match tokio::time::timeout(TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => return Some((stream, peer)),
        Ok(Err(error)) => tracing::debug!(%peer, "no TLS connection: {error}"),
        Err(_) => tracing::debug!(%peer, "no TLS connection in {TIMEOUT:?}"),
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::{
        config::ServerTls,
        tls::{ServerFiles, testing::Authority},
    };

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_speaks_is_given_up() {
        let folder = tempfile::tempdir().unwrap();
        let [cert, key] = Authority::new().issue(folder.path(), "own");
        let tls = ServerFiles::read(&ServerTls { cert, key, client_ca: None }).unwrap();
        let mut handshakes = Handshakes::new(tls.follow());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _silent = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        handshakes.begin(stream, peer);
        let next = tokio::time::timeout(TIMEOUT * 2, handshakes.next()).await;
        assert!(next.is_ok_and(|secured| secured.is_none()));
    }
}
