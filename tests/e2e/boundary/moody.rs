//! An upstream that makes the host call the hooks that a plain request does not.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use harness::{Config, wait::within};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// A service that answers well, cuts every other call where that is asked for, sends trailers where
/// those are, and grants upgrades.
pub(super) struct Moody {
    address: SocketAddr,
    calls: Arc<AtomicU64>,
    named: Arc<AtomicU64>,
}

impl Moody {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (calls, named) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let moody = Self { address, calls: Arc::clone(&calls), named: Arc::clone(&named) };
        tokio::spawn(async move {
            let mut cuts = 0;
            while let Ok((mut stream, _)) = listener.accept().await {
                let Some(head) = read_head(&mut stream).await else { continue };
                calls.fetch_add(1, Ordering::Relaxed);
                let is_named = head.contains("x-older-minor: 1.0.0\r\n");
                named.fetch_add(is_named.into(), Ordering::Relaxed);
                if head.contains("/cut ") {
                    cuts += 1;
                }
                if !head.contains("/cut ") || cuts % 2 == 0 {
                    tokio::spawn(answer(stream, head));
                }
            }
        });
        moody
    }

    /// This service behind a host.
    pub(super) fn behind(&self, config: Config) -> Config {
        let config = config.group("upstream", format!("http://{}", self.address));
        config.forward("/upstream/{what}", "upstream")
    }

    /// How many calls have come.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// How many of them carry the header of the plugin of the older minor.
    pub(super) fn named(&self) -> u64 {
        self.named.load(Ordering::Relaxed)
    }
}

async fn answer(mut stream: TcpStream, head: String) -> std::io::Result<()> {
    if head.contains("/trailers ") {
        let answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\
            connection: close\r\n\r\n4\r\nwell\r\n0\r\nx-sum: 1\r\n\r\n";
        return stream.write_all(answer).await;
    }
    if !head.contains("upgrade: echo") {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nwell";
        return stream.write_all(answer).await;
    }
    let answer =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
    stream.write_all(answer).await?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await.map(drop)
}

/// Asks for another protocol, and uses it.
pub(super) async fn upgrade(host: SocketAddr) {
    let mut stream = TcpStream::connect(host).await.unwrap();
    let request = b"GET /upstream/upgrade HTTP/1.1\r\nhost: here\r\nconnection: upgrade\r\n\
        upgrade: echo\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let head = within("an answer to an upgrade", read_head(&mut stream)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    stream.write_all(b"ping").await.unwrap();
    let mut echo = [0; 4];
    within("an echo through the tunnel", stream.read_exact(&mut echo)).await.unwrap();
    assert_eq!(&echo, b"ping");
}

/// Reads to the empty line.
async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}
