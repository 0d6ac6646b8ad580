//! Requests that go on while something happens to their server.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::Method;
use tokio::task::JoinSet;

use crate::{
    client::Client,
    wait::{until, within},
};

/// Workers that each send one request after the other, until it is over.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    workers: JoinSet<()>,
}

/// What they have been answered so far.
#[derive(Debug, Default)]
struct Tally {
    is_over: AtomicBool,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Load {
    /// As many requests as so many `workers` can send.
    #[must_use]
    pub fn start(method: &Method, url: &str, workers: usize) -> Self {
        Self::paced(method, url, workers, Duration::ZERO)
    }

    /// A hundred requests in a second, which leaves a small machine to others.
    #[must_use]
    pub fn gentle(url: &str) -> Self {
        Self::paced(&Method::GET, url, 1, Duration::from_millis(10))
    }

    fn paced(method: &Method, url: &str, workers: usize, pause: Duration) -> Self {
        let (tally, mut tasks) = (Arc::<Tally>::default(), JoinSet::new());
        for _ in 0..workers {
            let (tally, url, method) = (Arc::clone(&tally), url.to_owned(), method.clone());
            tasks.spawn(async move {
                let client = Client::http1();
                while !tally.is_over.load(Ordering::Relaxed) {
                    let status = client.call(method.clone(), &url).send().await.status;
                    let count = if status == 200 { &tally.answered } else { &tally.failed };
                    count.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { tally, workers: tasks }
    }

    /// Waits for as many more answers.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn goes_on(&self, more: usize) {
        let enough = self.tally.answered.load(Ordering::Relaxed) + more;
        until("more answers", async || {
            (self.tally.answered.load(Ordering::Relaxed) >= enough).then_some(())
        })
        .await;
    }

    /// Waits for more answers until it has gone on for so long.
    ///
    /// # Panics
    /// When they do not come.
    pub async fn lasts(&self, time: Duration) {
        let began = Instant::now();
        while began.elapsed() < time {
            self.goes_on(10).await;
        }
    }

    /// Ends it, and tells how many requests have failed.
    ///
    /// # Panics
    /// When a worker had no answer at all.
    pub async fn failed(self) -> usize {
        self.tally.is_over.store(true, Ordering::Relaxed);
        within("the workers' last answers", self.workers.join_all()).await;
        self.tally.failed.load(Ordering::Relaxed)
    }
}
