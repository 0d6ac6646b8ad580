//! Everything that can be measured, and how it is started.

use std::{
    env,
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    artifacts::Artifacts,
    scene,
    server::{self, Server},
};

/// Programs, the upstream that they forward to, and where they run.
pub(crate) struct Programs<'a> {
    pub(crate) artifacts: &'a Artifacts,
    pub(crate) upstream: SocketAddr,
    /// Before every command line.
    pub(crate) prefix: Vec<OsString>,
    pub(crate) folder: TempDir,
}

/// How a forwarder of the folder `peers` is traced: the name that it knows the way by.
pub(crate) type Tracing = &'static str;

impl Programs<'_> {
    /// The host.
    ///
    /// # Errors
    /// As everything here: when it is not installed or not ready in time.
    pub(crate) fn host(&self, config: &str) -> io::Result<Server> {
        Server::host(&self.artifacts.host, config, self.folder.path(), &self.prefix)
    }

    /// A host whose plugin is loaded and sends to `collector`.
    pub(crate) fn traced(&self, collector: SocketAddr, own: &str) -> io::Result<Server> {
        self.host(&scene::traced(self.upstream, &self.artifacts.plugin, collector, own))
    }

    /// The bare forwarder.
    pub(crate) fn bare(&self) -> io::Result<Server> {
        let address = server::free();
        let mut command = self.command(&self.artifacts.forwarder);
        command.args([address.to_string(), self.upstream.to_string()]);
        Server::start(command, self.folder.path(), address, None)
    }

    /// The bare forwarder, traced in one of the ways that others use.
    pub(crate) fn peer(
        &self,
        tracing: Tracing,
        collector: SocketAddr,
        ratio: &str,
    ) -> io::Result<Server> {
        let program = self.artifacts.peers.as_ref().map_err(|error| io::Error::other(&**error))?;
        let address = server::free();
        let mut command = self.command(program);
        command.args([tracing, &address.to_string(), &self.upstream.to_string()]);
        command.args([&collector.to_string(), ratio]);
        Server::start(command, self.folder.path(), address, None)
    }

    /// nginx as a plain forwarder: one process, connections kept, no access log.
    pub(crate) fn nginx(&self) -> io::Result<Server> {
        let program = installed("nginx")?;
        let (address, upstream) = (server::free(), self.upstream);
        let folder = self.fresh("nginx")?;
        let config = format!(
            "daemon off; master_process off; worker_processes 1; pid nginx.pid;\n\
             error_log stderr error;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n\
             access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n\
             client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;\n\
             uwsgi_temp_path t4; scgi_temp_path t5;\n\
             upstream up {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}\n\
             server {{ listen {address}; location / {{\n\
             proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
             }} }} }}\n"
        );
        fs::write(folder.join("nginx.conf"), config)?;
        let mut command = self.command(&program);
        command.args(["-e", "stderr", "-c", "nginx.conf", "-p"]).arg(&folder);
        Server::start(command, &folder, address, None)
    }

    /// Caddy as a forwarder; with a collector its `tracing` directive is on.
    pub(crate) fn caddy(&self, collector: Option<SocketAddr>) -> io::Result<Server> {
        let program = installed("caddy")?;
        let (address, upstream) = (server::free(), self.upstream);
        let folder = self.fresh("caddy")?;
        let tracing = collector.map_or("", |_| "tracing {\nspan hello\n}");
        let config = format!(
            "{{\nadmin off\nauto_https off\n}}\n\
             http://{address} {{\n{tracing}\nreverse_proxy {upstream}\n}}\n"
        );
        let file = folder.join("Caddyfile");
        fs::write(&file, config)?;
        let mut command = self.command(&program);
        command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
        command.env("HOME", &folder).env("XDG_DATA_HOME", &folder).env("XDG_CONFIG_HOME", &folder);
        if let Some(collector) = collector {
            command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"));
            command.env("OTEL_EXPORTER_OTLP_INSECURE", "true");
            command.env("OTEL_BSP_MAX_QUEUE_SIZE", "65536");
        }
        Server::start(command, &folder, address, None)
    }

    /// The reference in Python: aiohttp on both sides, with a collector both instrumented.
    pub(crate) fn python(&self, collector: Option<SocketAddr>) -> io::Result<Server> {
        let packages = python_packages();
        if !packages.join("opentelemetry/instrumentation/aiohttp_client").is_dir() {
            return Err(io::Error::other(
                "its packages are not installed (pip install --target \
                 target/tools/python-interop -r tests/fixtures/python/requirements.txt)",
            ));
        }
        let address = server::free();
        let mut command = self.command(&installed("python3")?);
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/forward.py");
        command.arg("-B").arg(program);
        command.args([address.port().to_string(), self.upstream.to_string()]);
        command.args(collector.map(|collector| collector.to_string()));
        command.env("PYTHONPATH", packages).env("OTEL_SEMCONV_STABILITY_OPT_IN", "http");
        command.env("OTEL_BSP_MAX_QUEUE_SIZE", "65536");
        Server::start(command, self.folder.path(), address, None)
    }

    fn command(&self, program: &Path) -> Command {
        server::command(program, &self.prefix)
    }

    /// A folder that no other server has.
    fn fresh(&self, name: &str) -> io::Result<PathBuf> {
        let folder = server::numbered(self.folder.path(), name);
        fs::create_dir(&folder)?;
        Ok(folder)
    }
}

/// The file of a program on the search path.
fn installed(name: &str) -> io::Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let missing = || io::Error::other(format!("{name} is not installed (apt-get install {name})"));
    env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|it| it.is_file())
        .ok_or_else(missing)
}

/// Where the tests have them as well.
pub(crate) fn python_packages() -> PathBuf {
    let given = env::var_os("PYTHON_INTEROP").map(PathBuf::from);
    given.unwrap_or_else(|| crate::artifacts::target().join("tools/python-interop"))
}
