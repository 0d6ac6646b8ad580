//! rotel: a real collector, chained on to the [`Collector`] of the harness.

use std::{
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
};

use crate::{collector::Collector, ports::free, process::Process, trial::Skipped, wait::until};

/// A running rotel that hands everything on over gRPC.
#[derive(Debug)]
pub struct Rotel {
    grpc: SocketAddr,
    http: SocketAddr,
    process: Process,
}

impl Rotel {
    /// Starts rotel before `collector`.
    ///
    /// # Errors
    /// When rotel is not installed.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn before(collector: &Collector) -> Result<Self, Skipped> {
        let program = program().ok_or_else(|| {
            Skipped::new("rotel-agent is not installed (pip install --pre rotel)")
        })?;
        let endpoint = collector.grpc_endpoint();
        let accepts = |address: &SocketAddr| TcpStream::connect(address).is_ok();
        let mut attempts = 0;
        loop {
            let [grpc, http] = free();
            let mut rotel = Self { grpc, http, process: spawn(&program, grpc, http, &endpoint) };
            let ready = until("rotel to accept connections", async || {
                let ended = rotel.process.has_ended();
                (ended || (accepts(&grpc) && accepts(&http))).then_some(!ended)
            });
            if ready.await {
                return Ok(rotel);
            }
            attempts += 1;
            // Someone else may have taken one of the ports.
            assert!(attempts < 5, "rotel does not start");
        }
    }

    /// What `otel.endpoint` is for `grpc`.
    #[must_use]
    pub fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// What `otel.endpoint` is for `http/protobuf` and `http/json`.
    #[must_use]
    pub fn http_endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

fn spawn(program: &PathBuf, grpc: SocketAddr, http: SocketAddr, onward: &str) -> Process {
    let mut command = Command::new(program);
    command.arg("start");
    command.args(["--otlp-grpc-endpoint", &grpc.to_string()]);
    command.args(["--otlp-http-endpoint", &http.to_string()]);
    command.args(["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"]);
    command.args(["--otlp-exporter-endpoint", onward, "--batch-timeout", "200ms"]);
    Process::spawn(&mut command)
}

/// `$ROTEL_AGENT`, the one on the path, or the one that Python's package holds without putting it
/// on the path.
fn program() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("ROTEL_AGENT") {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    let mut on_path = std::env::split_paths(&path).map(|folder| folder.join("rotel-agent"));
    on_path.find(|file| file.is_file()).or_else(in_python)
}

fn in_python() -> Option<PathBuf> {
    let ask =
        "import importlib.util as u; print(u.find_spec('rotel').submodule_search_locations[0])";
    let output = Command::new("python3").args(["-c", ask]).output().ok()?;
    let folder = String::from_utf8(output.stdout).ok()?;
    let program = PathBuf::from(folder.trim()).join("rotel-agent");
    program.is_file().then_some(program)
}
