//! The machine: what it is, for the reader of the table, and where on it the programs run.

use std::{
    ffi::OsString,
    fmt, fs,
    path::Path,
    process::{self, Command, Stdio},
    thread,
};

use crate::programs;

/// Programs that are measured or measure, and how each is asked for its version.
const PROGRAMS: [(&str, &str); 5] = [
    ("nginx", "-v"),
    ("caddy", "version"),
    ("python3", "--version"),
    ("valgrind", "--version"),
    ("uname", "-sr"),
];

/// What a figure cannot be read without.
pub(crate) struct Machine {
    date: String,
    cpu: String,
    cores: usize,
    rustc: String,
    revision: String,
    /// Of the other programs, and of the packages in Python and the crates of `peers`.
    versions: Vec<String>,
}

/// A core that a program is bound to with `taskset`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Core {
    /// The measured server's own.
    Server = 0,
    /// Shared by the load, the upstream and the sink.
    Others = 1,
}

impl Core {
    /// What the command line of a program begins with that is bound to it, and that ends with the
    /// thread that started it.
    pub(crate) fn prefix(self) -> Vec<OsString> {
        let core = (self as usize).to_string();
        ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", &core].map(Into::into).to_vec()
    }
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
            versions: versions(),
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
            let setpriv = Command::new("setpriv").arg("--version").stdout(Stdio::null()).status();
            taskset.status().is_ok_and(|status| status.success()) && setpriv.is_ok()
        };
        self.cores >= 2 && bind()
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { date, cpu, cores, rustc, revision, versions } = self;
        writeln!(f, "{date}, {cpu}, {cores} cores, {rustc}, revision {revision}.\n")?;
        write!(f, "Beside it: {}.", versions.join(", "))
    }
}

fn versions() -> Vec<String> {
    let programs = PROGRAMS.iter().map(|(program, option)| {
        let text = said(program, &[option]);
        if text.contains(program) { text } else { format!("{program} {text}") }
    });
    let bench = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers");
    let lock = fs::read_to_string(bench.join("Cargo.lock")).unwrap_or_default();
    let crates = lock.split("[[package]]").filter_map(|package| {
        let field = |name: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(name))?;
            line.strip_prefix(" = ").map(|value| value.trim_matches('"'))
        };
        let (name, version) = (field("name")?, field("version")?);
        let is_named = ["hyper", "tower", "opentelemetry_sdk"].contains(&name)
            || name == "opentelemetry-appender-tracing"
            || name.ends_with("tower") && name.starts_with("opentelemetry")
            || name.contains("tracing-opentelemetry") && !name.contains("instrumentation");
        is_named.then(|| format!("{name} {version}"))
    });
    let packages = fs::read_dir(programs::python_packages()).into_iter().flatten().flatten();
    let packages = packages.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let (name, version) = name.strip_suffix(".dist-info")?.split_once('-')?;
        let is_named = ["aiohttp", "opentelemetry_sdk"].contains(&name)
            || name.contains("instrumentation_aiohttp");
        is_named.then(|| format!("{name} {version}"))
    });
    programs.chain(crates).chain(packages).collect()
}

/// The first line of what a program says of itself, on either stream.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() { format!("no {program}") } else { line.to_owned() }
}
