//! The programs that are measured: built first, so that a figure is of the code as it is.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::table::{Row, Table};

/// Release builds of what is measured.
pub(crate) struct Artifacts {
    pub(crate) host: PathBuf,
    pub(crate) forwarder: PathBuf,
    pub(crate) instrumented: PathBuf,
    pub(crate) plugin: PathBuf,
    /// The plugin that does nothing, `plugin-api/examples/noop.rs`.
    pub(crate) noop: PathBuf,
    /// The forwarder with the tracing of others, or why it is not there.
    pub(crate) peers: Result<PathBuf, String>,
}

impl Artifacts {
    /// Builds them with this profile, in the target directory that this bench was built in.
    pub(crate) fn build(profile: &str, peers: Result<PathBuf, String>) -> Self {
        let build = |what: &[&str]| {
            let built = cargo(&target(), &[&["--profile", profile], what].concat());
            built.unwrap_or_else(|error| panic!("{error}"));
        };
        // The examples first: they bring a host with the features of the dev-dependencies.
        build(&["--package", "host", "--example", "forwarder", "--example", "instrumented"]);
        build(&["--package", "host", "--package", "plugin-otel"]);
        build(&["--package", "plugin-api", "--example", "noop"]);
        let built = target().join(profile);
        Self {
            host: built.join("host"),
            forwarder: built.join("examples/forwarder"),
            instrumented: built.join("examples/instrumented"),
            plugin: built.join("libplugin_otel.so"),
            noop: built.join("examples/libnoop.so"),
            peers,
        }
    }

    /// The sizes of what is shipped.
    pub(crate) fn tell(&self, table: &mut Table) {
        for (name, file) in [("the binary", &self.host), ("the plugin's library", &self.plugin)] {
            let bytes = fs::metadata(file).expect("a file that was built").len();
            let row = Row::new(format!("size of {name}, stripped"));
            table.push(row.measured(format!("{:.2} MiB", mebibytes(bytes))));
        }
    }
}

/// Bytes as MiB.
pub(crate) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}

/// The target directory that this bench was built in.
pub(crate) fn target() -> PathBuf {
    let own = env::current_exe().expect("the path of this program");
    // TARGET/release/deps/figures-0123456789abcdef
    own.ancestors().nth(3).expect("a program of cargo's").to_owned()
}

/// A workspace of its own, in a folder of its own: nothing of it is in the host's dependencies.
pub(crate) fn build_peers() -> Result<PathBuf, String> {
    let target = target().join("peers");
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/peers/Cargo.toml");
    cargo(&target, &["--release", "--locked", "--manifest-path", manifest])?;
    Ok(target.join("release/peers"))
}

fn cargo(target: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--target-dir"]).arg(target).args(arguments);
    like_a_shell(&mut cargo);
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("cargo build {} failed", arguments.join(" "))),
        Err(error) => Err(format!("cargo does not run: {error}")),
    }
}

/// Takes out what cargo sets for this bench, at which build scripts look: they would run again for
/// whoever builds from a shell.
pub(crate) fn like_a_shell(cargo: &mut Command) -> &mut Command {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}
