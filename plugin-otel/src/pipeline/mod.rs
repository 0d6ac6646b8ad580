//! From a finished span or log record to the collector; one pipeline for each signal.
//!
//! ```text
//! record ─► encode ─► buffers (one a thread) ─► queue ─► worker (thread otel-export) ─► export
//! ```
//!
//! An item is encoded once, by the thread that ends it; the export thread frames and sends whole
//! buffers, several exports at a time. At every moment each finished item is exported, dropped or
//! pending, and counted as such.

mod batch;
mod budget;
mod buffers;
mod encode;
pub(crate) mod export;
mod grpc;
mod health;
mod http;
mod queue;
mod retry;
mod spare;
#[cfg(test)]
mod tests;
mod tls;
mod transport;
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

use opentelemetry_sdk::trace::SpanData;
use plugin_api::{ErrorKind, Host, PluginError};
use tokio::{
    runtime::{Builder, Handle},
    sync::{
        Notify,
        mpsc::{UnboundedSender, unbounded_channel},
        watch,
    },
};

#[cfg(test)]
pub(crate) use self::{
    batch::Batch,
    export::{Accepted, Failure},
};
use self::{
    batch::Scope,
    buffers::{Buffers, Pushed},
    export::Export,
    health::Health,
    queue::Queue,
    worker::Worker,
};
pub(crate) use self::{grpc::Grpc, health::Export as ExportState, transport::Transport};
use crate::{
    config::{self, Destination},
    otlp,
    record::Record,
    redact::shown_url,
    signal::Signal,
};

/// The way of finished spans to the exporter. Shared by all who make spans.
#[derive(Debug)]
pub(crate) struct Pipeline {
    shared: Arc<Shared>,
    stop: watch::Sender<Option<Instant>>,
    checks: Checks,
    /// The URL of the collector as it may be shown; `None` where items go nowhere or to the console.
    collector: Option<String>,
    runtime: Handle,
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
    buffers: Buffers,
    queue: Queue,
    due: Notify,
    health: Health,
    signal: Signal,
}

/// The counters at one moment; `exported`, `dropped` and `queued` are all the items that are finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Spans under way that are recorded.
    pub(crate) live: u64,
    /// Spans begun, recorded or not.
    pub(crate) started: u64,
    /// Spans begun and recorded.
    pub(crate) sampled: u64,
    /// Items that the exporter took.
    pub(crate) exported: u64,
    /// Items that were finished and lost.
    pub(crate) dropped: u64,
    /// Items that wait or are being exported.
    pub(crate) queued: u64,
    /// Those of `dropped` that found no room.
    pub(crate) refused: u64,
    /// Those of `queued` that are being exported.
    pub(crate) inflight: u64,
    /// What went to the exporter.
    pub(crate) units: Units,
}

/// Spans, log records or data points by what has become of them at the exporter. An item of metrics is
/// a collection, which has many data points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Units {
    /// The collector has them.
    pub(crate) taken: u64,
    /// The collector took the rest of their export and not these.
    pub(crate) rejected: u64,
    /// Their export failed.
    pub(crate) failed: u64,
    /// They are on their way.
    pub(crate) inflight: u64,
}

impl Pipeline {
    /// Starts the export thread.
    ///
    /// # Errors
    /// The thread or its runtime could not be started.
    pub(crate) fn start(
        signal: Signal,
        destination: &Destination,
        host: Host,
        exporter: impl Export,
    ) -> io::Result<Self> {
        let (most, batch) = (destination.max_queue_size, destination.max_export_batch_size);
        let shared = Arc::new(Shared {
            buffers: Buffers::new(most, destination.max_queue_bytes, batch),
            queue: Queue::new(batch),
            due: Notify::new(),
            health: Health::new(signal, host),
            signal,
        });
        let goes_out = destination.exporter == config::Exporter::Otlp;
        let collector = goes_out.then(|| shown_url(&destination.endpoint));
        let (stop, stopped) = watch::channel(None);
        let (checks, asked) = unbounded_channel();
        let worker = Worker {
            shared: Arc::clone(&shared),
            exporter: Arc::new(exporter),
            stop: stopped,
            checks: asked,
            timeout: destination.timeout,
            delay: destination.schedule_delay,
        };
        let (running, over) = mpsc::channel();
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let on_runtime = runtime.handle().clone();
        let handle = thread::Builder::new().name("otel-export".to_owned()).spawn(move || {
            let _running: mpsc::Sender<()> = running;
            runtime.block_on(worker.run());
            // Dropping it would wait for a name resolution that hangs.
            runtime.shutdown_background();
        })?;
        let thread = Mutex::new(Some(Thread { handle, over }));
        Ok(Self { shared, stop, checks, collector, runtime: on_runtime, thread })
    }

    /// Lets this run beside the exports, on their thread, until it is over or the thread is.
    pub(crate) fn run_beside(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.runtime.spawn(task));
    }

    /// Counts a span that begins. One that is sampled is under way until it is finished.
    pub(crate) fn started(&self, is_sampled: bool) {
        self.shared.buffers.started(is_sampled);
    }

    /// Counts a span that was not sampled and is finished all the same.
    pub(crate) fn kept(&self) {
        self.shared.buffers.kept();
    }

    /// Counts a span that is not sampled and recorded from now on.
    pub(crate) fn began_unsampled(&self) {
        self.shared.buffers.began_unsampled();
    }

    /// Counts such a span that is over, kept or not.
    pub(crate) fn ended_unsampled(&self) {
        self.shared.buffers.ended_unsampled();
    }

    /// Takes a span that is over. Never blocks; drops and counts it when there is no room.
    pub(crate) fn finish(&self, record: &Record) {
        let Shared { buffers, queue, .. } = &*self.shared;
        let content = encode::content_len(record);
        let write = |out: &mut Vec<u8>| encode::record(record, content, out);
        self.shared.pushed(buffers.push(queue, Scope::Own, otlp::field_len(content), write));
    }

    /// Takes an item of this part of the host in the same way; `write` appends it as it will be sent,
    /// in `most` bytes at most.
    pub(crate) fn finish_item(
        &self,
        target: &'static str,
        most: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Shared { buffers, queue, .. } = &*self.shared;
        self.shared.pushed(buffers.push(queue, Scope::Target(target), most, write));
    }

    /// Takes a span that was made through the OpenTelemetry API, in the same way.
    pub(crate) fn finish_span(&self, span: &SpanData) {
        let Shared { buffers, queue, .. } = &*self.shared;
        let mut bytes = Vec::new();
        encode::span(span, &mut bytes);
        let scope = Scope::Api(batch::scope_fields(&span.instrumentation_scope).into());
        self.shared.pushed(buffers.push_alone(queue, scope, 1, bytes));
    }

    /// Takes an item of so many units that is encoded already: fields of its scope.
    pub(crate) fn finish_encoded(&self, units: usize, item: Vec<u8>) {
        let Shared { buffers, queue, .. } = &*self.shared;
        self.shared.pushed(buffers.push_alone(queue, Scope::Own, units, item));
    }

    /// Does not let what waits wait any longer.
    pub(crate) fn export_now(&self) {
        self.shared.urge();
    }

    /// How many items may wait, those on their way included.
    pub(crate) fn capacity(&self) -> usize {
        self.shared.buffers.bounds().0
    }

    /// The counters now.
    pub(crate) fn counts(&self) -> Counts {
        self.shared.counts()
    }

    /// The state of export now.
    pub(crate) fn export(&self) -> ExportState {
        self.shared.health.export()
    }

    /// Sends an export without an item: the way to the collector as a real one takes it. Blocks.
    ///
    /// # Errors
    /// Why the collector did not take it.
    pub(crate) fn check(&self, timeout: Duration) -> Result<(), PluginError> {
        let Some(place) = &self.collector else { return Ok(()) };
        let (reply, answer) = mpsc::channel();
        // A thread that is gone drops the reply, and that is the answer.
        _ = self.checks.send(reply);
        let (kind, reason) = match answer.recv_timeout(timeout) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => (ErrorKind::OTHER, reason),
            Err(_) => (ErrorKind::TIMEOUT, format!("no answer within {}", shown(timeout))),
        };
        let noun = self.shared.signal.noun();
        let message =
            format_args!("the collector cannot be reached with {noun} at {place}: {reason}");
        Err(PluginError::new(kind, message))
    }

    /// Exports all that has been finished so far. Blocks.
    ///
    /// # Errors
    /// How many items could not be exported, and why.
    pub(crate) fn flush(&self, timeout: Duration) -> Result<(), PluginError> {
        let dropped = self.counts().dropped;
        let mark = self.shared.urge();
        let missing = self.shared.queue.wait_for(mark, deadline_after(timeout));
        if missing > 0 {
            let (noun, shown) = (self.shared.signal.noun(), shown(timeout));
            let message =
                format_args!("{noun} still waiting after {shown}: {missing}{}", self.why());
            return Err(PluginError::new(ErrorKind::TIMEOUT, message));
        }
        match self.counts().dropped - dropped {
            0 => Ok(()),
            lost => {
                let noun = self.shared.signal.noun();
                let message = format!("{noun} lost: {lost}{}", self.why());
                Err(PluginError::new(ErrorKind::OTHER, message))
            }
        }
    }

    /// Exports what waits, then ends and joins the thread. Blocks, but not past the timeout. Spans
    /// that end from now on are dropped.
    ///
    /// # Errors
    /// How many items were lost, and why.
    pub(crate) fn shutdown(&self, timeout: Duration) -> Result<(), PluginError> {
        let deadline = deadline_after(timeout);
        // The thread gives up a little earlier, so that there is time to join it.
        let gives_up = deadline_after(timeout.mul_f64(0.9));
        let dropped = self.counts().dropped;
        self.shared.buffers.close(&self.shared.queue);
        self.shared.queue.urge();
        self.stop.send_replace(Some(gives_up));
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let is_over = thread.is_none_or(|thread| thread.join(deadline));
        self.shared.health.dropped(self.shared.queue.write_off());
        let lost = self.counts().dropped - dropped;
        if is_over && lost == 0 {
            return Ok(());
        }
        let (noun, shown) = (self.shared.signal.noun(), shown(timeout));
        if Instant::now() < gives_up {
            let message = format!("{noun} lost: {lost}{}", self.why());
            return Err(PluginError::new(ErrorKind::OTHER, message));
        }
        let message = format!("{noun} lost: {lost}, export was not done in {shown}{}", self.why());
        Err(PluginError::new(ErrorKind::TIMEOUT, message))
    }

    /// What export has been failing for lately; an error from before it worked again explains nothing.
    fn why(&self) -> String {
        let export = self.export();
        let error = export.last_error.filter(|_| export.is_last_error_new);
        error.map_or_else(String::new, |error| format!(" ({error})"))
    }
}

impl Shared {
    /// Reacts to what became of an item; nearly always there is nothing to do.
    #[inline(always)]
    fn pushed(&self, pushed: Pushed) {
        if pushed != Pushed::Waiting {
            self.react(pushed);
        }
    }

    #[cold]
    fn react(&self, pushed: Pushed) {
        match pushed {
            Pushed::Waiting | Pushed::Closed => {}
            Pushed::ExportIsDue => self.due.notify_one(),
            Pushed::NoRoom => {
                self.health.queue_full(self.buffers.bounds(), || self.counts().dropped);
            }
        }
    }

    fn counts(&self) -> Counts {
        let mut settled = self.health.settled();
        loop {
            // In this order: a span is counted as accepted before it is exported or dropped.
            let made = self.buffers.made();
            let now = self.health.settled();
            if now != settled {
                // An export ended meanwhile; that is rare.
                settled = now;
                continue;
            }
            let (exported, dropped) = settled;
            let (inflight, units) = self.queue.flying();
            return Counts {
                live: made.live,
                started: made.started,
                sampled: made.sampled,
                exported,
                dropped: dropped + made.dropped,
                queued: made.accepted.saturating_sub(exported + dropped),
                refused: made.dropped,
                inflight: inflight as u64,
                units: Units { inflight: units as u64, ..self.health.units() },
            };
        }
    }

    /// Makes an export of all that has been finished so far due; answers the mark to wait for.
    fn urge(&self) -> u64 {
        self.buffers.seal_all(&self.queue);
        let mark = self.queue.urge();
        self.due.notify_one();
        mark
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
