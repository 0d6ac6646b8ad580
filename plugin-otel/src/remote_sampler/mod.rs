//! Sampling as a server tells: the samplers `jaeger_remote` and `xray`.
//!
//! The server is asked what is sampled of this service, again and again, on the thread `otel-export`;
//! requests are decided by the last answer.

mod documents;
mod jaeger;
mod numbers;
mod proto;
mod service;
mod xray;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response, Uri};
use http_body_util::Collected;
use opentelemetry_sdk::Resource;
use plugin_api::{Host, Level};
use tokio::{select, time};

use self::service::Service;
use crate::{
    config::Destination, live::Live, pipeline::Transport, redact::shown_url, rules::Rule,
    sampling::Root, xray::Manifest,
};

const TARGET: &str = "plugin_otel::sampling";

/// Where a sampler asks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remote {
    /// The URL of the server; checked. For Jaeger's protocol, with its path over HTTP; with the scheme
    /// `grpc`, or `grpcs` over TLS, it is asked over gRPC.
    pub(crate) endpoint: String,
    /// How often it asks.
    pub(crate) every: Duration,
    pub(crate) dialect: Dialect,
}

/// How it asks, and what it does until it is answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Dialect {
    Jaeger {
        /// The ratio until there is an answer.
        initial: f64,
    },
    /// Of AWS X-Ray's centralized sampling.
    Xray,
}

impl Remote {
    pub(crate) fn jaeger() -> Self {
        let endpoint = "http://localhost:5778/sampling".to_owned();
        let dialect = Dialect::Jaeger { initial: 0.001 };
        Self { endpoint, every: Duration::from_secs(60), dialect }
    }

    pub(crate) fn xray() -> Self {
        let endpoint = "http://localhost:2000".to_owned();
        Self { endpoint, every: Duration::from_secs(300), dialect: Dialect::Xray }
    }

    /// The decision until there is an answer.
    pub(crate) fn root(&self) -> Root {
        match self.dialect {
            Dialect::Jaeger { initial } => Root::Ratio(initial),
            Dialect::Xray => Root::Xray(Arc::new(Manifest::default())),
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.dialect {
            Dialect::Jaeger { .. } => "jaeger_remote",
            Dialect::Xray => "xray",
        };
        write!(f, "{name} {}", shown_url(&self.endpoint))
    }
}

/// What a server wants.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Strategy {
    /// The decision where no operation has its own.
    pub(crate) root: Root,
    /// The ratios of operations, which are named as spans are: `{method} {route}`.
    pub(crate) operations: Vec<Rule>,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.fmt(f)?;
        match self.operations.len() {
            0 => Ok(()),
            count => write!(f, ", operations with a ratio of their own: {count}"),
        }
    }
}

/// Asks as long as, and where, the sampler in force says.
pub(crate) struct Asker {
    live: Live,
    host: Host,
    destination: Destination,
    service: Service,
}

impl Asker {
    /// Asks for the service that `resource` describes. Of the collector's `destination`, timeout and
    /// files for TLS hold for the server, too.
    pub(crate) fn new(
        live: Live,
        host: Host,
        destination: Destination,
        resource: &Resource,
    ) -> Self {
        Self { live, host, destination, service: Service::of(resource) }
    }

    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut remote = self.live.remote();
        loop {
            let asked = remote.borrow_and_update().clone();
            select! {
                () = self.ask(asked) => return,
                changed = remote.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks this server until dropped.
    async fn ask(&self, remote: Option<Remote>) {
        if let Some(remote) = remote {
            let Err(reason) = match remote.dialect {
                Dialect::Jaeger { .. } => jaeger::ask(self, &remote).await,
                Dialect::Xray => xray::ask(self, &remote).await,
            };
            self.tell(Level::WARN, &remote, &format!("cannot be asked: {reason}"));
        }
        std::future::pending::<()>().await;
    }

    /// Says once whether the server answers, and again each time that it changes.
    fn note(&self, remote: &Remote, answers: &mut Option<bool>, answer: Result<(), &str>) {
        if answers.replace(answer.is_ok()) == Some(answer.is_ok()) {
            return;
        }
        match answer {
            Ok(()) => self.tell(Level::INFO, remote, "says what is sampled"),
            Err(reason) => {
                let line = format!("says nothing, sampling stays as it is: {reason}");
                self.tell(Level::WARN, remote, &line);
            }
        }
    }

    /// Puts what the server wants in force.
    fn obey(&self, remote: &Remote, strategy: Strategy) {
        self.tell(Level::DEBUG, remote, &format!("wants {strategy}"));
        self.live.told(remote, strategy);
    }

    /// The server at this URL, with the collector's timeout and files for TLS.
    fn destination(&self, endpoint: String) -> Destination {
        // The headers may hold secrets, and are the collector's.
        Destination { endpoint, headers: HeaderMap::new(), gzip: false, ..self.destination.clone() }
    }

    fn tell(&self, level: Level, remote: &Remote, line: &str) {
        let place = shown_url(&remote.endpoint);
        self.host.log(level, TARGET, &format!("the sampling server {place} {line}"));
    }
}

/// A server that is asked over HTTP.
struct Server {
    transport: Transport,
    timeout: Duration,
}

impl Server {
    fn new(asker: &Asker, remote: &Remote) -> Result<Self, String> {
        let destination = asker.destination(remote.endpoint.clone());
        let transport = Transport::new(&destination, false).map_err(|error| error.to_string())?;
        Ok(Self { transport, timeout: destination.timeout })
    }

    async fn get(&self, url: &Uri) -> Result<Bytes, String> {
        self.answer(self.transport.get(url)).await
    }

    async fn post(&self, url: &Uri, json: String) -> Result<Bytes, String> {
        self.answer(self.transport.post(url, json)).await
    }

    async fn answer(
        &self,
        answer: impl Future<Output = Result<Response<Collected<Bytes>>, String>>,
    ) -> Result<Bytes, String> {
        let answer = within(self.timeout, answer).await?;
        if answer.status().is_success() {
            Ok(answer.into_body().to_bytes())
        } else {
            Err(format!("it answers {}", answer.status()))
        }
    }
}

/// The answer, where it comes in time.
async fn within<T>(
    timeout: Duration,
    answer: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let answer = time::timeout(timeout, answer).await;
    answer.map_err(|_| format!("no answer within {timeout:?}"))?
}
