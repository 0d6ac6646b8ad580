//! What the code pays that is instrumented: events and spans of `tracing`, on the thread that makes
//! them.

use std::{ffi::OsString, fmt, io, path::Path, thread, time::Duration};

use tempfile::TempDir;

use crate::{
    artifacts::Artifacts,
    callgrind::Callgrind,
    cpu, http,
    plan::Plan,
    profile::Profile,
    server::{self, Server},
    sink::Sink,
    statistics::Spread,
    table::{Row, Table},
};

/// So many are made at once: less than any queue takes.
const ROUND: u32 = 10_000;
/// So many that nobody wants, for callgrind to count.
const UNWANTED: u32 = 1_000_000;
/// Within it what a round has made is exported.
const PAUSE: Duration = Duration::from_millis(250);
/// The same under callgrind.
const LONG_PAUSE: Duration = Duration::from_secs(2);

/// A program whose code is instrumented, by what is done with it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arm {
    /// The host, whose plugin exports, and which writes lines of this level.
    Exporting(&'static str),
    /// The host without a plugin, which writes lines of this level.
    Without(&'static str),
    /// The lines of `tracing-subscriber` as it comes, of this level.
    Plain(&'static str),
    /// `tracing-opentelemetry` and `opentelemetry-appender-tracing`.
    Others,
}

/// What is made.
type What = &'static str;

const EVENT: What = "event";
const EVENT_IN_A_SPAN: What = "event-in-a-span";
const SPAN: What = "span";
const UNWANTED_EVENT: What = "unwanted";

/// What callgrind is asked to count.
const COUNTED: [(Arm, What); 13] = [
    (Arm::Plain("warn"), UNWANTED_EVENT),
    (Arm::Without("warn"), UNWANTED_EVENT),
    (Arm::Exporting("warn"), UNWANTED_EVENT),
    (Arm::Plain("info"), EVENT),
    (Arm::Without("info"), EVENT),
    (Arm::Plain("info"), SPAN),
    (Arm::Without("info"), SPAN),
    (Arm::Exporting("warn"), EVENT),
    (Arm::Others, EVENT),
    (Arm::Exporting("warn"), EVENT_IN_A_SPAN),
    (Arm::Others, EVENT_IN_A_SPAN),
    (Arm::Exporting("warn"), SPAN),
    (Arm::Exporting("info"), SPAN),
];

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exporting(level) => write!(f, "host, plugin exporting, lines of {level}"),
            Self::Without(level) => write!(f, "host, no plugin, lines of {level}"),
            Self::Plain(level) => write!(f, "`tracing` alone, lines of {level}"),
            Self::Others => {
                f.write_str("`tracing-opentelemetry` and `opentelemetry-appender-tracing`")
            }
        }
    }
}

/// One of these.
const fn name(what: What) -> &'static str {
    match what.as_bytes() {
        b"event" => "an event",
        b"event-in-a-span" => "an event in a span",
        b"span" => "a nested span",
        _ => "an event that nobody wants",
    }
}

/// Programs, and a folder for what they write.
struct Scene<'a> {
    artifacts: &'a Artifacts,
    folder: TempDir,
}

impl Scene<'_> {
    fn start(&self, arm: Arm, prefix: &[OsString]) -> io::Result<Running> {
        let sink = Sink::start(Duration::ZERO);
        let host = |level: &str, own: &str, prefix: &[OsString]| {
            let config = format!("log.level = \"{level}\"\n{own}");
            Server::host(&self.artifacts.instrumented, &config, self.folder.path(), prefix)
        };
        let server = match arm {
            Arm::Exporting(level) => host(level, &self.exporting(&sink), prefix),
            Arm::Without(level) => host(level, "", prefix),
            Arm::Plain(level) => {
                let plain = ["env".into(), format!("PLAIN={level}").into()];
                host(level, "", &[&plain, prefix].concat())
            }
            Arm::Others => others(self.artifacts, sink.address, self.folder.path(), prefix),
        };
        Ok(Running { server: server?, sink })
    }

    fn exporting(&self, sink: &Sink) -> String {
        format!(
            "[otel]\nenabled = true\nrequired = true\nlibrary = {:?}\n\
             endpoint = \"http://{}\"\nschedule-delay = \"100ms\"\nmetric-interval = \"none\"\n",
            self.artifacts.plugin, sink.address
        )
    }
}

fn others(
    artifacts: &Artifacts,
    collector: std::net::SocketAddr,
    folder: &Path,
    prefix: &[OsString],
) -> io::Result<Server> {
    let program = artifacts.peers.as_ref().map_err(|error| io::Error::other(&**error))?;
    let address = server::free();
    let mut command = server::command(program, prefix);
    let (listen, collector) = (address.to_string(), collector.to_string());
    command.args(["inside", &listen, &listen, &collector, "1"]);
    Server::start(command, folder, address, None)
}

/// A program that runs, with its collector.
struct Running {
    server: Server,
    sink: Sink,
}

impl Running {
    /// Makes so many; nanoseconds that one took of the thread that made it.
    fn make(&self, what: What, count: u32) -> io::Result<f64> {
        let threads = || cpu::of_threads(self.server.pid(), "tokio");
        let before = threads();
        http::get(self.server.address, &format!("/{what}/{count}"))?;
        // It waits for the next request now. Another thread of the runtime may have exported
        // meanwhile, which is less.
        let more = |(id, after): (&OsString, &u64)| after - before.get(id).copied().unwrap_or(0);
        let most = threads().iter().map(more).max();
        Ok(most.unwrap_or_default() as f64 / f64::from(count))
    }

    /// One round, and then the time to export it.
    fn round(&self, what: What) -> io::Result<f64> {
        let took = self.make(what, ROUND);
        thread::park_timeout(PAUSE);
        took
    }
}

/// Measures all of it and prints it.
pub(crate) fn tell(artifacts: &Artifacts, plan: &Plan) {
    let scene = Scene { artifacts, folder: TempDir::new().expect("a folder") };
    let mut table = Table::default();
    if let Err(error) = times(&scene, plan, &mut table) {
        println!("\nTimes are left out: {error}");
    }
    let counted = count(&scene, plan);
    targets(&counted, &mut table);
    println!("\n### Inside\n\n{table}");
    println!("\n| | | instructions of its thread | of all threads | allocations |");
    println!("| --- | --- | --- | --- | --- |");
    for Counted { arm, what, own, all, allocations, .. } in &counted {
        println!("| {} | {arm} | {own:.1} | {all:.1} | {allocations:.2} |", name(what));
    }
    let top = |one: &Counted, count| {
        println!("\n{}, {}: instructions of a function itself\n", name(one.what), one.arm);
        for (function, own) in one.profile.top(count) {
            println!("{:9.1}  {function}", own as f64 / one.times);
        }
    };
    plan.top.iter().for_each(|count| counted.iter().for_each(|one| top(one, *count)));
}

/// Rounds of the plugin and of the others, in turn.
fn times(scene: &Scene<'_>, plan: &Plan, table: &mut Table) -> io::Result<()> {
    let ours = scene.start(Arm::Exporting("warn"), &[])?;
    let theirs = scene.start(Arm::Others, &[])?;
    for (what, limit) in [(EVENT, Some(400.0)), (EVENT_IN_A_SPAN, None), (SPAN, Some(600.0))] {
        // The first round warms up.
        ours.round(what).and(theirs.round(what))?;
        let round = |_| Ok((ours.round(what)?, theirs.round(what)?));
        let rounds = (0..4 * plan.rounds).map(round).collect::<io::Result<Vec<_>>>()?;
        let (our, their) = (
            Spread::of(rounds.iter().map(|(our, _)| *our)),
            Spread::of(rounds.iter().map(|(_, their)| *their)),
        );
        let ratio = Spread::of(rounds.iter().map(|(our, their)| their / our));
        let named = |row: Row, spread: &Spread| {
            row.measured(format!("{spread:.0} ns")).range(spread.range(0, " ns"))
        };
        let row = named(Row::new(format!("{}, {}", name(what), Arm::Exporting("warn"))), &our);
        table.push(match limit {
            Some(limit) => row.target(format!("<= {limit:.0} ns"), our.median <= limit),
            None => row,
        });
        table.push(named(Row::new(format!("{}, {}", name(what), Arm::Others)), &their));
        let row = Row::new(format!("{}, how many times as fast", name(what)));
        let row = row.measured(format!("{ratio:.2}")).range(ratio.range(2, ""));
        table.push(row.target(">= 2", ratio.median >= 2.0));
    }
    let status = ours.server.plugin().map(|plugin| plugin["status"].clone()).unwrap_or_default();
    for signal in ["spans", "logs"] {
        let (exported, dropped) = (&status[signal]["exported"], &status[signal]["dropped"]);
        println!("\nOf the {signal} {exported} were exported and {dropped} dropped.");
    }
    let (spans, logs) = (theirs.sink.spans(), theirs.sink.logs());
    println!("\nOf the others {spans} spans and {logs} log records have arrived.");
    Ok(())
}

/// What callgrind counted, for each one that was made.
struct Counted {
    arm: Arm,
    what: What,
    times: f64,
    /// Of the thread that made it.
    own: f64,
    all: f64,
    allocations: f64,
    profile: Profile,
}

fn count(scene: &Scene<'_>, plan: &Plan) -> Vec<Counted> {
    if !Callgrind::is_installed() {
        println!(
            "Instructions are left out: valgrind is not installed (apt-get install valgrind)."
        );
        return Vec::new();
    }
    let mut counted = Vec::new();
    for (number, (arm, what)) in COUNTED.into_iter().enumerate() {
        let title = format!("{}, {arm}", name(what));
        if !plan.is_meant(&title) {
            continue;
        }
        let callgrind = Callgrind::new(scene.folder.path(), &format!("inside{number}"));
        match one(scene, arm, what, callgrind) {
            Ok(one) => counted.push(one),
            Err(error) => println!("{title} is left out: {error}\n"),
        }
    }
    counted
}

fn one(scene: &Scene<'_>, arm: Arm, what: What, mut callgrind: Callgrind) -> io::Result<Counted> {
    let running = scene.start(arm, &callgrind.prefix())?;
    let times = if what == UNWANTED_EVENT { UNWANTED } else { ROUND };
    running.make(what, 1000)?;
    thread::park_timeout(LONG_PAUSE);
    callgrind.dump(&running.server)?;
    running.make(what, times)?;
    thread::park_timeout(LONG_PAUSE);
    let profile = callgrind.dump(&running.server)?;
    let times = f64::from(times);
    let each = |count: u64| count as f64 / times;
    let maker = profile.thread_of("work::nanoseconds");
    let maker = maker.ok_or_else(|| io::Error::other("no thread is known to have made them"))?;
    let own = each(maker.instructions);
    let (all, allocations) = (each(profile.instructions()), each(profile.allocations));
    Ok(Counted { arm, what, times, own, all, allocations, profile })
}

/// What nobody wants, and what a host without a plugin writes, beside `tracing` alone.
fn targets(counted: &[Counted], table: &mut Table) {
    let own = |arm, what| {
        let found = counted.iter().find(|one| (one.arm, one.what) == (arm, what));
        found.map(|one| one.own)
    };
    for arm in [Arm::Without("warn"), Arm::Exporting("warn")] {
        let pair = own(arm, UNWANTED_EVENT).zip(own(Arm::Plain("warn"), UNWANTED_EVENT));
        let Some((ours, plain)) = pair else { continue };
        let row = Row::new(format!("{}, {arm}", name(UNWANTED_EVENT)));
        let row = row.measured(format!("{:+.1} instructions to `tracing` alone", ours - plain));
        table.push(row.target("<= 10", ours - plain <= 10.0));
    }
    for what in [EVENT, SPAN] {
        let pair = own(Arm::Without("info"), what).zip(own(Arm::Plain("info"), what));
        let Some((ours, plain)) = pair else { continue };
        let percent = 100.0 * (ours / plain - 1.0);
        let row = Row::new(format!("{}, {}", name(what), Arm::Without("info")));
        let row = row.measured(format!("{percent:+.1} % instructions to `tracing` alone"));
        table.push(row.target("<= 2 %", percent <= 2.0));
    }
}
