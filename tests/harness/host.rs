//! The host, as a process.

use std::{
    fs,
    net::SocketAddr,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    artifacts,
    client::{Answer, Call, Client},
    config::Config,
    ports::free,
    process::{Output, Process, Signal},
    wait::until,
};

/// A host that is ready to serve. Dropped, it is killed.
#[derive(Debug)]
pub struct HostProcess {
    process: Process,
    public: SocketAddr,
    admin: SocketAddr,
    client: Client,
    folder: TempDir,
}

/// How a host is to be started.
#[derive(Debug)]
pub struct Launch {
    config: Config,
    binary: PathBuf,
    environment: Vec<(String, String)>,
    user: Option<u32>,
}

impl Launch {
    /// The host, with `config`.
    #[must_use]
    pub fn host(config: Config) -> Self {
        Self::of(artifacts::host(), config)
    }

    /// The service that the host's example `name` builds on the host library, with `config`.
    #[must_use]
    pub fn example(name: &str, config: Config) -> Self {
        Self::of(artifacts::example(name), config)
    }

    fn of(binary: PathBuf, config: Config) -> Self {
        Self { config, binary, environment: Vec::new(), user: None }
    }

    /// Another binary than the one that was built.
    #[must_use]
    pub fn binary(self, binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into(), ..self }
    }

    /// One more environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Another user than the one who runs the tests, which takes root.
    #[must_use]
    pub fn user(self, user: Option<u32>) -> Self {
        Self { user, ..self }
    }

    /// Starts the host on free ports and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends before it is ready, or is not ready by the deadline.
    pub async fn start(self) -> HostProcess {
        self.until(200).await
    }

    /// Starts the host on free ports and waits until it says that it is not ready yet.
    ///
    /// # Panics
    /// When it ends before, or says nothing by the deadline.
    pub async fn begin(self) -> HostProcess {
        self.until(503).await
    }

    async fn until(self, ready: u16) -> HostProcess {
        // Another process may take a port between the look and the start; exit code 69 says so.
        for _ in 0..5 {
            let [public, admin] = free();
            let mut host = self.spawn(public, admin);
            if host.answers(ready).await {
                return host;
            }
            let output = host.process.end().await;
            assert_eq!(output.code, 69, "ended before it was ready: {output:?}");
        }
        panic!("no free ports in five attempts")
    }

    fn spawn(&self, public: SocketAddr, admin: SocketAddr) -> HostProcess {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("host.toml");
        let config = self.config.clone().set("server.listen", public.to_string());
        let text = config.set("admin.listen", admin.to_string()).text();
        let text = text.replace(Config::OWN_URL, &format!("http://{public}"));
        fs::write(&file, text).expect("a writable folder");
        let mut command = clean(&self.binary, folder.path());
        command.arg("--config").arg(&file);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some(user) = self.user {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(folder.path(), mode).expect("a folder of our own");
            command.uid(user);
        }
        let process = Process::spawn(&mut command);
        HostProcess { process, public, admin, client: Client::http1(), folder }
    }
}

impl HostProcess {
    /// Starts the host with `config` and waits until it says that it is ready.
    pub async fn start(config: Config) -> Self {
        Launch::host(config).start().await
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Bytes of it that are in memory.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id()));
        let status = status.expect("a process that runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes =
            line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kibibytes.expect("a process that runs") * 1024
    }

    /// Where it serves.
    #[must_use]
    pub fn public(&self) -> SocketAddr {
        self.public
    }

    /// Where it answers operators.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The folder that the configuration file is in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    /// The lines among them that contain all of `words`.
    #[must_use]
    pub fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let stderr = self.stderr();
        let lines = stderr.lines().filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    /// The URL of `path` on the public port.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.public)
    }

    /// A `GET` of `path` on the public port, over HTTP/1.1.
    #[must_use]
    pub fn get(&self, path: &str) -> Call<'_> {
        self.client.get(&self.url(path))
    }

    /// A `GET` of `path` on the admin port.
    pub async fn ask(&self, path: &str) -> Answer {
        self.client.get(&format!("http://{}{path}", self.admin)).send().await
    }

    /// `GET /stack`: the layers' names, of `server` or `client`.
    ///
    /// # Panics
    /// When the answer has another shape.
    pub async fn stack(&self, side: &str) -> Vec<String> {
        let stack = self.ask("/stack").await.json();
        assert_eq!(stack["sealed"], true, "{stack}");
        let names = stack[side].as_array().unwrap_or_else(|| panic!("no {side} in {stack}"));
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// `GET /plugins`: the entry of the only plugin.
    ///
    /// # Panics
    /// When there is not exactly one.
    pub async fn plugin(&self) -> Value {
        let plugins = self.ask("/plugins").await.json();
        let [plugin] = &plugins.as_array().expect("a list")[..] else {
            panic!("not one plugin: {plugins}")
        };
        plugin.clone()
    }

    /// Sends `signal` to the process.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Waits until the process has ended by itself.
    pub async fn end(mut self) -> Output {
        self.process.end().await
    }

    /// Asks the process to stop, and waits until it has.
    pub async fn stop(self) -> Output {
        self.signal(Signal::TERM);
        self.end().await
    }

    /// Whether `/readyz` is answered with this status before the host ends.
    async fn answers(&mut self, ready: u16) -> bool {
        let url = format!("http://{}/readyz", self.admin);
        let (process, client) = (&mut self.process, &self.client);
        until(&format!("/readyz to be {ready}"), async || {
            if process.has_ended() {
                return Some(false);
            }
            let response = client.get(&url).open().await.ok()?;
            (response.status() == ready).then_some(true)
        })
        .await
    }
}

/// Runs the host with `arguments` in `folder` until it ends by itself.
///
/// # Panics
/// Past the deadline.
pub async fn run(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    run_as(None, folder, arguments, environment).await
}

/// Like [`run`], as another user than the one who runs the tests, which takes root.
///
/// # Panics
/// Past the deadline.
pub async fn run_as(
    user: Option<u32>,
    folder: &Path,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Output {
    let mut command = clean(&artifacts::host(), folder);
    command.args(arguments).envs(environment.iter().copied());
    if let Some(user) = user {
        command.uid(user);
    }
    Process::spawn(&mut command).end().await
}

/// A command without the settings that the environment of the tests may hold.
fn clean(binary: &Path, folder: &Path) -> Command {
    let mut command = Command::new(binary);
    command.current_dir(folder);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["OTEL_", "HOST_", "RUST_LOG"].iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}
