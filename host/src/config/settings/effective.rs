//! What `host check` prints: every setting in force, and where it comes from.

use std::env;

use plugin_api::Setting;
use serde_json::Value as Json;

use super::Settings;
use crate::config::{
    secret,
    tree::{self, Origin, Value},
};

/// One line of `host check`: a key, its value as TOML, and where the value comes from.
#[derive(Debug)]
pub struct Effective {
    /// The dotted key.
    pub key: String,
    /// The value, secrets masked.
    pub value: String,
    /// Where the value comes from.
    pub source: String,
}

impl Settings {
    /// Every setting in force; `plugin` are those that the loaded plugin knows.
    #[must_use]
    pub fn effective(&self, plugin: &[Setting]) -> Vec<Effective> {
        let mut lines = Vec::new();
        if let Ok(Json::Object(sections)) = serde_json::to_value(&self.config) {
            for (key, value) in &sections {
                self.list(key, value, &mut lines);
            }
        }
        lines.extend(plugin.iter().map(|setting| self.plugin_setting(setting)));
        lines
    }

    fn list(&self, key: &str, value: &Json, lines: &mut Vec<Effective>) {
        let name = |below: &str| format!("{key}.{below}");
        match value {
            Json::Object(table) => {
                for (below, value) in table {
                    self.list(&name(below), value, lines);
                }
            }
            Json::Array(items) if items.iter().any(Json::is_object) => {
                for (index, item) in items.iter().enumerate() {
                    self.list(&name(&index.to_string()), item, lines);
                }
            }
            _ => lines.push(Effective {
                key: key.to_owned(),
                value: match value {
                    Json::String(text) if secret::is_key(key) && !text.is_empty() => {
                        "***".to_owned()
                    }
                    _ => secret::mask(&value.to_string()),
                },
                source: self.source(key),
            }),
        }
    }

    fn source(&self, key: &str) -> String {
        let found = tree::find(&self.tree, key).filter(|entry| match &entry.value {
            // The search ends at a table when the key itself is not set.
            Value::Table(_) => false,
            Value::Array(items) => !items.iter().any(|item| matches!(item.value, Value::Table(_))),
            _ => true,
        });
        found.map_or(&Origin::Default, |entry| &entry.origin).source()
    }

    fn plugin_setting(&self, setting: &Setting) -> Effective {
        let set = self.plugin.get(setting.key());
        let variable = || {
            setting.variables().find_map(|name| {
                let text = env::var(name).ok().filter(|text| !text.is_empty())?;
                let origin = Origin::Variable(name.to_owned());
                Some((Json::from(text).to_string(), origin.source()))
            })
        };
        let (value, source) = match set {
            Some(entry) => (entry.to_json().to_string(), entry.origin.source()),
            None => variable()
                .unwrap_or_else(|| (setting.default_value().to_owned(), Origin::Default.source())),
        };
        let is_secret = setting.is_secret() && source != Origin::Default.source();
        let value = if is_secret { "***".to_owned() } else { secret::mask(&value) };
        Effective { key: format!("otel.{}", setting.key()), value, source }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::settings::tests::parse;

    #[test]
    fn secrets_of_a_store_are_not_printed() {
        let file = "[discovery]\netcd.password = \"pw1\"\nredis.url = \"redis://me:pw2@a:1/0\"";
        let settings = parse(file, &[]).unwrap();
        let printed =
            format!("{:?} {:?}", settings.effective(&[]), settings.config().discovery.redis);
        assert!(!printed.contains("pw1") && !printed.contains("pw2"), "{printed}");
        assert!(printed.contains("redis://***@a:1/0"), "{printed}");
    }

    #[test]
    fn secrets_of_a_store_are_not_repeated_where_they_are_wrong() {
        for (text, variables) in [
            ("redis.url = \"redi://me:s3cret@a:1/0\"", &[][..]),
            ("etcd.password = 5312345", &[]),
            ("etcd.password = 53123455312345531234", &[]),
            ("etcd.password = [\"s3cret\"]", &[]),
            ("etcd.endpoints = [\"http://me:s3cret@a b\"]", &[]),
            ("etcd.endpoints = [\"me://me:s3cret@a\"]", &[]),
            ("etcd.endpoints = [\"http://me:s3/cret@a\"]", &[]),
            ("etcd.endpoints = [\"http://me:s3cret@\"]", &[]),
            ("etcd.endpoints = \"http://me:s3cret@a\"", &[]),
            ("backend = \"redis://me:s3cret@a\"", &[]),
            ("", &[("HOST_DISCOVERY__ETCD__ENDPOINTS", "http://me:s3cret@a")]),
            ("", &[("HOST_DISCOVERY__REQUIRED", "http://me:s3cret@a")]),
        ] {
            let wrong = parse(&format!("[discovery]\n{text}"), variables).unwrap_err();
            let is_told = ["s3", "cret", "53123"].iter().any(|part| wrong.contains(part));
            assert!(!is_told, "{text} {variables:?}: {wrong}");
        }
        let wrong = parse("[discovery]\netcd.password = 5312345", &[]).unwrap_err();
        assert_eq!(wrong, "host.toml:2: discovery.etcd.password: wanted a string");
    }

    #[test]
    fn secrets_are_not_printed() {
        let file = "[otel]\nendpoint = \"http://me:pw@c:1/x\"\nheaders = { k = \"token\" }";
        let settings = parse(file, &[]).unwrap();
        let known = [Setting::new("endpoint", "", ""), Setting::new("headers", "{}", "").secret()];
        let printed = format!("{:?}", settings.effective(&known));
        assert!(!printed.contains("pw") && !printed.contains("token"), "{printed}");
        assert!(printed.contains("http://***@c:1/x"), "{printed}");
    }

    #[test]
    fn the_sample_shows_every_key_with_its_default() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/host.toml");
        let sample = Settings::load(Some(&file)).unwrap();
        let set = sample.effective(&[]);
        let defaults = parse("", &[]).unwrap().effective(&[]);
        let pairs = |lines: &[Effective]| -> Vec<(String, String)> {
            lines.iter().map(|line| (line.key.clone(), line.value.clone())).collect()
        };
        assert_eq!(pairs(&set), pairs(&defaults));
        // A table of none cannot be written; the sample shows it in comments.
        for line in set.iter().filter(|line| line.key != "route") {
            assert!(line.source.starts_with("file "), "{} is not in the sample", line.key);
        }
    }
}
