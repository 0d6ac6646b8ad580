//! Fleets whose hosts find each other in a real etcd, and in a real Redis.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use harness::{
    Client, Collector, Config, HostProcess, Kind, Launch, Signal, Skipped, SpanKind, Store,
    Traceparent, free, run, wait::until,
};
use serde_json::{Value, json};

trials![
    an_etcd_fleet_finds_its_instances,
    a_redis_fleet_finds_its_instances,
    a_redis_fleet_without_notifications_finds_its_instances,
    an_etcd_that_comes_back_costs_no_request,
    a_redis_that_comes_back_costs_no_request,
    a_redis_that_does_not_answer_costs_no_request,
    garbage_in_etcd_is_named_once,
    garbage_in_redis_is_named_once,
    a_start_waits_for_the_store_and_no_longer,
    a_store_that_is_not_required_may_come_later,
    the_password_of_a_store_is_asked_for_and_renewed,
    an_exchange_through_a_fleet_is_one_trace,
    memory_is_flat_over_a_hundred_thousand_etcd_entries,
    memory_is_flat_over_a_hundred_thousand_redis_entries,
];

/// A host of the group `greeter`, which answers with `name`.
pub(crate) fn greeter(store: &Store, name: &str) -> Config {
    let config = Config::new().set("service.group", "greeter").set("service.name", name);
    store.of(config).respond("/who", 200, name)
}

/// A host that forwards to them.
fn gateway(store: &Store) -> Config {
    store.of(Config::new()).forward("/who", "greeter")
}

/// The names of the instances of `group` that `host` knows.
pub(crate) async fn known(host: &HostProcess, group: &str) -> BTreeSet<String> {
    let services = host.ask("/services").await.json();
    let instances = services["groups"][group].as_array().cloned().unwrap_or_default();
    let name = |instance: &Value| instance["name"].as_str().unwrap_or_default().to_owned();
    instances.iter().map(name).collect()
}

pub(crate) async fn knows(host: &HostProcess, group: &str, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let what = format!("{group} to be {names:?}");
    until(&what, async || (known(host, group).await == wanted).then_some(())).await;
}

async fn state(host: &HostProcess) -> String {
    let ready = host.ask("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    ready.json()["discovery"]["state"].as_str().unwrap().to_owned()
}

pub(crate) async fn becomes(host: &HostProcess, wanted: &str) {
    let what = format!("the store to be {wanted}");
    until(&what, async || (state(host).await == wanted).then_some(())).await;
}

/// Requests one after the other, for as long as it lives.
struct Load {
    ends: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<BTreeMap<u16, u64>>,
}

impl Load {
    fn on(url: String) -> Self {
        let (ends, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (end, count) = (Arc::clone(&ends), Arc::clone(&answered));
        let task = tokio::spawn(async move {
            let (client, mut statuses) = (Client::http1(), BTreeMap::new());
            while !end.load(Ordering::Relaxed) {
                *statuses.entry(client.get(&url).send().await.status).or_insert(0) += 1;
                count.fetch_add(1, Ordering::Relaxed);
            }
            statuses
        });
        Self { ends, answered, task }
    }

    /// Waits for so many answers from now on.
    async fn goes_on(&self, more: u64) {
        let wanted = self.answered.load(Ordering::Relaxed) + more;
        let answered = async || (self.answered.load(Ordering::Relaxed) >= wanted).then_some(());
        until("requests to be answered", answered).await;
    }

    async fn assert_no_failure(self) {
        self.ends.store(true, Ordering::Relaxed);
        let statuses = self.task.await.unwrap();
        assert_eq!(statuses.keys().collect::<Vec<_>>(), [&200], "{statuses:?}");
    }
}

async fn an_etcd_fleet_finds_its_instances() -> Result<(), Skipped> {
    a_fleet_finds_its_instances(Kind::Etcd).await
}

async fn a_redis_fleet_finds_its_instances() -> Result<(), Skipped> {
    a_fleet_finds_its_instances(Kind::Redis).await
}

async fn a_redis_fleet_without_notifications_finds_its_instances() -> Result<(), Skipped> {
    a_fleet_finds_its_instances(Kind::SilentRedis).await
}

/// Spread, a new instance, one that stops, one that is killed.
async fn a_fleet_finds_its_instances(kind: Kind) -> Result<(), Skipped> {
    let store = Store::start(kind).await?;
    let gateway = HostProcess::start(gateway(&store)).await;
    // A group that nobody is in yet is no mistake.
    assert_eq!(gateway.get("/who").send().await.status, 503);

    let one = HostProcess::start(greeter(&store, "one")).await;
    let two = HostProcess::start(greeter(&store, "two")).await;
    knows(&gateway, "greeter", &["one", "two"]).await;
    let mut answers = BTreeSet::new();
    for _ in 0..40 {
        answers.insert(gateway.get("/who").send().await.text().to_owned());
    }
    assert_eq!(answers, BTreeSet::from(["one".to_owned(), "two".to_owned()]));
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

async fn an_etcd_that_comes_back_costs_no_request() -> Result<(), Skipped> {
    for is_empty in [false, true] {
        a_store_that_comes_back_costs_no_request(Kind::Etcd, is_empty).await?;
    }
    Ok(())
}

async fn a_redis_that_comes_back_costs_no_request() -> Result<(), Skipped> {
    for kind in [Kind::Redis, Kind::SilentRedis] {
        a_store_that_comes_back_costs_no_request(kind, true).await?;
    }
    Ok(())
}

async fn a_store_that_comes_back_costs_no_request(
    kind: Kind,
    is_empty: bool,
) -> Result<(), Skipped> {
    let mut store = Store::start(kind).await?;
    let hosts = [
        HostProcess::start(greeter(&store, "one")).await,
        HostProcess::start(greeter(&store, "two")).await,
        HostProcess::start(gateway(&store)).await,
    ];
    knows(&hosts[2], "greeter", &["one", "two"]).await;
    let load = Load::on(hosts[2].url("/who"));
    load.goes_on(20).await;
    store.kill().await;
    for host in &hosts {
        becomes(host, "unreachable").await;
    }
    load.goes_on(200).await;
    if is_empty {
        store.revive_empty().await;
    } else {
        store.revive().await;
    }
    let back = async || {
        (store.count("greeter").await == 2 && store.count("front").await == 1).then_some(())
    };
    until("all registrations to come back", back).await;
    for host in &hosts {
        becomes(host, "reachable").await;
    }
    load.goes_on(200).await;
    assert_eq!(known(&hosts[2], "greeter").await.len(), 2);
    load.assert_no_failure().await;
    for host in &hosts {
        let away = host.lines_with(&["WARN", "discovery: "]);
        let back = host.lines_with(&["discovery: ", "answers again"]);
        assert_eq!((away.len(), back.len()), (1, 1), "{}", host.stderr());
    }
    Ok(())
}

async fn a_redis_that_does_not_answer_costs_no_request() -> Result<(), Skipped> {
    let store = Store::start(Kind::Redis).await?;
    let one = HostProcess::start(greeter(&store, "one")).await;
    let gateway = HostProcess::start(gateway(&store)).await;
    knows(&gateway, "greeter", &["one"]).await;
    let load = Load::on(gateway.url("/who"));
    store.commands(&[["CLIENT", "PAUSE", "5000", "ALL"].map(str::to_owned).to_vec()]);
    becomes(&gateway, "unreachable").await;
    load.goes_on(50).await;
    becomes(&gateway, "reachable").await;
    becomes(&one, "reachable").await;
    let back = async || (store.count("greeter").await == 1).then_some(());
    until("the registration to come back", back).await;
    load.goes_on(50).await;
    load.assert_no_failure().await;
    Ok(())
}

async fn garbage_in_etcd_is_named_once() -> Result<(), Skipped> {
    garbage_is_named_once(Kind::Etcd).await
}

async fn garbage_in_redis_is_named_once() -> Result<(), Skipped> {
    garbage_is_named_once(Kind::Redis).await
}

async fn garbage_is_named_once(kind: Kind) -> Result<(), Skipped> {
    const GARBAGE: [(&str, &str); 6] = [
        ("services/greeter/bad-json", "{\"address\": "),
        ("services/greeter/user-info", r#"{"address": "me:pw@127.0.0.1:1"}"#),
        ("services/greeter/no-http", r#"{"address": "127.0.0.1:1", "protocol": "gopher"}"#),
        ("services/greeter/other-id", r#"{"address": "127.0.0.1:1", "id": "x"}"#),
        ("services/foreign", "x"),
        ("services/too/many/parts", r#"{"address": "127.0.0.1:1"}"#),
    ];
    let store = Store::start(kind).await?;
    let (before, later) = GARBAGE.split_at(3);
    for (path, value) in before {
        store.put(path, value).await;
    }
    let one = HostProcess::start(greeter(&store, "one")).await;
    let gateway = HostProcess::start(gateway(&store)).await;
    for (path, value) in later.iter().chain(&GARBAGE) {
        store.put(path, value).await;
    }
    let entry =
        |n: usize| (format!("services/many/{n}"), r#"{"address": "127.0.0.1:1"}"#.to_owned());
    for start in (0..10_000).step_by(100) {
        store.put_all(&(start..start + 100).map(entry).collect::<Vec<_>>()).await;
    }
    until("ten thousand entries to be known", async || {
        let services = gateway.ask("/services").await.json();
        (services["groups"]["many"].as_array()?.len() == 10_000).then_some(())
    })
    .await;
    // A host that starts now has all of it in its first snapshot.
    let late = HostProcess::start(self::gateway(&store)).await;
    for host in [&gateway, &late] {
        assert_eq!(host.get("/who").send().await.text(), "one");
        assert_eq!(known(host, "greeter").await.len(), 1);
        for (path, _) in GARBAGE {
            let lines = host.lines_with(&["WARN", &format!("{:?}", store.key(path))]);
            assert_eq!(lines.len(), 1, "{path}: {}", host.stderr());
        }
        assert!(!host.stderr().contains("pw@"), "{}", host.stderr());
    }
    drop(one);
    Ok(())
}

async fn a_start_waits_for_the_store_and_no_longer() -> Result<(), Skipped> {
    for backend in ["etcd", "redis"] {
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
                let answer = harness::Answer::read(answer).await;
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
    }
    Ok(())
}

async fn a_store_that_is_not_required_may_come_later() -> Result<(), Skipped> {
    for kind in [Kind::Etcd, Kind::Redis] {
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
    }
    Ok(())
}

async fn the_password_of_a_store_is_asked_for_and_renewed() -> Result<(), Skipped> {
    let redis = Store::with(Kind::Redis, &["--requirepass", "pw"]).await?;
    let url = |password: &str| format!("redis://:{password}@{}", redis.address());
    let mut etcd = Store::start(Kind::Etcd).await?;
    for (path, body) in [
        ("user/add", json!({"name": "root", "password": "pw"})),
        ("role/add", json!({"name": "root"})),
        ("user/grant", json!({"user": "root", "role": "root"})),
        ("enable", json!({})),
    ] {
        assert_eq!(etcd.gateway(&format!("/v3/auth/{path}"), &body).await.status, 200, "{path}");
    }
    let with_etcd = |password: &str| {
        let config = greeter(&etcd, "one").set("discovery.etcd.user", "root");
        config.set("discovery.etcd.password", password)
    };
    let with_redis =
        |password: &str| greeter(&redis, "one").set("discovery.redis.url", url(password));
    let folder = tempfile::tempdir().unwrap();
    for config in [with_etcd("wrong-pw"), with_redis("wrong-pw")] {
        let text = config.set("discovery.start-timeout", "1s").text();
        fs::write(folder.path().join("host.toml"), text).unwrap();
        let output = run(folder.path(), &["check"], &[]).await;
        assert_eq!(output.code, 69, "{output:?}");
        assert!(!output.stderr.contains("wrong-pw"), "{output:?}");
    }
    let host = HostProcess::start(with_redis("pw")).await;
    knows(&host, "greeter", &["one"]).await;
    let host = HostProcess::start(with_etcd("pw")).await;
    knows(&host, "greeter", &["one"]).await;
    // A restart makes every token worthless.
    etcd.kill().await;
    becomes(&host, "unreachable").await;
    etcd.revive().await;
    becomes(&host, "reachable").await;
    knows(&host, "greeter", &["one"]).await;
    Ok(())
}

/// front → middle → an upstream, and front → another instance of middle → it.
async fn an_exchange_through_a_fleet_is_one_trace() -> Result<(), Skipped> {
    for kind in [Kind::Etcd, Kind::Redis] {
        let store = Store::start(kind).await?;
        let collector = Collector::start().await;
        let endpoint = collector.grpc_endpoint();
        let leaf = |name| greeter(&store, name).traced(&endpoint, "grpc");
        let leaves = [
            Launch::host(leaf("leaf-1")).start().await,
            Launch::host(leaf("leaf-2")).start().await,
        ];
        let middle = store.of(Config::new().set("service.group", "middle"));
        let middle = middle.forward("/who", "greeter").traced(&endpoint, "grpc");
        let middle = Launch::host(middle).start().await;
        let front = store.of(Config::new()).forward("/who", "middle").traced(&endpoint, "grpc");
        let front = Launch::host(front).start().await;
        knows(&middle, "greeter", &["leaf-1", "leaf-2"]).await;
        until("the middle to be known", async || {
            (known(&front, "middle").await.len() == 1).then_some(())
        })
        .await;
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
                assert_eq!(
                    (span.resource["service.name"].as_str(), span.kind),
                    (Some(service), kind)
                );
                above = span.span_id.clone();
            }
            (seen.len() == 2).then_some(())
        })
        .await;
        drop(leaves);
    }
    Ok(())
}

async fn memory_is_flat_over_a_hundred_thousand_etcd_entries() -> Result<(), Skipped> {
    memory_is_flat(Kind::Etcd).await
}

async fn memory_is_flat_over_a_hundred_thousand_redis_entries() -> Result<(), Skipped> {
    memory_is_flat(Kind::Redis).await
}

/// Each entry is another: nothing may be kept of one that is gone.
async fn memory_is_flat(kind: Kind) -> Result<(), Skipped> {
    const ROUND: usize = 10_000;
    let store = Store::start(kind).await?;
    let host = HostProcess::start(gateway(&store)).await;
    let mut figures = Vec::new();
    for round in 0..10 {
        for start in (round * ROUND..(round + 1) * ROUND).step_by(100) {
            let paths: Vec<String> =
                (start..start + 100).map(|n| format!("services/greeter/{n}")).collect();
            let value = |path: &String| (path.clone(), r#"{"address": "127.0.0.1:1"}"#.to_owned());
            store.put_all(&paths.iter().map(value).collect::<Vec<_>>()).await;
            store.remove_all(&paths).await;
        }
        // Whatever came before it has been seen with it.
        let name = format!("round-{round}");
        let last = format!(r#"{{"address": "127.0.0.1:1", "name": "{name}"}}"#);
        store.put("services/greeter/last", &last).await;
        knows(&host, "greeter", &[&name]).await;
        figures.push((resident_kib(host.id()), open_files(host.id())));
    }
    eprintln!("{kind:?}: KiB resident and open files, after each {ROUND} entries: {figures:?}");
    let (first, last) = (figures[1], figures[9]);
    // 80,000 entries that were kept would be 20 MiB.
    assert!(last.0 < first.0 + 5 * 1024, "{figures:?}");
    assert!(last.1 <= first.1 + 2, "{figures:?}");
    Ok(())
}

fn resident_kib(id: u32) -> usize {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn open_files(id: u32) -> usize {
    fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
}
