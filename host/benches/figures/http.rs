//! One small request to a host's operator endpoints.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// The body of the answer to `GET path`.
///
/// # Errors
/// When nobody answers, or not with 200.
pub(crate) fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/1.1 200 "));
    body.map(|(_, body)| body.to_owned()).ok_or_else(|| io::Error::other(answer.clone()))
}
