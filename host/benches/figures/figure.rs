//! The figures of one arm, a row of its group's table.

use std::fmt;

use crate::{
    arm::{Arm, Spans, Turn},
    artifacts::mebibytes,
    cpu,
    statistics::Spread,
    subject::Subject,
};

/// Medians and spreads over the turns that count.
pub(crate) struct Figure {
    pub(crate) subject: Subject,
    pub(crate) is_again: bool,
    /// Requests in a second.
    rate: Spread,
    /// The rate over the yardstick's.
    pub(crate) ratio: Spread,
    /// Microseconds of processor time for a request.
    pub(crate) cpu: Spread,
    /// Of them, more than the yardstick's.
    pub(crate) more: Spread,
    /// Milliseconds.
    p50: Spread,
    p99: Spread,
    /// The slowest hundredth over the yardstick's.
    pub(crate) tail: Spread,
    /// MiB before anything was asked, and in the end.
    resident: [f64; 2],
    pub(crate) spans: Spans,
    counted: [usize; 2],
}

impl Figure {
    pub(crate) const HEAD: &str = "| | requests/s | ratio | min .. max | CPU per request | p50 | p99 | \
        p99 ratio | resident idle, after | spans made, exported, dropped, pending; arrived | counted |\n\
        | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";

    /// `None` for an arm that had no turn.
    pub(crate) fn of(arm: &Arm) -> Option<Self> {
        let turns = arm.counted();
        if turns.is_empty() {
            return None;
        }
        let spread = |of: fn(&Turn) -> f64| Spread::of(turns.iter().map(of));
        Some(Self {
            subject: arm.subject,
            is_again: arm.is_again,
            rate: spread(|turn| turn.run.rate()),
            ratio: spread(|turn| turn.ratio),
            cpu: spread(|turn| turn.run.cpu_each()),
            more: spread(|turn| turn.more),
            p50: spread(|turn| turn.run.p50.as_secs_f64() * 1e3),
            p99: spread(|turn| turn.run.p99.as_secs_f64() * 1e3),
            tail: spread(|turn| turn.tail),
            resident: [arm.idle, cpu::resident(arm.server.pid())].map(mebibytes),
            spans: arm.spans(),
            counted: [turns.len(), arm.turns.len()],
        })
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, rate, ratio, cpu, more, p50, p99, tail, resident, spans, .. } = self;
        let again = if self.is_again { " again (noise floor)" } else { "" };
        let ([idle, after], [counted, all]) = (resident, self.counted);
        write!(f, "| {subject}{again} | {rate:.0} | {ratio:.3} | {} | ", ratio.range(2, ""))?;
        write!(f, "{cpu:.1} µs ({:+.1}) | {p50:.2} ms | {p99:.2} ms | ", more.median)?;
        write!(f, "{tail:.2} | {idle:.1}, {after:.1} MiB | {spans} | {counted} of {all} |")
    }
}

impl fmt::Display for Spans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(it) = self.counted {
            write!(f, "{}, {}, {}, {}", it.made, it.exported, it.dropped, it.pending)?;
        }
        self.arrived.map_or(Ok(()), |arrived| write!(f, "; {arrived}"))
    }
}
