//! A child process whose output is kept and which does not outlive its test.

use std::{
    fmt,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{Errno, ioctl_fionbio, read, retry_on_intr},
};

pub use rustix::process::Signal;

use crate::wait::until;

/// A running program. Dropped, it is killed; dropped by a failing test, it shows what it wrote.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdout: Capture,
    stderr: Capture,
}

/// What a program left behind.
#[derive(Clone, Debug)]
pub struct Output {
    /// The exit code; 128 + N after signal N.
    pub code: i32,
    /// All of standard output.
    pub stdout: String,
    /// All of standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `command` with its output captured and its input closed.
    ///
    /// # Panics
    /// When the program cannot be started.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        let stdout = Capture::of(child.stdout.take().expect("stdout is piped"));
        let stderr = Capture::of(child.stderr.take().expect("stderr is piped"));
        Self { name, child, stdout, stderr }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.so_far()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.so_far()
    }

    /// Sends `signal` to the process.
    ///
    /// # Panics
    /// When the process is gone.
    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id fits");
        let id = rustix::process::Pid::from_raw(id).expect("a process id is positive");
        rustix::process::kill_process(id, signal).expect("the process is there");
    }

    /// Whether the process has ended.
    ///
    /// # Panics
    /// When the system does not say.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits until the process has ended, and returns what it left.
    ///
    /// # Panics
    /// Past the deadline.
    pub async fn end(&mut self) -> Output {
        let name = self.name.clone();
        let status = until(&format!("the end of {name}"), async || {
            self.child.try_wait().expect("a child can be waited for")
        })
        .await;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        Output {
            code: code.expect("a process ends by itself or by a signal"),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only where the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let (stdout, stderr) = (self.stdout.all(), self.stderr.all());
            eprintln!("--- {} wrote:\n{stdout}{stderr}---", self.name);
        }
    }
}

/// A pipe that a thread reads to its end, so that its writer never waits.
struct Capture {
    pipe: Arc<Pipe>,
    reader: Option<JoinHandle<()>>,
}

impl Capture {
    fn of(end: impl Into<OwnedFd>) -> Self {
        let pipe = Arc::new(Pipe::new(end.into()));
        let read = Arc::clone(&pipe);
        let reader = std::thread::spawn(move || while read.drain_when_readable() {});
        Self { pipe, reader: Some(reader) }
    }

    /// Whatever was written before the call is in it.
    fn so_far(&self) -> String {
        self.pipe.drain();
        self.pipe.text()
    }

    /// To be called once the process has ended.
    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the reader does not panic");
        }
        self.pipe.text()
    }
}

struct Pipe {
    end: OwnedFd,
    bytes: Mutex<Vec<u8>>,
}

impl Pipe {
    fn new(end: OwnedFd) -> Self {
        ioctl_fionbio(&end, true).expect("a pipe need not be waited for");
        Self { end, bytes: Mutex::default() }
    }

    /// Waits for more, and returns whether more may come.
    fn drain_when_readable(&self) -> bool {
        let mut readable = [PollFd::new(&self.end, PollFlags::IN)];
        retry_on_intr(|| poll(&mut readable, None)).expect("a pipe can be waited for");
        self.drain()
    }

    /// Keeps what is in the pipe, and returns whether more may come.
    fn drain(&self) -> bool {
        // Held while it is read: nothing is out of the pipe that is not among the bytes.
        let mut bytes = self.bytes.lock().unwrap();
        let mut buffer = [0; 4096];
        loop {
            match retry_on_intr(|| read(&self.end, &mut buffer)) {
                Ok(0) => return false,
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(Errno::AGAIN) => return true,
                Err(error) => panic!("a pipe can be read: {error}"),
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }
}

impl fmt::Debug for Capture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.so_far())
    }
}
