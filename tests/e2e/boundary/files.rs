//! Files that are no plugin, not quite one, or one of another version.

use std::{
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    process::Command,
};

use abi_stable::library::AbiHeader;
use harness::{
    Config, HostProcess, Launch, Output, Skipped, Variant, artifacts,
    artifacts::{compiled, fixture, fixtures, plugin_noop},
    wait::until,
};
use libtest_mimic::Trial;
use serde_json::json;

use super::{config, last_words, mode, open_folder, row, run_at_once, start};

/// Makes the file in a folder.
type Make = fn(&Path) -> Result<PathBuf, Skipped>;

/// Someone who is not root, as every system has one.
const NOBODY: u32 = 65534;

/// A file that is refused.
#[derive(Clone, Copy)]
struct Refused {
    name: &'static str,
    make: Make,
    /// What the host says about it.
    reason: &'static str,
    /// Whether all is well with the file, and only `create` fails.
    opens: bool,
    /// Whom the host runs as, where it is root otherwise.
    user: Option<u32>,
}

const fn refused(name: &'static str, make: Make, reason: &'static str) -> Refused {
    Refused { name, make, reason, opens: false, user: None }
}

/// A plugin that is in order but for what it does in `create`.
const fn uncreated(name: &'static str, make: Make, reason: &'static str) -> Refused {
    Refused { opens: true, ..refused(name, make, reason) }
}

const MISSING_ENTRY: &str = "not a plugin for this host (its entry symbol is missing)";
const JUNK_ENTRY: &str = "not a plugin for this host (its entry symbol is something else)";
const NOT_ELF: &str = "not an ELF shared library";

const REFUSED: &[Refused] = &[
    refused("missing", |folder| Ok(folder.join("libmissing.so")), "no such file"),
    refused("directory", directory, "wanted a regular file, found a directory"),
    refused("FIFO", fifo, "wanted a regular file, found a special file"),
    Refused { user: Some(NOBODY), ..refused("unreadable", unreadable, "permission denied") },
    refused("writable by others", writable, "refused: the file is writable by others (mode 0666)"),
    refused(
        "folder writable by others",
        in_writable,
        "refused: its folder is writable by others (mode 0777)",
    ),
    refused(
        "foreign owner",
        foreign,
        "refused: the file belongs to user 54321, wanted root or user ",
    ),
    refused("text file", |folder| Ok(written(folder, b"not a library\n")), NOT_ELF),
    refused("empty", |folder| Ok(written(folder, b"")), NOT_ELF),
    refused(
        "16 bytes",
        |folder| Ok(written(folder, b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0")),
        NOT_ELF,
    ),
    refused(
        "32-bit",
        |folder| Ok(patched(folder, |bytes| bytes[4] = 1)),
        "built for 32 bits, this host has 64",
    ),
    refused(
        "other machine",
        |folder| Ok(patched(folder, |bytes| bytes[18] = 243)),
        "built for another machine (ELF 243, this host is ",
    ),
    refused(
        "executable instead of library",
        |folder| Ok(compiled(folder, "program", &["-no-pie"])),
        "an ELF file, but not a shared library",
    ),
    refused(
        "executable instead of library, position-independent",
        |_| Ok(artifacts::host()),
        "an executable, wanted a shared library",
    ),
    refused("truncated at 1 %", |folder| Ok(truncated(folder, 1)), "truncated: needs "),
    refused("truncated at 10 %", |folder| Ok(truncated(folder, 10)), "truncated: needs "),
    refused("truncated at 50 %", |folder| Ok(truncated(folder, 50)), "truncated: needs "),
    refused("truncated at 90 %", |folder| Ok(truncated(folder, 90)), "truncated: needs "),
    refused("truncated at 97 %", |folder| Ok(truncated(folder, 97)), "truncated: needs "),
    refused(
        "missing dependency",
        without_dependency,
        "cannot be loaded: libanswer.so: cannot open shared object file",
    ),
    refused(
        "undefined symbol",
        |folder| Ok(library(folder, "wants_answer")),
        "cannot be loaded: undefined symbol: answer",
    ),
    refused(
        "newer glibc wanted",
        of_newer_glibc,
        "version `GLIBC_9.99' not found (required by the library)",
    ),
    refused(
        "static TLS block too large",
        |folder| Ok(library(folder, "static_tls")),
        "cannot be loaded: cannot allocate memory in static TLS block",
    ),
    refused("no entry symbol", |folder| Ok(library(folder, "answer")), MISSING_ENTRY),
    refused("entry symbol that is junk", |folder| Ok(library(folder, "junk_entry")), JUNK_ENTRY),
    refused(
        "entry symbol that is junk, at the very end",
        |folder| Ok(library(folder, "short_entry")),
        JUNK_ENTRY,
    ),
    refused(
        "abi_stable of another minor",
        of_other_abi_stable,
        "built with abi_stable 0.10, this host needs 0.11",
    ),
    refused(
        "API major 2",
        |_| Ok(fixture("other_major")),
        "built for plugin-api 2.0.0, this host supports 1.x",
    ),
    refused(
        "changed field type",
        |_| Ok(Variant::CHANGED_FIELD.plugin()),
        "built for plugin-api 1.1.0, this host has 1.1.0, but their layouts differ, first at create.server_layer.on_request.context.span.reserved (mismatched type: host u32, plugin i32)",
    ),
    refused(
        "changed signature",
        |_| Ok(Variant::CHANGED_SIGNATURE.plugin()),
        "their layouts differ, first at create.panics (mismatched type: host u64, plugin i64)",
    ),
    refused(
        "removed method",
        |_| Ok(Variant::REMOVED_METHOD.plugin()),
        "their layouts differ, first at create (unexpected field: host field_name:check type:AFunctionPointer, plugin field_name:flush ",
    ),
    refused(
        "root loader panics",
        |_| Ok(fixture("panics_in_the_root")),
        "its entry function failed: ",
    ),
    refused("root loader errs", |_| Ok(fixture("root_errs")), "no root today"),
    uncreated("create errs", |_| Ok(fixture("create_errs")), "it does not feel like it"),
    uncreated(
        "create panics",
        |_| Ok(fixture("panics_in_create")),
        "the plugin panicked in create",
    ),
    refused(
        "panic = \"abort\"",
        |_| Ok(artifacts::plugin_aborting()),
        "built with panic = \"abort\": a panic in it would end the host",
    ),
];

/// A plugin that is loaded, however it was built, and the version that it was built against.
const LOADED: &[(&str, Make, &str)] = &[
    ("newer minor", |_| Ok(Variant::NEWER_MINOR.plugin()), "1.2.0"),
    ("built by another compiler release", |_| artifacts::plugin_of_nightly(), "1.1.0"),
    ("debug build", |_| Ok(fixture("quiet")), "1.1.0"),
];

pub(super) fn trials() -> Vec<Trial> {
    let refused = REFUSED.iter().map(|&row| super::row(row.name, move || is_refused(row)));
    let loaded =
        LOADED.iter().map(|&(name, make, version)| row(name, move || is_loaded(make, version)));
    refused
        .chain(loaded)
        .chain([
            row("another global allocator", what_a_plugin_allocates_is_its_own_to_free),
            row("bad plugin setting", a_bad_setting_names_key_and_reason),
            row("checksum mismatch", a_library_with_another_hash_is_not_even_constructed),
            row("same file configured twice", there_is_no_second_plugin_table),
            row("size of the fixtures", each_case_is_a_file_of_thirty_lines_at_most),
        ])
        .collect()
}

fn written(folder: &Path, content: &[u8]) -> PathBuf {
    let path = folder.join("libwritten.so");
    fs::write(&path, content).unwrap();
    path
}

fn patched(folder: &Path, patch: impl FnOnce(&mut Vec<u8>)) -> PathBuf {
    let mut bytes = fs::read(plugin_noop()).unwrap();
    patch(&mut bytes);
    written(folder, &bytes)
}

fn truncated(folder: &Path, percent: usize) -> PathBuf {
    patched(folder, |bytes| bytes.truncate(bytes.len() * percent / 100))
}

fn library(folder: &Path, source: &str) -> PathBuf {
    compiled(folder, source, &["-shared", "-fPIC"])
}

fn directory(folder: &Path) -> Result<PathBuf, Skipped> {
    let path = folder.join("libfolder.so");
    fs::create_dir(&path).unwrap();
    Ok(path)
}

fn fifo(folder: &Path) -> Result<PathBuf, Skipped> {
    let path = folder.join("libfifo.so");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    Ok(path)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn unreadable(folder: &Path) -> Result<PathBuf, Skipped> {
    let path = patched(folder, |_| ());
    mode(&path, if is_root() { 0o600 } else { 0 });
    Ok(path)
}

fn writable(folder: &Path) -> Result<PathBuf, Skipped> {
    let path = patched(folder, |_| ());
    mode(&path, 0o666);
    Ok(path)
}

fn in_writable(folder: &Path) -> Result<PathBuf, Skipped> {
    let folder = folder.join("plugins");
    fs::create_dir(&folder).unwrap();
    mode(&folder, 0o777);
    Ok(patched(&folder, |_| ()))
}

fn foreign(folder: &Path) -> Result<PathBuf, Skipped> {
    let path = patched(folder, |_| ());
    match chown(&path, Some(54321), None) {
        Ok(()) => Ok(path),
        Err(_) => Err(Skipped::impossible("only root can give a file away")),
    }
}

fn without_dependency(folder: &Path) -> Result<PathBuf, Skipped> {
    let dependency = library(folder, "answer");
    let path = compiled(folder, "wants_answer", &["-shared", "-fPIC", "-L.", "-lanswer"]);
    fs::remove_file(dependency).unwrap();
    Ok(path)
}

/// Linked against a libc that has not been written yet.
fn of_newer_glibc(folder: &Path) -> Result<PathBuf, Skipped> {
    let map = format!("-Wl,--version-script={}", fixtures().join("c/future.map").display());
    let named = "-Wl,-soname,libc.so.6";
    let _stub = compiled(folder, "answer", &["-shared", "-fPIC", "-nostdlib", named, &map]);
    Ok(compiled(folder, "wants_answer", &["-shared", "-fPIC", "-L.", "-lanswer"]))
}

fn of_other_abi_stable(folder: &Path) -> Result<PathBuf, Skipped> {
    let AbiHeader { magic_string, abi_major, abi_minor, .. } = AbiHeader::VALUE;
    let start = [&magic_string[..], &abi_major.to_le_bytes(), &abi_minor.to_le_bytes()].concat();
    Ok(patched(folder, |bytes| {
        let places: Vec<usize> =
            (0..bytes.len() - start.len()).filter(|&at| bytes[at..].starts_with(&start)).collect();
        assert!(!places.is_empty(), "no header in the plugin");
        for at in places {
            bytes[at + start.len() - 4..][..4].copy_from_slice(&(abi_minor - 1).to_le_bytes());
        }
    }))
}

fn plugin(path: &Path) -> Config {
    config().plugin(&path.display().to_string())
}

/// Exit code 65 and one line where the plugin is required, one warning and all answers where not.
async fn is_refused(row: Refused) -> Result<(), Skipped> {
    let folder = open_folder();
    let path = (row.make)(folder.path())?;
    let user = row.user.filter(|_| is_root());
    let config = plugin(&path);
    let file = path.display().to_string();
    let assert_refused = |output: &Output| {
        assert_eq!(output.code, 65, "{output:?}");
        let reason = last_words(output).strip_prefix(&format!("host: otel plugin: {file}: "));
        assert!(reason.is_some_and(|reason| reason.contains(row.reason)), "{output:?}");
        let panics = row.name.ends_with("panics");
        assert!(panics || output.stderr.lines().count() == 1, "not one line: {output:?}");
    };

    assert_refused(&start(user, config.clone().set("otel.required", true), &[]).await);
    let described = run_at_once(user, folder.path(), &["plugin", &file], &[]).await;
    if row.opens {
        assert_eq!(described.code, 0, "nothing is created: {described:?}");
    } else {
        assert_refused(&described);
    }

    let host = Launch::host(config).user(user).start().await;
    for path in ["/", "/up"] {
        assert_eq!(host.get(path).send().await.text(), "as before");
    }
    assert_eq!(host.stack("server").await[0], "request-id");
    let warnings = async || Some(host.lines_with(&["WARN"])).filter(|lines| !lines.is_empty());
    let [warning] = &until("the warning", warnings).await[..] else { panic!("{}", host.stderr()) };
    for word in [&file, row.reason, "otel plugin", "going on without tracing"] {
        assert!(warning.contains(word), "no {word} in {warning}");
    }
    assert_eq!(host.stop().await.code, 0);
    Ok(())
}

async fn is_loaded(make: Make, version: &'static str) -> Result<(), Skipped> {
    let folder = open_folder();
    let path = make(folder.path())?;
    let described =
        run_at_once(None, folder.path(), &["plugin", path.to_str().unwrap()], &[]).await;
    assert_eq!((described.code, described.stderr.as_str()), (0, ""), "{described:?}");
    let host = HostProcess::start(plugin(&path).set("otel.required", true)).await;
    for path in ["/", "/up"] {
        assert_eq!(host.get(path).send().await.text(), "as before");
    }
    let plugin = host.plugin().await;
    assert_eq!((&plugin["state"], &plugin["abi"]), (&json!("running"), &json!(version)));
    let output = host.stop().await;
    assert_eq!((output.code, output.stderr.matches("WARN").count()), (0, 0), "{output:?}");
    Ok(())
}

async fn what_a_plugin_allocates_is_its_own_to_free() {
    let library = fixture("own_allocator");
    let host = HostProcess::start(plugin(&library).set("otel.required", true)).await;
    for _ in 0..10 {
        assert_eq!(host.plugin().await["status"]["group"], "front");
        assert_eq!(host.get("/up").send().await.text(), "as before");
    }
    assert_eq!(host.stop().await.code, 0);
}

async fn a_bad_setting_names_key_and_reason() {
    for required in [true, false] {
        let config = plugin(&fixture("bad_setting")).set("otel.manners", "bad ones");
        let output = start(None, config.set("otel.required", required), &[]).await;
        assert_eq!(output.code, 78, "{output:?}");
        let line = last_words(&output);
        assert!(line.contains("otel.manners") && line.contains("wanted good manners"), "{line}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    }
}

async fn a_library_with_another_hash_is_not_even_constructed() {
    let folder = open_folder();
    let library = library(folder.path(), "constructor");
    let mark = folder.path().join("constructed");
    let environment = [("CONSTRUCTED", mark.to_str().unwrap())];
    let config = plugin(&library).set("otel.required", true);

    let other = "0".repeat(64);
    let output = start(None, config.clone().set("otel.sha256", other.clone()), &environment).await;
    assert_eq!(output.code, 65, "{output:?}");
    let reason = format!("{}: checksum mismatch: wanted sha256 {other}, found ", library.display());
    let (_, found) = last_words(&output).split_once(&reason).unwrap();
    assert!(!mark.exists(), "its constructor ran");

    let output = start(None, config.set("otel.sha256", found), &environment).await;
    assert_eq!(output.code, 65, "right hash, but its entry is junk: {output:?}");
    assert!(last_words(&output).contains(JUNK_ENTRY), "{output:?}");
    assert!(mark.exists(), "the fixture has no constructor");
}

/// The contract has one `[otel]` table and so one plugin; a second one is an error of the file.
async fn there_is_no_second_plugin_table() {
    let folder = open_folder();
    let file = folder.path().join("host.toml");
    let table = format!("[otel]\nenabled = true\nlibrary = \"{}\"\n", plugin_noop().display());
    fs::write(&file, format!("{table}{table}")).unwrap();
    let arguments = ["--config", file.to_str().unwrap()];
    let output = run_at_once(None, folder.path(), &arguments, &[]).await;
    assert_eq!(output.code, 78, "{output:?}");
    assert!(last_words(&output).ends_with("host.toml:4: duplicate key"), "{output:?}");
}

async fn each_case_is_a_file_of_thirty_lines_at_most() {
    let folders = [fixtures(), fixtures().join("misbehaving"), fixtures().join("c")];
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).unwrap());
    let files = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
    // What the cases have in common, and what lists them.
    let shared = ["lib.rs", "Cargo.toml", "Cargo.lock"];
    let cases = files.filter(|path| !shared.iter().any(|name| path.ends_with(name)));
    let lines = cases.map(|path| (fs::read_to_string(&path).unwrap().lines().count(), path));
    let lines: Vec<_> = lines.collect();
    assert!(lines.len() > 30, "{lines:?}");
    assert!(lines.iter().all(|(count, _)| *count <= 30), "{lines:?}");
}
