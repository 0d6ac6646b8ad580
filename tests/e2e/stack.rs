//! Which layers a host has, with and without a plugin.

use std::{fs, path::Path};

use harness::{Collector, Config, HostProcess, Launch, artifacts};
use serde_json::json;

trials![
    a_host_without_a_plugin_has_its_own_layers_only,
    the_plugin_is_outermost_in_the_server_and_innermost_in_the_client,
    the_plugin_tells_how_it_is,
    a_disabled_plugin_is_not_even_mapped,
    an_absent_plugin_that_is_not_required_is_one_warning,
    a_bare_name_is_looked_for_next_to_the_binary,
    any_plugin_of_the_contract_takes_the_same_places,
];

const SERVER: [&str; 7] = [
    "request-id",
    "catch-panic",
    "error-status",
    "load-shed",
    "in-flight-limit",
    "timeout",
    "routes",
];
const CLIENT: [&str; 4] = ["retry", "balance", "timeout", "http"];

fn server_with(plugin: &str) -> Vec<String> {
    std::iter::once(plugin).chain(SERVER).map(str::to_owned).collect()
}

fn client_with(plugin: &str) -> Vec<String> {
    ["retry", "balance", "timeout", plugin, "http"].map(str::to_owned).to_vec()
}

fn maps(host: &HostProcess) -> String {
    fs::read_to_string(format!("/proc/{}/maps", host.id())).unwrap()
}

async fn a_host_without_a_plugin_has_its_own_layers_only() {
    let host = HostProcess::start(Config::new()).await;
    assert_eq!(host.stack("server").await, SERVER);
    assert_eq!(host.stack("client").await, CLIENT);
}

async fn the_plugin_is_outermost_in_the_server_and_innermost_in_the_client() {
    let collector = Collector::start().await;
    let host = HostProcess::start(Config::new().traced(&collector.grpc_endpoint(), "grpc")).await;
    assert_eq!(host.stack("server").await, server_with("otel"));
    assert_eq!(host.stack("client").await, client_with("otel"));
    assert!(maps(&host).contains("libplugin_otel.so"), "the library is mapped");
}

async fn the_plugin_tells_how_it_is() {
    let collector = Collector::start().await;
    let host = HostProcess::start(
        Config::new().respond("/", 200, "").traced(&collector.grpc_endpoint(), "grpc"),
    )
    .await;
    assert_eq!(host.get("/").send().await.status, 200);
    collector.wait_for("a span", |spans| !spans.is_empty()).await;
    let plugin = harness::wait::until("the export to be counted", async || {
        let plugin = host.plugin().await;
        (plugin["status"]["spans"]["exported"] == 1).then_some(plugin)
    })
    .await;

    assert_eq!((&plugin["name"], &plugin["state"]), (&json!("otel"), &json!("running")));
    assert_eq!(plugin["abi"], artifacts::contract());
    assert!(plugin["version"].is_string(), "{plugin}");
    let path = plugin["path"].as_str().map(Path::new).unwrap();
    assert_eq!(path, artifacts::plugin_otel());
    assert_eq!(plugin["sha256"].as_str().unwrap().len(), 64);

    let status = &plugin["status"];
    let spans = json!({"live": 0, "started": 1, "sampled": 1, "exported": 1, "dropped": 0});
    assert_eq!(status["spans"], spans);
    assert_eq!(status["export"]["state"], "healthy");
    assert_eq!(status["export"]["queued"], 0);
    assert_eq!(status["panics"], 0);
}

async fn a_disabled_plugin_is_not_even_mapped() {
    let library = artifacts::plugin_otel().display().to_string();
    let config = Config::new().plugin(&library).set("otel.enabled", false);
    // The host does not read what belongs to a plugin that it does not open.
    let host = HostProcess::start(config.set("otel.endpoint", "http://127.0.0.1:1")).await;
    assert_eq!(host.stack("server").await, SERVER);
    assert_eq!(host.stack("client").await, CLIENT);
    assert_eq!(host.ask("/plugins").await.json(), json!([]));
    assert!(!maps(&host).contains("plugin_otel"), "{}", maps(&host));
}

async fn an_absent_plugin_that_is_not_required_is_one_warning() {
    let host = HostProcess::start(Config::new().plugin("/nowhere/libplugin_otel.so")).await;
    assert_eq!(host.stack("server").await, SERVER);
    assert_eq!(host.stack("client").await, CLIENT);
    assert!(!maps(&host).contains("plugin_otel"));
    let lines = host.lines_with(&["/nowhere/libplugin_otel.so"]);
    let [warning] = &lines[..] else { panic!("not one line: {lines:#?}") };
    assert!(warning.contains("WARN"), "{warning}");
    let plugin = host.plugin().await;
    assert_eq!((&plugin["name"], &plugin["state"]), (&json!(null), &json!("failed")));
    assert_eq!(plugin["path"], "/nowhere/libplugin_otel.so");
    let reason = plugin["status"]["error"].as_str().expect("a reason");
    assert!(reason.contains("no such file") && warning.contains(reason), "{reason}");
}

async fn a_bare_name_is_looked_for_next_to_the_binary() {
    let folder = tempfile::tempdir().unwrap();
    let binary = folder.path().join("host");
    fs::copy(artifacts::host(), &binary).unwrap();
    let config = Config::new().plugin("libnoop.so");

    let without = Launch::host(config.clone()).binary(&binary).start().await;
    assert_eq!(without.stack("server").await, SERVER);

    fs::copy(artifacts::plugin_noop(), folder.path().join("libnoop.so")).unwrap();
    let with = Launch::host(config).binary(&binary).start().await;
    assert_eq!(with.stack("server").await, server_with("noop"));
}

async fn any_plugin_of_the_contract_takes_the_same_places() {
    let library = artifacts::plugin_noop().display().to_string();
    let config = Config::new().plugin(&library).set("otel.required", true);
    let host = HostProcess::start(config.respond("/", 200, "as before")).await;
    assert_eq!(host.stack("server").await, server_with("noop"));
    assert_eq!(host.stack("client").await, client_with("noop"));
    assert_eq!(host.get("/").send().await.text(), "as before");
    let plugin = host.plugin().await;
    assert_eq!((&plugin["name"], &plugin["state"]), (&json!("noop"), &json!("running")));
    assert_eq!(host.lines_with(&["hello from the smallest plugin"]).len(), 1);
}
