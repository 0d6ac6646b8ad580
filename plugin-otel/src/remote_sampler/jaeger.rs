//! The protocol of Jaeger's `/sampling`, JSON over HTTP, which the OpenTelemetry collector's extension
//! `jaegerremotesampling` speaks, too.

use std::convert::Infallible;

use bytes::Bytes;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::time;

use super::{
    Asker, Remote, Server, Strategy,
    numbers::{number, ratio},
};
use crate::{rate::Rate, rules::Rule, sampling::Root, template::Template};

/// How many operations may have ratios of their own: each request is compared with them.
const MOST_OPERATIONS: usize = 256;

/// Asks until dropped.
///
/// # Errors
/// Why it cannot be asked.
pub(super) async fn ask(asker: &Asker, remote: &Remote) -> Result<Infallible, String> {
    let server = Server::new(asker, remote)?;
    let service = utf8_percent_encode(&asker.service.name, NON_ALPHANUMERIC);
    let separator = if remote.endpoint.contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}service={service}", remote.endpoint);
    let url = url.parse().map_err(|error| format!("{error}"))?;
    let mut answers = None;
    let mut last = Bytes::new();
    loop {
        let answer = server.get(&url).await.and_then(|body| {
            let is_known = last == body && answers.is_some();
            let strategy = if is_known { None } else { Some(Strategy::read(&body)?) };
            last = body;
            Ok(strategy)
        });
        match answer {
            Ok(strategy) => {
                if let Some(strategy) = strategy {
                    asker.obey(remote, strategy);
                }
                asker.note(remote, &mut answers, Ok(()));
            }
            Err(reason) => asker.note(remote, &mut answers, Err(&reason)),
        }
        time::sleep(remote.every).await;
    }
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
