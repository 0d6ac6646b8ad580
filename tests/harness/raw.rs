//! Bytes as they are on the wire, on both sides of the host.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::wait::within;

/// A service that keeps every byte that it is sent, and answers each request with the same bytes.
#[derive(Debug)]
pub struct RawUpstream {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl RawUpstream {
    /// Starts a service that answers every request with `answer`.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, answer, Arc::clone(&sink)));
            }
        });
        Self { address, requests, task }
    }

    /// Starts a service that answers a request with `head`, a 101, and from then on sends back what
    /// it is sent; at the end of that it says `bye` and closes.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn switching(head: &'static [u8]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let requests = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&requests);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(switch(stream, head, Arc::clone(&sink)));
            }
        });
        Self { address, requests, task }
    }

    /// The base URL, for `[discovery.static]`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Takes the requests that have come since the last time, each from its first byte to its last.
    ///
    /// # Panics
    /// Never: nothing panics with the lock.
    #[must_use]
    pub fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: &[u8], requests: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        if is_whole(&bytes) {
            requests.lock().unwrap().push(std::mem::take(&mut bytes));
            if stream.write_all(answer).await.is_err() {
                return;
            }
        }
    }
}

async fn switch(mut stream: TcpStream, head: &[u8], requests: Arc<Mutex<Vec<Vec<u8>>>>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        if is_whole(&bytes) {
            break;
        }
    }
    requests.lock().unwrap().push(bytes);
    // A connection that breaks is for the test to judge.
    let _ = stream.write_all(head).await;
    let (mut from, mut to) = stream.split();
    let _ = tokio::io::copy(&mut from, &mut to).await;
    let _ = to.write_all(b"bye").await;
}

/// Whether `bytes` are a request with all of its body.
fn is_whole(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let head = head.to_ascii_lowercase();
    if head.contains("transfer-encoding: chunked") {
        return body.ends_with("0\r\n\r\n");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    body.len() >= length.map_or(0, |length| length.trim().parse().expect("a content length"))
}

/// All that comes, up to and with `last`.
///
/// # Panics
/// When the connection ends before, or what comes is no text.
pub async fn read_until(stream: &mut (impl AsyncRead + Unpin), last: &str) -> String {
    let mut bytes = Vec::new();
    within(&format!("{last:?}"), async {
        while !bytes.ends_with(last.as_bytes()) {
            bytes.push(stream.read_u8().await.expect("more to come"));
        }
    })
    .await;
    String::from_utf8(bytes).expect("text")
}

/// Sends `request`, which must ask for the connection to be closed, and returns all that comes.
///
/// # Panics
/// When the connection breaks.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut answer = Vec::new();
    within("the end of a raw exchange", async {
        let mut stream = TcpStream::connect(address).await.expect("the host listens");
        stream.write_all(request).await.expect("the host reads");
        stream.read_to_end(&mut answer).await.expect("the host answers and closes");
    })
    .await;
    answer
}
