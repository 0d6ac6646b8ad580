//! Metrics: what the host measures and what the plugin counts of itself, collected every interval.
//!
//! ```text
//! host, own counters ─► collector (thread otel-metrics) ─► encode ─► pipeline ─► collector
//! ```
//!
//! The values are kept where they are counted, as totals since the start: a collection that is lost
//! is made good by the next one.

mod encode;
mod own;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use plugin_api::{Host, guard};

use self::encode::{Encoder, Part};
pub(crate) use self::own::Own;
use crate::{clock::Clock, pipeline::Pipeline};

/// Collects every interval until it is stopped.
#[derive(Debug)]
pub(crate) struct Reader {
    sources: Arc<Sources>,
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Nothing is ever sent: dropped, it ends the thread.
    stop: mpsc::Sender<()>,
}

/// Where metrics come from, and where they go.
#[derive(Debug)]
struct Sources {
    host: Host,
    own: Own,
    exemplars: bool,
    pipeline: Arc<Pipeline>,
}

impl Reader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(crate) fn start(
        host: Host,
        own: Own,
        pipeline: Arc<Pipeline>,
        every: Duration,
        exemplars: bool,
    ) -> io::Result<Self> {
        let sources = Arc::new(Sources { host, own, exemplars, pipeline });
        let (stop, stopped) = mpsc::channel();
        let collecting = Arc::clone(&sources);
        let handle = thread::Builder::new().name("otel-metrics".to_owned()).spawn(move || {
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                guard::call(|| (), || collecting.collect());
            }
        })?;
        let thread = Mutex::new(Some(Thread { handle, stop }));
        Ok(Self { sources, thread })
    }

    /// Collects now.
    pub(crate) fn collect(&self) {
        self.sources.collect();
    }

    /// Ends the thread, and collects for the last time.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Thread { handle, stop }) = thread else { return };
        drop(stop);
        // A panic has gone to the host's log by the panic hook.
        _ = handle.join();
        self.collect();
    }

    /// Where the collections go.
    pub(crate) fn pipeline(&self) -> &Arc<Pipeline> {
        &self.sources.pipeline
    }
}

impl Sources {
    fn collect(&self) {
        let mut encoder = Encoder::new(Clock::new().now(), self.exemplars);
        self.host.metrics(&mut |metric| encoder.add(metric));
        self.own.visit(&mut |metric| encoder.add(metric));
        for Part { points, bytes } in encoder.finish() {
            self.pipeline.finish_encoded(points, bytes);
        }
        self.pipeline.export_now();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use opentelemetry_sdk::Resource;

    use super::*;
    use crate::testing::{Journal, PATIENCE, config, pipeline};
    use crate::{config::Config, pipeline::export::Exporter, signal::Signal};

    #[test]
    fn a_reader_collects_every_interval_and_once_more_at_its_end() {
        let config = config("always_on");
        let journal = Journal::default();
        let (spans, _exporter) = pipeline(&config, &journal);
        let own = Own::new(&config.traces, &spans);
        let nowhere = Config::read(r#"{"exporter": "none"}"#, &|_| None).unwrap().metrics;
        let start = |every| {
            let resource = Resource::builder_empty().build();
            let exporter = Exporter::new(Signal::Metrics, &nowhere, &resource).unwrap();
            let pipeline = Pipeline::start(Signal::Metrics, &nowhere, journal.host(), exporter);
            let pipeline = Arc::new(pipeline.unwrap());
            Reader::start(journal.host(), own.clone(), pipeline, every, true).unwrap()
        };
        let exported = |reader: &Reader| reader.pipeline().counts().exported;

        let often = start(Duration::from_millis(1));
        let deadline = Instant::now() + PATIENCE;
        while exported(&often) < 3 {
            assert!(Instant::now() < deadline, "no three collections within {PATIENCE:?}");
            thread::yield_now();
        }
        often.stop();
        often.pipeline().flush(PATIENCE).unwrap();
        let all = exported(&often);
        often.stop();
        often.pipeline().flush(PATIENCE).unwrap();
        assert_eq!(exported(&often), all, "it is over");

        let seldom = start(Duration::from_secs(3600));
        seldom.stop();
        seldom.pipeline().flush(PATIENCE).unwrap();
        assert_eq!(exported(&seldom), 1);
    }
}
