//! What only etcd has: several endpoints, and a history that is compacted.

use std::fs;

use base64::{Engine, prelude::BASE64_STANDARD as BASE64};
use harness::{Client, HostProcess, Kind, Signal, Skipped, Store, wait::until};
use serde_json::json;

use super::{
    away::{etcd_with_a_password, invalidate_tokens},
    becomes, greeter, knows,
};

trials![
    the_next_endpoint_takes_over_from_one_that_is_gone,
    a_host_that_falls_behind_a_compaction_reads_all_anew,
    all_is_read_anew_now_and_then_whatever_the_watch_said,
    a_signed_token_is_replaced_once_users_have_changed,
];

/// Two etcds that know nothing of each other, so that it shows which of them is asked.
async fn the_next_endpoint_takes_over_from_one_that_is_gone() -> Result<(), Skipped> {
    let mut first = Store::start(Kind::Etcd).await?;
    let mut second = Store::start(Kind::Etcd).await?;
    first.kill().await;
    let endpoints = vec![first.url(), second.url()];
    let config = greeter(&first, "one").set("discovery.etcd.endpoints", endpoints);
    let host = HostProcess::start(config).await;
    assert_eq!(second.count("greeter").await, 1);
    knows(&host, "greeter", &["one"]).await;

    first.revive_empty().await;
    first.put("services/greeter/x", r#"{"address": "127.0.0.1:1", "name": "two"}"#).await;
    assert_eq!(first.count("greeter").await, 1);
    second.kill().await;
    let registered = async || (first.count("greeter").await == 2).then_some(());
    until("the host to register with the first", registered).await;
    knows(&host, "greeter", &["one", "two"]).await;
    becomes(&host, "reachable").await;
    Ok(())
}

async fn a_host_that_falls_behind_a_compaction_reads_all_anew() -> Result<(), Skipped> {
    const BUSY: &str = "services/greeter/busy";
    let store = Store::start(Kind::Etcd).await?;
    let entry = |name: &str| json!({"address": "127.0.0.1:1", "name": name}).to_string();
    store.put("services/greeter/gone", &entry("gone")).await;
    let config = greeter(&store, "one").set("log.level", "info,host=debug");
    let host = HostProcess::start(config.set("discovery.heartbeat", "2s")).await;
    knows(&host, "greeter", &["gone", "one"]).await;

    host.signal(Signal::STOP);
    // More than fits into the sockets, and then more messages than etcd holds back.
    for _ in 0..24 {
        store.put(BUSY, &"x".repeat(512 << 10)).await;
    }
    until("the host's watch to be behind", async || {
        store.put(BUSY, "x").await;
        (slow_watchers(&store).await > 0).then_some(())
    })
    .await;
    for name in ["busy", "busier", "last"] {
        store.put(BUSY, &entry(name)).await;
    }
    store.remove_all(&["services/greeter/gone".to_owned()]).await;
    let any = json!({"key": BASE64.encode("x")});
    let answer = store.gateway("/v3/kv/range", &any).await.json();
    let now = json!({"revision": answer["header"]["revision"], "physical": true});
    let answer = store.gateway("/v3/kv/compaction", &now).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    host.signal(Signal::CONT);

    knows(&host, "greeter", &["last", "one"]).await;
    // etcd before 3.4.32 and 3.5.13 may keep it to itself; then the time to read anew has come.
    let lines = host.lines_with(&["compacted since"]);
    assert!(lines.len() <= 1, "{}", host.stderr());
    // And follows what comes after.
    store.put(BUSY, &entry("later")).await;
    knows(&host, "greeter", &["later", "one"]).await;
    Ok(())
}

async fn all_is_read_anew_now_and_then_whatever_the_watch_said() -> Result<(), Skipped> {
    const READS: &str = r#"grpc_server_started_total{grpc_method="Txn",grpc_service="etcdserverpb.KV",grpc_type="unary"}"#;
    let store = Store::start(Kind::Etcd).await?;
    let config = greeter(&store, "one").set("discovery.heartbeat", "200ms");
    let host = HostProcess::start(config).await;
    knows(&host, "greeter", &["one"]).await;
    until("a third read", async || (metric(&store, READS).await >= 3).then_some(())).await;
    becomes(&host, "reachable").await;
    Ok(())
}

/// etcd keeps none of these, and so cannot forget them: it refuses them in words of their own.
async fn a_signed_token_is_replaced_once_users_have_changed() -> Result<(), Skipped> {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, "of nobody").unwrap();
    let signed = format!("jwt,sign-method=HS256,priv-key={}", secret.display());
    let mut store = etcd_with_a_password(&["--auth-token", &signed]).await?;
    let config = greeter(&store, "one").set("discovery.etcd.user", "root");
    let host = HostProcess::start(config.set("discovery.etcd.password", "pw")).await;
    knows(&host, "greeter", &["one"]).await;
    invalidate_tokens(&store).await;
    store.kill().await;
    becomes(&host, "unreachable").await;
    store.revive().await;
    becomes(&host, "reachable").await;
    Ok(())
}

/// How many watches etcd cannot hand its changes to.
async fn slow_watchers(store: &Store) -> u64 {
    metric(store, "etcd_debugging_mvcc_slow_watcher_total").await
}

/// What etcd says of itself.
async fn metric(store: &Store, name: &str) -> u64 {
    let metrics = Client::http1().get(&format!("{}/metrics", store.url())).send().await;
    let mut values =
        metrics.text().lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    values.next().expect("etcd's metric").parse().expect("a number")
}
