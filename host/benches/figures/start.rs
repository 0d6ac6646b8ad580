//! Starts: how long one takes, and how much memory a host has when nobody asks it anything.

use std::{net::SocketAddr, path::Path, thread, time::Duration};

use serde_json::Value as Json;
use tempfile::TempDir;

use crate::{
    artifacts::{Artifacts, mebibytes},
    cpu,
    plan::Plan,
    scene,
    server::Server,
    statistics::Spread,
    table::{Row, Table},
};

/// How long a host is left alone before its memory is looked at.
const IDLE: Duration = Duration::from_millis(1000);

/// How many hosts' memory is looked at.
const IDLE_HOSTS: usize = 3;

/// What was measured without the plugin and with it.
pub(crate) struct Starts {
    without: Series,
    with: Series,
}

/// Many starts with one configuration.
struct Series {
    /// Milliseconds from the start of the process to the first 200 of `/readyz`.
    ready: Spread,
    /// Milliseconds that the host itself gives for its start.
    told: Spread,
    /// Milliseconds that the host gives for the plugin, where it does.
    plugin: Option<Spread>,
    /// MiB.
    resident: Spread,
}

/// Starts hosts one after the other, free to run on any core.
pub(crate) fn measure(artifacts: &Artifacts, plan: &Plan) -> Starts {
    // Nobody is asked: neither an upstream nor a collector is needed to be ready.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let folder = TempDir::new().expect("a folder");
    let series = |config: String| Series::measure(&artifacts.host, &config, folder.path(), plan);
    Starts {
        without: series(scene::plain(nobody)),
        with: series(scene::traced(nobody, &artifacts.plugin, nobody, "")),
    }
}

impl Series {
    fn measure(host: &Path, config: &str, folder: &Path, plan: &Plan) -> Self {
        let start = || Server::host(host, config, folder, &[]).expect("a host");
        let (mut ready, mut told, mut plugin) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..plan.starts {
            let server = start();
            ready.push(server.ready_after.as_secs_f64() * 1e3);
            for line in server.log_lines() {
                let Some(took) = line["took"].as_str().and_then(milliseconds) else { continue };
                match &line["message"] {
                    Json::String(message) if message == "ready" => told.push(took),
                    Json::String(message) if message.contains("plugin") => plugin.push(took),
                    _ => {}
                }
            }
        }
        let idle: Vec<Server> = (0..IDLE_HOSTS).map(|_| start()).collect();
        thread::park_timeout(IDLE);
        let resident = idle.iter().map(|server| mebibytes(cpu::resident(server.pid())));
        Self {
            ready: Spread::of(ready),
            told: Spread::of(told),
            plugin: (!plugin.is_empty()).then(|| Spread::of(plugin)),
            resident: Spread::of(resident),
        }
    }
}

impl Starts {
    /// Puts the figures in the table.
    pub(crate) fn tell(&self, table: &mut Table) {
        let Self { without, with } = self;
        let row = |figure: &str, spread: &Spread, unit: &str, limit: f64| {
            Row::new(figure)
                .target(format!("< {limit} {unit}"), spread.median < limit)
                .measured(format!("{spread:.1} {unit}"))
                .range(spread.range(1, &format!(" {unit}")))
        };
        table.push(row("start to ready, without the plugin", &without.ready, "ms", 50.0));
        table.push(row("start to ready, with the plugin", &with.ready, "ms", 50.0));
        table.push(match &with.plugin {
            Some(told) => row("of which loading the plugin, as the host logs it", told, "ms", 10.0),
            None => {
                let more = with.told.median - without.told.median;
                Row::new("of which loading the plugin (difference of the logged `ready took`)")
                    .target("< 10 ms", more < 10.0)
                    .measured(format!("{more:.1} ms"))
            }
        });
        table.push(row("idle resident memory, without the plugin", &without.resident, "MiB", 20.0));
        table.push(row("idle resident memory, with the plugin", &with.resident, "MiB", 35.0));
    }
}

/// A duration as `Debug` writes it.
fn milliseconds(text: &str) -> Option<f64> {
    let units = [("ms", 1.0), ("µs", 1e-3), ("ns", 1e-6), ("s", 1e3)];
    let (number, factor) = units
        .iter()
        .find_map(|(unit, factor)| text.strip_suffix(unit).map(|number| (number, factor)))?;
    number.parse::<f64>().ok().map(|number| number * factor)
}
