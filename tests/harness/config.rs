//! A host configuration, put together key by key.

use toml::{Table, Value};

use crate::artifacts;

/// The text of a `host.toml`; its addresses are filled in when the host is started.
#[derive(Clone, Debug, Default)]
pub struct Config(Table);

impl Config {
    /// Stands for the host's own base URL, whose port is not known before it starts.
    pub const OWN_URL: &str = "http://the-host-itself";

    /// A host of the service group `front` without routes and without a plugin.
    #[must_use]
    pub fn new() -> Self {
        Self::default().set("service.group", "front")
    }

    /// Sets the key at the dotted path `key`.
    ///
    /// # Panics
    /// When something on the path is not a table.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        let (tables, key) = key.rsplit_once('.').expect("a table and a key");
        let table = tables.split('.').fold(&mut self.0, |table, name| {
            let entry = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
            entry.as_table_mut().expect("a table")
        });
        table.insert(key.to_owned(), value.into());
        self
    }

    /// The instances of the service group `name`.
    #[must_use]
    pub fn group(self, name: &str, url: impl Into<String>) -> Self {
        self.set(&format!("discovery.static.{name}"), vec![url.into()])
    }

    /// A route that hands requests on, path and all.
    #[must_use]
    pub fn forward(self, path: &str, service: &str) -> Self {
        self.route(&[("path", path.into()), ("service", service.into())])
    }

    /// A route that hands requests on under another path.
    #[must_use]
    pub fn forward_as(self, path: &str, service: &str, rewrite: &str) -> Self {
        self.route(&[
            ("path", path.into()),
            ("service", service.into()),
            ("rewrite", rewrite.into()),
        ])
    }

    /// A route that answers by itself.
    #[must_use]
    pub fn respond(self, path: &str, status: u16, body: &str) -> Self {
        let mut respond = Table::new();
        respond.insert("status".into(), i64::from(status).into());
        respond.insert("body".into(), body.into());
        self.route(&[("path", path.into()), ("respond", respond.into())])
    }

    /// The `otel` plugin, required, with spans on their way at once to the OTLP `endpoint`.
    #[must_use]
    pub fn traced(self, endpoint: &str, protocol: &str) -> Self {
        self.plugin(&artifacts::plugin_otel().display().to_string())
            .set("otel.required", true)
            .set("otel.endpoint", endpoint)
            .set("otel.protocol", protocol)
            .set("otel.schedule-delay", "50ms")
    }

    /// Some plugin, switched on.
    #[must_use]
    pub fn plugin(self, library: &str) -> Self {
        self.set("otel.enabled", true).set("otel.library", library)
    }

    /// The file's text.
    ///
    /// # Panics
    /// Never: every table that this type makes can be written.
    #[must_use]
    pub fn text(&self) -> String {
        toml::to_string(&self.0).expect("a table of plain values")
    }

    fn route(mut self, keys: &[(&str, Value)]) -> Self {
        let route = keys.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
        let routes = self.0.entry("route").or_insert_with(|| Value::Array(Vec::new()));
        routes.as_array_mut().expect("an array").push(Value::Table(route));
        self
    }
}

impl From<Table> for Config {
    /// A file that someone else wrote.
    fn from(table: Table) -> Self {
        Self(table)
    }
}
