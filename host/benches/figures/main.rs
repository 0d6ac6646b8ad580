//! The figures of the host and its plugin, beside those of other programs, as Markdown.
//!
//! `cargo bench -p host --bench figures`. It builds what it measures, prints, and judges nothing: a
//! missed target is a "no" in the last table. What can be added to the command line, and the method,
//! are in `host/benches/README.md`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a bench prints its result, and has nothing to do but end when it cannot begin"
)]

mod arm;
mod artifacts;
mod callgrind;
mod cpu;
mod exchange;
mod faults;
mod figure;
mod group;
mod http;
mod inside;
mod instructions;
mod lineup;
mod load;
mod machine;
mod plan;
mod profile;
mod programs;
mod scene;
mod server;
mod sink;
mod spans;
mod start;
mod statistics;
mod subject;
mod table;
mod targets;

use std::process::{Command, ExitCode};

use tempfile::TempDir;

use crate::{
    artifacts::Artifacts,
    group::Measured,
    instructions::Instructions,
    machine::{Core, Machine},
    plan::{Part, Plan},
    programs::Programs,
    server::Server,
    table::Table,
    targets::Targets,
};

fn main() -> ExitCode {
    let plan = Plan::of_the_command_line();
    if cfg!(debug_assertions) && (plan.has(Part::Throughput) || plan.has(Part::Faults)) {
        eprintln!(
            "A bench that is built without optimizations makes less load than the servers take, and \
             so measures itself: leave out `--profile dev`, or name parts other than `throughput` \
             and `faults`."
        );
        return ExitCode::FAILURE;
    }
    let needs_release = [Part::Start, Part::Throughput, Part::Faults].map(|part| plan.has(part));
    // All is built before anything is bound to a core.
    let peers = if plan.has(Part::Throughput) || plan.has(Part::Inside) {
        artifacts::build_peers()
    } else {
        Err("the peers are part of the whole run, of `throughput` and of `inside`".to_owned())
    };
    let release = needs_release.contains(&true).then(|| Artifacts::build("release", peers.clone()));
    let counts = plan.has(Part::Instructions) || plan.has(Part::Inside);
    let profiling = counts.then(|| Artifacts::build("profiling", peers));
    let machine = Machine::look();
    println!("\n{machine}");
    if plan.has(Part::Spans) {
        spans_alone();
    }
    if let Some(artifacts) = profiling.as_ref().filter(|_| plan.has(Part::Inside)) {
        inside::tell(artifacts, &plan);
    }
    let mut measured = Vec::new();
    if let Some(artifacts) = release {
        if plan.has(Part::Start) {
            let mut table = Table::default();
            start::measure(&artifacts, &plan).tell(&mut table);
            artifacts.tell(&mut table);
            println!("\n### Start, memory and size\n\n{table}");
        }
        measured = under_load(&artifacts, &machine, &plan);
    }
    let profiling = profiling.filter(|_| plan.has(Part::Instructions));
    let instructions = profiling.map(|artifacts| {
        let instructions = instructions(&artifacts, &plan);
        println!("\n### Instructions and allocations\n\n{instructions}");
        plan.top.iter().for_each(|count| instructions.print_top(*count));
        instructions
    });
    let instructions = instructions.as_ref();
    println!("\n### Targets\n\n{}", Targets { measured: &measured, instructions });
    ExitCode::SUCCESS
}

/// Everything for which servers are asked as fast as they answer.
fn under_load(artifacts: &Artifacts, machine: &Machine, plan: &Plan) -> Vec<Measured> {
    if !plan.has(Part::Throughput) && !plan.has(Part::Faults) {
        return Vec::new();
    }
    let pinned = machine.pin();
    println!("\n{}", placement(pinned));
    let place = |core: Core| if pinned { core.prefix() } else { Vec::new() };
    let folder = TempDir::new().expect("a folder");
    let upstream =
        Server::host(&artifacts.host, &scene::upstream(), folder.path(), &place(Core::Others))
            .expect("the upstream");
    let prefix = place(Core::Server);
    let programs = Programs { artifacts, upstream: upstream.address, prefix, folder };
    let mut measured = Vec::new();
    if plan.has(Part::Throughput) {
        for group in lineup::groups(plan) {
            let group = group.measure(&programs, &upstream, plan.window);
            // At once: whatever happens later, this much is known.
            println!("{group}");
            measured.push(group);
        }
    }
    if plan.has(Part::Faults) {
        faults::tell(&programs, &upstream, plan);
    }
    measured
}

fn instructions(artifacts: &Artifacts, plan: &Plan) -> Instructions {
    let folder = TempDir::new().expect("a folder");
    let upstream = Server::host(&artifacts.host, &scene::upstream(), folder.path(), &[]);
    let upstream = upstream.expect("the upstream");
    let address = upstream.address;
    let mut programs = Programs { artifacts, upstream: address, prefix: Vec::new(), folder };
    let mut subjects = instructions::OWN.to_vec();
    if plan.is_whole() {
        subjects.extend(instructions::PEERS);
    }
    Instructions::measure(&mut programs, &subjects, plan)
}

/// Prints what the plugin's own crate measures.
fn spans_alone() {
    println!("\n### A span without HTTP\n");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["test", "--release", "--quiet", "--package", "plugin-otel", "--target-dir"]);
    cargo.arg(artifacts::target()).args(["--", "--ignored", "--nocapture", "--test-threads", "1"]);
    cargo.arg("figures").current_dir(env!("CARGO_MANIFEST_DIR"));
    match artifacts::like_a_shell(&mut cargo).output() {
        Ok(output) if output.status.success() => {
            let text = String::from_utf8_lossy(&output.stdout);
            // Each figure is a line "NAME: ..."; the rest is the test harness.
            let lines =
                text.lines().filter(|line| line.contains(" ns ") || line.contains("spans/s"));
            lines.for_each(|line| println!("- {line}"));
        }
        Ok(output) => println!("left out: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("left out: cargo does not run: {error}"),
    }
}

const fn placement(pinned: bool) -> &'static str {
    if pinned {
        "The measured servers run on core 0; load, upstream and collectors on core 1."
    } else {
        "Nothing is bound to a core: there is only one, or no `taskset` and `setpriv` (util-linux)."
    }
}
