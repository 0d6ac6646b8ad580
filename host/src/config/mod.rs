//! The configuration: what an operator may set, with every default.
//!
//! A value comes from the file, from the environment, or is the default here. [`Settings::load`]
//! reads them in that order of increasing weight: default, file, environment.

mod de;
mod error;
mod fragment;
mod redis_url;
mod secret;
mod settings;
mod tree;
mod value;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use fragment::Fragment;
pub use redis_url::RedisUrl;
pub(crate) use redis_url::Topology;
pub use settings::{Effective, Settings};
pub use tree::Origin;
pub use value::{BaseUrl, LogFilter, StatusCode};

/// Every setting of the host itself, typed and checked. The plugin's own are not among them.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// Who this instance is.
    pub service: Service,
    /// The public listener and its limits.
    pub server: Server,
    /// The operator's listener.
    pub admin: Admin,
    /// What is logged, and how.
    pub log: Log,
    /// Where other services are found.
    pub discovery: Discovery,
    /// Calls to other services.
    pub client: Client,
    /// What is answered, in no particular order: the most specific path wins.
    pub route: Vec<Route>,
    /// The tracing plugin.
    pub otel: Otel,
}

impl Config {
    /// Lets relative paths of certificates start at `folder`.
    fn start_paths_at(&mut self, folder: &Path) {
        let server = self.server.tls.iter_mut();
        let server = server
            .flat_map(|tls| [&mut tls.cert, &mut tls.key].into_iter().chain(&mut tls.client_ca));
        let stores = self.discovery.etcd.tls.files().chain(self.discovery.redis.tls.files());
        for file in server.chain(self.client.tls.files()).chain(stores) {
            *file = folder.join(&file);
        }
    }
}

/// `[service]`: who this instance is.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Service {
    /// The service group; OpenTelemetry's `service.name`.
    pub group: String,
    /// The instance's name; `<group>-<hostname>` when empty.
    pub name: String,
    /// What is said of the instance in the store: a zone, a rack.
    pub labels: BTreeMap<String, String>,
}

impl Default for Service {
    fn default() -> Self {
        Self { group: "host".to_owned(), name: String::new(), labels: BTreeMap::new() }
    }
}

impl Service {
    /// Gives the instance the name that it has when nobody named it.
    fn complete(&mut self) {
        if self.name.is_empty() {
            let system = rustix::system::uname();
            self.name = format!("{}-{}", self.group, system.nodename().to_string_lossy());
        }
    }
}

/// `[server]`: the public listener and its limits.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Server {
    /// Where requests are accepted, HTTP/1.1 and HTTP/2 alike.
    pub listen: SocketAddr,
    /// Serves TLS in place of plain text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<ServerTls>,
    /// A request without a response head by then is answered with 504.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Requests past this many at once are answered with 503; one counts until its response head.
    pub max_in_flight: NonZeroUsize,
    /// How long a stop waits for open requests.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            tls: None,
            request_timeout: Duration::from_secs(30),
            max_in_flight: const { NonZeroUsize::new(10_000).unwrap() },
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// `server.tls`: who the host is, and whom it lets in. Files in PEM; relative paths start at the
/// configuration file's folder.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServerTls {
    /// The certificate, and behind it those that lead to its root.
    pub cert: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// Authorities: only clients with a certificate of theirs are let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

/// A `tls` table for connections to others: whom they trust, and what they show of themselves.
/// Files in PEM; relative paths start at the configuration file's folder.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ClientTls {
    /// The authorities that are trusted, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The client's certificate, and behind it those that lead to its root.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

impl ClientTls {
    fn is_given(&self) -> bool {
        self.ca.is_some() || self.cert.is_some() || self.key.is_some()
    }

    fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        [&mut self.ca, &mut self.cert, &mut self.key].into_iter().flatten()
    }
}

/// `[admin]`: the operator's listener.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Admin {
    /// Where `/healthz` and its siblings are served.
    pub listen: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8081)) }
    }
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Log {
    /// A level, or directives as `tracing_subscriber::EnvFilter` reads them.
    pub level: LogFilter,
    /// How a line looks.
    pub format: LogFormat,
    /// Whether each request is a line.
    pub access: bool,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// `[discovery]`: where other services are found.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Discovery {
    /// Which store is asked.
    pub backend: Backend,
    /// How often this instance's entry is renewed, at least; it expires after three times that.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// How long a start waits for the store.
    #[serde(with = "humantime_serde")]
    pub start_timeout: Duration,
    /// Whether the host refuses to start without the store.
    pub required: bool,
    /// The URL that others reach this instance by; where it listens when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<BaseUrl>,
    /// The instances of each service group; those of the same group in a store come before them.
    pub r#static: BTreeMap<String, Vec<BaseUrl>>,
    /// The `etcd` backend.
    pub etcd: Etcd,
    /// The `redis` backend.
    pub redis: Redis,
}

impl Default for Discovery {
    fn default() -> Self {
        Self {
            backend: Backend::default(),
            heartbeat: Duration::from_secs(10),
            start_timeout: Duration::from_secs(10),
            required: true,
            advertise: None,
            r#static: BTreeMap::new(),
            etcd: Etcd::default(),
            redis: Redis::default(),
        }
    }
}

/// Which store is asked for instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// The configuration itself.
    #[default]
    Static,
    /// An etcd cluster.
    Etcd,
    /// A Redis server.
    Redis,
}

/// `[discovery.etcd]`: an etcd cluster.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Etcd {
    /// Its members; the next is asked when one does not answer.
    pub endpoints: Vec<BaseUrl>,
    /// What every key starts with.
    pub prefix: String,
    /// The user; nobody in particular when empty.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// How `https` members are connected to.
    pub tls: ClientTls,
}

impl Default for Etcd {
    fn default() -> Self {
        let endpoint = BaseUrl::try_from("http://127.0.0.1:2379".to_owned());
        Self {
            endpoints: endpoint.into_iter().collect(),
            prefix: "/host".to_owned(),
            user: String::new(),
            password: String::new(),
            tls: ClientTls::default(),
        }
    }
}

/// `[discovery.redis]`: a Redis server, the one that sentinels name, or a cluster.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Redis {
    /// Where it is, with user, password and the number of the database, if there are any.
    pub url: RedisUrl,
    /// What every key starts with; in a cluster with a hash tag, so that one node has all keys.
    pub prefix: String,
    /// How a `rediss` server is connected to.
    pub tls: ClientTls,
}

impl Default for Redis {
    fn default() -> Self {
        Self { url: RedisUrl::default(), prefix: "host".to_owned(), tls: ClientTls::default() }
    }
}

/// `[client]`: calls to other services.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Client {
    /// How long a connection may take to be made.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Connections to `https` instances.
    pub tls: ClientTls,
    /// How long a response head may take to come.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How often a call that was not answered is made again.
    pub retries: u32,
    /// So many connections in a row that could not be made eject an instance; 0: never.
    pub eject_after: u32,
    /// How long the first ejection lasts; each that follows it without an answer lasts twice as
    /// long, up to a minute.
    #[serde(with = "humantime_serde")]
    pub eject_for: Duration,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(2),
            tls: ClientTls::default(),
            request_timeout: Duration::from_secs(30),
            retries: 2,
            eject_after: 3,
            eject_for: Duration::from_secs(1),
        }
    }
}

/// `[[route]]`: one path and what it leads to.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Route {
    /// The template, `{name}` standing for one segment and `{*name}` for all that remain.
    pub path: String,
    /// The service group to forward to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The path at the service, with the same names; the path as it came when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite: Option<String>,
    /// What to answer, in place of a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub respond: Option<Respond>,
}

/// A response that the host gives by itself.
#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Respond {
    /// The status code.
    pub status: StatusCode,
    /// The text, the route's `{name}`s replaced.
    pub body: String,
}

/// `[otel]`: the tracing plugin. Every other key of the table is the plugin's own.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Otel {
    /// Whether the library is opened at all.
    pub enabled: bool,
    /// The library: a bare name is looked for next to the binary, a path starts at the
    /// configuration file's folder.
    pub library: String,
    /// Whether the host refuses to start without it.
    pub required: bool,
    /// The library's SHA-256 in hex; any other file is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Otel {
    /// The keys of `[otel]` that are the host's.
    pub(crate) const KEYS: [&'static str; 4] = ["enabled", "library", "required", "sha256"];
}

impl Default for Otel {
    fn default() -> Self {
        Self {
            enabled: false,
            library: "libplugin_otel.so".to_owned(),
            required: false,
            sha256: None,
        }
    }
}
