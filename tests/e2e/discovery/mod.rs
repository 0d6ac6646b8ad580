//! The contract of service discovery: what holds for hosts whatever they find each other by.
//!
//! One list of scenarios, each run with every backend that it has a meaning for: `scenario::backend`.
//! What one kind of store has that no other has stands in the files of their names.

mod away;
mod entries;
mod etcd;
mod found;
mod lost;
mod redis;
mod tls;

use std::{collections::BTreeSet, fs};

use harness::{Config, HostProcess, Kind, Skipped, Store, run, wait::until};
use libtest_mimic::Trial;
use serde_json::Value;

/// Every backend; in `static`, which is none of the stores, nobody registers.
const ALL: [(&str, Option<Kind>); 4] = [
    ("static", None),
    ("etcd", Some(Kind::Etcd)),
    ("redis", Some(Kind::Redis)),
    ("silent_redis", Some(Kind::SilentRedis)),
];

/// The backends where hosts register.
const STORES: [(&str, Kind); 3] =
    [("etcd", Kind::Etcd), ("redis", Kind::Redis), ("silent_redis", Kind::SilentRedis)];

/// One of each server: for what has nothing to do with notifications.
const SERVERS: [(&str, Kind); 2] = [("etcd", Kind::Etcd), ("redis", Kind::Redis)];

/// Makes the function that lists each scenario once for each of its backends.
macro_rules! scenarios {
    ($($module:ident::$scenario:ident: $backends:ident),+ $(,)?) => {
        fn scenarios() -> Vec<Trial> {
            let mut trials = Vec::new();
            $(for (name, backend) in $backends {
                let name = format!("discovery::{}::{name}", stringify!($scenario));
                trials.push(harness::trial(&name, move || $module::$scenario(backend)));
            })+
            trials
        }
    };
}

scenarios![
    found::instances_are_found_and_share_the_load: ALL,
    found::operators_are_told_of_each_instance: ALL,
    found::a_group_without_an_instance_is_no_mistake: ALL,
    found::a_configured_group_is_there_until_the_store_has_it: ALL,
    found::a_fleet_without_settings_leaves_each_host_its_own: ALL,
    found::an_exchange_through_a_fleet_is_one_trace: ALL,
    lost::of_an_instance_that_is_killed_only_what_is_in_flight_is_lost: ALL,
    lost::an_instance_that_stops_under_load_loses_no_request: ALL,
    lost::a_host_ends_in_order: ALL,
    found::instances_come_and_go: STORES,
    away::a_store_that_comes_back_costs_no_request: STORES,
    away::a_store_that_has_lost_everything_costs_no_request: STORES,
    away::a_store_that_hangs_costs_no_request: STORES,
    away::a_start_waits_for_the_store_and_no_longer: SERVERS,
    away::a_store_that_is_not_required_may_come_later: SERVERS,
    away::the_password_of_a_store_is_asked_for_and_renewed: SERVERS,
    entries::garbage_is_named_once: SERVERS,
    entries::memory_is_flat_over_a_hundred_thousand_entries: SERVERS,
];

/// The tests of this folder.
pub(crate) fn trials() -> Vec<Trial> {
    let others = [away::trials(), etcd::trials(), redis::trials(), tls::trials()];
    scenarios().into_iter().chain(others.into_iter().flatten()).collect()
}

/// What the hosts of one scenario find each other by.
struct Fleet {
    store: Option<Store>,
}

impl Fleet {
    async fn start(kind: Option<Kind>) -> Result<Self, Skipped> {
        let store = match kind {
            Some(kind) => Some(Store::start(kind).await?),
            None => None,
        };
        Ok(Self { store })
    }

    /// `config` of a host that registers, where one can.
    fn member(&self, config: Config) -> Config {
        match &self.store {
            Some(store) => store.of(config),
            None => config,
        }
    }

    /// A host of the group `greeter`, which answers with `name`.
    fn greeter(&self, name: &str) -> Config {
        self.member(answering(name))
    }

    /// `config` of a host that calls `group`: these instances, if nobody else can tell it of them.
    fn caller(&self, config: Config, group: &str, instances: &[&HostProcess]) -> Config {
        let urls: Vec<_> = instances.iter().map(|instance| instance.url("")).collect();
        match &self.store {
            Some(store) => store.of(config),
            None => config.set(&format!("discovery.static.{group}"), urls),
        }
        .forward("/who", group)
    }

    /// A host that forwards to these instances of `greeter`, and has found them.
    async fn gateway(&self, instances: &[&HostProcess]) -> HostProcess {
        let gateway = HostProcess::start(self.caller(Config::new(), "greeter", instances)).await;
        finds(&gateway, "greeter", instances).await;
        gateway
    }
}

/// A host of the group `greeter`, which answers with `name`.
fn answering(name: &str) -> Config {
    let config = Config::new().set("service.group", "greeter").set("service.name", name);
    config.respond("/who", 200, name)
}

/// The same, which `store` is told of.
fn greeter(store: &Store, name: &str) -> Config {
    store.of(answering(name))
}

/// A host that forwards to them.
fn gateway(store: &Store) -> Config {
    store.of(Config::new()).forward("/who", "greeter")
}

/// What `host` says of the instances of `group`.
async fn instances(host: &HostProcess, group: &str) -> Vec<Value> {
    let services = host.ask("/services").await.json();
    services["groups"][group].as_array().cloned().unwrap_or_default()
}

/// Of each of them the text under `key`.
async fn told(host: &HostProcess, group: &str, key: &str) -> BTreeSet<String> {
    let instances = instances(host, group).await;
    let text = |instance: &Value| instance[key].as_str().unwrap_or_default().to_owned();
    instances.iter().map(text).collect()
}

/// The names of the instances of `group` that `host` knows.
async fn known(host: &HostProcess, group: &str) -> BTreeSet<String> {
    told(host, group, "name").await
}

/// Waits until `host` knows exactly the instances of these `names`.
async fn knows(host: &HostProcess, group: &str, names: &[&str]) {
    let wanted: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let what = format!("{group} to be {names:?}");
    until(&what, async || (known(host, group).await == wanted).then_some(())).await;
}

/// Waits until `host` knows exactly these instances, which have no name where they are configured.
async fn finds(host: &HostProcess, group: &str, instances: &[&HostProcess]) {
    let wanted: BTreeSet<String> = instances.iter().map(|instance| instance.url("/")).collect();
    let what = format!("{group} to be {wanted:?}");
    until(&what, async || (told(host, group, "url").await == wanted).then_some(())).await;
}

/// How `host` says its store is.
async fn state(host: &HostProcess) -> String {
    let ready = host.ask("/readyz").await;
    assert_eq!(ready.status, 200, "{}", ready.text());
    ready.json()["discovery"]["state"].as_str().unwrap().to_owned()
}

/// Waits until it says so.
async fn becomes(host: &HostProcess, wanted: &str) {
    let what = format!("the store to be {wanted}");
    until(&what, async || (state(host).await == wanted).then_some(())).await;
}

/// A start with `config` ends with one line that contains all of these `words`.
async fn ends_with(config: Config, words: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let config = config.set("discovery.start-timeout", "1s");
    let config = config.set("server.listen", "127.0.0.1:0").set("admin.listen", "127.0.0.1:0");
    fs::write(folder.path().join("host.toml"), config.text()).unwrap();
    let output = run(folder.path(), &[], &[]).await;
    assert_eq!(output.code, 69, "{output:?}");
    let last: Vec<_> = output.stderr.lines().filter(|l| l.starts_with("host: ")).collect();
    let [last] = last[..] else { panic!("{output:?}") };
    assert!(words.iter().all(|word| last.contains(word)), "wanted {words:?}: {last}");
}
