//! Rounds: every arm has its turn between two turns of the bare forwarder, again and again.

use std::path::Path;

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{
    Plan,
    artifacts::Artifacts,
    load::{self, CONNECTIONS, Run},
    machine::Core,
    scene,
    server::Server,
    sink,
    statistics::Spread,
    table::{Row, Table},
};

/// The share of the bare forwarder's rate that a host without a plugin is to reach.
const TARGET: f64 = 0.90;

/// A turn during which other processes used more of a core than this is not counted, if it can be.
const QUIET: f64 = 0.05;

/// With fewer quiet measurements than this, all are counted.
const ENOUGH: usize = 3;

/// One server and what it did.
struct Arm {
    name: &'static str,
    target: Option<f64>,
    server: Server,
    turns: Vec<Turn>,
}

/// A run, beside the bare forwarder's just before and after it.
#[derive(Clone, Copy)]
struct Turn {
    rate: f64,
    /// Microseconds of processor time for one request.
    cpu: f64,
    /// The rate over that of the bare forwarder.
    ratio: f64,
    /// Microseconds more than the bare forwarder needs.
    more: f64,
    /// The share of a core that other processes used.
    foreign: f64,
}

impl Arm {
    fn new(name: &'static str, target: Option<f64>, server: Server) -> Self {
        Self { name, target, server, turns: Vec::new() }
    }

    fn push(&mut self, run: Run, [before, after]: [Run; 2]) {
        self.turns.push(Turn {
            rate: run.rate(),
            cpu: run.cpu_each(),
            ratio: run.rate() / f64::midpoint(before.rate(), after.rate()),
            more: run.cpu_each() - f64::midpoint(before.cpu_each(), after.cpu_each()),
            foreign: run.foreign.max(before.foreign).max(after.foreign),
        });
    }

    /// The quiet turns where there are enough of them, else all.
    fn counted(&self) -> Vec<Turn> {
        let quiet: Vec<Turn> =
            self.turns.iter().filter(|turn| turn.foreign <= QUIET).copied().collect();
        if quiet.len() < ENOUGH { self.turns.clone() } else { quiet }
    }
}

/// Measures the throughput of every arm. Returns what a reader has to know of the rounds.
pub(crate) fn measure(
    artifacts: &Artifacts,
    plan: &Plan,
    pinned: bool,
    table: &mut Table,
) -> Vec<String> {
    let folder = TempDir::new().expect("a folder");
    let others = pinned.then_some(Core::Others);
    let upstream = Server::host(&artifacts.host, &scene::upstream(), folder.path(), others);
    let [mut bare, mut arms @ ..] = arms(artifacts, &upstream, folder.path(), pinned);

    let turn = |arm: &Arm| load::run(&arm.server, &upstream, plan.window);
    let mut last = turn(&bare);
    for round in 0..plan.rounds {
        let first = round % arms.len();
        for index in (first..arms.len()).chain(0..first) {
            let run = turn(&arms[index]);
            let next = turn(&bare);
            arms[index].push(run, [last, next]);
            bare.push(next, [next; 2]);
            last = next;
        }
    }

    tell(&bare, &arms, table);
    let place = if pinned {
        "The servers ran on core 0; load, upstream and sink on core 1."
    } else {
        "Nothing was bound to a core: there is only one, or no `taskset`."
    };
    let foreign = 100.0 * Spread::of(bare.turns.iter().map(|turn| turn.foreign)).median;
    let mut notes = vec![format!(
        "{} rounds of {:?} an arm, {CONNECTIONS} connections. {place} Other processes used \
         {foreign:.0} % of a core meanwhile (median). Turns with more than {:.0} % are left out \
         where at least {ENOUGH} remain.",
        plan.rounds,
        plan.window,
        100.0 * QUIET
    )];
    notes.extend(arms.iter().filter_map(spans));
    notes
}

fn arms(artifacts: &Artifacts, upstream: &Server, folder: &Path, pinned: bool) -> [Arm; 7] {
    let core = pinned.then_some(Core::Server);
    let (to, plugin) = (upstream.address, artifacts.plugin.as_path());
    let forwarder = || Server::forwarder(&artifacts.forwarder, to, folder, core);
    let host = |config: String| Server::host(&artifacts.host, &config, folder, core);
    let collector = sink::start();
    let traced = |sampler| {
        let server = host(scene::traced(to, plugin, collector, sampler));
        assert!(!server.plugin().is_null(), "the plugin is not loaded");
        server
    };
    [
        Arm::new("bare forwarder", None, forwarder()),
        Arm::new("bare forwarder again (noise floor)", None, forwarder()),
        Arm::new("host, no plugin", Some(TARGET), host(scene::plain(to))),
        Arm::new("host, plugin file missing", Some(TARGET), host(scene::missing(to))),
        Arm::new("host, enabled = false", Some(TARGET), host(scene::disabled(to, plugin))),
        Arm::new("host, plugin, always_off", None, traced("always_off")),
        Arm::new("host, plugin, 100 % over gRPC", None, traced("always_on")),
    ]
}

fn tell(bare: &Arm, arms: &[Arm], table: &mut Table) {
    let turns = bare.counted();
    let rate = Spread::of(turns.iter().map(|turn| turn.rate));
    let cpu = Spread::of(turns.iter().map(|turn| turn.cpu));
    table.push(
        Row::new(format!("throughput of the {}", bare.name))
            .measured(format!("{rate:.0} requests/s"))
            .range(rate.range(0, ""))
            .cpu(format!("{cpu:.1} µs"))
            .counted(turns.len(), bare.turns.len()),
    );
    for arm in arms {
        let turns = arm.counted();
        let ratio = Spread::of(turns.iter().map(|turn| turn.ratio));
        let rate = Spread::of(turns.iter().map(|turn| turn.rate));
        let cpu = Spread::of(turns.iter().map(|turn| turn.cpu));
        let more = Spread::of(turns.iter().map(|turn| turn.more));
        let mut row = Row::new(format!("ratio to it: {}", arm.name))
            .measured(format!("{ratio:.2} ({rate:.0} requests/s)"))
            .range(ratio.range(2, ""))
            .cpu(format!("{cpu:.1} µs ({:+.1})", more.median))
            .counted(turns.len(), arm.turns.len());
        if let Some(target) = arm.target {
            row = row.target(format!(">= {target:.2}"), ratio.median >= target);
        }
        table.push(row);
    }
}

/// What became of an arm's spans; an arm that drops them does less than it seems to.
fn spans(arm: &Arm) -> Option<String> {
    let Json::Object(spans) = arm.server.plugin()["status"]["spans"].take() else { return None };
    let counts: Vec<String> = spans.iter().map(|(name, count)| format!("{count} {name}")).collect();
    Some(format!("Spans of \"{}\": {}.", arm.name, counts.join(", ")))
}
