//! The machine: what it is, for the reader of the table, and where on it the programs run.

use std::{
    fmt, fs,
    process::{self, Command, Stdio},
    thread,
};

/// What a figure cannot be read without.
pub(crate) struct Machine {
    date: String,
    cpu: String,
    cores: usize,
    rustc: String,
    revision: String,
}

/// A core that a program is bound to with `taskset`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    /// The measured server's own.
    Server = 0,
    /// Shared by the load, the upstream and the sink.
    Others = 1,
}

impl Machine {
    /// Looks at the machine and at the source's revision.
    pub(crate) fn look() -> Self {
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|rest| rest.split_once(':')).map(|(_, name)| name.trim());
        let git = ["--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"];
        Self {
            date: said("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            cpu: model.unwrap_or("unknown CPU").to_owned(),
            cores: thread::available_parallelism().map_or(1, usize::from),
            rustc: said("rustc", &["--version"]),
            revision: said("git", &git),
        }
    }

    /// Binds this program, and whatever it starts from now on, to the core that the measured server
    /// does not have. Says whether that was possible. To be called before there are other threads.
    pub(crate) fn pin(&self) -> bool {
        let core = (Core::Others as usize).to_string();
        let bind = || {
            let own = process::id().to_string();
            let mut taskset = Command::new("taskset");
            taskset.args(["-cp", &core, &own]).stdout(Stdio::null());
            taskset.status().is_ok_and(|status| status.success())
        };
        self.cores >= 2 && bind()
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, cpu, cores, rustc, revision } = self;
        write!(f, "{date}, {cpu}, {cores} cores, {rustc}, revision {revision}")
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stderr(Stdio::null()).output();
    let text = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    let text = text.unwrap_or_default().trim().to_owned();
    if text.is_empty() { format!("unknown {program}") } else { text }
}
