//! Stores that speak TLS, under an authority of their own and with clients who show a certificate.

use harness::{Authority, Config, HostProcess, Kind, Pair, Skipped, Store};

use super::{becomes, ends_with, greeter, knows};

trials![
    etcd_over_tls_is_followed_with_a_client_certificate,
    redis_over_tls_is_followed_with_a_client_certificate,
    a_store_that_nobody_vouches_for_is_unreachable,
    a_store_that_is_shown_no_certificate_is_unreachable,
];

/// `config` with `store` over TLS.
fn over_tls(config: Config, store: &Store, ca: &Authority, own: Option<&Pair>) -> Config {
    let (table, config) = match store.secure_url() {
        url if url.starts_with("https:") => {
            ("discovery.etcd.tls", config.set("discovery.etcd.endpoints", vec![url]))
        }
        url => ("discovery.redis.tls", config.set("discovery.redis.url", url)),
    };
    let mut files = vec![("ca", ca.ca())];
    files.extend(own.iter().flat_map(|own| [("cert", own.cert.clone()), ("key", own.key.clone())]));
    files.into_iter().fold(config, |config, (key, file)| {
        config.set(&format!("{table}.{key}"), file.display().to_string())
    })
}

async fn etcd_over_tls_is_followed_with_a_client_certificate() -> Result<(), Skipped> {
    a_store_over_tls_is_followed(Kind::Etcd).await
}

async fn redis_over_tls_is_followed_with_a_client_certificate() -> Result<(), Skipped> {
    a_store_over_tls_is_followed(Kind::Redis).await
}

/// What it holds, what changes, and what is there when it comes back.
async fn a_store_over_tls_is_followed(kind: Kind) -> Result<(), Skipped> {
    let authority = Authority::new();
    let mut store = Store::secured(kind, &authority).await?;
    let own = authority.issue("host");
    let secured = |name| over_tls(greeter(&store, name), &store, &authority, Some(&own));
    let one = HostProcess::start(secured("one")).await;
    let two = HostProcess::start(secured("two")).await;
    for host in [&one, &two] {
        knows(host, "greeter", &["one", "two"]).await;
    }
    assert_eq!(two.stop().await.code, 0);
    assert_eq!(store.count("greeter").await, 1);
    knows(&one, "greeter", &["one"]).await;
    store.kill().await;
    becomes(&one, "unreachable").await;
    store.revive_empty().await;
    becomes(&one, "reachable").await;
    store.put("services/greeter/x", r#"{"address": "127.0.0.1:1", "name": "three"}"#).await;
    knows(&one, "greeter", &["one", "three"]).await;
    Ok(())
}

async fn a_store_that_nobody_vouches_for_is_unreachable() -> Result<(), Skipped> {
    let (authority, other) = (Authority::new(), Authority::new());
    for kind in [Kind::Etcd, Kind::Redis] {
        let store = Store::secured(kind, &authority).await?;
        let own = authority.issue("host");
        let config = over_tls(greeter(&store, "one"), &store, &other, Some(&own));
        ends_with(config, &[&place(&store), "invalid peer certificate: UnknownIssuer"]).await;
    }
    Ok(())
}

async fn a_store_that_is_shown_no_certificate_is_unreachable() -> Result<(), Skipped> {
    let authority = Authority::new();
    for (kind, reason) in [
        (Kind::Etcd, "received fatal alert: BadCertificate"),
        (Kind::Redis, "received fatal alert: CertificateRequired"),
    ] {
        let store = Store::secured(kind, &authority).await?;
        let config = over_tls(greeter(&store, "one"), &store, &authority, None);
        ends_with(config, &[&place(&store), reason]).await;
    }
    Ok(())
}

/// The store's own name in an error.
fn place(store: &Store) -> String {
    store.secure_url().split_once("://").unwrap().1.to_owned()
}
