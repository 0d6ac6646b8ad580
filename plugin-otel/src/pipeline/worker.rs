//! The export thread: waits for a batch, a delay, a flush or the stop, and exports.

use std::{
    sync::{Arc, mpsc::Sender},
    time::Duration,
};

use tokio::{select, sync::mpsc::UnboundedReceiver, task::JoinSet, time};

use super::{
    Shared,
    batch::Batch,
    export::Export,
    retry::{self, Stop},
};

/// How many exports are on their way at a time: with fewer, a collector that takes its time to
/// answer decides how many items can be sent.
const MOST_EXPORTS: usize = 8;

/// Runs on the thread `otel-export` until the pipeline stops.
pub(super) struct Worker<E> {
    pub(super) shared: Arc<Shared>,
    pub(super) exporter: Arc<E>,
    /// The deadline of the stop, once there is one.
    pub(super) stop: Stop,
    pub(super) checks: UnboundedReceiver<Sender<Result<(), String>>>,
    /// For one export with its retries.
    pub(super) timeout: Duration,
    pub(super) delay: Duration,
}

impl<E: Export> Worker<E> {
    /// Exports until the stop, and then what is left, as far as the stop's deadline allows.
    pub(super) async fn run(mut self) {
        let mut exports = JoinSet::new();
        let mut checks = JoinSet::new();
        let mut stopped = self.stop.clone();
        let mut due = time::Instant::now() + self.delay;
        loop {
            while exports.len() < MOST_EXPORTS
                && let Some(batch) = self.shared.queue.take()
            {
                exports.spawn(self.export(batch));
            }
            let is_stopping = self.stop.borrow().is_some();
            if is_stopping && exports.is_empty() && self.shared.queue.is_empty() {
                return;
            }
            select! {
                Some(_) = exports.join_next() => {}
                Some(_) = checks.join_next() => {}
                () = self.shared.due.notified() => {}
                Some(reply) = self.checks.recv() => { checks.spawn(self.check(reply)); }
                () = retry::stopping(&mut self.stop), if !is_stopping => {}
                () = deadline(&mut stopped) => return,
                () = time::sleep_until(due) => {
                    due = time::Instant::now() + self.delay;
                    self.shared.urge();
                    let is_idle = exports.is_empty() && self.shared.queue.is_empty();
                    if is_idle && self.shared.health.export().is_failing {
                        exports.spawn(self.probe());
                    }
                }
            }
        }
    }

    fn export(&self, batch: Batch) -> impl Future<Output = ()> + use<E> {
        let (shared, exporter) = (Arc::clone(&self.shared), Arc::clone(&self.exporter));
        let (timeout, stop) = (self.timeout, self.stop.clone());
        async move {
            let failed = |reason: &str| shared.health.attempt_failed(reason);
            let result = retry::export(&*exporter, &batch, timeout, stop, failed).await;
            let Batch { first, items, units, bytes, .. } = batch;
            // Its memory is free before there is room for new items.
            drop(batch);
            if shared.queue.claim(first) {
                match result {
                    Ok(accepted) => shared.health.export_done(items, units, &accepted),
                    Err(reason) => shared.health.export_failed(items, units, &reason),
                }
                shared.buffers.settled(items, bytes);
                shared.queue.settle(first);
            }
        }
    }

    /// Tries the exporter once, without an item: where export fails and nothing follows what was
    /// lost, nobody else would find out that it works again.
    fn probe(&self) -> impl Future<Output = ()> + use<E> {
        let (shared, exporter) = (Arc::clone(&self.shared), Arc::clone(&self.exporter));
        let (timeout, mut stop) = (self.timeout, self.stop.clone());
        async move {
            let batch = Batch::default();
            let attempt = time::timeout(timeout, retry::attempt(&*exporter, &batch));
            select! {
                answer = attempt => if let Ok(Ok(accepted)) = answer {
                    shared.health.export_done(0, 0, &accepted);
                },
                () = retry::stopping(&mut stop) => {}
            }
        }
    }

    /// Tries the exporter once for whoever asked, without an item.
    fn check(&self, reply: Sender<Result<(), String>>) -> impl Future<Output = ()> + use<E> {
        let (exporter, mut stop) = (Arc::clone(&self.exporter), self.stop.clone());
        async move {
            let batch = Batch::default();
            let answer = select! {
                answer = retry::attempt(&*exporter, &batch) => answer.map_err(|failure| failure.reason),
                () = retry::stopping(&mut stop) => {
                    Err("the host stopped before it was done".to_owned())
                }
            };
            // Whoever asked may have given up.
            _ = reply.send(answer.map(|_| ()));
        }
    }
}

/// Returns when the stop's deadline has passed.
async fn deadline(stop: &mut Stop) {
    // The sender lives as long as the pipeline; without one there is nothing to wait for.
    let at = stop.wait_for(Option::is_some).await.ok().and_then(|at| *at);
    if let Some(at) = at {
        time::sleep_until(at.into()).await;
    }
}
