//! Requests and responses of the load, over HTTP/1.1 and HTTP/2.

use std::{io, net::SocketAddr, time::Instant};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::load::Tally;

/// What a client sends over HTTP/1.1.
pub(crate) fn request(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: localhost:8080\r\nuser-agent: figures\r\naccept: */*\r\n\r\n"
    )
}

/// One request after the other, for ever.
pub(crate) async fn http1(address: SocketAddr, path: &str, tally: &Tally) -> io::Result<()> {
    let request = request(path);
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        buffer.clear();
        while !is_whole(&buffer)? {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        tally.answered(began);
    }
}

/// As many streams at once, one request after the other on each, for ever.
pub(crate) async fn http2(
    address: SocketAddr,
    path: &str,
    streams: usize,
    tally: &Tally,
) -> io::Result<()> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.map_err(io::Error::other)?;
    let url = format!("http://{address}{path}");
    let mut tasks = JoinSet::new();
    tasks.spawn_local(async { connection.await.map_err(io::Error::other) });
    for _ in 0..streams {
        tasks.spawn_local(stream_of(sender.clone(), url.clone(), tally.clone()));
    }
    match tasks.join_next().await {
        Some(ended) => ended.map_err(io::Error::other)?,
        None => Ok(()),
    }
}

async fn stream_of(
    mut sender: SendRequest<Empty<Bytes>>,
    url: String,
    tally: Tally,
) -> io::Result<()> {
    loop {
        let began = Instant::now();
        let request = Request::get(&url).header("user-agent", "figures").header("accept", "*/*");
        let request = request.body(Empty::new()).map_err(io::Error::other)?;
        sender.ready().await.map_err(io::Error::other)?;
        let response = sender.send_request(request).await.map_err(io::Error::other)?;
        drain(response).await?;
        tally.answered(began);
    }
}

async fn drain(response: Response<Incoming>) -> io::Result<()> {
    if response.status() != StatusCode::OK {
        return Err(io::Error::other(format!("{response:?}")));
    }
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        frame.map_err(io::Error::other)?;
    }
    Ok(())
}

/// Whether a response has come to its end; an error when it is not the one that is wanted.
pub(crate) fn is_whole(response: &[u8]) -> io::Result<bool> {
    const END: &[u8] = b"\r\n\r\n";
    let Some(head) = response.windows(END.len()).position(|window| window == END) else {
        return Ok(false);
    };
    let (head, body) = response.split_at(head);
    let length = content_length(head).filter(|_| head.starts_with(b"HTTP/1.1 200 "));
    let wrong = || io::Error::other(String::from_utf8_lossy(response).into_owned());
    Ok(body.len() - END.len() >= length.ok_or_else(wrong)?)
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let is_named =
        |line: &&[u8]| line.get(..NAME.len()).is_some_and(|it| it.eq_ignore_ascii_case(NAME));
    let line = head.split(|byte| *byte == b'\n').find(is_named)?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}
