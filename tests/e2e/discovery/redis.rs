//! What only Redis has: sentinels, and clusters. Another server takes over in both.

use harness::{Config, HostProcess, Kind, Load, Skipped, Store, free, wait::until};

use super::{becomes, ends_with, gateway, greeter, knows};

trials![
    the_primary_that_sentinels_name_is_followed_to_the_next,
    the_node_of_a_cluster_is_followed_to_the_next,
];

/// `config` with Redis under `url`.
fn at(config: Config, url: &str) -> Config {
    config.set("discovery.redis.url", url)
}

/// Whether `store` answers `command` with something that contains `wanted`.
async fn answers(store: &Store, command: &[&str], wanted: &str) {
    let what = format!("{wanted} in the answer to {command:?}");
    until(&what, async || store.command(command).contains(wanted).then_some(())).await;
}

async fn the_primary_that_sentinels_name_is_followed_to_the_next() -> Result<(), Skipped> {
    let mut primary = Store::start(Kind::Redis).await?;
    let port = primary.address().port().to_string();
    let next = Store::with(Kind::Redis, &["--replicaof", "127.0.0.1", &port]).await?;
    answers(&primary, &["INFO", "replication"], "state=online").await;
    let sentinel = Store::with(Kind::SilentRedis, &["--sentinel"]).await?;
    sentinel.command(&["SENTINEL", "MONITOR", "fleet", "127.0.0.1", &port, "1"]);
    sentinel.command(&["SENTINEL", "SET", "fleet", "down-after-milliseconds", "500"]);
    answers(&sentinel, &["SENTINEL", "REPLICAS", "fleet"], &next.address().to_string()).await;

    // One sentinel that nobody runs is no reason not to ask the next.
    let [absent] = free();
    let of =
        |service: &str| format!("redis+sentinel://{absent},{}/{service}/0", sentinel.address());
    ends_with(at(greeter(&primary, "one"), &of("other")), &["knows no service \"other\""]).await;
    let url = of("fleet");
    let one = HostProcess::start(at(greeter(&primary, "one"), &url)).await;
    let gateway = HostProcess::start(at(gateway(&primary), &url)).await;
    knows(&gateway, "greeter", &["one"]).await;
    assert_eq!(primary.count("greeter").await, 1);

    let load = Load::gentle(&gateway.url("/who"));
    primary.kill().await;
    for host in [&one, &gateway] {
        until("another primary to be followed", async || {
            host.lines_with(&["discovery: redis: answers again"]).pop()
        })
        .await;
    }
    let two = HostProcess::start(at(greeter(&primary, "two"), &url)).await;
    knows(&gateway, "greeter", &["one", "two"]).await;
    assert_eq!(next.count("greeter").await, 2);
    load.goes_on(20).await;
    assert_eq!(load.failed().await, 0);
    drop(two);
    Ok(())
}

async fn the_node_of_a_cluster_is_followed_to_the_next() -> Result<(), Skipped> {
    const INSTANCES: [&str; 2] = ["KEYS", "{host}:services:greeter:*"];
    let asked = Store::cluster_node().await?;
    let (mut holder, next) = (Store::cluster_node().await?, Store::cluster_node().await?);
    holder.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    for node in [&asked, &next] {
        node.meet(&holder);
        answers(node, &["CLUSTER", "INFO"], "cluster_state:ok").await;
    }
    let id = holder.command(&["CLUSTER", "MYID"]);
    let id = id.lines().nth(1).unwrap();
    next.command(&["CLUSTER", "REPLICATE", id]);
    answers(&next, &["INFO", "replication"], "master_link_status:up").await;

    ends_with(at(greeter(&asked, "one"), &format!("redis://{}", asked.address())), &["Cluster"])
        .await;
    let [absent] = free();
    let url = format!("redis+cluster://{absent},{}", asked.address());
    let at = |config| at(config, &url).set("discovery.redis.prefix", "{host}");
    let one = HostProcess::start(at(greeter(&asked, "one"))).await;
    let gateway = HostProcess::start(at(gateway(&asked))).await;
    knows(&gateway, "greeter", &["one"]).await;
    assert!(holder.command(&INSTANCES).starts_with("*1\r\n"));

    let load = Load::gentle(&gateway.url("/who"));
    holder.kill().await;
    for host in [&one, &gateway] {
        becomes(host, "unreachable").await;
    }
    next.command(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    for host in [&one, &gateway] {
        becomes(host, "reachable").await;
    }
    let two = HostProcess::start(at(greeter(&asked, "two"))).await;
    knows(&gateway, "greeter", &["one", "two"]).await;
    assert!(next.command(&INSTANCES).starts_with("*2\r\n"));
    load.goes_on(20).await;
    assert_eq!(load.failed().await, 0);
    drop(two);
    Ok(())
}
