//! Settings of a whole service group, from a real store.

use std::time::Instant;

use harness::{Collector, Config, HostProcess, Kind, Load, Skipped, Store, run, wait::until};
use http::Method;
use serde_json::Value;

trials![
    the_store_switches_the_plugin_on,
    a_new_ratio_holds_on_every_host_of_etcd_and_no_request_fails,
    a_new_ratio_holds_on_every_host_of_redis_and_no_request_fails,
    what_cannot_be_taken_changes_nothing_and_is_one_warning,
    what_the_plugin_cannot_take_keeps_no_host_from_starting,
    the_level_of_the_log_changes_at_once,
    the_level_of_exported_lines_changes_at_once,
    what_a_running_host_cannot_change_waits_for_its_next_start,
];

const SETTINGS: &str = "config/front";

/// A host that answers `/`, and could be traced.
fn config(store: &Store, collector: &Collector) -> Config {
    let config = Config::new().respond("/", 200, "").traced(&collector.grpc_endpoint(), "grpc");
    store.of(config)
}

/// The value of a setting in force, and where it comes from.
async fn setting(host: &HostProcess, key: &str) -> (String, String) {
    let plugin = host.plugin().await;
    let text = |part: &str| plugin["settings"][key][part].as_str().unwrap_or_default().to_owned();
    (text("value"), text("source"))
}

/// Waits until a host has taken `value`.
async fn taken(host: &HostProcess, key: &str, value: &str) {
    until(&format!("{key} to be {value}"), async || {
        (setting(host, key).await.0 == value).then_some(())
    })
    .await;
}

/// How many of twenty new requests are sampled.
async fn sampled_of_twenty(host: &HostProcess) -> u64 {
    let sampled = async || host.plugin().await["status"]["spans"]["sampled"].as_u64().unwrap();
    let before = sampled().await;
    for _ in 0..20 {
        assert_eq!(host.get("/").send().await.status, 200);
    }
    sampled().await - before
}

async fn the_store_switches_the_plugin_on() -> Result<(), Skipped> {
    let store = Store::start(Kind::Etcd).await?;
    let collector = Collector::start().await;
    let off = config(&store, &collector).set("otel.enabled", false).set("otel.required", false);
    let plain = HostProcess::start(off.clone()).await;
    assert_eq!(plain.ask("/plugins").await.json(), Value::Array(Vec::new()));
    store.put(SETTINGS, r#"{"otel": {"enabled": true, "sampler": "always_on"}}"#).await;

    let host = HostProcess::start(off).await;
    assert_eq!(host.stack("server").await[0], "otel");
    let source = "discovery /host/config/front".to_owned();
    assert_eq!(setting(&host, "otel.enabled").await, ("true".to_owned(), source.clone()));
    assert_eq!(setting(&host, "otel.sampler").await, ("\"always_on\"".to_owned(), source));
    assert!(setting(&host, "otel.endpoint").await.1.starts_with("file "));
    assert_eq!(host.get("/").send().await.status, 200);
    collector.wait_for("a span", |spans| !spans.is_empty()).await;

    let checked = run(host.folder(), &["check", "--config", "host.toml"], &[]).await;
    assert_eq!(checked.code, 0, "{checked:?}");
    let line = "otel.enabled = true  # discovery /host/config/front";
    assert!(checked.stdout.lines().any(|told| told == line), "{}", checked.stdout);
    // A stack is sealed: the host that runs already waits for its next start.
    until("the line of the running host", async || {
        plain.lines_with(&["for the next start: ", "otel.enabled"]).pop()
    })
    .await;
    assert_eq!(plain.stack("server").await[0], "request-id");
    Ok(())
}

async fn a_new_ratio_holds_on_every_host_of_etcd_and_no_request_fails() -> Result<(), Skipped> {
    a_new_ratio_holds_on_every_host(Kind::Etcd).await
}

async fn a_new_ratio_holds_on_every_host_of_redis_and_no_request_fails() -> Result<(), Skipped> {
    a_new_ratio_holds_on_every_host(Kind::Redis).await
}

async fn a_new_ratio_holds_on_every_host(kind: Kind) -> Result<(), Skipped> {
    let store = Store::start(kind).await?;
    let collector = Collector::start().await;
    store.put(SETTINGS, "[otel]\nsampler = \"traceidratio\"\nsampler-arg = 0.0").await;
    let config = config(&store, &collector);
    let mut hosts = Vec::new();
    for _ in 0..3 {
        hosts.push(HostProcess::start(config.clone()).await);
    }
    for host in &hosts {
        assert_eq!(sampled_of_twenty(host).await, 0);
    }
    let loads: Vec<_> =
        hosts.iter().map(|host| Load::start(&Method::GET, &host.url("/"), 1)).collect();

    let began = Instant::now();
    store.put(SETTINGS, "[otel]\nsampler = \"traceidratio\"\nsampler-arg = 1.0").await;
    for host in &hosts {
        taken(host, "otel.sampler-arg", "1.0").await;
    }
    eprintln!("a new ratio was in force on three hosts of {kind:?} after {:?}", began.elapsed());

    for load in loads {
        load.goes_on(1).await;
        assert_eq!(load.failed().await, 0);
    }
    for host in &hosts {
        assert_eq!(sampled_of_twenty(host).await, 20);
    }
    store.remove_all(&[SETTINGS.to_owned()]).await;
    for host in &hosts {
        taken(host, "otel.sampler", "\"parentbased_always_on\"").await;
    }
    Ok(())
}

async fn what_cannot_be_taken_changes_nothing_and_is_one_warning() -> Result<(), Skipped> {
    let store = Store::start(Kind::Etcd).await?;
    let collector = Collector::start().await;
    store.put(SETTINGS, "[otel]\nsampler = \"always_off\"").await;
    let host = HostProcess::start(config(&store, &collector)).await;
    for (nth, (text, reason)) in [
        ("{", "/host/config/front:1: "),
        ("[otel]\nsampler = \"always_on\"\nexclude = 5", "otel.exclude: "),
        ("[otel]\nsampler = \"always_om\"", "otel.sampler: "),
        ("[otel]\nsamplr = \"always_on\"", "otel.samplr: unknown key, did you mean \"sampler\"?"),
        ("[otel]\nsampler = \"always_on\"\n[log]\nlevel = \"loud\"", "log.level: wanted off"),
        ("[otel]\nsampler = \"always_on\"\n[server]\nlisten = \"0.0.0.0:1\"", "server.listen: is"),
        ("[otel]\nsampler = \"always_on\"\nlibrary = \"/tmp/evil.so\"", "otel.library: is each"),
    ]
    .into_iter()
    .enumerate()
    {
        store.put(SETTINGS, text).await;
        let refused = ["WARN", "fleet settings refused, nothing changes: "];
        let line = until(&format!("the refusal of {text:?}"), async || {
            let lines = host.lines_with(&refused);
            (lines.len() > nth).then(|| lines[nth].clone())
        })
        .await;
        assert!(line.contains(reason) && line.contains("/host/config/front"), "{text}: {line}");
        assert_eq!(host.lines_with(&refused).len(), nth + 1);
        assert_eq!(setting(&host, "otel.sampler").await.0, "\"always_off\"", "{text}");
        assert_eq!(sampled_of_twenty(&host).await, 0, "{text}");
    }
    store.put(SETTINGS, "[otel]\nsampler = \"always_on\"").await;
    taken(&host, "otel.sampler", "\"always_on\"").await;
    assert_eq!(sampled_of_twenty(&host).await, 20);
    Ok(())
}

async fn what_the_plugin_cannot_take_keeps_no_host_from_starting() -> Result<(), Skipped> {
    let store = Store::start(Kind::Etcd).await?;
    let collector = Collector::start().await;
    for text in ["[otel]\nsampler = \"always_om\"", "[otel]\nsamplr = 1", "= 5"] {
        store.put(SETTINGS, text).await;
        let host = HostProcess::start(config(&store, &collector)).await;
        let refused = ["WARN", "fleet settings refused, starting with this host's own: "];
        assert_eq!(host.lines_with(&refused).len(), 1, "{text}: {}", host.stderr());
        assert_eq!(host.stack("server").await[0], "otel");
        assert_eq!(setting(&host, "otel.sampler").await.1, "default");
    }
    Ok(())
}

async fn the_level_of_the_log_changes_at_once() -> Result<(), Skipped> {
    let store = Store::start(Kind::Etcd).await?;
    let config = store.of(Config::new().respond("/", 200, "").set("log.access", true));
    let host = HostProcess::start(config.set("log.level", "warn")).await;
    assert_eq!(host.get("/").send().await.status, 200);
    assert!(host.lines_with(&["access: "]).is_empty());
    store.put(SETTINGS, "log.level = \"info\"").await;
    until("a line of a request", async || {
        assert_eq!(host.get("/").send().await.status, 200);
        host.lines_with(&["access: "]).pop()
    })
    .await;
    let taken = async || host.lines_with(&["fleet settings taken"]).pop();
    until("the line that says so", taken).await;
    Ok(())
}

async fn the_level_of_exported_lines_changes_at_once() -> Result<(), Skipped> {
    let store = Store::start(Kind::Etcd).await?;
    let collector = Collector::start().await;
    store.put(SETTINGS, "[otel]\nlog-level = \"ERROR\"").await;
    let host = HostProcess::start(config(&store, &collector).set("log.access", true)).await;
    assert_eq!(host.get("/").send().await.status, 200);
    store.put(SETTINGS, "[otel]\nlog-level = \"INFO\"").await;
    taken(&host, "otel.log-level", "\"INFO\"").await;
    let first = host.lines_with(&["access: "]).len();
    until("an exported line of a request", async || {
        assert_eq!(host.get("/").send().await.status, 200);
        collector.logs().iter().any(|log| log.scope == "access").then_some(())
    })
    .await;
    let exported = || collector.logs().iter().filter(|log| log.scope == "access").count();
    assert!(exported() <= host.lines_with(&["access: "]).len() - first, "none of before");
    store.put(SETTINGS, "[otel]\nlog-level = \"OFF\"").await;
    taken(&host, "otel.log-level", "\"OFF\"").await;
    Ok(())
}

async fn what_a_running_host_cannot_change_waits_for_its_next_start() -> Result<(), Skipped> {
    let store = Store::start(Kind::Etcd).await?;
    let collector = Collector::start().await;
    let host = HostProcess::start(config(&store, &collector)).await;
    store.put(SETTINGS, "[otel]\nsampler = \"always_on\"\nendpoint = \"http://127.0.0.1:1\"").await;
    let line = until("the line", async || host.lines_with(&["fleet settings taken"]).pop()).await;
    assert!(line.ends_with("for the next start: otel.endpoint"), "{line}");
    assert!(setting(&host, "otel.endpoint").await.1.starts_with("file "));
    assert!(setting(&host, "otel.sampler").await.1.starts_with("discovery "));
    assert_eq!(host.get("/").send().await.status, 200);
    collector.wait_for("a span", |spans| !spans.is_empty()).await;
    Ok(())
}
