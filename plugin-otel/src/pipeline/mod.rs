//! From a finished span to the collector: a bounded queue, one thread, an exporter.
//!
//! The SDK's batch processor is not used: its queue touches all of its memory at once, and it hides
//! what it drops.

#[allow(dead_code, reason = "spans of the API come this way next")]
mod encode;
pub(crate) mod export;
mod health;
mod queue;
mod span;
#[cfg(test)]
mod tests;
mod worker;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use plugin_api::{ErrorKind, Host, PluginError};
use tokio::{
    runtime::{Builder, Runtime},
    sync::{
        Notify,
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
};

pub(crate) use self::health::{Counts, Export};
use self::{
    health::Health,
    queue::{Finished, Queue},
    worker::Worker,
};
use crate::{config::Config, record::Record};

/// The way of finished spans to the exporter. Shared by all who make spans.
#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    stop: watch::Sender<Option<Instant>>,
    checks: Checks,
    thread: Mutex<Option<Thread>>,
}

/// Asks the export thread to try the exporter; the answer comes by the sender that is sent.
type Checks = UnboundedSender<mpsc::Sender<Result<(), String>>>;

/// The export thread, and what tells that it is over.
#[derive(Debug)]
struct Thread {
    handle: JoinHandle<()>,
    /// Nothing is ever sent: it is closed when the thread ends, however it ends.
    over: mpsc::Receiver<()>,
}

/// What the request threads and the export thread have in common.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    capacity: usize,
    full: Notify,
    flush: Notify,
    health: Health,
}

/// The runtime of the export thread, on which its exporter must be built.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().build()
}

impl Pipeline {
    /// Starts the export thread with an exporter that was built inside `runtime`.
    ///
    /// # Errors
    /// The thread could not be started.
    pub(crate) fn start(
        config: &Config,
        host: Host,
        runtime: Runtime,
        exporter: impl SpanExporter + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            queue: Queue::new(config.max_queue_size, config.max_export_batch_size),
            capacity: config.max_queue_size,
            full: Notify::new(),
            flush: Notify::new(),
            health: Health::new(host),
        });
        let (stop, stopped) = watch::channel(None);
        let (checks, asked) = unbounded_channel();
        let worker = Worker {
            shared: Arc::clone(&shared),
            exporter,
            stop: stopped,
            checks: asked,
            timeout: config.timeout,
            delay: config.schedule_delay,
        };
        let (running, over) = mpsc::channel();
        let handle = thread::Builder::new().name("otel-export".to_owned()).spawn(move || {
            let _running: mpsc::Sender<()> = running;
            runtime.block_on(worker.run());
            // Dropping it would wait for a name resolution that hangs.
            runtime.shutdown_background();
        })?;
        Ok(Self { shared, stop, checks, thread: Mutex::new(Some(Thread { handle, over })) })
    }

    /// Counts a span that begins.
    pub(crate) fn started(&self, is_sampled: bool) {
        self.shared.health.started(is_sampled);
    }

    /// Counts a span that was not sampled and is finished all the same.
    pub(crate) fn kept(&self) {
        self.shared.health.kept();
    }

    /// Takes a span that is over. Never blocks; drops and counts it when there is no room.
    pub(crate) fn finish(&self, record: Record) {
        self.shared.push(Finished::Record(Box::new(record)));
    }

    /// Takes a span that was made through the OpenTelemetry API, in the same way.
    pub(crate) fn finish_span(&self, span: SpanData) {
        self.shared.push(Finished::Span(Box::new(span)));
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.health.counts()
    }

    /// The state of export now.
    pub(crate) fn export(&self) -> Export {
        self.shared.health.export()
    }

    /// How many spans wait or are being exported.
    pub(crate) fn queued(&self) -> u64 {
        self.shared.queue.unsettled()
    }

    /// Sends an export without a span: the way to the collector as a real one takes it. Blocks.
    ///
    /// # Errors
    /// Why the collector did not take it.
    pub(crate) fn check(&self, timeout: Duration) -> Result<(), PluginError> {
        let (reply, answer) = mpsc::channel();
        // A thread that is gone drops the reply, and that is the answer.
        _ = self.checks.send(reply);
        let error = match answer.recv_timeout(timeout) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => PluginError::new(ErrorKind::OTHER, reason),
            Err(_) => {
                let shown = shown(timeout);
                PluginError::new(ErrorKind::TIMEOUT, format_args!("no answer within {shown}"))
            }
        };
        Err(error)
    }

    /// Exports all that has been finished so far. Blocks.
    ///
    /// # Errors
    /// How many spans could not be exported, and why.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), PluginError> {
        let dropped = self.counts().dropped;
        let mark = self.shared.queue.accepted();
        self.shared.flush.notify_one();
        let missing = self.shared.queue.wait_for(mark, deadline_after(timeout));
        if missing > 0 {
            let shown = shown(timeout);
            let message =
                format_args!("spans still waiting after {shown}: {missing}{}", self.why());
            return Err(PluginError::new(ErrorKind::TIMEOUT, message));
        }
        match self.counts().dropped - dropped {
            0 => Ok(()),
            lost => {
                let message = format!("spans lost: {lost}{}", self.why());
                Err(PluginError::new(ErrorKind::OTHER, message))
            }
        }
    }

    /// Exports what waits, then ends and joins the thread. Blocks, but not past the timeout.
    ///
    /// # Errors
    /// How many spans were lost, and why.
    pub(crate) fn shutdown(&self, timeout: Duration) -> Result<(), PluginError> {
        let deadline = deadline_after(timeout);
        // The thread gives up a little earlier, so that there is time to join it.
        let gives_up = deadline_after(timeout.mul_f64(0.9));
        let dropped = self.counts().dropped;
        self.stop.send_replace(Some(gives_up));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_over = thread.is_none_or(|thread| thread.join(deadline));
        self.drop_what_is_left();
        let lost = self.counts().dropped - dropped;
        if is_over && lost == 0 {
            return Ok(());
        }
        let shown = shown(timeout);
        if Instant::now() < gives_up {
            let message = format!("spans lost: {lost}{}", self.why());
            return Err(PluginError::new(ErrorKind::OTHER, message));
        }
        let message = format!("spans lost: {lost}, export was not done in {shown}{}", self.why());
        Err(PluginError::new(ErrorKind::TIMEOUT, message))
    }

    /// Counts as dropped what waits and what a hanging exporter holds; takes no span from now on.
    fn drop_what_is_left(&self) {
        self.shared.queue.close();
        let left = self.shared.queue.unsettled();
        self.shared.health.dropped(left);
        self.shared.queue.settle(usize::try_from(left).unwrap_or(usize::MAX));
    }

    fn why(&self) -> String {
        self.export().last_error.map_or_else(String::new, |error| format!(" ({error})"))
    }
}

impl Thread {
    /// Joins the thread if it ends before the deadline; answers whether it did.
    fn join(self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if self.over.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            return false;
        }
        // A panic outside of an export has gone to the host's log by the panic hook.
        _ = self.handle.join();
        true
    }
}

/// In whole milliseconds: nobody reads further.
fn shown(timeout: Duration) -> humantime::FormattedDuration {
    let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis))
}

/// A timeout too long for the clock is as good as an hour.
fn deadline_after(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or(now + Duration::from_secs(3600))
}
