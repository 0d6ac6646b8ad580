//! A server that takes its turns, and what it did in them.

use std::io;

use serde_json::Value as Json;

use crate::{cpu, load::Run, programs::Programs, server::Server, sink::Sink, subject::Subject};

/// A turn during which other processes used more of a core than this is not counted, if it can be.
pub(crate) const QUIET: f64 = 0.05;

/// With fewer quiet measurements than this, all are counted.
pub(crate) const ENOUGH: usize = 3;

/// One server and its turns.
pub(crate) struct Arm {
    pub(crate) subject: Subject,
    /// Whether it is a second process of the yardstick.
    pub(crate) is_again: bool,
    pub(crate) server: Server,
    sink: Option<Sink>,
    /// Bytes in memory before anything was asked.
    pub(crate) idle: u64,
    pub(crate) turns: Vec<Turn>,
    /// Why it takes no more turns.
    pub(crate) failure: Option<io::Error>,
}

/// A run, beside the yardstick's just before and after it.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    pub(crate) run: Run,
    /// The rate over that of the yardstick.
    pub(crate) ratio: f64,
    /// Microseconds of processor time more than the yardstick needs.
    pub(crate) more: f64,
    /// The slowest hundredth over that of the yardstick.
    pub(crate) tail: f64,
    /// The share of a core that other processes used.
    foreign: f64,
}

/// What became of the spans of a server.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spans {
    /// As the plugin counts them; `None` for what is not the host.
    pub(crate) counted: Option<Counted>,
    /// As they came to the collector.
    pub(crate) arrived: Option<u64>,
}

/// The counters of the plugin.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counted {
    /// Begun and recorded.
    pub(crate) made: u64,
    pub(crate) exported: u64,
    pub(crate) dropped: u64,
    pub(crate) pending: u64,
    /// Of those pending, how many are not over.
    pub(crate) open: u64,
}

impl Arm {
    /// Starts the server.
    ///
    /// # Errors
    /// When that cannot be.
    pub(crate) fn start(
        subject: Subject,
        is_again: bool,
        programs: &Programs<'_>,
    ) -> io::Result<Self> {
        let (server, sink) = subject.start(programs)?;
        let idle = cpu::resident(server.pid());
        Ok(Self { subject, is_again, server, sink, idle, turns: Vec::new(), failure: None })
    }

    /// Adds what it did between two runs of the yardstick.
    pub(crate) fn push(&mut self, run: Run, [before, after]: [Run; 2]) {
        let middle = |of: fn(&Run) -> f64| f64::midpoint(of(&before), of(&after));
        let tail = |run: &Run| run.p99.as_secs_f64();
        self.turns.push(Turn {
            run,
            ratio: run.rate() / middle(Run::rate),
            more: run.cpu_each() - middle(Run::cpu_each),
            tail: tail(&run) / middle(tail),
            foreign: run.foreign.max(before.foreign).max(after.foreign),
        });
    }

    /// The quiet turns where there are enough of them, else all.
    pub(crate) fn counted(&self) -> Vec<Turn> {
        let quiet: Vec<Turn> =
            self.turns.iter().filter(|turn| turn.foreign <= QUIET).copied().collect();
        if quiet.len() < ENOUGH { self.turns.clone() } else { quiet }
    }

    /// What became of its spans so far.
    pub(crate) fn spans(&self) -> Spans {
        Spans {
            counted: self.server.plugin().as_ref().and_then(Counted::read),
            arrived: self.sink.as_ref().map(Sink::spans),
        }
    }
}

impl Counted {
    /// Of an entry of `/plugins`.
    pub(crate) fn read(plugin: &Json) -> Option<Self> {
        let status = &plugin["status"];
        let spans = |name: &str| status["spans"][name].as_u64();
        let open = spans("live")?;
        Some(Self {
            made: spans("sampled")?,
            exported: spans("exported")?,
            dropped: spans("dropped")?,
            // A span that is not over is neither exported nor dropped.
            pending: status["export"]["queued"].as_u64()? + open,
            open,
        })
    }

    /// Whether every span that was made is over and somewhere.
    pub(crate) const fn add_up(&self) -> bool {
        self.open == 0 && self.made == self.exported + self.dropped + self.pending
    }
}
