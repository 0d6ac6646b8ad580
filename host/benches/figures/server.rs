//! A measured program: a process that is started, waited for and ended.

use std::{
    env,
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value as Json;

use crate::{cpu, http, machine::Core};

/// How long a program may take to be ready.
const DEADLINE: Duration = Duration::from_secs(10);

/// The pause between two looks at whether it is. Far below what is measured.
const PAUSE: Duration = Duration::from_micros(100);

/// A running program, ended when it is dropped.
pub(crate) struct Server {
    child: Child,
    log: PathBuf,
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// Where it tells of itself, if it does.
    admin: Option<SocketAddr>,
    /// From the start of the process until it was ready.
    pub(crate) ready_after: Duration,
}

impl Server {
    /// Starts the host with `config`, to which the listeners are added, and waits for `/readyz`.
    pub(crate) fn host(program: &Path, config: &str, folder: &Path, core: Option<Core>) -> Self {
        let (address, admin) = (free(), free());
        let file = numbered(folder, "toml");
        let listeners = format!("server.listen = \"{address}\"\nadmin.listen = \"{admin}\"\n");
        fs::write(&file, listeners + config).expect("a configuration");
        let mut command = command(program, core);
        command.arg("--config").arg(file);
        Self::start(command, folder, address, Some(admin))
    }

    /// Starts the bare forwarder and waits until it accepts.
    pub(crate) fn forwarder(
        program: &Path,
        to: SocketAddr,
        folder: &Path,
        core: Option<Core>,
    ) -> Self {
        let address = free();
        let mut command = command(program, core);
        command.args([address.to_string(), to.to_string()]);
        Self::start(command, folder, address, None)
    }

    fn start(
        mut command: Command,
        folder: &Path,
        address: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> Self {
        let log = numbered(folder, "log");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(&log).expect("a log file"));
        let own = env::vars_os().map(|(name, _)| name);
        for name in own.filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("HOST_") || name.starts_with("OTEL_")
        }) {
            command.env_remove(name);
        }
        let began = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut server = Self { child, log, address, admin, ready_after: Duration::ZERO };
        while let Err(error) = server.ready() {
            let ended = server.child.try_wait().expect("the state of a child");
            let log = server.log();
            assert!(ended.is_none(), "{command:?} ended, {ended:?}:\n{log}");
            assert!(began.elapsed() < DEADLINE, "{command:?} is not ready, {error}:\n{log}");
            thread::park_timeout(PAUSE);
        }
        server.ready_after = began.elapsed();
        server
    }

    fn ready(&self) -> io::Result<()> {
        match self.admin {
            Some(admin) => http::get(admin, "/readyz").map(drop),
            None => TcpStream::connect(self.address).map(drop),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used so far.
    pub(crate) fn cpu(&self) -> Duration {
        cpu::used(self.pid())
    }

    /// What the host says of its plugin; null where it has none.
    pub(crate) fn plugin(&self) -> Json {
        let Some(admin) = self.admin else { return Json::Null };
        let all = http::get(admin, "/plugins").expect("a host answers /plugins");
        let mut all: Json = serde_json::from_str(&all).expect("/plugins is JSON");
        all.get_mut(0).map(Json::take).unwrap_or_default()
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The lines of its log.
    pub(crate) fn log_lines(&self) -> Vec<Json> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `taskset` becomes the program, so the process is the same.
fn command(program: &Path, core: Option<Core>) -> Command {
    let Some(core) = core else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.arg("-c").arg((core as usize).to_string()).arg(program);
    command
}

/// An address on loopback that was free a moment ago.
fn free() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// A file name that no other call gives.
fn numbered(folder: &Path, extension: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    folder.join(format!("{}.{extension}", NEXT.fetch_add(1, Ordering::Relaxed)))
}
