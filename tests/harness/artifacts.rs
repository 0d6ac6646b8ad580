//! Where the programs under test are.
//!
//! Each path is taken from a variable if it is set (CI builds first and sets them), and is else
//! built once with the cargo that runs the tests. `cargo test` itself builds neither the binary nor
//! the shared library of another package, nor tells their paths.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

/// The host binary: `HOST_BIN`.
#[must_use]
pub fn host() -> PathBuf {
    given("HOST_BIN").unwrap_or_else(|| built(shipped(), "host").clone())
}

/// `libplugin_otel.so`: `PLUGIN_OTEL`.
#[must_use]
pub fn plugin_otel() -> PathBuf {
    given("PLUGIN_OTEL").unwrap_or_else(|| built(shipped(), "plugin_otel").clone())
}

/// The host's example `service`, a service built on the host library: `EXAMPLE_SERVICE`.
#[must_use]
pub fn example_service() -> PathBuf {
    given("EXAMPLE_SERVICE").unwrap_or_else(|| built(shipped(), "service").clone())
}

/// plugin-api's example `libnoop.so`: `PLUGIN_NOOP`.
#[must_use]
pub fn plugin_noop() -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    given("PLUGIN_NOOP").unwrap_or_else(|| {
        built(BUILT.get_or_init(|| build(&["-p", "plugin-api", "--example", "noop"])), "noop")
            .clone()
    })
}

/// A plugin of another major version of the contract, `fixtures/other_major.rs`: `PLUGIN_OTHER_MAJOR`.
#[must_use]
pub fn plugin_other_major() -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    given("PLUGIN_OTHER_MAJOR").unwrap_or_else(|| {
        let built_ones = BUILT.get_or_init(|| build(&["-p", "tests", "--example", "other_major"]));
        built(built_ones, "other_major").clone()
    })
}

/// A shared library that is no plugin: compiled from C, without the entry symbol, into `folder`.
///
/// # Panics
/// When there is no C compiler; a build of the host needs one, too.
#[must_use]
pub fn library_without_entry(folder: &Path) -> PathBuf {
    let source = folder.join("empty.c");
    let library = folder.join("libempty.so");
    std::fs::write(&source, "int answer(void) { return 42; }\n").expect("a writable folder");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&library, &source])
        .status()
        .expect("a C compiler named cc");
    assert!(status.success(), "cc: {status}");
    library
}

/// The root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").into()
}

/// The cargo that runs the tests.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

fn given(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable)?;
    Some(std::fs::canonicalize(&path).unwrap_or_else(|error| panic!("{variable}: {error}")))
}

/// The host and its plugin as one build of the default members, as an operator builds them: cargo
/// chooses the features of shared dependencies by what is built together.
fn shipped() -> &'static BTreeMap<String, PathBuf> {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| build(&["--lib", "--bins", "--example", "service"]))
}

fn built<'a>(artifacts: &'a BTreeMap<String, PathBuf>, target: &str) -> &'a PathBuf {
    artifacts.get(target).unwrap_or_else(|| panic!("cargo built no {target}: {artifacts:?}"))
}

/// Runs `cargo build` and returns the programs and shared libraries that it names, by target.
fn build(arguments: &[&str]) -> BTreeMap<String, PathBuf> {
    let mut command = cargo();
    command.args(["build", "--message-format=json-render-diagnostics"]);
    command.args(arguments);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "cargo build {arguments:?}: {}", output.status);
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.filter_map(|line| artifact(&serde_json::from_slice(line).ok()?)).collect()
}

/// The target and the path in one of cargo's messages, if it is about something that can be loaded.
fn artifact(message: &Value) -> Option<(String, PathBuf)> {
    let target = message.get("target")?.get("name")?.as_str()?.to_owned();
    if let Some(program) = message.get("executable").and_then(Value::as_str) {
        return Some((target, program.into()));
    }
    let files = message.get("filenames")?.as_array()?.iter().filter_map(Value::as_str);
    let library = files.into_iter().find(|file| file.ends_with(".so"))?;
    Some((target, library.into()))
}
