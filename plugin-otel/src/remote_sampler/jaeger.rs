//! The protocol of Jaeger's remote sampling: JSON over HTTP (`/sampling`), or protobuf over gRPC. The
//! OpenTelemetry collector's extension `jaegerremotesampling` speaks both, too.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use prost::Message as _;
use serde_json::Value;
use tokio::time;

use super::{
    Asker, Remote, Server, Strategy,
    numbers::{number, ratio},
    proto::{self, Parameters},
    within,
};
use crate::{pipeline::Grpc, rate::Rate, rules::Rule, sampling::Root, template::Template};

/// How many operations may have ratios of their own: each request is compared with them.
const MOST_OPERATIONS: usize = 256;

/// Asks until dropped.
///
/// # Errors
/// Why it cannot be asked.
pub(super) async fn ask(asker: &Asker, remote: &Remote) -> Result<Infallible, String> {
    let question = Question::new(asker, remote)?;
    let mut answers = None;
    let mut last: Option<(Bytes, Strategy)> = None;
    loop {
        let answer = question.ask().await.and_then(|body| {
            if last.as_ref().is_some_and(|(known, _)| *known == body) {
                return Ok(());
            }
            let mut strategy = Strategy::read(&question.json(&body)?)?;
            if let Some((_, last)) = &last {
                strategy = strategy.after(last);
            }
            asker.obey(remote, strategy.clone());
            last = Some((body, strategy));
            Ok(())
        });
        asker.note(remote, &mut answers, answer.as_ref().copied().map_err(String::as_str));
        time::sleep(remote.every).await;
    }
}

/// What is asked, and how.
enum Question {
    Http { server: Server, url: Uri },
    Grpc { client: Grpc, parameters: Bytes, timeout: Duration },
}

impl Question {
    fn new(asker: &Asker, remote: &Remote) -> Result<Self, String> {
        let service = &asker.service.name;
        if let Some(rest) = remote.endpoint.strip_prefix("grpc") {
            let destination = asker.destination(format!("http{rest}"));
            let client =
                Grpc::new(proto::METHOD, &destination).map_err(|error| error.to_string())?;
            let parameters = Parameters { service_name: service.clone() }.encode_to_vec().into();
            return Ok(Self::Grpc { client, parameters, timeout: destination.timeout });
        }
        let server = Server::new(asker, remote)?;
        let service = utf8_percent_encode(service, NON_ALPHANUMERIC);
        let separator = if remote.endpoint.contains('?') { '&' } else { '?' };
        let url = format!("{}{separator}service={service}", remote.endpoint);
        Ok(Self::Http { server, url: url.parse().map_err(|error| format!("{error}"))? })
    }

    /// The body of an answer.
    async fn ask(&self) -> Result<Bytes, String> {
        match self {
            Self::Http { server, url } => server.get(url).await,
            Self::Grpc { client, parameters, timeout } => {
                let call = client.call(vec![parameters.clone()]);
                within(*timeout, async { call.await.map_err(|failure| failure.reason) }).await
            }
        }
    }

    /// What it says, in JSON.
    fn json(&self, body: &[u8]) -> Result<Value, String> {
        match self {
            Self::Http { .. } => serde_json::from_slice(body).map_err(|_| "no JSON".to_owned()),
            Self::Grpc { .. } => {
                let answer = proto::Answer::decode(body);
                answer.map(|answer| answer.to_json()).map_err(|error| error.to_string())
            }
        }
    }
}

impl Strategy {
    /// Reads an answer. As with protobuf's JSON, an absent number is 0.
    fn read(answer: &Value) -> Result<Self, String> {
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
        let at_least = number(part, "defaultLowerBoundTracesPerSecond")?;
        let all = part.get("perOperationStrategies").and_then(Value::as_array);
        let all = all.into_iter().flatten().take(MOST_OPERATIONS);
        let operations: Result<Vec<_>, String> =
            all.filter_map(|one| operation(one, at_least).transpose()).collect();
        Ok(Self { root, operations: operations? })
    }

    /// The same, where `last` was in force: what stays of it does not begin anew.
    fn after(mut self, last: &Self) -> Self {
        for rule in &mut self.operations {
            let stays = |old: &&Rule| {
                (&old.method, &old.route, &old.at_least)
                    == (&rule.method, &rule.route, &rule.at_least)
            };
            if let Some(old) = last.operations.iter().find(stays) {
                rule.at_least.clone_from(&old.at_least);
            }
        }
        self
    }
}

/// What one operation has of its own, with at least so many a second; `None` where no request has
/// such a name before it is routed.
fn operation(of: &Value, at_least: f64) -> Result<Option<Rule>, String> {
    let name = of.get("operation").and_then(Value::as_str).unwrap_or_default();
    let ratio = ratio(of.get("probabilisticSampling").unwrap_or(&Value::Null), "samplingRate")?;
    let Some((method, route)) = name.split_once(' ') else { return Ok(None) };
    let Ok(route) = Template::of_route(route) else { return Ok(None) };
    let (route, method) = (Some(route), Some(method.to_owned()));
    let at_least = (at_least > 0.0).then(|| Arc::new(Rate::of(at_least)));
    Ok(Some(Rule { route, method, header: None, ratio, at_least }))
}

#[cfg(test)]
mod tests {
    use plugin_api::RequestHead;

    use super::*;
    use crate::rules::Rules;

    fn read(answer: &str) -> Result<Strategy, String> {
        Strategy::read(&serde_json::from_str(answer).unwrap())
    }

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
            assert_eq!(read(answer), wanted, "{answer}");
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
        let strategy = read(answer).unwrap();
        let shown = "traceidratio 0.5, operations with a ratio of their own: 3";
        assert_eq!(strategy.to_string(), shown);
        let bound = Some(Arc::new(Rate::of(1.0)));
        assert!(strategy.operations.iter().all(|rule| rule.at_least == bound), "{strategy:?}");
        let rules = Rules(strategy.operations);
        for (method, path, wanted) in [
            ("GET", "/a/1", Some(1.0)),
            ("GET", "/a", None),
            ("POST", "/a/1", None),
            ("GET", "/b", Some(0.1)),
            ("GET", "/b/c", None),
            ("PUT", "/c", Some(0.0)),
        ] {
            let rule = rules.first(&RequestHead::new(method, path, &[]));
            assert_eq!(rule.map(|rule| rule.ratio), wanted, "{method} {path}");
        }
    }

    #[test]
    fn what_is_left_of_a_bound_outlives_a_new_ratio_and_not_a_new_bound() {
        let strategy = |ratio: u8, bound: f64| {
            let answer = serde_json::json!({"operationSampling": {
                "defaultLowerBoundTracesPerSecond": bound,
                "perOperationStrategies": [
                    {"operation": "GET /a", "probabilisticSampling": {"samplingRate": ratio}}]}});
            Strategy::read(&answer).unwrap()
        };
        let takes = |strategy: &Strategy| {
            strategy.operations[0].at_least.as_ref().is_some_and(|rate| rate.takes())
        };
        // So seldom that no time passes for it in a test.
        let first = strategy(0, 1e-3);
        assert!(takes(&first) && !takes(&first));
        let second = strategy(1, 1e-3).after(&first);
        assert!(!takes(&second) && second.operations[0].ratio >= 1.0, "{second:?}");
        assert!(takes(&strategy(1, 2e-3).after(&second)));
        assert!(!takes(&strategy(0, 0.0)), "no bound");
    }

    #[test]
    fn more_operations_than_anyone_has_are_left_out() {
        let one = serde_json::json!({"operation": "GET /a"});
        let answer =
            serde_json::json!({"operationSampling": {"perOperationStrategies": vec![one; 1000]}});
        let strategy = Strategy::read(&answer).unwrap();
        assert_eq!(strategy.operations.len(), MOST_OPERATIONS);
    }
}
