//! TCP ports on loopback.

use std::net::{SocketAddr, TcpListener};

/// Listens on a port that was free; nobody else can have it while the value lives.
#[must_use]
pub fn hold() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    (listener, address)
}

/// `N` different addresses that were free a moment ago. Someone else may take one before its user
/// does, so whoever starts a program on them tries again on a clash.
#[must_use]
pub fn free<const N: usize>() -> [SocketAddr; N] {
    std::array::from_fn::<_, N, _>(|_| hold()).map(|(_listener, address)| address)
}
