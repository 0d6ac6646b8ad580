//! The figures of the host: one table of throughput, start, memory and size beside their targets.
//!
//! `cargo bench -p host --bench figures`, with `-- --quick` for short rounds. It builds what it
//! measures, prints, and judges nothing: a missed target is a "no" in the table. The method is in
//! `host/benches/README.md`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench prints its result, and has nothing to do but end when it cannot measure"
)]

mod artifacts;
mod cpu;
mod http;
mod load;
mod machine;
mod rounds;
mod scene;
mod server;
mod sink;
mod start;
mod statistics;
mod table;

use std::{env, time::Duration};

use crate::{artifacts::Artifacts, machine::Machine, table::Table};

/// How much is measured.
pub(crate) struct Plan {
    /// How often every arm has its turn.
    pub(crate) rounds: usize,
    /// How long one turn counts, after a warm-up.
    pub(crate) window: Duration,
    /// How often a host is started.
    pub(crate) starts: usize,
}

impl Plan {
    const FULL: Self = Self { rounds: 12, window: Duration::from_millis(1000), starts: 20 };
    const QUICK: Self = Self { rounds: 3, window: Duration::from_millis(250), starts: 5 };
}

fn main() {
    // Anything else is cargo's `--bench`, or meant for the criterion benches beside this one.
    let plan = if env::args().any(|it| it == "--quick") { Plan::QUICK } else { Plan::FULL };
    let artifacts = Artifacts::build();
    let machine = Machine::look();

    let mut table = Table::default();
    let starts = start::measure(&artifacts, &plan);
    let pinned = machine.pin();
    let noise = rounds::measure(&artifacts, &plan, pinned, &mut table);
    starts.tell(&mut table);
    artifacts.tell(&mut table);

    println!("\n{machine}\n\n{table}");
    noise.iter().for_each(|line| println!("{line}"));
}
