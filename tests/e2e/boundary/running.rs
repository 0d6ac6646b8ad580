//! Plugins that were loaded and then misbehave, and what happens to the file meanwhile.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use harness::{
    Client, Config, HostProcess, Output, Signal,
    artifacts::{fixture, plugin_noop},
    run,
    wait::until,
};
use libtest_mimic::Trial;
use serde_json::json;
use tokio::task::JoinSet;

use super::{
    answers, config, last_words,
    moody::{Moody, upgrade},
    open_folder, row, serves,
};

/// Every hook that a request enters.
const HOOKS: [&str; 11] = [
    "on_request of the server",
    "on_request of the client",
    "on_route",
    "on_response",
    "on_response of the server",
    "on_trailers",
    "on_retry",
    "context",
    "on_upgrade",
    "on_end",
    "drop of an exchange",
];

/// What is dropped when the host ends.
const DROPS: [&str; 3] =
    ["drop of the server layer", "drop of the client layer", "drop of the plugin"];

pub(super) fn trials() -> Vec<Trial> {
    let hooks = HOOKS.map(|place| row(&format!("panic in {place}"), move || a_hook_panics(place)));
    let drops = DROPS.map(|place| row(&format!("panic in {place}"), move || a_drop_panics(place)));
    let layers = ["server", "client"].map(|side| {
        row(&format!("panic in {side}_layer"), move || the_making_of_a_layer_panics(side))
    });
    let stops = ["flush", "shutdown"]
        .map(|place| row(&format!("panic in {place}"), move || the_stop_panics(place)));
    hooks
        .into_iter()
        .chain(drops)
        .chain(layers)
        .chain(stops)
        .chain([
            row("panic in check", a_check_panics),
            row("panic in metrics", the_figures_are_told_without_those_of_the_plugin),
            row("panic in state", || a_question_panics("state", "failed")),
            row("panic in status", || a_question_panics("status", "running")),
            row("panic in a plugin thread", || a_thread_panics("a guarded thread")),
            row("panic in a plugin thread without a guard", || a_thread_panics("a thread")),
            row("hook that sleeps", a_hook_that_sleeps_delays_its_request_only),
            row("shutdown that hangs", a_shutdown_that_hangs_is_left_behind),
            row("second signal while shutdown hangs", a_second_signal_does_not_wait_for_a_plugin),
            row("status that hangs", a_status_that_hangs_keeps_nobody_else),
            row("check that hangs", a_check_that_hangs_ends_the_check),
            row("create that hangs", a_create_that_hangs_is_left_behind),
            row("file replaced by rename while running", || the_file_is_changed(replace)),
            row("file removed while running", || the_file_is_changed(remove)),
            row("SIGTERM under load", the_stop_under_load_flushes_once_and_calls_nothing_after),
        ])
        .collect()
}

/// The plugin that does `what`, as its file says.
fn misbehaving(what: &str) -> Config {
    let library = fixture(&what.replace(' ', "_")).display().to_string();
    config().plugin(&library).set("otel.required", true)
}

fn panicking(place: &str) -> Config {
    misbehaving(&format!("panics in {place}"))
}

/// The lines that say what panicked, and where.
fn panics_at(stderr: &str, place: &str) -> usize {
    let message = format!("misbehaving in {place}");
    let lines =
        stderr.lines().filter(|line| line.contains("ERROR") && line.contains("panicked at"));
    // The message of a panic is on a line of its own, below its place.
    let file = format!("panics_in_{}.rs:", place.replace(' ', "_"));
    let places = lines.filter(|line| line.contains(&file)).count();
    assert_eq!(places > 0, stderr.contains(&message), "{stderr}");
    places
}

/// How many panics the host has logged, at least one.
async fn logged(host: &HostProcess, place: &str) -> usize {
    let message = format!("misbehaving in {place}");
    until("the panic to be logged", async || host.stderr().contains(&message).then_some(())).await;
    panics_at(&host.stderr(), place)
}

/// Requests that enter the hook, a few times at most; all are answered as without a plugin.
async fn provoke(place: &str, host: &HostProcess) {
    answers(host).await;
    let asked = match place {
        "on_trailers" => "trailers",
        "on_retry" | "context" => "cut",
        "on_upgrade" => return upgrade(host.public()).await,
        _ => return,
    };
    let answer = host.get(&format!("/upstream/{asked}")).send().await;
    assert_eq!((answer.status, answer.text()), (200, "well"));
}

async fn a_hook_panics(place: &'static str) {
    let upstream = Moody::start().await;
    let host = HostProcess::start(upstream.behind(panicking(place))).await;
    provoke(place, &host).await;
    let plugin = until("the panic to be counted", async || {
        let plugin = host.plugin().await;
        (plugin["panics"].as_u64().unwrap() > 0).then_some(plugin)
    })
    .await;
    assert!(plugin["panics"].as_u64().unwrap() < 10, "{plugin}");
    assert_eq!(plugin["state"], "running", "a few panics are borne: {plugin}");
    assert!(logged(&host, place).await > 0, "{}", host.stderr());

    for _ in 0..10 {
        provoke(place, &host).await;
    }
    let plugin = until("the plugin to be switched off", async || {
        let plugin = host.plugin().await;
        (plugin["state"] == "failed").then_some(plugin)
    })
    .await;
    provoke(place, &host).await;
    let most = if place.starts_with("drop") { u64::MAX } else { 12 };
    assert!(plugin["panics"].as_u64().unwrap() <= most, "not entered any more: {plugin}");
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(warnings(&output, "switched off"), 1, "{output:?}");
}

fn warnings(output: &Output, words: &str) -> usize {
    output.stderr.lines().filter(|line| line.contains("WARN") && line.contains(words)).count()
}

/// A host that serves need not drop anything at its end; `host check` drops everything.
async fn a_drop_panics(place: &'static str) {
    let folder = open_folder();
    let file = folder.path().join("host.toml");
    fs::write(&file, panicking(place).text()).unwrap();
    let output = run(folder.path(), &["check", "--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(panics_at(&output.stderr, place), 1, "{output:?}");

    let host = HostProcess::start(panicking(place)).await;
    answers(&host).await;
    assert_eq!(host.stop().await.code, 0);
}

async fn the_making_of_a_layer_panics(side: &'static str) {
    let host = HostProcess::start(panicking(&format!("{side}_layer"))).await;
    answers(&host).await;
    assert!(!host.stack(side).await.iter().any(|layer| layer == "misbehaving"));
    assert_eq!(host.plugin().await["panics"], 1);
    assert_eq!(logged(&host, &format!("{side}_layer")).await, 1);
    assert_eq!(host.stop().await.code, 0);
}

async fn the_stop_panics(place: &'static str) {
    let host = HostProcess::start(panicking(place)).await;
    answers(&host).await;
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(panics_at(&output.stderr, place), 1, "{output:?}");
    assert_eq!(warnings(&output, "the plugin panicked in shutdown"), 1, "{output:?}");
}

async fn a_check_panics() {
    let folder = open_folder();
    let file = folder.path().join("host.toml");
    fs::write(&file, panicking("check").set("log.level", "error").text()).unwrap();
    let output = run(folder.path(), &["check", "--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(output.code, 69, "{output:?}");
    assert_eq!(panics_at(&output.stderr, "check"), 1, "{output:?}");
    assert!(last_words(&output).ends_with("the plugin panicked in check"), "{output:?}");
}

async fn the_figures_are_told_without_those_of_the_plugin() {
    let host = HostProcess::start(panicking("metrics")).await;
    for _ in 0..2 {
        let answer = host.ask("/metrics").await;
        assert_eq!(answer.status, 200);
        assert!(
            answer.text().contains("\n# EOF") || answer.text().contains("# TYPE"),
            "{answer:?}"
        );
    }
    answers(&host).await;
    assert!(host.plugin().await["panics"].as_u64().unwrap() >= 2);
    assert!(logged(&host, "metrics").await > 0, "{}", host.stderr());
    assert_eq!(host.stop().await.code, 0);
}

async fn a_question_panics(place: &'static str, state: &'static str) {
    let host = HostProcess::start(panicking(place)).await;
    answers(&host).await;
    let plugin = host.plugin().await;
    assert_eq!(plugin["state"], state, "{plugin}");
    let status = if place == "status" { json!({}) } else { json!({ "group": "front" }) };
    assert_eq!(plugin["status"], status, "{plugin}");
    assert!(host.plugin().await["panics"].as_u64().unwrap() > 0);
    assert!(logged(&host, place).await > 0, "{}", host.stderr());
    assert_eq!(host.stop().await.code, 0);
}

async fn a_thread_panics(place: &'static str) {
    let host = HostProcess::start(panicking(place)).await;
    assert_eq!(logged(&host, place).await, 1);
    until("the panic to be counted", async || (host.plugin().await["panics"] == 1).then_some(()))
        .await;
    answers(&host).await;
    assert_eq!(host.plugin().await["state"], "running");
    assert_eq!(host.stop().await.code, 0);
}

async fn a_hook_that_sleeps_delays_its_request_only() {
    let host = HostProcess::start(misbehaving("sleeps in on_request of the server")).await;
    let start = Instant::now();
    assert_eq!(host.get("/").send().await.text(), "as before");
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
    answers(&host).await;
    let slow = &host.plugin().await["slow-hooks"];
    // Two calls from here, one from here to itself and what that one is answered by.
    assert!(slow["server"]["10ms"].as_u64().unwrap() >= 4, "{slow}");
    assert_eq!(slow["server"]["1s"], 0, "{slow}");
    assert_eq!(host.stop().await.code, 0);
}

async fn a_shutdown_that_hangs_is_left_behind() {
    let config = misbehaving("hangs in shutdown").set("server.drain-timeout", "100ms");
    let host = HostProcess::start(config).await;
    answers(&host).await;
    let start = Instant::now();
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(warnings(&output, "did not stop within"), 1, "{output:?}");
    // Two seconds are the least that a plugin is given to flush.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

async fn a_second_signal_does_not_wait_for_a_plugin() {
    let config = misbehaving("hangs in shutdown").set("server.drain-timeout", "60s");
    let host = HostProcess::start(config).await;
    host.signal(Signal::TERM);
    until("the host to stop", async || (!host.lines_with(&["stopping"]).is_empty()).then_some(()))
        .await;
    host.signal(Signal::TERM);
    let output = host.end().await;
    assert_eq!(output.code, 75, "{output:?}");
    assert_eq!(warnings(&output, "a second signal"), 1, "{output:?}");
}

async fn a_status_that_hangs_keeps_nobody_else() {
    let host = HostProcess::start(misbehaving("hangs in status")).await;
    for _ in 0..3 {
        let plugin = host.plugin().await;
        assert_eq!(plugin["state"], "failed", "{plugin}");
        assert!(plugin["status"]["error"].as_str().unwrap().contains("no answer"), "{plugin}");
    }
    answers(&host).await;
    assert_eq!(host.stop().await.code, 0);
}

async fn a_check_that_hangs_ends_the_check() {
    let folder = open_folder();
    let file = folder.path().join("host.toml");
    let config = misbehaving("hangs in check").set("client.connect-timeout", "100ms");
    fs::write(&file, config.set("log.level", "error").text()).unwrap();
    let output = run(folder.path(), &["check", "--config", file.to_str().unwrap()], &[]).await;
    assert_eq!(output.code, 69, "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    assert!(output.stderr.contains("did not end within 100ms"), "{output:?}");
}

async fn a_create_that_hangs_is_left_behind() {
    let host = HostProcess::start(misbehaving("hangs in create").set("otel.required", false)).await;
    serves(&host).await;
    assert_eq!(host.stack("server").await[0], "request-id");
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert_eq!(warnings(&output, "did not start within"), 1, "{output:?}");
}

fn replace(library: &Path) {
    let other = library.with_file_name("libother.so");
    fs::write(&other, "a newer version, not finished yet").unwrap();
    fs::rename(other, library).unwrap();
}

fn remove(library: &Path) {
    fs::remove_file(library).unwrap();
}

async fn the_file_is_changed(change: fn(&Path)) {
    let folder = open_folder();
    let library = folder.path().join("libnoop.so");
    fs::copy(plugin_noop(), &library).unwrap();
    let config = config().plugin(&library.display().to_string()).set("otel.required", true);
    let host = HostProcess::start(config).await;
    answers(&host).await;
    change(&library);
    for _ in 0..10 {
        answers(&host).await;
    }
    assert_eq!(host.plugin().await["state"], "running");
    assert_eq!(host.stop().await.code, 0);
}

async fn the_stop_under_load_flushes_once_and_calls_nothing_after() {
    let host = HostProcess::start(misbehaving("calls_after_the_stop")).await;
    let mut callers = JoinSet::new();
    let answered = Arc::new(AtomicU32::new(0));
    for nth in 0..8 {
        let (url, answered) = (host.url("/up"), Arc::clone(&answered));
        callers.spawn(async move {
            let client = if nth % 2 == 0 { Client::http1() } else { Client::http2() };
            let mut own = 0;
            while client.get(&url).open().await.is_ok() {
                own += 1;
                answered.fetch_add(1, Ordering::Relaxed);
            }
            own
        });
    }
    until("some load", async || (answered.load(Ordering::Relaxed) > 200).then_some(())).await;
    for _ in 0..20 {
        answers(&host).await;
    }
    host.signal(Signal::TERM);
    let output = host.end().await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(callers.join_all().await.into_iter().sum::<u32>() > 0, "there was no load");
    assert_eq!(output.stderr.matches("flushing").count(), 1, "{output:?}");
    assert_eq!(output.stderr.matches("called after the stop").count(), 0, "{output:?}");
}
