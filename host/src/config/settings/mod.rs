//! The configuration together with where each value comes from.

mod check;
mod effective;

use std::{
    collections::BTreeSet,
    env,
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
};

use plugin_api::{PluginError, Setting};

pub use self::effective::Effective;
use super::{
    Config, Otel,
    error::{ConfigError, unknown_key},
    fragment::Fragment,
    tree::{self, Entry, Origin, Table, Value},
};

/// Where a configuration is looked for when nobody names a file.
const USUAL_PLACES: [&str; 2] = ["host.toml", "/etc/host/host.toml"];

/// The configuration as it is in force, and where each value of it comes from.
#[derive(Debug, Clone)]
pub struct Settings {
    config: Config,
    file: Option<PathBuf>,
    /// The file alone, and the variables that are put over it.
    written: (Table, Vec<(String, String)>),
    /// `[otel]` without the keys that are the host's.
    plugin: Table,
    tree: Table,
}

impl Settings {
    /// Reads `named`, else `$HOST_CONFIG`, else `./host.toml`, else `/etc/host/host.toml`, else
    /// nothing, and the environment over it.
    ///
    /// # Errors
    /// A named file that cannot be read, or a key or value that is wrong.
    pub fn load(named: Option<&Path>) -> Result<Self, ConfigError> {
        let variables = || env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v)));
        let mut own = Vec::new();
        for (name, value) in variables().filter(|(name, _)| name.starts_with("HOST_")) {
            let text = value.into_string().map_err(|_| {
                let origin = Origin::Variable(name.clone());
                ConfigError::setting(origin, "value", "is not UTF-8")
            })?;
            own.push((name, text));
        }
        let from_variable =
            own.iter().find(|(name, text)| name == "HOST_CONFIG" && !text.is_empty());
        let named = named.or(from_variable.map(|(_, text)| Path::new(text)));
        let (file, text) = read(named)?;
        Self::parse(file, &text, own)
    }

    /// Reads a file's text and variables that were read before.
    ///
    /// # Errors
    /// A key or value that is wrong.
    pub fn parse(
        file: Option<PathBuf>,
        text: &str,
        variables: Vec<(String, String)>,
    ) -> Result<Self, ConfigError> {
        let written = tree::parse(file.as_deref().unwrap_or(Path::new("")), text)?;
        Self::build(file, (written, variables), Table::new())
    }

    /// The same file and variables with what the store holds between them.
    ///
    /// # Errors
    /// A key or value of the fragment that is wrong. What only the plugin can tell is not looked at.
    pub fn with(&self, fragment: &Fragment) -> Result<Self, ConfigError> {
        Self::build(self.file.clone(), self.written.clone(), fragment.read()?)
    }

    fn build(
        file: Option<PathBuf>,
        written: (Table, Vec<(String, String)>),
        fragment: Table,
    ) -> Result<Self, ConfigError> {
        let mut tree = written.0.clone();
        tree::merge(&mut tree, fragment);
        tree::overlay(&mut tree, written.1.iter().cloned())?;
        let plugin = take_plugin_keys(&mut tree);
        let mut config: Config = super::de::read(&tree)?;
        config.service.complete();
        if let Some(folder) = file.as_deref().and_then(Path::parent) {
            config.start_paths_at(folder);
        }
        let settings = Self { config, file, written, plugin, tree };
        settings.check()?;
        Ok(settings)
    }

    /// These settings as far as a host that runs with `started` can take them: `log.level`, and the
    /// plugin's keys that are `live`. Also answers the keys that wait for the next start.
    pub(crate) fn taken_by(mut self, started: &Self, live: &[&str]) -> (Self, Vec<String>) {
        let mut waiting = Vec::new();
        let keys: BTreeSet<String> =
            self.plugin.keys().chain(started.plugin.keys()).cloned().collect();
        for key in keys.into_iter().filter(|key| !live.contains(&key.as_str())) {
            let [new, old] = [&self, started].map(|one| one.plugin.get(&key).map(Entry::to_json));
            if new != old {
                waiting.push(format!("otel.{key}"));
            }
            match started.plugin.get(&key) {
                Some(old) => _ = self.plugin.insert(key, old.clone()),
                None => _ = self.plugin.remove(&key),
            }
        }
        let [new, old] = [&self, started].map(|one| &one.config.otel);
        for (key, differs) in
            [("enabled", new.enabled != old.enabled), ("required", new.required != old.required)]
        {
            if differs {
                waiting.push(format!("otel.{key}"));
            }
        }
        self.config.otel = started.config.otel.clone();
        match started.tree.get("otel") {
            Some(old) => _ = self.tree.insert("otel".to_owned(), old.clone()),
            None => _ = self.tree.remove("otel"),
        }
        (self, waiting)
    }

    /// The typed values.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The file that was read, if any was.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The folder that relative paths start at: the file's; empty where there is no file.
    pub(crate) fn folder(&self) -> &Path {
        self.file().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// The plugin's own keys as a JSON object.
    pub(crate) fn plugin_json(&self) -> String {
        tree::table_to_json(&self.plugin).to_string()
    }

    /// Refuses a key of `[otel]` that neither the host nor the plugin knows.
    pub(crate) fn check_plugin_keys(&self, known: &[Setting]) -> Result<(), ConfigError> {
        let unknown =
            self.plugin.iter().find(|(key, _)| known.iter().all(|known| known.key() != *key));
        let Some((key, entry)) = unknown else { return Ok(()) };
        Err(unknown_of_plugin(key, entry, known.iter().map(Setting::key).chain(Otel::KEYS)))
    }

    /// A setting that the plugin found wrong, with the place where it was set.
    pub(crate) fn plugin_error(&self, error: &PluginError) -> ConfigError {
        let origin = tree::find(&self.plugin, error.key())
            .map_or(Origin::Default, |entry| entry.origin.clone());
        ConfigError::setting(origin, format!("otel.{}", error.key()), error.message())
    }

    /// What is wrong with the value of `key`, with the place where it was set.
    pub(crate) fn error(&self, key: &str, message: impl Display) -> ConfigError {
        ConfigError::setting(self.origin(key), key, message)
    }

    fn origin(&self, key: &str) -> Origin {
        tree::find(&self.tree, key).map_or(Origin::Default, |entry| entry.origin.clone())
    }
}

fn read(named: Option<&Path>) -> Result<(Option<PathBuf>, String), ConfigError> {
    let usual = USUAL_PLACES.iter().map(Path::new);
    let candidates: Vec<&Path> = named.map_or_else(|| usual.collect(), |path| vec![path]);
    for path in candidates {
        match fs::read_to_string(path) {
            Ok(text) => return Ok((Some(path.to_owned()), text)),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }
    Ok((None, String::new()))
}

/// A key of `[otel]` that is none of these.
fn unknown_of_plugin<'a>(
    key: &str,
    entry: &Entry,
    known: impl Iterator<Item = &'a str> + Clone,
) -> ConfigError {
    let message = unknown_key(key, known);
    ConfigError::setting(entry.origin.clone(), format!("otel.{key}"), message)
}

/// Moves what is the plugin's out of `[otel]`, so that only the host's keys are left to be checked.
fn take_plugin_keys(tree: &mut Table) -> Table {
    let Some(Entry { value: Value::Table(otel), .. }) = tree.get_mut("otel") else {
        return Table::new();
    };
    let (own, plugin) =
        std::mem::take(otel).into_iter().partition(|(key, _)| Otel::KEYS.contains(&key.as_str()));
    *otel = own;
    plugin
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFilter;

    pub(super) fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let variables = variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::parse(Some("host.toml".into()), text, variables.collect())
            .map_err(|e| e.to_string())
    }

    #[test]
    fn the_defaults_are_a_whole_configuration() {
        let settings = parse("", &[]).unwrap();
        assert_eq!(settings.config().server.listen.to_string(), "127.0.0.1:8080");
        assert!(settings.effective(&[]).iter().all(|line| line.source == "default"));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_key() {
        for (text, wanted) in [
            (
                "[server]\nlisen = \"\"",
                "host.toml:2: server.lisen: unknown key, did you mean \"listen\"?",
            ),
            ("\n[sever]", "host.toml:2: sever: unknown key, did you mean \"server\"?"),
            (
                "[server]\nlisten = 5",
                "host.toml:2: server.listen: wanted socket address, found integer `5`",
            ),
            (
                "[server]\nlisten = \"here\"",
                "host.toml:2: server.listen: invalid socket address syntax",
            ),
            (
                "[server]\nmax-in-flight = -1",
                "host.toml:2: server.max-in-flight: wanted a nonzero usize, found integer `-1`",
            ),
            (
                "[client]\nconnect-timeout = \"soon\"",
                "host.toml:2: client.connect-timeout: wanted a duration, found string \"soon\"",
            ),
            (
                "[log]\nformat = \"xml\"",
                "host.toml:2: log.format: wanted one of text, json, found \"xml\"",
            ),
            (
                "[discovery]\nbackend = \"zoo\"",
                "host.toml:2: discovery.backend: wanted one of static, etcd, redis, found \"zoo\"",
            ),
            ("[[route]]\nservice = \"a\"", "host.toml:1: route.0: the key \"path\" is missing"),
            (
                "[[route]]\npath = \"/a\"\nservice = \"a\"",
                "host.toml:3: route.0.service: \"a\" has no instances under [discovery.static]",
            ),
            (
                "[discovery]\nheartbeat = \"1ms\"",
                "host.toml:2: discovery.heartbeat: wanted at least 100ms, found 1ms",
            ),
            (
                "[[route]]\npath = \"/a\"\nrespond = { statu = 1 }",
                "host.toml:3: route.0.respond.statu: unknown key, did you mean \"status\"?",
            ),
            (
                "[otel]\nsha256 = \"1\"",
                "host.toml:2: otel.sha256: wanted 64 hexadecimal digits, found \"1\"",
            ),
            (
                "[otel]\nendpoint = \"http://here:1\"\nenabeld = true",
                "host.toml:3: otel.enabeld: unknown key, did you mean \"enabled\"?",
            ),
            (
                "[otel]\nenable = true",
                "host.toml:2: otel.enable: unknown key, did you mean \"enabled\"?",
            ),
            ("a = \n", "host.toml:1: string values must be quoted, expected literal string"),
        ] {
            assert_eq!(parse(text, &[]).unwrap_err(), wanted, "{text}");
        }
    }

    #[test]
    fn a_variable_wins_over_the_file_and_is_named_when_it_is_wrong() {
        let file = "[server]\nmax-in-flight = 1\n[service]\ngroup = \"a\"";
        let set = [("HOST_SERVER__MAX_IN_FLIGHT", "7"), ("HOST_SERVICE__GROUP", "8")];
        let settings = parse(file, &set).unwrap();
        assert_eq!(settings.config().server.max_in_flight.get(), 7);
        assert_eq!(settings.config().service.group, "8");
        let source = |key: &str| {
            settings.effective(&[]).into_iter().find(|line| line.key == key).unwrap().source
        };
        assert_eq!(source("server.max-in-flight"), "environment HOST_SERVER__MAX_IN_FLIGHT");
        let error = parse("", &[("HOST_SERVER__LISTEN", "x")]).unwrap_err();
        assert!(error.starts_with("$HOST_SERVER__LISTEN: server.listen: "), "{error}");
        assert!(parse("", &[("HOST_IP", "10.0.0.1"), ("HOST_CONFIG", "x")]).is_ok());
    }

    #[test]
    fn what_the_store_holds_stands_between_the_file_and_the_environment() {
        let file =
            "[log]\nlevel = \"warn\"\n[otel]\nendpoint = \"http://file:1\"\nsampler-arg = 1.0";
        let settings = parse(file, &[("HOST_OTEL__SAMPLER_ARG", "0.25")]).unwrap();
        for text in [
            "log.level = \"debug\"\n[otel]\nenabled = true\nsampler-arg = 0.5\nexclude = [\"/a\"]",
            r#" {"log": {"level": "debug"},
                "otel": {"enabled": true, "sampler-arg": 0.5, "exclude": ["/a"]}}"#,
        ] {
            let merged = settings.with(&Fragment::new("/host/config/g", text)).unwrap();
            assert!(merged.config().otel.enabled, "{text}");
            assert_eq!(
                merged.plugin_json(),
                r#"{"endpoint":"http://file:1","exclude":["/a"],"sampler-arg":0.25}"#
            );
            let line = |key: &str| {
                let all = merged.effective(&[Setting::new("exclude", "[]", "")]).into_iter();
                let line = all.into_iter().find(|line| line.key == key).unwrap();
                (line.value, line.source)
            };
            let store = "discovery /host/config/g".to_owned();
            assert_eq!(line("log.level"), ("\"debug\"".to_owned(), store.clone()));
            assert_eq!(line("otel.enabled"), ("true".to_owned(), store.clone()));
            assert_eq!(line("otel.exclude"), ("[\"/a\"]".to_owned(), store));
        }
        assert_eq!(settings.with(&Fragment::new("k", "")).unwrap().plugin.len(), 2);
    }

    #[test]
    fn a_fragment_that_is_not_for_a_fleet_is_refused_with_its_key() {
        let settings = parse("", &[]).unwrap();
        for (text, wanted) in [
            ("a = ", "/k:1: "),
            ("{\"a\"", "/k:1: "),
            ("{\"log\": null}", "/k: null: TOML has no such value"),
            ("otel = 5", "/k: otel: is each host's own; "),
            ("[server]\nlisten = \"0.0.0.0:80\"", "/k: server.listen: is each host's own; "),
            ("[discovery]\nbackend = \"etcd\"", "/k: discovery.backend: is each host's own; "),
            ("[log]\nformat = \"json\"", "/k: log.format: is each host's own; "),
            ("[otel]\nlibrary = \"/tmp/x.so\"", "/k: otel.library: is each host's own; "),
            ("[otel]\nsha256 = \"\"", "/k: otel.sha256: is each host's own; "),
            ("[log]\nlevel = \"loud\"", "/k: log.level: wanted off, error, "),
            ("[otel]\nenabled = 1", "/k: otel.enabled: wanted a boolean, found integer `1`"),
        ] {
            let error = settings.with(&Fragment::new("/k", text)).unwrap_err().to_string();
            assert!(error.starts_with(wanted) && error.lines().count() == 1, "{text}: {error}");
        }
    }

    #[test]
    fn a_running_host_takes_what_is_live_and_keeps_the_rest() {
        let file = "[otel]\nenabled = true\nendpoint = \"http://file:1\"\ntimeout = \"1s\"";
        let started = parse(file, &[]).unwrap();
        let text = "log.level = \"debug\"\n[otel]\nenabled = false\nsampler = \"always_off\"\n\
                    endpoint = \"http://store:1\"\ngzip = true";
        let merged = started.with(&Fragment::new("/k", text)).unwrap();
        let (taken, waiting) = merged.taken_by(&started, &["sampler", "exclude"]);
        assert_eq!(waiting, ["otel.endpoint", "otel.gzip", "otel.enabled"]);
        assert_eq!(taken.config().log.level, LogFilter::try_from("debug".to_owned()).unwrap());
        assert!(taken.config().otel.enabled);
        assert_eq!(
            taken.plugin_json(),
            r#"{"endpoint":"http://file:1","sampler":"always_off","timeout":"1s"}"#
        );
        let enabled = taken.effective(&[]).into_iter().find(|line| line.key == "otel.enabled");
        assert_eq!(enabled.unwrap().source, "file host.toml:2");
    }

    #[test]
    fn a_variable_reaches_into_lists() {
        let file =
            "[discovery.static]\na = [\"http://a\"]\n[[route]]\npath = \"/a\"\nservice = \"a\"";
        let set = [
            ("HOST_ROUTE__0__PATH", "/b"),
            ("HOST_DISCOVERY__STATIC__A", "[\"http://x\", \"http://y\"]"),
        ];
        let settings = parse(file, &set).unwrap();
        assert_eq!(settings.config().route[0].path, "/b");
        assert_eq!(settings.config().discovery.r#static["a"].len(), 2);
    }

    #[test]
    fn the_plugin_gets_its_own_keys_with_their_types() {
        let file = "[otel]\nenabled = true\nsampler-arg = 0.5\n[otel.headers]\nx = \"1\"";
        let settings = parse(file, &[("HOST_OTEL__MAX_QUEUE_SIZE", "9")]).unwrap();
        assert_eq!(
            settings.plugin_json(),
            r#"{"headers":{"x":"1"},"max-queue-size":9,"sampler-arg":0.5}"#
        );
        let known = [Setting::new("headers", "{}", ""), Setting::new("sampler-args", "", "")];
        let error = settings.check_plugin_keys(&known).unwrap_err().to_string();
        assert!(error.contains("otel.max-queue-size: unknown key"), "{error}");
    }

    #[test]
    fn what_the_sample_shows_in_comments_is_right_too() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/host.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let uncommented: Vec<&str> = text
            .lines()
            .map(|line| line.strip_prefix("# ").filter(|line| is_setting(line)).unwrap_or(line))
            .collect();
        let sha256 = format!("\"{}\"", "0".repeat(64));
        let text = uncommented.join("\n").replace("\"<64 hexadecimal digits>\"", &sha256);
        let settings = parse(&text, &[]).unwrap();
        assert_eq!(settings.config().route.len(), 2);
        assert_eq!(settings.config().discovery.r#static["greeter"].len(), 2);
        assert_eq!(settings.plugin.len(), 33, "keys of the plugin");
    }

    /// A comment that is a key with its value, or a table's head; prose is neither.
    fn is_setting(line: &str) -> bool {
        let key = line.split(['=', '#']).next().unwrap_or_default().trim();
        let is_key = !key.is_empty()
            && key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        (is_key && line.contains(" = ")) || line.starts_with("[[route]]")
    }
}
