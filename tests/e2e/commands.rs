//! The command line and its exit codes.

use std::{fs, path::Path};

use harness::{Collector, Config, Output, artifacts, free, hold, run};

trials![
    version_and_help_are_printed,
    a_wrong_command_line_ends_with_64,
    a_plugin_is_described,
    a_file_that_is_no_plugin_is_refused,
    an_address_in_use_ends_with_69,
    a_check_reaches_for_the_collector,
    a_check_reaches_for_the_collector_of_each_signal,
];

async fn host(arguments: &[&str]) -> Output {
    run(tempfile::tempdir().unwrap().path(), arguments, &[]).await
}

async fn version_and_help_are_printed() {
    let version = host(&["--version"]).await;
    assert_eq!((version.code, version.stderr.as_str()), (0, ""));
    assert_eq!(version.stdout.trim(), concat!("host ", env!("CARGO_PKG_VERSION")));
    let help = host(&["--help"]).await;
    assert_eq!((help.code, help.stderr.as_str()), (0, ""));
    for word in ["--config", "check", "plugin"] {
        assert!(help.stdout.contains(word), "no {word} in {}", help.stdout);
    }
}

async fn a_check_reaches_for_the_collector() {
    let library = artifacts::plugin_otel().display().to_string();
    let collector = Collector::start().await;
    for (endpoint, protocol, code) in [
        (collector.grpc_endpoint(), "grpc", 0),
        (collector.http_endpoint(), "http/protobuf", 0),
        ("http://127.0.0.1:1".to_owned(), "grpc", 69),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("host.toml");
        let config = Config::new().plugin(&library).set("otel.endpoint", endpoint.clone());
        let config = config.set("otel.protocol", protocol).set("log.level", "error");
        fs::write(&file, config.text()).unwrap();
        let output = run(folder.path(), &["check", "--config", file.to_str().unwrap()], &[]).await;
        assert_eq!(output.code, code, "{endpoint}: {output:?}");
        assert_eq!(output.stderr.lines().count(), usize::from(code != 0), "{output:?}");
        let reason = "the collector cannot be reached with spans at http://127.0.0.1:1: ";
        assert_eq!(output.stderr.contains(reason), code != 0, "{output:?}");
    }
    assert!(collector.spans().is_empty());
}

async fn a_check_reaches_for_the_collector_of_each_signal() {
    let library = artifacts::plugin_otel().display().to_string();
    let collector = Collector::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    fs::write(&file, Config::new().plugin(&library).set("log.level", "off").text()).unwrap();
    for (signal, noun) in [("TRACES", "spans"), ("LOGS", "log records"), ("METRICS", "metrics")] {
        let nowhere = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &*collector.grpc_endpoint()),
            (&*nowhere, "http://127.0.0.1:1"),
        ];
        let check = &["check", "--config", file.to_str().unwrap()];
        let output = run(folder.path(), check, &variables).await;
        assert_eq!(output.code, 69, "{signal}: {output:?}");
        let reason = format!("{noun} at http://127.0.0.1:1: ");
        assert!(output.stderr.contains(&reason), "{signal}: {output:?}");
    }
}

async fn a_wrong_command_line_ends_with_64() {
    for arguments in
        [&["frobnicate"][..], &["--nonsense"], &["plugin"], &["--config"], &["check", "a", "b"]]
    {
        let output = host(arguments).await;
        assert_eq!(output.code, 64, "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty(), "{output:?}");
    }
}

async fn a_plugin_is_described() {
    let noop = artifacts::plugin_noop().display().to_string();
    let output = host(&["plugin", &noop]).await;
    assert_eq!(output.code, 0, "{output:?}");
    for word in ["noop", &artifacts::contract(), "server", "client"] {
        assert!(output.stdout.contains(word), "no {word} in {}", output.stdout);
    }
    let is_hash = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(output.stdout.split_whitespace().any(is_hash), "{}", output.stdout);

    let otel = artifacts::plugin_otel().display().to_string();
    let output = host(&["plugin", &otel]).await;
    assert_eq!(output.code, 0, "{output:?}");
    let (facts, printed) = output.stdout.split_once("settings of [otel]").unwrap();
    assert!(facts.lines().any(|line| line == "name      otel"), "{facts}");
    let printed = printed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    assert_eq!(settings(&printed.collect::<Vec<_>>()), sample_settings());
}

/// Every setting of the plugin with its default, as the sample configuration has them.
fn sample_settings() -> toml::Table {
    let sample = include_str!("../../host/config/host.toml");
    let (_, own) = sample.split_once("Those of libplugin_otel.so:\n").unwrap();
    let lines = own.lines().filter_map(|line| line.strip_prefix("# "));
    let settings = settings(&lines.collect::<Vec<_>>());
    assert!(settings.contains_key("endpoint") && settings.contains_key("resource"), "{settings}");
    settings
}

fn settings(lines: &[&str]) -> toml::Table {
    lines.join("\n").parse().unwrap()
}

async fn a_file_that_is_no_plugin_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("libtext.so");
    fs::write(&text, "not a library").unwrap();
    let library = artifacts::library_without_entry(folder.path());
    for file in [text.as_path(), &library, Path::new("/nowhere/libplugin.so")] {
        let path = file.display().to_string();
        let output = host(&["plugin", &path]).await;
        assert_eq!(output.code, 65, "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert!(output.stderr.starts_with("host: ") && output.stderr.contains(&path), "{output:?}");
    }
}

async fn an_address_in_use_ends_with_69() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    let (_held, taken) = hold();
    let [free] = free();
    for (public, admin) in [(taken, free), (free, taken)] {
        let text = format!(
            "[server]\nlisten = \"{public}\"\n[admin]\nlisten = \"{admin}\"\n[log]\nlevel = \"error\"\n"
        );
        fs::write(&file, text).unwrap();
        let output = run(folder.path(), &["--config", file.to_str().unwrap()], &[]).await;
        assert_eq!(output.code, 69, "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
        assert!(output.stderr.contains(&taken.to_string()), "{output:?}");
    }
}
