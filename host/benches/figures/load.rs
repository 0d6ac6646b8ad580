//! The load: connections that each send one request, read the response, and begin again.

use std::{
    cell::RefCell,
    io,
    net::SocketAddr,
    process,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    task::{JoinSet, LocalSet},
    time,
};

use crate::{cpu, exchange, server::Server};

/// Once every connection has been answered, before anything is counted: pools and caches are filled,
/// and what the last server has left to do is done.
const WARM_UP: Duration = Duration::from_millis(150);

/// How long the first answers may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// What is asked, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) path: &'static str,
    pub(crate) connections: usize,
    /// Of HTTP/2 on each connection; `None` is HTTP/1.1.
    pub(crate) streams: Option<usize>,
}

/// What a server did in a window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) requests: u64,
    pub(crate) elapsed: Duration,
    pub(crate) cpu: Duration,
    /// Of a request, half of which were faster.
    pub(crate) p50: Duration,
    /// Of a request, one in a hundred of which was slower.
    pub(crate) p99: Duration,
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

/// How long each request took. All connections are on one thread.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally(Rc<RefCell<Vec<Duration>>>);

impl Tally {
    /// A request that began then is answered.
    pub(crate) fn answered(&self, began: Instant) {
        self.0.borrow_mut().push(began.elapsed());
    }

    fn count(&self) -> usize {
        self.0.borrow().len()
    }
}

/// Asks `server`, which asks `upstream`, as often as it answers, for as long as `window`.
///
/// # Errors
/// When a connection ends, or is answered with anything but a 200.
pub(crate) fn run(
    server: &Server,
    upstream: &Server,
    load: &Load,
    window: Duration,
) -> io::Result<Run> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, drive(server, upstream, load, window))
}

async fn drive(
    server: &Server,
    upstream: &Server,
    load: &Load,
    window: Duration,
) -> io::Result<Run> {
    let tally = Tally::default();
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        connections.spawn_local(connect(server.address, *load, tally.clone()));
    }
    let look = || Look {
        at: Instant::now(),
        answered: tally.count(),
        server: server.cpu(),
        others: upstream.cpu() + cpu::used(process::id()),
        busy: cpu::busy(),
    };
    let watched = async {
        let began = Instant::now();
        while tally.count() < load.connections * load.streams.unwrap_or(1) {
            if began.elapsed() > DEADLINE {
                return Err(io::Error::other("not every connection has been answered"));
            }
            time::sleep(Duration::from_millis(1)).await;
        }
        time::sleep(WARM_UP).await;
        let before = look();
        time::sleep(window).await;
        Ok((before, look()))
    };
    let (before, after) = tokio::select! {
        looks = watched => looks?,
        Some(ended) = connections.join_next() => {
            let reason = ended.map_or_else(|error| error.to_string(), |it| format!("{it:?}"));
            return Err(io::Error::other(format!("a connection ended: {reason}")));
        }
    };
    let mut latencies = tally.0.borrow()[before.answered..after.answered].to_vec();
    latencies.sort_unstable();
    after.since(&before, &latencies)
}

async fn connect(address: SocketAddr, load: Load, tally: Tally) -> io::Result<()> {
    match load.streams {
        None => exchange::http1(address, load.path, &tally).await,
        Some(streams) => exchange::http2(address, load.path, streams, &tally).await,
    }
}

/// The counters at one moment.
struct Look {
    at: Instant,
    answered: usize,
    server: Duration,
    others: Duration,
    busy: Duration,
}

impl Look {
    fn since(&self, before: &Self, latencies: &[Duration]) -> io::Result<Run> {
        let elapsed = self.at - before.at;
        let own = (self.server + self.others).saturating_sub(before.server + before.others);
        let foreign = (self.busy - before.busy).saturating_sub(own);
        let at = |hundredths: usize| latencies.get(latencies.len() * hundredths / 100).copied();
        let none = || io::Error::other("nothing was answered");
        Ok(Run {
            requests: latencies.len() as u64,
            elapsed,
            cpu: self.server.saturating_sub(before.server),
            p50: at(50).ok_or_else(none)?,
            p99: at(99).ok_or_else(none)?,
            foreign: foreign.as_secs_f64() / elapsed.as_secs_f64(),
        })
    }
}
