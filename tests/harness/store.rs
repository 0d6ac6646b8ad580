//! The stores of service discovery: real etcd and Redis servers.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    client::{Answer, Client},
    config::Config,
    ports::free,
    process::{Process, Signal},
    tls::{Authority, Pair},
    trial::Skipped,
    upstream::text,
    wait::until,
};

/// Which server it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// etcd.
    Etcd,
    /// Redis, which tells of changed keys.
    Redis,
    /// Redis, which does not.
    SilentRedis,
}

/// A server of its own for one test. Dropped, it is killed.
#[derive(Debug)]
pub struct Store {
    kind: Kind,
    client: SocketAddr,
    peer: SocketAddr,
    /// Where it speaks TLS, or with the other nodes of its cluster, if it does.
    secure: SocketAddr,
    folder: TempDir,
    arguments: Vec<String>,
    process: Process,
}

impl Store {
    /// Starts a server on free ports of loopback.
    ///
    /// # Errors
    /// When it is not installed.
    pub async fn start(kind: Kind) -> Result<Self, Skipped> {
        Self::with(kind, &[]).await
    }

    /// Starts a server with further arguments.
    ///
    /// # Errors
    /// When it is not installed.
    pub async fn with(kind: Kind, arguments: &[&str]) -> Result<Self, Skipped> {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        Self::at_free_ports(kind, |_, _| arguments.clone()).await
    }

    /// Starts a server that besides speaks TLS, with a certificate of `authority`, and only with
    /// clients who show one.
    ///
    /// # Errors
    /// When it is not installed.
    pub async fn secured(kind: Kind, authority: &Authority) -> Result<Self, Skipped> {
        let (ca, pair) = (authority.ca(), authority.issue("store"));
        let arguments = |client, secure| match kind {
            Kind::Etcd => secure_etcd(client, secure, &ca, &pair),
            Kind::Redis | Kind::SilentRedis => secure_redis(secure, &ca, &pair),
        };
        Self::at_free_ports(kind, arguments).await
    }

    /// Starts a node of a Redis cluster, which knows no other node yet.
    ///
    /// # Errors
    /// When it is not installed.
    pub async fn cluster_node() -> Result<Self, Skipped> {
        let arguments = |_, bus: SocketAddr| {
            let bus = bus.port().to_string();
            ["--cluster-enabled", "yes", "--cluster-port", &bus].map(str::to_owned).to_vec()
        };
        Self::at_free_ports(Kind::Redis, arguments).await
    }

    /// Has a node of a cluster come to know `other`.
    pub fn meet(&self, other: &Self) {
        let (place, bus) = (other.client, other.secure.port().to_string());
        let (host, port) = (place.ip().to_string(), place.port().to_string());
        self.command(&["CLUSTER", "MEET", &host, &port, &bus]);
    }

    /// With the further `arguments` that a server wants who listens in these two places, the second
    /// of them with TLS.
    async fn at_free_ports(
        kind: Kind,
        arguments: impl Fn(SocketAddr, SocketAddr) -> Vec<String>,
    ) -> Result<Self, Skipped> {
        let program = program(kind);
        if Command::new(program).arg("--version").output().is_err() {
            return Err(Skipped::new(&format!("{program} is not installed")));
        }
        for _ in 0..5 {
            let [client, peer, secure] = free();
            let arguments = arguments(client, secure);
            let folder = in_memory();
            let process = spawn(kind, client, peer, &folder, &arguments);
            let mut store = Self { kind, client, peer, secure, folder, arguments, process };
            if store.becomes_ready().await {
                return Ok(store);
            }
        }
        panic!("{program} does not start")
    }

    /// Which server it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Sends `signal` to the server.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Kills the server. What it holds in its files stays.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::KILL);
        self.process.end().await;
    }

    /// Starts the server again, where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn revive(&mut self) {
        self.process = spawn(self.kind, self.client, self.peer, &self.folder, &self.arguments);
        assert!(self.becomes_ready().await, "it does not start again: {:?}", self.process);
    }

    /// Starts the server again, where it was, with nothing in it.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn revive_empty(&mut self) {
        self.folder = in_memory();
        self.revive().await;
    }

    /// `config` with this store, and hosts that renew their entries every second: whoever has no time
    /// on a busy machine is not given up for dead.
    #[must_use]
    pub fn of(&self, config: Config) -> Config {
        let config = config.set("discovery.heartbeat", "1s");
        match self.kind {
            Kind::Etcd => config
                .set("discovery.backend", "etcd")
                .set("discovery.etcd.endpoints", vec![self.url()]),
            Kind::Redis | Kind::SilentRedis => config
                .set("discovery.backend", "redis")
                .set("discovery.redis.url", format!("redis://{}", self.client)),
        }
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.client)
    }

    /// Its URL with TLS, if it speaks that.
    #[must_use]
    pub fn secure_url(&self) -> String {
        let scheme = if self.kind == Kind::Etcd { "https" } else { "rediss" };
        format!("{scheme}://{}", self.secure)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.client
    }

    /// The key of what is under `path` of the default prefix: `services/group/id`.
    #[must_use]
    pub fn key(&self, path: &str) -> String {
        match self.kind {
            Kind::Etcd => format!("/host/{path}"),
            Kind::Redis | Kind::SilentRedis => format!("host:{}", path.replace('/', ":")),
        }
    }

    /// Puts `value` under `path`.
    pub async fn put(&self, path: &str, value: &str) {
        self.put_all(&[(path.to_owned(), value.to_owned())]).await;
    }

    /// Puts several values, at most 100 at once.
    pub async fn put_all(&self, pairs: &[(String, String)]) {
        match self.kind {
            Kind::Etcd => {
                let put = |(path, value): &(String, String)| json!({"request_put": {"key": self.encoded(path), "value": STANDARD.encode(value)}});
                self.transact(pairs.iter().map(put).collect()).await;
            }
            Kind::Redis | Kind::SilentRedis => {
                let keys = pairs
                    .iter()
                    .map(|(path, value)| vec!["SET".to_owned(), self.key(path), value.clone()]);
                self.commands(&keys.collect::<Vec<_>>());
            }
        }
    }

    /// Removes what is under `paths`, at most 100 at once.
    pub async fn remove_all(&self, paths: &[String]) {
        match self.kind {
            Kind::Etcd => {
                let remove =
                    |path: &String| json!({"request_delete_range": {"key": self.encoded(path)}});
                self.transact(paths.iter().map(remove).collect()).await;
            }
            Kind::Redis | Kind::SilentRedis => {
                let mut command = vec!["DEL".to_owned()];
                command.extend(paths.iter().map(|path| self.key(path)));
                self.commands(&[command]);
            }
        }
    }

    /// How many instances of `group` it holds.
    ///
    /// # Panics
    /// When it answers otherwise than it should.
    pub async fn count(&self, group: &str) -> usize {
        match self.kind {
            Kind::Etcd => {
                let (first, last) = (format!("services/{group}/"), format!("services/{group}0"));
                let range = json!({"key": self.encoded(&first), "range_end": self.encoded(&last),
                    "count_only": true});
                let answer = self.gateway("/v3/kv/range", &range).await.json();
                answer["count"].as_str().map_or(0, |count| count.parse().expect("a number"))
            }
            Kind::Redis | Kind::SilentRedis => {
                let keys = self.key(&format!("services/{group}/*"));
                let answer = self.commands(&[vec!["KEYS".to_owned(), keys]]);
                let count = answer.strip_prefix('*').and_then(|rest| rest.split_once('\r'));
                count.unwrap_or_else(|| panic!("{answer:?}")).0.parse().expect("a number")
            }
        }
    }

    /// Asks etcd's gateway.
    pub async fn gateway(&self, path: &str, body: &Value) -> Answer {
        let url = format!("http://{}{path}", self.client);
        Client::http1().call(Method::POST, &url).body(text(body.to_string())).send().await
    }

    /// Sends a command to Redis, and returns the answer.
    ///
    /// # Panics
    /// When Redis is gone, or refuses it.
    pub fn command(&self, words: &[&str]) -> String {
        self.commands(&[words.iter().map(|word| (*word).to_owned()).collect()])
    }

    /// Has Redis answer nobody for so long.
    ///
    /// # Panics
    /// When Redis is gone, or refuses.
    pub fn pause(&self, time: Duration) {
        let mut stream = TcpStream::connect(self.client).expect("a redis that listens");
        let command = format!("CLIENT PAUSE {} ALL\r\n", time.as_millis());
        stream.write_all(command.as_bytes()).expect("a redis that reads");
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"+OK\r\n");
    }

    /// Sends commands to Redis in one go, and returns the whole answer.
    ///
    /// # Panics
    /// When Redis is gone, or refuses one.
    pub fn commands(&self, commands: &[Vec<String>]) -> String {
        const END: &str = "+PONG\r\n";
        let mut stream = TcpStream::connect(self.client).expect("a redis that listens");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let mut text = String::new();
        // A sentinel knows no QUIT.
        for words in commands.iter().chain([&vec!["PING".to_owned()]]) {
            text += &format!("*{}\r\n", words.len());
            for word in words {
                text += &format!("${}\r\n{word}\r\n", word.len());
            }
        }
        stream.write_all(text.as_bytes()).expect("a redis that reads");
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(END.as_bytes()) {
            let length = stream.read(&mut part).expect("an answer");
            assert!(length > 0, "{answer:?} and no more");
            answer.extend_from_slice(&part[..length]);
        }
        let answer = String::from_utf8(answer).expect("text");
        assert!(!answer.starts_with('-') && !answer.contains("\r\n-"), "{answer}");
        answer
    }

    async fn transact(&self, operations: Vec<Value>) {
        let answer = self.gateway("/v3/kv/txn", &json!({"success": operations})).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn encoded(&self, path: &str) -> String {
        STANDARD.encode(self.key(path))
    }

    async fn becomes_ready(&mut self) -> bool {
        let (kind, address, process) = (self.kind, self.client, &mut self.process);
        until("the store to be ready", async || {
            if process.has_ended() {
                return Some(false);
            }
            if kind != Kind::Etcd {
                return TcpStream::connect(address).is_ok().then_some(true);
            }
            let client = Client::http1();
            let answer = client.get(&format!("http://{address}/health")).open().await.ok()?;
            (Answer::read(answer).await.text().contains("true")).then_some(true)
        })
        .await
    }
}

/// A folder for what the server writes; it waits for each write, which takes long on a busy disk.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a temporary folder")
}

const fn program(kind: Kind) -> &'static str {
    match kind {
        Kind::Etcd => "etcd",
        Kind::Redis | Kind::SilentRedis => "redis-server",
    }
}

fn secure_etcd(client: SocketAddr, secure: SocketAddr, ca: &Path, pair: &Pair) -> Vec<String> {
    // In place of the one address that every etcd here is told of.
    let urls = format!("http://{client},https://{secure}");
    let files = [("--trusted-ca-file", ca), ("--cert-file", &pair.cert), ("--key-file", &pair.key)];
    let files = files.map(|(name, file)| [name.to_owned(), file.display().to_string()]);
    let rest = ["--client-cert-auth".to_owned(), "--listen-client-urls".to_owned(), urls];
    files.into_iter().flatten().chain(rest).collect()
}

fn secure_redis(secure: SocketAddr, ca: &Path, pair: &Pair) -> Vec<String> {
    let files = [
        ("--tls-ca-cert-file", ca),
        ("--tls-cert-file", &pair.cert),
        ("--tls-key-file", &pair.key),
    ];
    let files = files.map(|(name, file)| [name.to_owned(), file.display().to_string()]);
    let port = ["--tls-port".to_owned(), secure.port().to_string()];
    files.into_iter().flatten().chain(port).collect()
}

fn spawn(
    kind: Kind,
    client: SocketAddr,
    peer: SocketAddr,
    folder: &TempDir,
    arguments: &[String],
) -> Process {
    let mut command = Command::new(program(kind));
    command.current_dir(folder.path());
    match kind {
        Kind::Etcd => {
            let (client, peer) = (format!("http://{client}"), format!("http://{peer}"));
            command.args(["--data-dir", "data", "--initial-cluster", &format!("default={peer}")]);
            command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
            command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        }
        Kind::Redis | Kind::SilentRedis => {
            let events = if kind == Kind::Redis { "Kg$x" } else { "" };
            // A sentinel keeps what it knows there.
            std::fs::write(folder.path().join("redis.conf"), "").expect("a writable folder");
            command.args(["redis.conf", "--bind", "127.0.0.1"]);
            command.args(["--port", &client.port().to_string()]);
            command.args(["--save", "", "--notify-keyspace-events", events]);
        }
    }
    Process::spawn(command.args(arguments))
}
