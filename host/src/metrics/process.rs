//! `process.*`: what the operating system says of this process.

use std::{fs, time::Instant};

use plugin_api::metrics::{Attribute, Metric, MetricKind, Point, Visit};
use rustix::param::{clock_ticks_per_second, page_size};

/// Shows what there is to know of the process, which began then.
pub(super) fn visit(began: Instant, visit: Visit<'_>) {
    let mut one = |kind, name, unit, description, value: f64| {
        let metric = Metric::new(kind, name, unit, description);
        let metric = if unit == "s" { metric } else { metric.whole() };
        visit(&metric.with_points(&[Point::new(&[], value)]));
    };
    if let Some(bytes) = resident_bytes() {
        let description = "The amount of physical memory in use.";
        one(MetricKind::UP_DOWN_COUNTER, "process.memory.usage", "By", description, bytes);
    }
    let description = "The time the process has been running.";
    let uptime = began.elapsed().as_secs_f64();
    one(MetricKind::GAUGE, "process.uptime", "s", description, uptime);
    let Some(times) = cpu_seconds() else { return };
    let modes = ["user", "system"].map(|mode| [Attribute::text("cpu.mode", mode)]);
    let points: Vec<_> =
        modes.iter().zip(times).map(|(mode, seconds)| Point::new(mode, seconds)).collect();
    let description = "Total CPU seconds broken down by different CPU modes.";
    let metric = Metric::new(MetricKind::COUNTER, "process.cpu.time", "s", description);
    visit(&metric.with_points(&points));
}

/// In user mode, and in the kernel.
fn cpu_seconds() -> Option<[f64; 2]> {
    ticks(&fs::read_to_string("/proc/self/stat").ok()?)
        .map(|ticks| ticks.map(|ticks| ticks as f64 / clock_ticks_per_second() as f64))
}

/// The 14th and the 15th field of `/proc/pid/stat`; the second is the program's name in brackets,
/// which may hold anything.
fn ticks(stat: &str) -> Option<[u64; 2]> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    Some([fields.next()?.parse().ok()?, fields.next()?.parse().ok()?])
}

fn resident_bytes() -> Option<f64> {
    let statm = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((pages * page_size() as u64) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::shown;

    #[test]
    fn the_times_are_found_behind_any_name() {
        let stat = "7 (a) b) 1 2) S 1 7 7 0 -1 4194304 100 0 3 0 250 75 0 0 20 0 3 0 1 2 3";
        assert_eq!(ticks(stat), Some([250, 75]));
        assert_eq!(ticks("7 (a) S 1"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_process_has_memory_and_time() {
        let metrics = shown(|visit| super::visit(Instant::now(), visit));
        let names: Vec<_> = metrics.iter().map(|metric| &*metric.name).collect();
        assert_eq!(names, ["process.memory.usage", "process.uptime", "process.cpu.time"]);
        assert!(metrics[0].points[0].1 > 100_000.0);
        assert_eq!(metrics[2].points[1].0, "cpu.mode=system");
    }
}
