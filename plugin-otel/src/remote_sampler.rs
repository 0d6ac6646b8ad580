//! Sampling as a server tells: the sampler `jaeger_remote`.
//!
//! The server is asked for the strategy of this service, again and again, on the thread `otel-export`;
//! requests are decided by the last answer. The protocol is that of Jaeger's `/sampling`, JSON over HTTP,
//! which the OpenTelemetry collector's extension `jaegerremotesampling` speaks, too.

use std::{fmt, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Uri};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use plugin_api::{Host, Level};
use serde_json::Value;
use tokio::{select, time};

use crate::{
    config::Destination, live::Live, pipeline::Transport, rate::Rate, redact::shown_url,
    rules::Rule, sampling::Root, template::Template,
};

const TARGET: &str = "plugin_otel::sampling";

/// How many operations may have ratios of their own: each request is compared with them.
const MOST_OPERATIONS: usize = 256;

/// Where a sampler asks, and what it does until it is answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Remote {
    /// The URL of the strategies; checked, with its path.
    pub(crate) endpoint: String,
    /// How often it asks.
    pub(crate) every: Duration,
    /// The ratio until there is an answer.
    pub(crate) initial: f64,
}

impl Default for Remote {
    fn default() -> Self {
        let endpoint = "http://localhost:5778/sampling".to_owned();
        Self { endpoint, every: Duration::from_secs(60), initial: 0.001 }
    }
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Strategy {
    /// The decision where no operation has its own.
    pub(crate) root: Root,
    /// The ratios of operations, which are named as spans are: `{method} {route}`.
    pub(crate) operations: Vec<Rule>,
}

impl Strategy {
    /// Reads the body of an answer. As with protobuf's JSON, an absent number is 0.
    fn read(body: &[u8]) -> Result<Self, String> {
        let answer: Value = serde_json::from_slice(body).map_err(|_| "no JSON".to_owned())?;
        let part = |name: &str| answer.get(name).filter(|part| part.is_object());
        if let Some(part) = part("operationSampling") {
            return Self::by_operation(part);
        }
        let root = if let Some(part) = part("probabilisticSampling") {
            Root::Ratio(ratio(part, "samplingRate")?)
        } else if let Some(part) = part("rateLimitingSampling") {
            match number(part, "maxTracesPerSecond")? {
                0.0 => Root::Off,
                per_second => Root::Rate(Rate::of(per_second).into()),
            }
        } else {
            return Err("no strategy that is known".to_owned());
        };
        Ok(Self { root, operations: Vec::new() })
    }

    fn by_operation(part: &Value) -> Result<Self, String> {
        let root = Root::Ratio(ratio(part, "defaultSamplingProbability")?);
        let all = part.get("perOperationStrategies").and_then(Value::as_array);
        let all = all.into_iter().flatten().take(MOST_OPERATIONS);
        let operations: Result<Vec<_>, String> =
            all.filter_map(|one| operation(one).transpose()).collect();
        Ok(Self { root, operations: operations? })
    }
}

/// The ratio of one operation; `None` where no request has such a name before it is routed.
fn operation(of: &Value) -> Result<Option<Rule>, String> {
    let name = of.get("operation").and_then(Value::as_str).unwrap_or_default();
    let ratio = ratio(of.get("probabilisticSampling").unwrap_or(&Value::Null), "samplingRate")?;
    let Some((method, route)) = name.split_once(' ') else { return Ok(None) };
    let Ok(route) = Template::of_route(route) else { return Ok(None) };
    Ok(Some(Rule { route: Some(route), method: Some(method.to_owned()), header: None, ratio }))
}

fn ratio(part: &Value, name: &str) -> Result<f64, String> {
    number(part, name).and_then(|ratio| {
        let wanted = || format!("{name}: wanted a number from 0 to 1, found {ratio}");
        (ratio <= 1.0).then_some(ratio).ok_or_else(wanted)
    })
}

fn number(part: &Value, name: &str) -> Result<f64, String> {
    let Some(value) = part.get(name) else { return Ok(0.0) };
    let number = value.as_f64().filter(|number| *number >= 0.0);
    number.ok_or_else(|| format!("{name}: wanted a number of 0 or more"))
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
    pub(crate) live: Live,
    pub(crate) host: Host,
    /// Of this, timeout and files for TLS hold for the server, too.
    pub(crate) destination: Destination,
    /// Whose strategy is asked for.
    pub(crate) service: String,
}

impl Asker {
    /// Runs until it is dropped.
    pub(crate) async fn run(self) {
        let mut remote = self.live.remote();
        loop {
            let asked = remote.borrow_and_update().clone();
            select! {
                () = self.ask_from(asked) => return,
                changed = remote.changed() => if changed.is_err() { return },
            }
        }
    }

    /// Asks this server until dropped.
    async fn ask_from(&self, remote: Option<Remote>) {
        let Some(remote) = remote else { return std::future::pending().await };
        let server = match Server::new(self, &remote) {
            Ok(server) => server,
            Err(reason) => {
                self.tell(Level::WARN, &remote, &format!("cannot be asked: {reason}"));
                return std::future::pending().await;
            }
        };
        let mut told = Told { last: Bytes::new(), is_failing: None };
        loop {
            self.take(&remote, server.ask().await, &mut told);
            time::sleep(remote.every).await;
        }
    }

    /// Puts an answer in force, or says once why there is none.
    fn take(&self, remote: &Remote, answer: Result<Bytes, String>, told: &mut Told) {
        let read = answer.and_then(|body| {
            let is_known = told.last == body && told.is_failing.is_some();
            let strategy = if is_known { None } else { Some(Strategy::read(&body)?) };
            told.last = body;
            Ok(strategy)
        });
        match read {
            Ok(strategy) => {
                if told.is_failing.replace(false) != Some(false) {
                    self.tell(Level::INFO, remote, "says what is sampled");
                }
                if let Some(strategy) = strategy {
                    self.tell(Level::DEBUG, remote, &format!("wants {strategy}"));
                    self.live.told(remote, strategy);
                }
            }
            Err(reason) => {
                if told.is_failing.replace(true) != Some(true) {
                    let line = format!("says nothing, sampling stays as it is: {reason}");
                    self.tell(Level::WARN, remote, &line);
                }
            }
        }
    }

    fn tell(&self, level: Level, remote: &Remote, line: &str) {
        let place = shown_url(&remote.endpoint);
        self.host.log(level, TARGET, &format!("the sampling server {place} {line}"));
    }
}

/// What a server has said so far.
struct Told {
    /// The last answer that could be read.
    last: Bytes,
    /// `None` before the first answer.
    is_failing: Option<bool>,
}

struct Server {
    transport: Transport,
    url: Uri,
    timeout: Duration,
}

impl Server {
    fn new(asker: &Asker, remote: &Remote) -> Result<Self, String> {
        let destination = Destination {
            endpoint: remote.endpoint.clone(),
            // They may hold secrets, and are the collector's.
            headers: HeaderMap::new(),
            ..asker.destination.clone()
        };
        let service = utf8_percent_encode(&asker.service, NON_ALPHANUMERIC);
        let separator = if remote.endpoint.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}service={service}", remote.endpoint);
        Ok(Self {
            transport: Transport::new(&destination, false).map_err(|error| error.to_string())?,
            url: url.parse().map_err(|error| format!("{error}"))?,
            timeout: destination.timeout,
        })
    }

    async fn ask(&self) -> Result<Bytes, String> {
        let answer = time::timeout(self.timeout, self.transport.get(&self.url)).await;
        let answer = answer.map_err(|_| format!("no answer within {:?}", self.timeout))??;
        if answer.status().is_success() {
            Ok(answer.into_body().to_bytes())
        } else {
            Err(format!("it answers {}", answer.status()))
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::RequestHead;

    use super::*;
    use crate::rules::Rules;

    #[test]
    fn an_answer_is_read_as_far_as_it_is_known() {
        let some = |root| Ok(Strategy { root, operations: Vec::new() });
        for (answer, wanted) in [
            (r#"{"probabilisticSampling": {"samplingRate": 0.5}}"#, some(Root::Ratio(0.5))),
            (
                r#"{"strategyType": "PROBABILISTIC", "probabilisticSampling": {"samplingRate": 1},
                    "rateLimitingSampling": null}"#,
                some(Root::Ratio(1.0)),
            ),
            (r#"{"strategyType": 0, "probabilisticSampling": {}}"#, some(Root::Ratio(0.0))),
            (
                r#"{"strategyType": "RATE_LIMITING", "rateLimitingSampling": {"maxTracesPerSecond": 5}}"#,
                some(Root::Rate(Rate::of(5.0).into())),
            ),
            (r#"{"rateLimitingSampling": {"maxTracesPerSecond": 0}}"#, some(Root::Off)),
            (
                r#"{"operationSampling": {"defaultSamplingProbability": 0.25},
                    "probabilisticSampling": {"samplingRate": 1}}"#,
                some(Root::Ratio(0.25)),
            ),
            ("", Err("no JSON".to_owned())),
            ("<html>", Err("no JSON".to_owned())),
            ("{}", Err("no strategy that is known".to_owned())),
            ("[1]", Err("no strategy that is known".to_owned())),
            (r#"{"probabilisticSampling": 1}"#, Err("no strategy that is known".to_owned())),
            (
                r#"{"probabilisticSampling": {"samplingRate": 1.5}}"#,
                Err("samplingRate: wanted a number from 0 to 1, found 1.5".to_owned()),
            ),
            (
                r#"{"probabilisticSampling": {"samplingRate": "1"}}"#,
                Err("samplingRate: wanted a number of 0 or more".to_owned()),
            ),
            (
                r#"{"rateLimitingSampling": {"maxTracesPerSecond": -1}}"#,
                Err("maxTracesPerSecond: wanted a number of 0 or more".to_owned()),
            ),
            (
                r#"{"operationSampling": {"perOperationStrategies": [
                    {"operation": "GET /a", "probabilisticSampling": {"samplingRate": 2}}]}}"#,
                Err("samplingRate: wanted a number from 0 to 1, found 2".to_owned()),
            ),
        ] {
            assert_eq!(Strategy::read(answer.as_bytes()), wanted, "{answer}");
        }
    }

    #[test]
    fn an_operation_is_the_method_and_the_route_of_a_request() {
        let answer = r#"{"operationSampling": {
            "defaultSamplingProbability": 0.5,
            "defaultLowerBoundTracesPerSecond": 1,
            "perOperationStrategies": [
                {"operation": "GET /a/{x}", "probabilisticSampling": {"samplingRate": 1}},
                {"operation": "GET /b", "probabilisticSampling": {"samplingRate": 0.1}},
                {"operation": "GET", "probabilisticSampling": {"samplingRate": 1}},
                {"operation": "a job", "probabilisticSampling": {"samplingRate": 1}},
                {"operation": "PUT /c", "probabilisticSampling": null}
            ]}}"#;
        let strategy = Strategy::read(answer.as_bytes()).unwrap();
        let shown = "traceidratio 0.5, operations with a ratio of their own: 3";
        assert_eq!(strategy.to_string(), shown);
        let rules = Rules(strategy.operations);
        for (method, path, wanted) in [
            ("GET", "/a/1", Some(1.0)),
            ("GET", "/a", None),
            ("POST", "/a/1", None),
            ("GET", "/b", Some(0.1)),
            ("GET", "/b/c", None),
            ("PUT", "/c", Some(0.0)),
        ] {
            let ratio = rules.ratio(&RequestHead::new(method, path, &[]));
            assert_eq!(ratio, wanted, "{method} {path}");
        }
    }

    #[test]
    fn more_operations_than_anyone_has_are_left_out() {
        let one = serde_json::json!({"operation": "GET /a"});
        let answer =
            serde_json::json!({"operationSampling": {"perOperationStrategies": vec![one; 1000]}});
        let strategy = Strategy::read(answer.to_string().as_bytes()).unwrap();
        assert_eq!(strategy.operations.len(), MOST_OPERATIONS);
    }
}
