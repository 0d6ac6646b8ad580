//! Instances under load that die and stop: what becomes of the requests, and of the entry.

use std::time::Instant;

use harness::{HostProcess, Kind, Load, Signal, Skipped, Store, artifacts, wait::until};
use http::Method;

use super::{Fleet, finds};

const WORKERS: usize = 8;

/// Requests that may be sent again, and such that may not.
fn loads(gateway: &HostProcess) -> [Load; 2] {
    [Method::GET, Method::POST].map(|method| Load::start(&method, &gateway.url("/who"), WORKERS))
}

async fn go_on(loads: &[Load; 2], more: usize) {
    for load in loads {
        load.goes_on(more).await;
    }
}

/// How many have failed of each.
async fn failed([gets, posts]: [Load; 2]) -> (usize, usize) {
    (gets.failed().await, posts.failed().await)
}

pub(super) async fn of_an_instance_that_is_killed_only_what_is_in_flight_is_lost(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let dies = HostProcess::start(fleet.greeter("dies")).await;
    let stays = HostProcess::start(fleet.greeter("stays")).await;
    let gateway = fleet.gateway(&[&dies, &stays]).await;
    let loads = loads(&gateway);
    go_on(&loads, 100).await;
    dies.signal(Signal::KILL);
    let killed = Instant::now();
    go_on(&loads, 500).await;
    let ejected = gateway.lines_with(&["WARN", &dies.url(""), "ejected for 1s"]);
    assert_eq!(ejected.len(), 1, "{}", gateway.stderr());
    assert_eq!(dies.end().await.code, 128 + 9);

    let new = match &fleet.store {
        Some(store) => {
            is_forgotten(store, killed).await;
            finds(&gateway, "greeter", &[&stays]).await;
            Some(is_called_at_once(&fleet, &gateway).await)
        }
        None => None,
    };
    go_on(&loads, 100).await;
    let (gets, posts) = failed(loads).await;
    assert_eq!(gets, 0, "what may be sent again is");
    // A worker has one request in flight.
    assert!(posts <= WORKERS, "{posts}");
    drop(new);
    Ok(())
}

async fn is_forgotten(store: &Store, killed: Instant) {
    let gone = async || (store.count("greeter").await == 1).then_some(());
    until("its entry to be gone", gone).await;
    eprintln!("the entry of an instance was gone {:?} after it was killed", killed.elapsed());
}

/// Starts another instance, and waits until it is called.
async fn is_called_at_once(fleet: &Fleet, gateway: &HostProcess) -> HostProcess {
    let new = HostProcess::start(fleet.greeter("new")).await;
    let ready = Instant::now();
    until("the new instance to be called", async || {
        (gateway.get("/who").send().await.text() == "new").then_some(())
    })
    .await;
    eprintln!("a new instance was called {:?} after it was ready, under load", ready.elapsed());
    new
}

pub(super) async fn an_instance_that_stops_under_load_loses_no_request(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let stops = HostProcess::start(fleet.greeter("stops")).await;
    let stays = HostProcess::start(fleet.greeter("stays")).await;
    // It counts what it calls for a plugin alone.
    let config = fleet.caller(harness::Config::new(), "greeter", &[&stops, &stays]);
    let config = config.plugin(&artifacts::plugin_otel().display().to_string());
    let gateway = HostProcess::start(config.set("otel.exporter", "none")).await;
    finds(&gateway, "greeter", &[&stops, &stays]).await;
    let loads = loads(&gateway);
    go_on(&loads, 100).await;
    stops.signal(Signal::TERM);
    if fleet.store.is_some() {
        finds(&gateway, "greeter", &[&stays]).await;
        for _ in 0..100 {
            assert_eq!(gateway.get("/who").send().await.text(), "stays");
        }
    }
    assert_eq!(stops.end().await.code, 0);
    go_on(&loads, 200).await;
    assert_eq!(failed(loads).await, (0, 0));

    let metrics = gateway.ask("/metrics").await;
    let attempts = metrics
        .text()
        .lines()
        .filter(|line| line.starts_with("http_client_request_duration_seconds_count"));
    let (broken, whole): (Vec<_>, Vec<_>) = attempts.partition(|line| line.contains("error_type"));
    assert_eq!(whole.len(), 4, "two methods, two instances: {}", metrics.text());
    if fleet.store.is_some() {
        // Nobody came too late: its port was open until everybody had seen it leave.
        assert_eq!(broken, [""; 0]);
    }
    Ok(())
}

pub(super) async fn a_host_ends_in_order(kind: Option<Kind>) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    for signal in [Signal::TERM, Signal::INT] {
        // It does not expire before the host has ended.
        let config = fleet.greeter("one").set("discovery.heartbeat", "60s");
        let host = HostProcess::start(config).await;
        let registered = [&host];
        finds(&host, "greeter", if kind.is_some() { &registered } else { &[] }).await;
        host.signal(signal);
        let output = host.end().await;
        assert_eq!(output.code, 0, "{output:?}");
        assert!(!output.stderr.contains("WARN"), "{output:?}");
        if let Some(store) = &fleet.store {
            assert_eq!(store.count("greeter").await, 0);
        }
    }
    Ok(())
}
