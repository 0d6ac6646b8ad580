//! Configuration: what is refused, with file, line and key, and where values come from.

use std::{fs, path::Path};

use harness::{Config, HostProcess, Launch, Output, artifacts, hold, run};

trials![
    a_bad_configuration_is_one_line_and_nothing_is_bound,
    a_bad_variable_is_named,
    a_check_finds_the_same_faults,
    a_missing_file_is_named,
    a_file_is_looked_for_in_the_documented_order,
    a_variable_is_stronger_than_the_file,
    a_check_prints_every_setting_with_its_source,
    a_check_masks_secrets,
    the_files_that_ship_are_in_order,
];

/// A name, a file whose bad line is marked, and what the message must name.
type Case = (&'static str, &'static str, &'static str);

/// Stands after the bad line of a file.
const MARK: &str = "# here";

/// The tables that every file starts with; the ports are held by the test.
const HEAD: &str = "[admin]\nlisten = \"ADMIN\"\n[server]\nlisten = \"PUBLIC\"\n";

/// The plugin, switched on.
const PLUGIN: &str = "[otel]\nenabled = true\nrequired = true\nlibrary = \"PLUGIN\"\n";

const CASES: [Case; 17] = [
    ("syntax", "drain-timeout == \"1s\" # here", ""),
    ("unclosed table", "[client # here", ""),
    ("unknown key", "lisen = \"127.0.0.1:1\" # here", "server.lisen"),
    ("unknown table", "[sever] # here\nlisten = \"127.0.0.1:1\"", "sever"),
    ("wrong type", "max-in-flight = \"many\" # here", "server.max-in-flight"),
    ("negative number", "max-in-flight = -1 # here", "server.max-in-flight"),
    ("bad duration", "request-timeout = \"10 parsecs\" # here", "server.request-timeout"),
    ("duration without a unit", "drain-timeout = 10 # here", "server.drain-timeout"),
    ("unknown log format", "[log]\nformat = \"xml\" # here", "log.format"),
    ("unknown backend", "[discovery]\nbackend = \"zoo\" # here", "discovery.backend"),
    (
        "bad base URL",
        "[discovery.static]\ngreeter = [\"not a url\"] # here",
        "discovery.static.greeter",
    ),
    (
        "duplicate route",
        "[[route]]\npath = \"/a/{x}\"\nrespond = { status = 200 }\n\
         [[route]]\npath = \"/a/{x}\" # here\nrespond = { status = 204 }",
        "route",
    ),
    (
        "bad route template",
        "[[route]]\npath = \"/a/{x\" # here\nrespond = { status = 200 }",
        "path",
    ),
    ("impossible status", "[[route]]\npath = \"/\"\nrespond = { status = 99 } # here", "status"),
    ("unknown discovery key", "[discovery]\nbackened = \"static\" # here", "discovery.backened"),
    ("misspelt switch of the plugin", "[otel]\nenabeld = true # here", "otel.enabeld"),
    ("two values for a key", "drain-timeout = \"1s\"\ndrain-timeout = \"2s\" # here", ""),
];

const ADDRESSES: [Case; 3] = [
    ("no port", "[server]\nlisten = \"127.0.0.1\" # here", "server.listen"),
    ("no such port", "[admin]\nlisten = \"127.0.0.1:99999\" # here", "admin.listen"),
    ("an address of the wrong type", "[server]\nlisten = 8080 # here", "server.listen"),
];

const PLUGIN_CASES: [Case; 6] = [
    ("unknown sampler", "sampler = \"sometimes\" # here", "otel.sampler"),
    ("unknown plugin key", "sampel = \"always_on\" # here", "otel.sampel"),
    ("unknown protocol", "protocol = \"carrier-pigeon\" # here", "otel.protocol"),
    ("bad endpoint", "endpoint = \"not a url\" # here", "otel.endpoint"),
    ("plugin setting of the wrong type", "max-queue-size = \"many\" # here", "otel.max-queue-size"),
    ("bad plugin duration", "schedule-delay = \"soon\" # here", "otel.schedule-delay"),
];

/// Every case as its name, its whole file and the key.
fn cases() -> impl Iterator<Item = (&'static str, String, &'static str)> {
    let plain = CASES.map(|(name, text, key)| (name, format!("{HEAD}{text}\n"), key));
    let addresses = ADDRESSES.map(|(name, text, key)| (name, format!("{text}\n"), key));
    let plugin =
        PLUGIN_CASES.map(|(name, text, key)| (name, format!("{HEAD}{PLUGIN}{text}\n"), key));
    plain.into_iter().chain(addresses).chain(plugin)
}

/// Runs the host on the file `text` in `folder`; its ports are taken, so that a host that binds
/// before it has read everything ends with 69.
async fn start(folder: &Path, arguments: &[&str], text: &str, env: &[(&str, &str)]) -> Output {
    let ((_public, public), (_admin, admin)) = (hold(), hold());
    let text = text
        .replace("PUBLIC", &public.to_string())
        .replace("ADMIN", &admin.to_string())
        .replace("PLUGIN", &artifacts::plugin_otel().display().to_string());
    let file = folder.join("host.toml");
    fs::write(&file, text).unwrap();
    let arguments: Vec<_> =
        arguments.iter().copied().chain(["--config", file.to_str().unwrap()]).collect();
    run(folder, &arguments, env).await
}

fn assert_refused(case: &str, file: &str, text: &str, key: &str, output: &Output) {
    assert_eq!(output.code, 78, "{case}: {output:?}");
    let lines: Vec<_> = output.stderr.lines().collect();
    let [line] = lines[..] else { panic!("{case}: not one line: {output:?}") };
    let number = 1 + text.lines().position(|line| line.contains(MARK)).expect("a marked line");
    assert!(line.starts_with(&format!("host: {file}:{number}:")), "{case}: {line}");
    assert!(line.contains(key), "{case}: no {key} in {line}");
}

async fn a_bad_configuration_is_one_line_and_nothing_is_bound() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml").display().to_string();
    for (case, text, key) in cases() {
        let output = start(folder.path(), &[], &text, &[]).await;
        assert_refused(case, &file, &text, key, &output);
    }
}

async fn a_check_finds_the_same_faults() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml").display().to_string();
    for (case, text, key) in cases() {
        let output = start(folder.path(), &["check"], &text, &[]).await;
        assert_refused(case, &file, &text, key, &output);
    }
}

async fn a_bad_variable_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let on = format!("{HEAD}{PLUGIN}");
    for (name, value, text) in [
        ("HOST_SERVER__REQUEST_TIMEOUT", "10 parsecs", HEAD),
        ("HOST_SERVER__LISTEN", "nowhere", HEAD),
        ("HOST_SERVER__MAX_IN_FLIGHT", "many", HEAD),
        ("HOST_SERVER__LISEN", "127.0.0.1:1", HEAD),
        ("HOST_OTEL__ENABLED", "perhaps", HEAD),
        ("HOST_OTEL__SAMPLER", "sometimes", on.as_str()),
    ] {
        let output = start(folder.path(), &[], text, &[(name, value)]).await;
        assert_eq!(output.code, 78, "{name}: {output:?}");
        let lines: Vec<_> = output.stderr.lines().collect();
        let [line] = lines[..] else { panic!("{name}: not one line: {output:?}") };
        assert!(line.starts_with("host: ") && line.contains(name), "{name}: {line}");
    }
}

async fn a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(folder.path(), &["--config", "/nowhere/host.toml"], &[]).await;
    assert_eq!(output.code, 78, "{output:?}");
    assert_eq!(output.stderr.lines().count(), 1, "{output:?}");
    assert!(output.stderr.starts_with("host: /nowhere/host.toml"), "{output:?}");
}

async fn a_file_is_looked_for_in_the_documented_order() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, group: &str| {
        let file = folder.path().join(name);
        fs::write(&file, Config::new().set("service.group", group).text()).unwrap();
        file.display().to_string()
    };
    write("host.toml", "from-here");
    let variable = write("variable.toml", "from-variable");
    let argument = write("argument.toml", "from-argument");
    let env = [("HOST_CONFIG", variable.as_str())];
    for (arguments, env, expected) in [
        (&["check", "--config", &argument][..], &env[..], "from-argument"),
        (&["check"], &env[..], "from-variable"),
        (&["check"], &[], "from-here"),
    ] {
        let output = run(folder.path(), arguments, env).await;
        assert_eq!(output.code, 0, "{output:?}");
        assert!(output.stdout.contains(expected), "{expected}: {output:?}");
    }
}

async fn a_variable_is_stronger_than_the_file() {
    let config = Config::new().set("service.group", "from-file").respond("/", 200, "");
    let host = Launch::host(config).env("HOST_SERVICE__GROUP", "from-variable").start().await;
    let services = host.ask("/services").await.json().to_string();
    assert!(services.contains("from-variable") && !services.contains("from-file"), "{services}");
}

/// The line of `host check` that is about `key`.
fn setting<'a>(output: &'a Output, key: &str) -> &'a str {
    let about = |line: &&str| line.split([' ', '=']).next() == Some(key);
    output.stdout.lines().find(about).unwrap_or_else(|| panic!("no {key} in {output:?}"))
}

async fn a_check_prints_every_setting_with_its_source() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("host.toml");
    fs::write(&file, "[server]\nrequest-timeout = \"7s\"\n").unwrap();
    let env = [("HOST_CLIENT__CONNECT_TIMEOUT", "3s")];
    let output = run(folder.path(), &["check"], &env).await;
    assert_eq!(output.code, 0, "{output:?}");
    for (key, value, source) in [
        ("server.request-timeout", "7s", "file"),
        ("client.connect-timeout", "3s", "environment"),
        ("server.drain-timeout", "10s", "default"),
    ] {
        let line = setting(&output, key);
        assert!(line.contains(value) && line.contains(source), "{line}");
    }
}

async fn a_check_masks_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let collector = harness::Collector::start().await;
    let config = Config::new()
        .traced(&collector.grpc_endpoint(), "grpc")
        .set("otel.headers.authorization", "Bearer hunter2");
    fs::write(folder.path().join("host.toml"), config.text()).unwrap();
    let output = run(folder.path(), &["check"], &[]).await;
    assert_eq!(output.code, 0, "{output:?}");
    assert!(setting(&output, "otel.protocol").contains("grpc"));
    assert!(output.stdout.contains("otel.headers"), "{output:?}");
    assert!(!format!("{output:?}").contains("hunter2"), "{output:?}");
}

async fn the_files_that_ship_are_in_order() {
    let folder = artifacts::workspace().join("host/config");
    let defaults = folder.join("host.toml").display().to_string();
    let output = run(&folder, &["check", "--config", &defaults], &[]).await;
    assert_eq!(output.code, 0, "{output:?}");

    // Its ports are fixed, its collector may be away: it is read, and started with both replaced.
    let quickstart = fs::read_to_string(folder.join("quickstart.toml")).unwrap();
    let quickstart: toml::Table = toml::from_str(&quickstart).unwrap();
    let host = HostProcess::start(Config::from(quickstart).group("greeter", Config::OWN_URL)).await;
    assert_eq!(host.get("/hello/ada").send().await.text(), "hello ada\n");
}
