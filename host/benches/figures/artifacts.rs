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
    pub(crate) plugin: PathBuf,
}

impl Artifacts {
    /// Builds them in the target directory that this bench was built in.
    pub(crate) fn build() -> Self {
        let own = env::current_exe().expect("the path of this program");
        // TARGET/release/deps/figures-0123456789abcdef
        let target = own.ancestors().nth(3).expect("a program of cargo's");
        // The example first: it brings a host with the features of the dev-dependencies.
        cargo(target, &["--package", "host", "--example", "forwarder"]);
        cargo(target, &["--package", "host", "--package", "plugin-otel"]);
        let release = target.join("release");
        Self {
            host: release.join("host"),
            forwarder: release.join("examples/forwarder"),
            plugin: release.join("libplugin_otel.so"),
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

fn cargo(target: &Path, arguments: &[&str]) {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--target-dir"])
        .arg(target)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()
        .expect("cargo runs");
    assert!(status.success(), "cargo build {arguments:?} failed");
}
