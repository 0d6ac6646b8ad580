//! Rounds: every arm has its turn between two turns of the bare forwarder, again and again.

use std::{
    path::Path,
    process,
    time::{Duration, Instant},
};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{
    Plan,
    artifacts::Artifacts,
    cpu,
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

/// One server and what it did.
struct Arm {
    name: &'static str,
    target: Option<f64>,
    server: Server,
    /// Its rate beside that of the bare forwarder just before and after it.
    ratios: Vec<f64>,
    runs: Vec<Run>,
}

impl Arm {
    fn new(name: &'static str, target: Option<f64>, server: Server) -> Self {
        Self { name, target, server, ratios: Vec::new(), runs: Vec::new() }
    }

    fn turn(&mut self, window: Duration) -> Run {
        let run = load::run(&self.server, window);
        self.runs.push(run);
        run
    }

    fn rate(&self) -> Spread {
        Spread::of(self.runs.iter().map(Run::rate))
    }

    /// Microseconds of processor time for one request.
    fn cpu(&self) -> f64 {
        let cpu: Duration = self.runs.iter().map(|run| run.cpu).sum();
        let requests: u64 = self.runs.iter().map(|run| run.requests).sum();
        cpu.as_secs_f64() * 1e6 / requests as f64
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

    let own = |bare: &Arm, arms: &[Arm]| {
        let servers = arms.iter().map(|arm| &arm.server).chain([&bare.server, &upstream]);
        servers.map(Server::cpu).sum::<Duration>() + cpu::used(process::id())
    };
    let (began, busy, used) = (Instant::now(), cpu::busy(), own(&bare, &arms));
    for round in 0..plan.rounds {
        let first = round % arms.len();
        let mut before = bare.turn(plan.window).rate();
        for index in (first..arms.len()).chain(0..first) {
            let rate = arms[index].turn(plan.window).rate();
            let after = bare.turn(plan.window).rate();
            arms[index].ratios.push(rate / f64::midpoint(before, after));
            before = after;
        }
    }
    let foreign = (cpu::busy() - busy).saturating_sub(own(&bare, &arms) - used);
    let foreign = 100.0 * foreign.as_secs_f64() / began.elapsed().as_secs_f64();

    tell(&bare, &arms, table);
    let place = if pinned {
        "The servers ran on core 0; load, upstream and sink on core 1."
    } else {
        "Nothing was bound to a core: there is only one, or no `taskset`."
    };
    let mut notes = vec![format!(
        "{} rounds of {:?} an arm, {CONNECTIONS} connections. {place} Other processes used \
             {foreign:.0} % of a core meanwhile.",
        plan.rounds, plan.window
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
    let rate = bare.rate();
    table.push(
        Row::new(format!("throughput of the {}", bare.name))
            .measured(format!("{rate:.0} requests/s"))
            .range(rate.range(0, ""))
            .cpu(format!("{:.1} µs", bare.cpu())),
    );
    for arm in arms {
        let ratio = Spread::of(arm.ratios.iter().copied());
        let mut row = Row::new(format!("ratio to it: {}", arm.name))
            .measured(format!("{ratio:.2} ({:.0} requests/s)", arm.rate()))
            .range(ratio.range(2, ""))
            .cpu(format!("{:.1} µs ({:+.1})", arm.cpu(), arm.cpu() - bare.cpu()));
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
