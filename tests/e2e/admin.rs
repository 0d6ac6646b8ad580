//! The admin endpoints, and that they are nowhere else.

use harness::{Client, Config, HostProcess};
use serde_json::json;

trials![
    a_host_that_serves_is_alive_and_ready,
    services_names_this_instance_and_every_group,
    a_host_without_plugins_lists_none,
    the_public_port_does_not_answer_operators,
];

async fn a_host_that_serves_is_alive_and_ready() {
    let host = HostProcess::start(Config::new()).await;
    assert_eq!(host.ask("/healthz").await.status, 200);
    assert_eq!(host.ask("/readyz").await.status, 200);
    assert_eq!(host.ask("/nothing").await.status, 404);
}

async fn services_names_this_instance_and_every_group() {
    let config = Config::new()
        .set("service.name", "front-7")
        .group("greeter", "http://127.0.0.1:7001")
        .group("storage", "http://127.0.0.1:7002");
    let host = HostProcess::start(config).await;
    let answer = host.ask("/services").await;
    let services = answer.json().to_string();
    for word in ["front", "front-7", "greeter", "127.0.0.1:7001", "storage", "127.0.0.1:7002"] {
        assert!(services.contains(word), "no {word} in {services}");
    }
    let storage = &answer.json()["groups"]["storage"][0];
    for (key, value) in
        [("in-flight", json!(0)), ("failures", json!(0)), ("ejected-until", json!(null))]
    {
        assert_eq!(storage[key], value, "{key}");
        assert!(storage.get(key).is_some(), "{key}");
    }
}

async fn a_host_without_plugins_lists_none() {
    let host = HostProcess::start(Config::new()).await;
    assert_eq!(host.ask("/plugins").await.json(), json!([]));
}

async fn the_public_port_does_not_answer_operators() {
    let host = HostProcess::start(Config::new()).await;
    for path in ["/healthz", "/readyz", "/stack", "/services", "/plugins", "/metrics"] {
        let answer = Client::http1().get(&host.url(path)).send().await;
        assert_eq!(answer.status, 404, "{path}");
    }
}
