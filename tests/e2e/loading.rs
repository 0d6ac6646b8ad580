//! Libraries that cannot be loaded: one clear line, and the start goes on or ends with 65.

use std::{
    fs,
    path::{Path, PathBuf},
};

use harness::{Config, HostProcess, Output, artifacts, free, run};

trials![
    a_library_that_cannot_be_loaded_is_one_warning_when_not_required,
    a_library_that_cannot_be_loaded_is_one_line_and_exit_65_when_required,
    a_library_with_another_hash_is_refused,
];

/// A name and how to make a library that is wrong in that way.
type Case = (&'static str, fn(&Path) -> PathBuf);

const CASES: [Case; 7] = [
    ("missing file", |folder| folder.join("libmissing.so")),
    ("text file", |folder| written(folder, "libtext.so", b"not a library\n")),
    ("empty file", |folder| written(folder, "libnothing.so", b"")),
    ("directory", |folder| {
        let path = folder.join("libfolder.so");
        fs::create_dir_all(&path).unwrap();
        path
    }),
    ("truncated library", |folder| {
        let whole = fs::read(artifacts::plugin_noop()).unwrap();
        written(folder, "libhalf.so", &whole[..whole.len() / 2])
    }),
    ("library without the entry symbol", artifacts::library_without_entry),
    ("plugin of another major version", |_| artifacts::plugin_other_major()),
];

fn written(folder: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, content).unwrap();
    path
}

async fn a_library_that_cannot_be_loaded_is_one_warning_when_not_required() {
    let folder = tempfile::tempdir().unwrap();
    for (case, make) in CASES {
        let path = make(folder.path()).display().to_string();
        let config = Config::new().respond("/", 200, "as before").plugin(&path);
        let host = HostProcess::start(config).await;
        assert_eq!(host.get("/").send().await.text(), "as before", "{case}");
        let stack = host.stack("server").await;
        assert_eq!(stack[0], "request-id", "{case}: {stack:?}");
        let lines = host.lines_with(&[&path]);
        let [line] = &lines[..] else { panic!("{case}: not one line: {}", host.stderr()) };
        assert!(line.contains("WARN") && line.contains("otel plugin"), "{case}: {line}");
        assert_eq!(host.lines_with(&["WARN"]).len(), 1, "{case}: {}", host.stderr());
    }
}

async fn a_library_that_cannot_be_loaded_is_one_line_and_exit_65_when_required() {
    let folder = tempfile::tempdir().unwrap();
    for (case, make) in CASES {
        let path = make(folder.path()).display().to_string();
        let config = Config::new().plugin(&path).set("otel.required", true);
        assert_refused(case, &path, &start(config).await);
    }
}

async fn a_library_with_another_hash_is_refused() {
    let library = artifacts::plugin_noop().display().to_string();
    let config = Config::new().plugin(&library).set("otel.required", true);
    let host = HostProcess::start(config.clone()).await;
    let hash = host.plugin().await["sha256"].as_str().unwrap().to_owned();

    let pinned = HostProcess::start(config.clone().set("otel.sha256", hash.clone())).await;
    assert_eq!(pinned.plugin().await["name"], "noop");

    let other = "0".repeat(64);
    let output = start(config.set("otel.sha256", other.clone())).await;
    assert_refused("another hash", &library, &output);
    assert!(output.stderr.contains(&other) && output.stderr.contains(&hash), "{output:?}");
}

/// Starts a host that is expected to end by itself, and to log nothing but what is wrong.
async fn start(config: Config) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    let [public, admin] = free().map(|address| address.to_string());
    let config = config.set("server.listen", public).set("admin.listen", admin);
    fs::write(&file, config.set("log.level", "error").text()).unwrap();
    run(folder.path(), &["--config", file.to_str().unwrap()], &[]).await
}

fn assert_refused(case: &str, path: &str, output: &Output) {
    assert_eq!(output.code, 65, "{case}: {output:?}");
    let lines: Vec<_> = output.stderr.lines().collect();
    let [line] = lines[..] else { panic!("{case}: not one line: {output:?}") };
    let reason = line.strip_prefix(&format!("host: otel plugin: {path}: "));
    assert!(reason.is_some_and(|reason| !reason.is_empty()), "{case}: {line}");
}
