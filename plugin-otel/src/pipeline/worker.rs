//! The export thread: waits for a batch, a delay, a flush or the stop, and exports.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, mpsc::Sender},
    task::Poll,
    time::{Duration, Instant},
};

use opentelemetry_sdk::{
    error::{OTelSdkError, OTelSdkResult},
    trace::SpanExporter,
};
use plugin_api::guard;
use tokio::{
    select,
    sync::{mpsc::UnboundedReceiver, watch},
    time,
};

use super::{
    Shared,
    queue::{Finished, Pushed},
};

/// Runs on the thread `otel-export` until the pipeline stops.
pub(super) struct Worker<E> {
    pub(super) shared: Arc<Shared>,
    pub(super) exporter: E,
    /// The deadline of the stop, once there is one.
    pub(super) stop: watch::Receiver<Option<Instant>>,
    pub(super) checks: UnboundedReceiver<Sender<Result<(), String>>>,
    pub(super) timeout: Duration,
    pub(super) delay: Duration,
}

/// Why the thread wakes.
enum Reason {
    BatchIsFull,
    DelayOrFlush,
    Check(Sender<Result<(), String>>),
    Stop,
}

impl<E: SpanExporter> Worker<E> {
    /// Exports until the stop, and then what is left, as far as the stop's deadline allows.
    pub(super) async fn run(mut self) {
        let mut due = time::Instant::now() + self.delay;
        loop {
            match self.wait_until(due).await {
                Reason::BatchIsFull => self.export_full_batches().await,
                Reason::DelayOrFlush => {
                    due = time::Instant::now() + self.delay;
                    self.export_waiting().await;
                }
                Reason::Check(reply) => {
                    let mut stop = self.stop.clone();
                    let answer = select! {
                        answer = caught(self.exporter.export(Vec::new())) => answer,
                        _ = stop.changed() => Err("the host stopped before it was done".to_owned()),
                    };
                    // Whoever asked may have given up.
                    _ = reply.send(answer);
                }
                Reason::Stop => return self.export_waiting().await,
            }
        }
    }

    /// Returns when there is something to do, at the latest at `due`.
    async fn wait_until(&mut self, due: time::Instant) -> Reason {
        if self.stop.borrow().is_some() {
            return Reason::Stop;
        }
        if self.shared.queue.has_full_batch() {
            return Reason::BatchIsFull;
        }
        select! {
            () = self.shared.full.notified() => Reason::BatchIsFull,
            () = self.shared.flush.notified() => Reason::DelayOrFlush,
            Some(reply) = self.checks.recv() => Reason::Check(reply),
            _ = self.stop.changed() => Reason::Stop,
            () = time::sleep_until(due) => Reason::DelayOrFlush,
        }
    }

    /// Leaves what makes no batch yet: small exports one after the other would cost more.
    async fn export_full_batches(&mut self) {
        while self.shared.queue.has_full_batch() && self.stop.borrow().is_none() {
            let batch = self.shared.queue.take();
            self.export(batch).await;
        }
    }

    /// Exports what waits at this moment, unless the stop's deadline passes meanwhile.
    async fn export_waiting(&mut self) {
        let mut left = self.shared.queue.waiting();
        while left > 0 && self.stop.borrow().is_none_or(|at| Instant::now() < at) {
            let batch = self.shared.queue.take();
            left = left.saturating_sub(batch.len());
            self.export(batch).await;
        }
    }

    async fn export(&mut self, batch: Vec<Finished>) {
        let count = batch.len();
        let (timeout, mut stop) = (self.timeout, self.stop.clone());
        let result = {
            let spans = async {
                self.exporter.export(batch.into_iter().map(Finished::into_span).collect()).await
            };
            select! {
                result = caught(spans) => result,
                () = time::sleep(timeout) => Err(format!(
                    "no answer within {}", humantime::format_duration(timeout)
                )),
                () = deadline(&mut stop) => Err("the host stopped before it was done".to_owned()),
            }
        };
        let health = &self.shared.health;
        match result {
            Ok(()) => health.export_done(count as u64),
            Err(reason) => health.export_failed(count as u64, &reason),
        }
        self.shared.queue.settle(count);
    }
}

/// Returns when the stop's deadline has passed.
async fn deadline(stop: &mut watch::Receiver<Option<Instant>>) {
    // The sender lives as long as the pipeline; without one there is nothing to wait for.
    let Ok(at) = stop.wait_for(Option::is_some).await.map(|at| *at) else { return };
    if let Some(at) = at {
        time::sleep_until(at.into()).await;
    }
}

/// The outcome of an export, or why it failed; a panic in it is a failure, too.
async fn caught(export: impl Future<Output = OTelSdkResult>) -> Result<(), String> {
    let mut export = pin!(export);
    // A future that has panicked is not polled again, whatever it left half-done.
    let panicked = || Poll::Ready(Err("the exporter panicked".to_owned()));
    poll_fn(|context| guard::call(panicked, || export.as_mut().poll(context).map_err(reason))).await
}

fn reason(error: OTelSdkError) -> String {
    match error {
        OTelSdkError::InternalFailure(reason) => reason,
        other => other.to_string(),
    }
}

impl Shared {
    /// Takes a finished span from any thread.
    pub(super) fn push(&self, span: Finished) {
        match self.queue.push(span) {
            Pushed::Waiting => {}
            Pushed::BatchIsFull => self.full.notify_one(),
            Pushed::NoRoom => self.health.queue_full(self.capacity),
            Pushed::Closed => self.health.dropped(1),
        }
    }
}
