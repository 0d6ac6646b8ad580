//! The load: connections that each send one request, read the response, and begin again.

use std::{
    io,
    net::SocketAddr,
    process,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime,
    task::JoinSet,
    time,
};

use crate::{cpu, scene::PATH, server::Server};

/// How many connections ask at once.
pub(crate) const CONNECTIONS: usize = 32;

/// Before anything is counted: connections are made, pools and caches filled, and what the last
/// server has left to do is done.
const WARM_UP: Duration = Duration::from_millis(200);

/// What a server did in a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// The share of a core that processes used which have no part in it.
    pub(crate) foreign: f64,
}

impl Run {
    /// Requests in a second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of processor time for one request.
    pub(crate) fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.requests as f64
    }
}

/// Asks `server`, which asks `upstream`, as often as it answers, for as long as `window`.
pub(crate) fn run(server: &Server, upstream: &Server, window: Duration) -> Run {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(drive(server, upstream, window))
}

async fn drive(server: &Server, upstream: &Server, window: Duration) -> Run {
    let answered = Arc::<AtomicU64>::default();
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        connections.spawn(connection(server.address, Arc::clone(&answered)));
    }
    let look = || Look {
        at: Instant::now(),
        answered: answered.load(Ordering::Relaxed),
        server: server.cpu(),
        others: upstream.cpu() + cpu::used(process::id()),
        busy: cpu::busy(),
    };
    let watched = async {
        time::sleep(WARM_UP).await;
        let before = look();
        time::sleep(window).await;
        (before, look())
    };
    tokio::select! {
        (before, after) = watched => after.since(&before),
        Some(ended) = connections.join_next() => panic!("a connection ended: {ended:?}"),
    }
}

/// The counters at one moment.
struct Look {
    at: Instant,
    answered: u64,
    server: Duration,
    others: Duration,
    busy: Duration,
}

impl Look {
    fn since(&self, before: &Self) -> Run {
        let elapsed = self.at - before.at;
        let own = (self.server + self.others) - (before.server + before.others);
        let foreign = (self.busy - before.busy).saturating_sub(own);
        Run {
            requests: self.answered - before.answered,
            elapsed,
            cpu: self.server - before.server,
            foreign: foreign.as_secs_f64() / elapsed.as_secs_f64(),
        }
    }
}

async fn connection(address: SocketAddr, answered: Arc<AtomicU64>) -> io::Result<()> {
    let request = format!(
        "GET {PATH} HTTP/1.1\r\nhost: {address}\r\nuser-agent: figures\r\naccept: */*\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        stream.write_all(request.as_bytes()).await?;
        buffer.clear();
        while !is_whole(&buffer)? {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Whether a response has come to its end; an error when it is not the one that is wanted.
fn is_whole(response: &[u8]) -> io::Result<bool> {
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
