//! Export over TLS: whom the plugin trusts, what it shows, and what it says when that fails.

use std::fs;

use harness::{
    Authority, Collector, Config, HostProcess, Launch, Pair, Terminator, Traceparent, run,
    wait::until,
};

trials![
    spans_arrive_over_tls_by_each_protocol,
    the_standard_variables_name_the_files,
    a_collector_that_nobody_vouches_for_is_a_failing_export,
    a_file_for_export_that_cannot_be_used_ends_the_start,
];

/// A host that exports to `endpoint` and answers by itself.
fn traced(endpoint: &str, protocol: &str) -> Config {
    Config::new().respond("/", 200, "here\n").traced(endpoint, protocol)
}

fn trusting(config: Config, authority: &Authority) -> Config {
    config.set("otel.tls.ca", authority.ca().display().to_string())
}

fn showing(config: Config, own: &Pair) -> Config {
    config
        .set("otel.tls.cert", own.cert.display().to_string())
        .set("otel.tls.key", own.key.display().to_string())
}

async fn assert_arrives(host: &HostProcess, collector: &Collector) {
    let caller = Traceparent::sampled();
    assert_eq!(host.get("/").header("traceparent", &caller).send().await.status, 200);
    collector.trace(&caller.trace_id, 1).await;
}

async fn spans_arrive_over_tls_by_each_protocol() {
    let collector = Collector::start().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    for (endpoint, protocol, alpn) in [
        (collector.grpc_endpoint(), "grpc", "h2"),
        (collector.http_endpoint(), "http/protobuf", "http/1.1"),
    ] {
        let alpns = ["h2", "http/1.1"];
        let secured = Terminator::before(&endpoint, &authority, &alpns, Some(&clients)).await;
        let config = trusting(traced(&secured.url(), protocol), &authority);
        let host = HostProcess::start(showing(config, &clients.issue("plugin"))).await;
        assert_arrives(&host, &collector).await;
        let first = &secured.handshakes()[0];
        assert_eq!(first.alpn.as_deref(), Some(alpn), "{protocol}");
        assert!(first.has_client_certificate, "{protocol}");
    }
}

async fn the_standard_variables_name_the_files() {
    let collector = Collector::start().await;
    let (authority, clients) = (Authority::new(), Authority::new());
    let secured =
        Terminator::before(&collector.grpc_endpoint(), &authority, &["h2"], Some(&clients)).await;
    let own = clients.issue("plugin");
    let text = |path: &std::path::Path| path.display().to_string();
    let host = Launch::host(traced(&secured.url(), "grpc"))
        .env("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", &text(&authority.ca()))
        .env("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere.pem")
        .env("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", &text(&authority.ca()))
        .env("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", &text(&authority.ca()))
        .env("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", &text(&own.cert))
        .env("OTEL_EXPORTER_OTLP_CLIENT_KEY", &text(&own.key))
        .start()
        .await;
    assert_arrives(&host, &collector).await;
}

async fn a_collector_that_nobody_vouches_for_is_a_failing_export() {
    let collector = Collector::start().await;
    let authority = Authority::new();
    let secured = Terminator::before(&collector.grpc_endpoint(), &authority, &["h2"], None).await;
    let other = Authority::new();
    let config = trusting(traced(&secured.url(), "grpc"), &other);
    let host = HostProcess::start(config.clone()).await;
    until("the export to fail", async || {
        assert_eq!(host.get("/").send().await.text(), "here\n");
        let export = &host.plugin().await["status"]["export"];
        let said = export["last-error"].as_str().unwrap_or_default().to_owned();
        // Of exports that wait for the same connection only one hears why there is none.
        let is_told = said.contains("invalid peer certificate: UnknownIssuer");
        (export["state"] == "failing" && is_told).then_some(())
    })
    .await;

    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("host.toml"), config.text()).unwrap();
    let output = run(folder.path(), &["check"], &[]).await;
    assert_eq!(output.code, 69, "{output:?}");
    assert!(output.stderr.contains("invalid peer certificate: UnknownIssuer"), "{output:?}");
}

async fn a_file_for_export_that_cannot_be_used_ends_the_start() {
    let collector = Collector::start().await;
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    let secured = Terminator::before(&collector.grpc_endpoint(), &authority, &["h2"], None).await;
    // Relative paths start at the file's folder, wherever the host is started.
    fs::copy(authority.ca(), folder.path().join("ca.pem")).unwrap();
    let pair = authority.issue("own");
    fs::copy(&pair.key, folder.path().join("key.pem")).unwrap();
    let file = folder.path().join("host.toml").display().to_string();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let elsewhere = tempfile::tempdir().unwrap();
    for (key, name, wanted) in [
        ("ca", "ca.pem", None),
        ("ca", "no.pem", Some("cannot be read: No such file")),
        ("ca", "key.pem", Some("holds no certificate in PEM")),
        ("key", "key.pem", Some("wanted both tls.cert and tls.key, found only this")),
    ] {
        let config = trusting(traced(&secured.url(), "grpc"), &authority);
        let config = config.set(&format!("otel.tls.{key}"), name);
        fs::write(&file, config.set("otel.required", false).text()).unwrap();
        let output = run(elsewhere.path(), &["check", "--config", &file], &[]).await;
        let Some(wanted) = wanted else {
            assert_eq!(output.code, 0, "{output:?}");
            continue;
        };
        assert_eq!(output.code, 78, "{output:?}");
        let wanted = format!("otel.tls.{key}: {}: {wanted}", path(name));
        assert!(output.stderr.contains(&wanted), "{wanted}: {output:?}");
        assert!(output.stderr.contains(&format!("host: {file}:")), "{output:?}");
    }
    let environment = [("OTEL_EXPORTER_OTLP_CLIENT_KEY", "no.pem")];
    let config = trusting(traced(&secured.url(), "grpc"), &authority);
    fs::write(&file, config.text()).unwrap();
    let output = run(elsewhere.path(), &["check", "--config", &file], &environment).await;
    assert_eq!(output.code, 78, "{output:?}");
    assert!(output.stderr.contains("OTEL_EXPORTER_OTLP_CLIENT_KEY: no.pem: wanted"), "{output:?}");
}
