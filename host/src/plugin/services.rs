//! What the host does for a plugin: its lines go to the host's log, at a bounded rate, and it is shown
//! what the host measures.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use plugin_api::{Level, Service, adapter::HostServices, metrics::Visit};

use crate::metrics::Metrics;

use crate::telemetry::bridge::PLUGIN_TARGET;

/// Lines that may come at once, and then within each [`PERIOD`].
const MOST_LINES: u32 = 50;
const PERIOD: Duration = Duration::from_secs(10);

/// The host's side of [`plugin_api::Host`].
pub(super) struct Services {
    service: Service,
    folder: String,
    metrics: Arc<Metrics>,
    rate: Mutex<Rate>,
}

impl Services {
    pub(super) fn new(service: Service, folder: String, metrics: Arc<Metrics>) -> Self {
        Self { service, folder, metrics, rate: Mutex::new(Rate::new(Instant::now())) }
    }
}

impl HostServices for Services {
    fn log(&self, level: Level, target: &str, message: &str) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = rate.admit(Instant::now());
        drop(rate);
        match verdict {
            Verdict::Admitted { suppressed: 0 } => {}
            Verdict::Admitted { suppressed } => {
                tracing::warn!(target: PLUGIN_TARGET, "{suppressed} lines of the plugin were left out");
            }
            Verdict::Suppressed => return,
        }
        // A line of the plugin's must not look like several of the host's.
        let message = message.replace(char::is_control, " ");
        // `tracing` wants the level of a line to be known when it is compiled.
        match level {
            Level::ERROR => tracing::error!(target: PLUGIN_TARGET, from = target, "{message}"),
            Level::WARN => tracing::warn!(target: PLUGIN_TARGET, from = target, "{message}"),
            Level::INFO => tracing::info!(target: PLUGIN_TARGET, from = target, "{message}"),
            Level::DEBUG => tracing::debug!(target: PLUGIN_TARGET, from = target, "{message}"),
            _ => tracing::trace!(target: PLUGIN_TARGET, from = target, "{message}"),
        }
    }

    fn service(&self) -> Service {
        self.service.clone()
    }

    fn metrics(&self, visit: Visit<'_>) {
        self.metrics.visit(visit);
    }

    fn folder(&self) -> String {
        self.folder.clone()
    }
}

/// Counts the lines of the running period.
struct Rate {
    start: Instant,
    lines: u32,
    suppressed: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// The line may go, after so many that did not.
    Admitted {
        suppressed: u64,
    },
    Suppressed,
}

impl Rate {
    const fn new(now: Instant) -> Self {
        Self { start: now, lines: 0, suppressed: 0 }
    }

    fn admit(&mut self, now: Instant) -> Verdict {
        if now.duration_since(self.start) >= PERIOD {
            self.start = now;
            self.lines = 0;
        }
        if self.lines >= MOST_LINES {
            self.suppressed += 1;
            return Verdict::Suppressed;
        }
        self.lines += 1;
        Verdict::Admitted { suppressed: std::mem::take(&mut self.suppressed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for _ in 0..MOST_LINES {
            assert_eq!(rate.admit(start), Verdict::Admitted { suppressed: 0 });
        }
        assert_eq!(rate.admit(start), Verdict::Suppressed);
        assert_eq!(rate.admit(start), Verdict::Suppressed);
        assert_eq!(rate.admit(start + PERIOD), Verdict::Admitted { suppressed: 2 });
    }
}
