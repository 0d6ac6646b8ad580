//! The sockets that the host listens on.

use std::{io, net::SocketAddr, time::Duration};

use rustix::net::sockopt::{
    set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
};
use tokio::net::TcpListener;

use crate::Error;

/// The listener and the address that it got: port 0 asks for any.
pub(super) async fn listen(
    key: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { key, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    keep_alive(&listener).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Lets the system find out that the other end of a silent connection is gone, for each that
/// `listener` accepts: they have its settings.
fn keep_alive(listener: &TcpListener) -> io::Result<()> {
    set_socket_keepalive(listener, true)?;
    set_tcp_keepidle(listener, Duration::from_secs(60))?;
    set_tcp_keepintvl(listener, Duration::from_secs(10))?;
    Ok(set_tcp_keepcnt(listener, 6)?)
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn a_client_that_is_gone_without_a_word_is_noticed() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (listener, address) = listen("server.listen", any).await.unwrap();
        let _client = TcpStream::connect(address).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(socket_keepalive(&accepted).unwrap());
        assert_eq!(tcp_keepidle(&accepted).unwrap(), Duration::from_secs(60));
    }
}
