//! Collectors that fail while every request is recorded: what it costs, and what a stop then does.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use crate::{
    arm::Counted,
    artifacts::mebibytes,
    cpu,
    load::{self, Load},
    plan::Plan,
    programs::Programs,
    scene::{FORWARDED, sampled},
    server::{self, Server},
    sink::Sink,
    subject::SLOW,
};

/// How soon after the load its last span is over.
const SETTLED_WITHIN: Duration = Duration::from_secs(5);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);

/// What a full queue may add to the memory that the same load takes with a collector that is well: the
/// plugin's default bound, and half of it for what is being framed and sent.
const BOUND: f64 = 12.0;

/// The collector that the others are compared with, which comes first.
const WELL: &str = "well";

/// As the settings that are measured say, with something for the rest of the stop.
const STOP_WITHIN: Duration = Duration::from_secs(13);

/// One collector and what the host did with it.
pub(crate) struct Fault {
    rate: f64,
    /// MiB before the load and after it.
    resident: [f64; 2],
    spans: Counted,
    stopped_after: Duration,
    status: String,
}

/// Loads a host for `plan.fault` with each collector, and prints a table.
pub(crate) fn tell(programs: &Programs<'_>, upstream: &Server, plan: &Plan) {
    println!("\n### Collectors that fail, {:?} of full load each\n", plan.fault);
    println!(
        "| collector | requests/s | resident before, after | within the bound | spans made, exported, \
         dropped, pending | add up | stop | exit |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let closed = server::free();
    let silent = TcpListener::bind(("127.0.0.1", 0));
    let silent_address = silent.as_ref().ok().and_then(|listener| listener.local_addr().ok());
    let slow = Sink::start(SLOW);
    let well = Sink::start(Duration::ZERO);
    let collectors = [
        (WELL, Some(well.address)),
        ("dead (its port is closed)", Some(closed)),
        ("silent (connects, never answers)", silent_address),
        ("slow (answers after 100 ms)", Some(slow.address)),
    ];
    let mut taken_by_load = 0.0;
    for (name, address) in collectors {
        let none = || io::Error::other("no free port");
        let address = address.ok_or_else(none);
        match address.and_then(|address| Fault::measure(programs, upstream, address, plan)) {
            Ok(fault) => {
                fault.tell(name, taken_by_load);
                if name == WELL {
                    taken_by_load = fault.grown();
                }
            }
            Err(error) => println!("| {name} | {} | | | | | | |", error.to_string().trim_end()),
        }
    }
}

/// The counters of the plugin, when every span is over: the last requests may end behind the load.
fn settled(server: &Server) -> io::Result<Counted> {
    let uncounted = || io::Error::other("the plugin counts no spans");
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let spans = server.plugin().as_ref().and_then(Counted::read).ok_or_else(uncounted)?;
        if spans.open == 0 || Instant::now() > deadline {
            return Ok(spans);
        }
        thread::park_timeout(PAUSE);
    }
}

impl Fault {
    fn measure(
        programs: &Programs<'_>,
        upstream: &Server,
        collector: SocketAddr,
        plan: &Plan,
    ) -> io::Result<Self> {
        let load = Load { path: FORWARDED, connections: 64, streams: None };
        let server = programs.traced(collector, &sampled("1"))?;
        let before = cpu::resident(server.pid());
        let run = load::run(&server, upstream, &load, plan.fault)?;
        let after = cpu::resident(server.pid());
        let spans = settled(&server)?;
        let (stopped_after, status) = server.stop()?;
        let resident = [before, after].map(mebibytes);
        Ok(Self { rate: run.rate(), resident, spans, stopped_after, status })
    }

    /// MiB that the load took.
    fn grown(&self) -> f64 {
        let [before, after] = self.resident;
        after - before
    }

    fn tell(&self, name: &str, taken_by_load: f64) {
        let Self { rate, resident: [before, after], spans, stopped_after, status } = self;
        let Counted { made, exported, dropped, pending, .. } = spans;
        let yes = |holds: bool| if holds { "yes" } else { "**no**" };
        println!(
            "| {name} | {rate:.0} | {before:.1}, {after:.1} MiB | {} | {made}, {exported}, {dropped}, \
             {pending} | {} | {:.1} s ({}) | {status} |",
            yes(self.grown() - taken_by_load <= BOUND),
            yes(spans.add_up()),
            stopped_after.as_secs_f64(),
            yes(*stopped_after <= STOP_WITHIN),
        );
    }
}
