//! Who is found, how operators are told, and what is called.

use std::{collections::BTreeSet, time::Instant};

use harness::{
    Collector, Config, HostProcess, Kind, Launch, Signal, Skipped, SpanKind, Store, Traceparent,
    run, wait::until,
};
use serde_json::json;

use super::{Fleet, finds, gateway, greeter, instances, known, knows, state};

/// Who answers `/who` of `host`, in forty requests.
async fn answers(host: &HostProcess) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    for _ in 0..40 {
        let answer = host.get("/who").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answers.insert(answer.text().to_owned());
    }
    answers
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

pub(super) async fn instances_are_found_and_share_the_load(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let one = HostProcess::start(fleet.greeter("one")).await;
    let two = HostProcess::start(fleet.greeter("two")).await;
    let gateway = fleet.gateway(&[&one, &two]).await;
    assert_eq!(answers(&gateway).await, names(["one", "two"]));
    Ok(())
}

pub(super) async fn operators_are_told_of_each_instance(kind: Option<Kind>) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let labelled = fleet.greeter("one").set("service.labels.zone", "a");
    let one = HostProcess::start(labelled).await;
    let gateway = fleet.gateway(&[&one]).await;
    let own = one.ask("/services").await.json()["self"].clone();
    let told = instances(&gateway, "greeter").await;
    let mut wanted =
        json!({"url": one.url("/"), "in-flight": 0, "failures": 0, "ejected-until": null});
    match kind {
        // What the file says of it.
        None => wanted["id"] = json!(one.url("/")),
        Some(_) => {
            wanted["labels"] = json!({"zone": "a"});
            for key in ["id", "name", "version"] {
                wanted[key] = own[key].clone();
            }
        }
    }
    assert_eq!(told, [wanted]);
    assert_eq!((&own["group"], &own["name"]), (&json!("greeter"), &json!("one")));

    let backend = match kind {
        None => "static",
        Some(Kind::Etcd) => "etcd",
        Some(Kind::Redis | Kind::SilentRedis) => "redis",
    };
    let ready = gateway.ask("/readyz").await.json();
    assert_eq!(ready["discovery"], json!({"backend": backend, "state": "reachable"}));
    Ok(())
}

pub(super) async fn a_group_without_an_instance_is_no_mistake(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let gateway = fleet.gateway(&[]).await;
    let answer = gateway.get("/who").send().await;
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(state(&gateway).await, "reachable");
    Ok(())
}

pub(super) async fn a_configured_group_is_there_until_the_store_has_it(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    // Nobody tells others of it.
    let fixed = HostProcess::start(Config::new().respond("/who", 200, "fixed")).await;
    let config = fleet.member(Config::new()).forward("/who", "greeter");
    let gateway = HostProcess::start(config.group("greeter", fixed.url(""))).await;
    finds(&gateway, "greeter", &[&fixed]).await;
    assert_eq!(answers(&gateway).await, names(["fixed"]));
    let one = HostProcess::start(fleet.greeter("one")).await;
    if fleet.store.is_some() {
        finds(&gateway, "greeter", &[&one]).await;
        assert_eq!(answers(&gateway).await, names(["one"]));
    }
    assert_eq!(one.stop().await.code, 0);
    finds(&gateway, "greeter", &[&fixed]).await;
    assert_eq!(answers(&gateway).await, names(["fixed"]));
    Ok(())
}

pub(super) async fn a_fleet_without_settings_leaves_each_host_its_own(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let config = fleet.greeter("one").set("log.access", true).set("log.level", "warn");
    let host = HostProcess::start(config).await;
    let level = async |wanted: &str| {
        let checked = run(host.folder(), &["check", "--config", "host.toml"], &[]).await;
        assert_eq!(checked.code, 0, "{checked:?}");
        let levels: Vec<_> =
            checked.stdout.lines().filter(|line| line.starts_with("log.level = ")).collect();
        assert!(matches!(levels[..], [line] if line.starts_with(wanted)), "{levels:?}");
    };
    level("log.level = \"warn\"  # file ").await;
    assert_eq!(host.get("/who").send().await.status, 200);
    let Some(store) = &fleet.store else { return Ok(()) };

    // It is told from one that has some, at the start and while the host runs.
    store.put("config/greeter", "log.level = \"info\"").await;
    store.put("config/other", "log.level = \"error\"").await;
    level("log.level = \"info\"  # discovery ").await;
    let line = async || {
        assert_eq!(host.get("/who").send().await.status, 200);
        host.lines_with(&["access: "]).pop()
    };
    until("a line of a request", line).await;
    store.remove_all(&["config/greeter".to_owned()]).await;
    level("log.level = \"warn\"  # file ").await;
    until("no more lines of requests", async || {
        let before = host.lines_with(&["access: "]).len();
        assert_eq!(host.get("/who").send().await.status, 200);
        (host.lines_with(&["access: "]).len() == before).then_some(())
    })
    .await;
    Ok(())
}

/// Spread, a new instance, one that stops, one that is killed.
pub(super) async fn instances_come_and_go(kind: Kind) -> Result<(), Skipped> {
    let store = Store::start(kind).await?;
    let gateway = HostProcess::start(gateway(&store)).await;
    assert_eq!(gateway.get("/who").send().await.status, 503);

    let one = HostProcess::start(greeter(&store, "one")).await;
    let two = HostProcess::start(greeter(&store, "two")).await;
    knows(&gateway, "greeter", &["one", "two"]).await;
    assert_eq!(answers(&gateway).await, names(["one", "two"]));
    assert_eq!(store.count("greeter").await, 2);

    let three = HostProcess::start(greeter(&store, "three")).await;
    let began = Instant::now();
    knows(&gateway, "greeter", &["one", "three", "two"]).await;
    let listed = began.elapsed();
    until("the new instance to be called", async || {
        (gateway.get("/who").send().await.text() == "three").then_some(())
    })
    .await;
    eprintln!(
        "{kind:?}: in the gateway's table {listed:?} after it was ready, called {:?} after",
        began.elapsed()
    );

    assert_eq!(two.stop().await.code, 0);
    assert_eq!(store.count("greeter").await, 2);
    knows(&gateway, "greeter", &["one", "three"]).await;

    three.signal(Signal::KILL);
    three.end().await;
    let began = Instant::now();
    knows(&gateway, "greeter", &["one"]).await;
    eprintln!("{kind:?}: a killed instance is gone after {:?}", began.elapsed());
    assert_eq!(store.count("greeter").await, 1);
    drop(one);
    Ok(())
}

/// front → middle → an upstream, and front → middle → another.
pub(super) async fn an_exchange_through_a_fleet_is_one_trace(
    kind: Option<Kind>,
) -> Result<(), Skipped> {
    let fleet = Fleet::start(kind).await?;
    let collector = Collector::start().await;
    let endpoint = collector.grpc_endpoint();
    let leaf = |name| Launch::host(fleet.greeter(name).traced(&endpoint, "grpc"));
    let leaves = [leaf("leaf-1").start().await, leaf("leaf-2").start().await];
    let leaves = [&leaves[0], &leaves[1]];
    let middle = Config::new().set("service.group", "middle").traced(&endpoint, "grpc");
    let middle = HostProcess::start(fleet.caller(middle, "greeter", &leaves)).await;
    let front = fleet.caller(Config::new().traced(&endpoint, "grpc"), "middle", &[&middle]);
    let front = HostProcess::start(front).await;
    finds(&middle, "greeter", &leaves).await;
    finds(&front, "middle", &[&middle]).await;
    assert_eq!(known(&front, "middle").await.len(), 1);
    let mut seen = BTreeSet::new();
    until("both leaves to have answered", async || {
        let parent = Traceparent::sampled();
        let answer = front.get("/who").header("traceparent", &parent).send().await;
        assert_eq!(answer.status, 200);
        seen.insert(answer.text().to_owned());
        let spans = collector.trace(&parent.trace_id, 5).await;
        assert_eq!(spans.len(), 5, "{spans:#?}");
        let mut above = parent.span_id.clone();
        let chain = [
            ("front", SpanKind::Server),
            ("front", SpanKind::Client),
            ("middle", SpanKind::Server),
            ("middle", SpanKind::Client),
            ("greeter", SpanKind::Server),
        ];
        for (service, kind) in chain {
            let span = spans.iter().find(|span| span.parent_span_id == above);
            let span = span.unwrap_or_else(|| panic!("no {service} in {spans:#?}"));
            assert_eq!((span.resource["service.name"].as_str(), span.kind), (Some(service), kind));
            above = span.span_id.clone();
        }
        (seen.len() == 2).then_some(())
    })
    .await;
    Ok(())
}
