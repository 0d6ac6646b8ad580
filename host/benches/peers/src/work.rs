//! What is measured of `tracing`: so many events or spans, the same in every program.

use std::{hint::black_box, time::Instant};

use tracing::{debug, info, info_span};

/// So many events are in one span: fewer than it keeps.
const EVENTS: u32 = 100;

/// How many nanoseconds one took of so many; `None` where there is no such work. Not inlined, so that a
/// profile tells which thread did it.
#[inline(never)]
pub(crate) fn nanoseconds(what: &str, count: u32) -> Option<f64> {
    let began = Instant::now();
    match what {
        "unwanted" => (0..count).for_each(|n| debug!(n, goods = "apples", "nobody wants it")),
        "event" => (0..count).for_each(event),
        "event-in-a-span" => (0..count / EVENTS)
            .for_each(|n| info_span!("around", n).in_scope(|| (0..EVENTS).for_each(event))),
        "span" => info_span!("outer").in_scope(|| (0..count).for_each(span)),
        _ => return None,
    }
    Some(began.elapsed().as_nanos() as f64 / f64::from(count))
}

fn event(n: u32) {
    info!(n, goods = "apples", "an event of a bench");
}

fn span(n: u32) {
    info_span!("inner", n).in_scope(|| black_box(n));
}
