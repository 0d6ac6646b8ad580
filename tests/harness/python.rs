//! Programs in Python, with the packages that `fixtures/python/requirements.txt` names.

use std::{path::PathBuf, process::Command};

use crate::{
    artifacts,
    process::{Output, Process},
    trial::Skipped,
    wait::until,
};

/// The folder that the packages are installed in: `PYTHON_INTEROP`.
#[derive(Clone, Debug)]
pub struct Python(PathBuf);

impl Python {
    /// Python with the packages.
    ///
    /// # Errors
    /// When they are not installed.
    pub fn installed() -> Result<Self, Skipped> {
        let given = std::env::var_os("PYTHON_INTEROP").map(PathBuf::from);
        let folder = given.unwrap_or_else(|| artifacts::target().join("tools/python-interop"));
        let packages = ["opentelemetry/instrumentation/aiohttp_client", "prometheus_client"];
        let is_there = packages.iter().all(|package| folder.join(package).is_dir());
        let reason = "the Python packages are not installed (pip install --target \
                      target/tools/python-interop -r tests/fixtures/python/requirements.txt)";
        if is_there { Ok(Self(folder)) } else { Err(Skipped::new(reason)) }
    }

    /// Starts `fixtures/python/NAME.py`, which exports its spans as the service `name` to `endpoint`,
    /// over HTTP in protobuf.
    #[must_use]
    pub fn start(&self, name: &str, arguments: &[&str], endpoint: &str) -> Process {
        let mut command = Command::new("python3");
        // Nothing is written beside the sources.
        command.arg("-B");
        command.arg(artifacts::fixtures().join("python").join(name).with_extension("py"));
        command.args(arguments).env("PYTHONPATH", &self.0);
        command.env("OTEL_SERVICE_NAME", format!("python-{name}"));
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint);
        command.env("OTEL_SEMCONV_STABILITY_OPT_IN", "http");
        Process::spawn(&mut command)
    }

    /// Starts the service that prints its port, and returns it with its base URL.
    pub async fn serve(&self, name: &str, endpoint: &str) -> (Process, String) {
        let mut service = self.start(name, &[], endpoint);
        let port = until("the port of a service in Python", async || {
            assert!(!service.has_ended(), "{name} has ended: {}", service.stderr());
            Some(service.stdout().split_once('\n')?.0.to_owned())
        })
        .await;
        (service, format!("http://127.0.0.1:{port}"))
    }

    /// Runs a program to its end.
    pub async fn run(&self, name: &str, arguments: &[&str], endpoint: &str) -> Output {
        self.start(name, arguments, endpoint).end().await
    }
}
