//! A store that goes away, hangs, comes late or asks for a password.

use std::{fs, time::Duration};

use harness::{
    Answer, Client, HostProcess, Kind, Launch, Load, Signal, Skipped, Store, artifacts, free, run,
    text, wait::until,
};
use http::Method;
use serde_json::json;

use super::{becomes, gateway, greeter, known, knows, state};

trials![
    thirty_seconds_without_a_store_cost_no_request,
    a_signal_ends_a_start_whose_entry_the_store_does_not_take,
];

/// In what way a store is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outage {
    /// Killed, and started again with what it held.
    Restart,
    /// Killed, and started again with nothing in it.
    Loss,
    /// It takes connections and answers nobody.
    Hang,
}

impl Outage {
    async fn begins(self, store: &mut Store, time: Duration) {
        match (self, store.kind()) {
            (Self::Restart | Self::Loss, Kind::Etcd) => store.kill().await,
            (Self::Restart | Self::Loss, Kind::Redis | Kind::SilentRedis) => {
                // Of itself it writes nothing to its files.
                store.command(&["SAVE"]);
                store.kill().await;
            }
            (Self::Hang, Kind::Etcd) => store.signal(Signal::STOP),
            (Self::Hang, Kind::Redis | Kind::SilentRedis) => {
                store.pause(time);
            }
        }
    }

    async fn ends(self, store: &mut Store) {
        match (self, store.kind()) {
            (Self::Restart, _) => store.revive().await,
            (Self::Loss, _) => store.revive_empty().await,
            (Self::Hang, Kind::Etcd) => store.signal(Signal::CONT),
            // By itself.
            (Self::Hang, Kind::Redis | Kind::SilentRedis) => {}
        }
    }
}

pub(super) async fn a_store_that_comes_back_costs_no_request(kind: Kind) -> Result<(), Skipped> {
    costs_no_request(kind, Outage::Restart, Duration::from_secs(1)).await
}

pub(super) async fn a_store_that_has_lost_everything_costs_no_request(
    kind: Kind,
) -> Result<(), Skipped> {
    costs_no_request(kind, Outage::Loss, Duration::from_secs(1)).await
}

pub(super) async fn a_store_that_hangs_costs_no_request(kind: Kind) -> Result<(), Skipped> {
    costs_no_request(kind, Outage::Hang, Duration::from_secs(5)).await
}

async fn thirty_seconds_without_a_store_cost_no_request() -> Result<(), Skipped> {
    // Whoever builds it keeps the others from looking at the clock.
    let _ = artifacts::host();
    let away = |kind, outage| costs_no_request(kind, outage, Duration::from_secs(30));
    let (restarted, emptied, lost, hung) = tokio::join!(
        away(Kind::Etcd, Outage::Restart),
        away(Kind::Etcd, Outage::Loss),
        away(Kind::Redis, Outage::Loss),
        away(Kind::Redis, Outage::Hang),
    );
    restarted.and(emptied).and(lost).and(hung)
}

/// The store is away for so long, under load.
async fn costs_no_request(kind: Kind, outage: Outage, time: Duration) -> Result<(), Skipped> {
    let mut store = Store::start(kind).await?;
    let hosts = [
        HostProcess::start(greeter(&store, "one")).await,
        HostProcess::start(greeter(&store, "two")).await,
        HostProcess::start(gateway(&store)).await,
    ];
    knows(&hosts[2], "greeter", &["one", "two"]).await;
    let load = Load::gentle(&hosts[2].url("/who"));
    load.goes_on(20).await;
    outage.begins(&mut store, time).await;
    for host in &hosts {
        becomes(host, "unreachable").await;
    }
    load.lasts(time).await;
    outage.ends(&mut store).await;
    for host in &hosts {
        becomes(host, "reachable").await;
    }
    let back = async || {
        (store.count("greeter").await == 2 && store.count("front").await == 1).then_some(())
    };
    until("all registrations to come back", back).await;
    load.goes_on(200).await;
    assert_eq!(known(&hosts[2], "greeter").await.len(), 2);
    assert_eq!(load.failed().await, 0, "{kind:?}, {outage:?}: {}", hosts[2].stderr());
    for host in &hosts {
        let away = host.lines_with(&["WARN", "discovery: "]);
        let back = host.lines_with(&["discovery: ", "answers again"]);
        assert_eq!((away.len(), back.len()), (1, 1), "{}", host.stderr());
    }
    Ok(())
}

pub(super) async fn a_start_waits_for_the_store_and_no_longer(kind: Kind) -> Result<(), Skipped> {
    let backend = if kind == Kind::Etcd { "etcd" } else { "redis" };
    let [store, public, admin] = free();
    let folder = tempfile::tempdir().unwrap();
    let text = format!(
        "server.listen = \"{public}\"\nadmin.listen = \"{admin}\"\n[discovery]\n\
         backend = \"{backend}\"\nstart-timeout = \"1500ms\"\n\
         etcd.endpoints = [\"http://{store}\"]\nredis.url = \"redis://{store}\"\n"
    );
    fs::write(folder.path().join("host.toml"), text).unwrap();
    let starting = async {
        let client = Client::http1();
        until("/readyz to be answered", async || {
            let answer = client.get(&format!("http://{admin}/readyz")).open().await.ok()?;
            let answer = Answer::read(answer).await;
            let json = answer.json();
            let told = json["discovery"]["state"] == "unreachable";
            told.then_some((answer.status, json["status"].clone()))
        })
        .await
    };
    let (output, told) = tokio::join!(run(folder.path(), &[], &[]), starting);
    assert_eq!(told, (503, json!("starting")));
    assert_eq!(output.code, 69, "{output:?}");
    let last: Vec<_> = output.stderr.lines().filter(|l| l.starts_with("host: ")).collect();
    let [last] = last[..] else { panic!("{output:?}") };
    assert!(last.contains(backend) && last.contains("start-timeout"), "{last}");
    let checked = run(folder.path(), &["check"], &[]).await;
    assert_eq!(checked.code, 69, "{checked:?}");
    Ok(())
}

async fn a_signal_ends_a_start_whose_entry_the_store_does_not_take() -> Result<(), Skipped> {
    let store = Store::with(Kind::Redis, &["--rename-command", "SET", ""]).await?;
    let config = greeter(&store, "one").set("discovery.start-timeout", "600s");
    let host = Launch::host(config).begin().await;
    until("the entry to be refused", async || host.lines_with(&["WARN", "'SET'"]).pop()).await;
    let output = host.stop().await;
    assert_eq!(output.code, 0, "{output:?}");
    Ok(())
}

pub(super) async fn a_store_that_is_not_required_may_come_later(kind: Kind) -> Result<(), Skipped> {
    let mut store = Store::start(kind).await?;
    store.kill().await;
    let config = greeter(&store, "one")
        .set("discovery.required", false)
        .set("discovery.start-timeout", "200ms")
        .group("fixed", "http://127.0.0.1:1");
    let host = HostProcess::start(config).await;
    assert_eq!(state(&host).await, "unreachable");
    assert_eq!(host.get("/who").send().await.text(), "one");
    assert!(host.ask("/services").await.text().contains("fixed"));
    store.revive_empty().await;
    let registered = async || (store.count("greeter").await == 1).then_some(());
    until("the host to register", registered).await;
    knows(&host, "greeter", &["one"]).await;
    becomes(&host, "reachable").await;
    Ok(())
}

pub(super) async fn the_password_of_a_store_is_asked_for_and_renewed(
    kind: Kind,
) -> Result<(), Skipped> {
    let mut store = match kind {
        Kind::Etcd => etcd_with_a_password(&[]).await?,
        _ => Store::with(kind, &["--requirepass", "pw"]).await?,
    };
    let address = store.address();
    let with = |password: &str| {
        let config = greeter(&store, "one").set("discovery.etcd.user", "root");
        let config = config.set("discovery.etcd.password", password);
        config.set("discovery.redis.url", format!("redis://:{password}@{address}"))
    };
    let folder = tempfile::tempdir().unwrap();
    let text = with("wrong-pw").set("discovery.start-timeout", "1s").text();
    fs::write(folder.path().join("host.toml"), text).unwrap();
    let output = run(folder.path(), &["check"], &[]).await;
    assert_eq!(output.code, 69, "{output:?}");
    assert!(!output.stderr.contains("wrong-pw"), "{output:?}");

    let host = HostProcess::start(with("pw")).await;
    knows(&host, "greeter", &["one"]).await;
    if kind == Kind::Etcd {
        invalidate_tokens(&store).await;
    }
    store.kill().await;
    becomes(&host, "unreachable").await;
    store.revive().await;
    becomes(&host, "reachable").await;
    knows(&host, "greeter", &["one"]).await;
    Ok(())
}

pub(super) async fn etcd_with_a_password(arguments: &[&str]) -> Result<Store, Skipped> {
    let etcd = Store::with(Kind::Etcd, arguments).await?;
    for (path, body) in [
        ("user/add", json!({"name": "root", "password": "pw"})),
        ("role/add", json!({"name": "root"})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("enable", json!({})),
    ] {
        assert_eq!(etcd.gateway(&format!("/v3/auth/{path}"), &body).await.status, 200, "{path}");
    }
    Ok(etcd)
}

/// To set a password, be it the same, makes the user's tokens worthless; to restart does not.
pub(super) async fn invalidate_tokens(etcd: &Store) {
    let login = json!({"name": "root", "password": "pw"});
    let granted = etcd.gateway("/v3/auth/authenticate", &login).await.json();
    let url = format!("{}/v3/auth/user/changepw", etcd.url());
    let client = Client::http1();
    let call = client.call(Method::POST, &url).body(text(login.to_string()));
    let changed = call.header("authorization", granted["token"].as_str().unwrap()).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text());
}
