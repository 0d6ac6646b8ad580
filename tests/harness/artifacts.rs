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

use crate::Skipped;

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

/// The host's example NAME, a service built on the host library: `EXAMPLE_NAME`.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    let variable = format!("EXAMPLE_{}", name.to_uppercase());
    given(&variable).unwrap_or_else(|| built(shipped(), name).clone())
}

/// The program that is traced in two ways: `REFERENCE`.
#[must_use]
pub fn reference() -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let build = || build(&["-p", "tests", "--example", "reference"]);
    given("REFERENCE").unwrap_or_else(|| built(BUILT.get_or_init(build), "reference").clone())
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

/// The plugin `fixtures/misbehaving/NAME.rs`, a debug build whatever the host is: in the folder `FIXTURES`.
#[must_use]
pub fn fixture(name: &str) -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    if let Some(folder) = given("FIXTURES") {
        return folder.join(format!("lib{name}.so"));
    }
    built(BUILT.get_or_init(|| build_at(&fixtures(), &["--examples"])), name).clone()
}

/// The plugin `fixtures/misbehaving/quiet.rs`, built so that a panic ends the process.
#[must_use]
pub fn plugin_aborting() -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let arguments = [
        "--example",
        "aborting",
        "--features",
        "aborting",
        "--config",
        "profile.dev.panic='abort'",
    ];
    built(BUILT.get_or_init(|| build_at(&fixtures(), &arguments)), "aborting").clone()
}

/// The plugin `fixtures/misbehaving/quiet.rs`, built by the nightly compiler.
///
/// # Errors
/// Where none is installed.
pub fn plugin_of_nightly() -> Result<PathBuf, Skipped> {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let which = Command::new("rustup").args(["which", "--toolchain", "nightly", "rustc"]).output();
    let rustc = which.ok().filter(|which| which.status.success());
    let rustc = rustc.ok_or_else(|| Skipped::impossible("no nightly compiler is installed"))?;
    let rustc = String::from_utf8(rustc.stdout).expect("a path in UTF-8");
    let build = || {
        let mut command = cargo_at(&fixtures(), &["--example", "nightly", "--features", "nightly"]);
        run_build(command.env("RUSTC", rustc.trim()))
    };
    Ok(built(BUILT.get_or_init(build), "nightly").clone())
}

/// The plugin `fixtures/older_minor.rs`, built against plugin-api 1.0.0.
#[must_use]
pub fn plugin_of_older_minor() -> PathBuf {
    static BUILT: OnceLock<BTreeMap<String, PathBuf>> = OnceLock::new();
    let folder = fixtures().join("plugin-api-1.0");
    let build = || build_at(&folder, &["--example", "older_minor"]);
    built(BUILT.get_or_init(build), "older_minor").clone()
}

/// A file compiled from `fixtures/c/NAME.c` into `folder`.
///
/// # Panics
/// When there is no C compiler; a build of the host needs one, too.
#[must_use]
pub fn compiled(folder: &Path, name: &str, arguments: &[&str]) -> PathBuf {
    let output = folder.join(format!("lib{name}.so"));
    let source = fixtures().join("c").join(name).with_extension("c");
    let mut command = Command::new("cc");
    command.current_dir(folder).arg("-o").args([&output, &source]).args(arguments);
    let status = command.status().expect("a C compiler named cc");
    assert!(status.success(), "cc: {status}");
    output
}

/// A shared library that is no plugin: without the entry symbol.
#[must_use]
pub fn library_without_entry(folder: &Path) -> PathBuf {
    compiled(folder, "answer", &["-shared", "-fPIC"])
}

/// The version of the contract, which plugins of this workspace are built against.
///
/// # Panics
/// When it does not stand where it should.
#[must_use]
pub fn contract() -> String {
    let manifest = std::fs::read_to_string(workspace().join("plugin-api/Cargo.toml"));
    let manifest: toml::Table = manifest.expect("a manifest").parse().expect("TOML");
    manifest["package"]["version"].as_str().expect("a version").to_owned()
}

/// The folder of the sources of plugins that misbehave.
#[must_use]
pub fn fixtures() -> PathBuf {
    workspace().join("tests/fixtures")
}

/// The target directory.
#[must_use]
pub fn target() -> PathBuf {
    let given = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace().join(given)
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
    BUILT.get_or_init(|| build(&["--lib", "--bins", "--example", "service", "--example", "w3c"]))
}

fn built<'a>(artifacts: &'a BTreeMap<String, PathBuf>, target: &str) -> &'a PathBuf {
    artifacts.get(target).unwrap_or_else(|| panic!("cargo built no {target}: {artifacts:?}"))
}

/// Builds targets of the workspace, in the profile of the tests.
fn build(arguments: &[&str]) -> BTreeMap<String, PathBuf> {
    let mut command = cargo_at(&workspace(), arguments);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    run_build(&mut command)
}

/// Builds targets of the workspace in `folder`, in the debug profile.
pub(crate) fn build_at(folder: &Path, arguments: &[&str]) -> BTreeMap<String, PathBuf> {
    run_build(&mut cargo_at(folder, arguments))
}

fn cargo_at(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = cargo();
    command.current_dir(folder).args(["build", "--message-format=json-render-diagnostics"]);
    command.arg("--target-dir").arg(target()).args(arguments);
    command
}

/// Runs `cargo build` and returns the programs and shared libraries that it names, by target.
fn run_build(command: &mut Command) -> BTreeMap<String, PathBuf> {
    let output = command.stderr(std::process::Stdio::inherit()).output().expect("cargo runs");
    assert!(output.status.success(), "{command:?}: {}", output.status);
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
