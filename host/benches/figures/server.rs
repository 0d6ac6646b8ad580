//! A measured program: a process that is started, waited for and ended.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};
use serde_json::Value as Json;

use crate::{cpu, http};

/// How long a program may take to be ready; under valgrind on a busy machine, seconds.
const DEADLINE: Duration = Duration::from_secs(60);

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
    /// The words of `prefix` come before it on the command line.
    ///
    /// # Errors
    /// When it ends or is not ready in time, with the last line that it logged.
    pub(crate) fn host(
        program: &Path,
        config: &str,
        folder: &Path,
        prefix: &[OsString],
    ) -> io::Result<Self> {
        let (address, admin) = (free(), free());
        let file = numbered(folder, "toml");
        let listeners = format!("server.listen = \"{address}\"\nadmin.listen = \"{admin}\"\n");
        fs::write(&file, listeners + config)?;
        let mut command = command(program, prefix);
        command.arg("--config").arg(file);
        Self::start(command, folder, address, Some(admin))
    }

    /// Starts a program that is to serve at `address`, and waits until it accepts, or until `admin`
    /// says that it is ready.
    ///
    /// # Errors
    /// As [`Self::host`].
    pub(crate) fn start(
        mut command: Command,
        folder: &Path,
        address: SocketAddr,
        admin: Option<SocketAddr>,
    ) -> io::Result<Self> {
        let log = numbered(folder, "log");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let began = Instant::now();
        let name = format!("{:?}", command.get_program());
        let failed = |what: String, log: &str| {
            let last = log.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
            io::Error::other(format!("{name} {what}: {last}"))
        };
        let child = command.spawn().map_err(|error| failed(error.to_string(), ""))?;
        let mut server = Self { child, log, address, admin, ready_after: Duration::ZERO };
        while let Err(error) = server.ready() {
            if let Some(status) = server.child.try_wait()? {
                return Err(failed(format!("ended, {status}"), &server.log()));
            }
            if began.elapsed() > DEADLINE {
                return Err(failed(format!("is not ready, {error}"), &server.log()));
            }
            thread::park_timeout(PAUSE);
        }
        server.ready_after = began.elapsed();
        Ok(server)
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

    /// What the host says of its plugin; `None` where it has none or does not answer.
    pub(crate) fn plugin(&self) -> Option<Json> {
        let all = http::get(self.admin?, "/plugins").ok()?;
        let mut all: Json = serde_json::from_str(&all).ok()?;
        all.get_mut(0).map(Json::take)
    }

    /// Asks it to end, and waits: how long that took, and its exit status.
    ///
    /// # Errors
    /// When it goes on.
    pub(crate) fn stop(mut self) -> io::Result<(Duration, String)> {
        let began = Instant::now();
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        while began.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait()? {
                return Ok((began.elapsed(), status.to_string()));
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        Err(io::Error::other("it does not stop"))
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

/// How long spans wait for their batch: what a turn leaves is to be gone before the next one counts.
pub(crate) const DELAY: Duration = Duration::from_millis(100);

/// The variable for it, which all that trace hear; in milliseconds.
pub(crate) const DELAY_VARIABLE: &str = "OTEL_BSP_SCHEDULE_DELAY";

/// The program with nothing of this process's own configuration. Whatever stands before it on the
/// command line becomes the program, so the process is the same.
pub(crate) fn command(program: &Path, prefix: &[OsString]) -> Command {
    let mut words = prefix.iter().map(OsString::as_os_str).chain([program.as_os_str()]);
    let mut command = Command::new(words.next().unwrap_or(OsStr::new("")));
    command.args(words);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("HOST_") || text.starts_with("OTEL_") {
            command.env_remove(&name);
        }
    }
    command.env(DELAY_VARIABLE, DELAY.as_millis().to_string());
    command
}

/// An address on loopback that was free a moment ago.
pub(crate) fn free() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// A file name that no other call gives.
pub(crate) fn numbered(folder: &Path, extension: &str) -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    folder.join(format!("{}.{extension}", NEXT.fetch_add(1, Ordering::Relaxed)))
}
