//! Jaeger's `sampling.proto` (`jaeger.api_v2`), as far as it counts here.

use prost::Message;
use serde_json::{Value, json};

/// The method that is called.
pub(super) const METHOD: &str = "jaeger.api_v2.SamplingManager/GetSamplingStrategy";

/// `SamplingStrategyParameters`
#[derive(Clone, PartialEq, Eq, Message)]
pub(super) struct Parameters {
    #[prost(string, tag = "1")]
    pub(super) service_name: String,
}

/// `SamplingStrategyResponse`, without the type of its strategy: the one that is there says it.
#[derive(Clone, PartialEq, Message)]
pub(super) struct Answer {
    #[prost(message, optional, tag = "2")]
    probabilistic: Option<Probabilistic>,
    #[prost(message, optional, tag = "3")]
    rate_limiting: Option<RateLimiting>,
    #[prost(message, optional, tag = "4")]
    by_operation: Option<ByOperation>,
}

/// `ProbabilisticSamplingStrategy`
#[derive(Clone, Copy, PartialEq, Message)]
struct Probabilistic {
    #[prost(double, tag = "1")]
    sampling_rate: f64,
}

/// `RateLimitingSamplingStrategy`
#[derive(Clone, Copy, PartialEq, Eq, Message)]
struct RateLimiting {
    #[prost(int32, tag = "1")]
    max_traces_per_second: i32,
}

/// `PerOperationSamplingStrategies`. Its field 4, an upper bound, is not read.
#[derive(Clone, PartialEq, Message)]
struct ByOperation {
    #[prost(double, tag = "1")]
    default_sampling_probability: f64,
    #[prost(double, tag = "2")]
    default_lower_bound_traces_per_second: f64,
    #[prost(message, repeated, tag = "3")]
    strategies: Vec<Operation>,
}

/// `OperationSamplingStrategy`
#[derive(Clone, PartialEq, Message)]
struct Operation {
    #[prost(string, tag = "1")]
    operation: String,
    #[prost(message, optional, tag = "2")]
    probabilistic: Option<Probabilistic>,
}

impl Answer {
    /// The same as it is said over HTTP, so that both are read alike.
    pub(super) fn to_json(&self) -> Value {
        let by_operation = self.by_operation.as_ref().map(|part| {
            let strategies = part.strategies.iter().map(|one| {
                json!({"operation": one.operation, "probabilisticSampling": ratio(one.probabilistic)})
            });
            json!({
                "defaultSamplingProbability": part.default_sampling_probability,
                "defaultLowerBoundTracesPerSecond": part.default_lower_bound_traces_per_second,
                "perOperationStrategies": strategies.collect::<Vec<_>>(),
            })
        });
        let rate = self.rate_limiting.map(|part| part.max_traces_per_second);
        json!({
            "probabilisticSampling": ratio(self.probabilistic),
            "rateLimitingSampling": rate.map(|rate| json!({"maxTracesPerSecond": rate})),
            "operationSampling": by_operation,
        })
    }
}

fn ratio(part: Option<Probabilistic>) -> Option<Value> {
    part.map(|part| json!({"samplingRate": part.sampling_rate}))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are written out, by the numbers of `sampling.proto`.
    #[test]
    fn an_answer_in_protobuf_is_the_one_in_json() {
        let half: [u8; 9] = [0x09, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f];
        let two: [u8; 9] = [0x11, 0, 0, 0, 0, 0, 0, 0, 0x40];
        let ratio = [&[0x12, 9][..], &half].concat();
        let named = [&[0x0a, 6][..], b"GET /a", &ratio].concat();
        let listed = [&[0x1a, 19][..], &named].concat();
        // An upper bound, which is not read.
        let upper: [u8; 9] = [0x21, 0, 0, 0, 0, 0, 0, 0, 0x40];
        let by_operation = [&[0x22, 48][..], &half, &two, &listed, &upper].concat();
        let limited = [0x08, 1, 0x1a, 2, 0x08, 5];
        for (bytes, wanted) in [
            (vec![], json!({})),
            (ratio, json!({"probabilisticSampling": {"samplingRate": 0.5}})),
            (vec![0x12, 0], json!({"probabilisticSampling": {"samplingRate": 0.0}})),
            (limited.into(), json!({"rateLimitingSampling": {"maxTracesPerSecond": 5}})),
            (
                by_operation,
                json!({"operationSampling": {
                    "defaultSamplingProbability": 0.5,
                    "defaultLowerBoundTracesPerSecond": 2.0,
                    "perOperationStrategies": [
                        {"operation": "GET /a", "probabilisticSampling": {"samplingRate": 0.5}}
                    ],
                }}),
            ),
        ] {
            let mut json = Answer::decode(&*bytes).unwrap().to_json();
            json.as_object_mut().unwrap().retain(|_, part| !part.is_null());
            assert_eq!(json, wanted, "{bytes:?}");
        }
    }

    #[test]
    fn the_parameters_name_the_service() {
        let parameters = Parameters { service_name: "front".to_owned() };
        assert_eq!(parameters.encode_to_vec(), b"\x0a\x05front");
    }
}
