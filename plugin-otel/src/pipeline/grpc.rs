//! gRPC, as collectors and sampling servers speak it: one unary call is a POST over HTTP/2 with five
//! bytes before the message and the outcome in the trailers.

use std::time::Duration;

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version,
    header::{CONTENT_TYPE, TE},
};
use http_body_util::Collected;
use percent_encoding::percent_decode_str;
use plugin_api::PluginError;
use prost::Message;

use super::{
    export::Failure,
    transport::{self, Transport},
};
use crate::config::Destination;

const GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");

/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// The names of gRPC's status codes, by their numbers.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Calls one method.
#[derive(Debug)]
pub(crate) struct Grpc {
    transport: Transport,
    uri: Uri,
}

impl Grpc {
    /// A client of this method (`package.Service/Method`) as the settings ask.
    ///
    /// # Errors
    /// What is wrong with the endpoint or a file for TLS.
    pub(crate) fn new(method: &str, destination: &Destination) -> Result<Self, PluginError> {
        let base = destination.endpoint.trim_end_matches('/');
        let uri = format!("{base}/{method}");
        Ok(Self {
            transport: Transport::new(destination, true)?,
            uri: uri.parse().map_err(|error| PluginError::setting("endpoint", error))?,
        })
    }

    /// Sends the message that these parts make; answers with the message that comes back.
    ///
    /// # Errors
    /// Why the collector did not take it.
    pub(crate) async fn call(&self, parts: Vec<Bytes>) -> Result<Bytes, Failure> {
        let gzip = self.transport.gzip();
        let mut parts = self.transport.compress(parts)?;
        let length: usize = parts.iter().map(Bytes::len).sum();
        let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
        let prefix: [u8; PREFIX] = [u8::from(gzip), length[0], length[1], length[2], length[3]];
        parts.insert(0, Bytes::copy_from_slice(&prefix));
        let mut request = Request::new(parts.into());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_2;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        if gzip {
            headers.insert(GRPC_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.transport.send(request).await.and_then(judge)
    }
}

/// What an answer means: its message, where the call went well.
fn judge(answer: Response<Collected<Bytes>>) -> Result<Bytes, Failure> {
    let (head, body) = answer.into_parts();
    let trailers = body.trailers().cloned().unwrap_or_default();
    // A call that fails at once has its outcome in the headers.
    let outcome = [&trailers, &head.headers].into_iter().find(|map| map.contains_key(GRPC_STATUS));
    let Some(outcome) = outcome else { return Err(without_outcome(head.status)) };
    let code = outcome.get(GRPC_STATUS).and_then(|value| value.to_str().ok()?.parse().ok());
    match code {
        // A flag and the length come before it; an answer of nothing is an empty message.
        Some(0) => {
            let mut body = body.to_bytes();
            Ok(body.split_off(body.len().min(PREFIX)))
        }
        code => Err(failure(code.unwrap_or(2), outcome)),
    }
}

/// Something between here and the collector answered, or what answers speaks no gRPC.
fn without_outcome(status: StatusCode) -> Failure {
    let reason = format!("the server answers {status} without a gRPC status");
    match status.as_u16() {
        429 | 502 | 503 | 504 => Failure::passing(reason),
        _ => Failure::lasting(reason),
    }
}

fn failure(code: usize, outcome: &HeaderMap) -> Failure {
    let name = CODES.get(code).copied().unwrap_or("an unknown code");
    let text = outcome.get(GRPC_MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let message = transport::shown(&percent_decode_str(&text).decode_utf8_lossy());
    let separator = if message.is_empty() { "" } else { ": " };
    let reason = format!("the server answers {name}{separator}{message}");
    let wait = outcome.get(GRPC_DETAILS).and_then(|value| retry_delay(value.as_bytes()));
    match (name, wait) {
        (
            "CANCELLED" | "DEADLINE_EXCEEDED" | "ABORTED" | "OUT_OF_RANGE" | "UNAVAILABLE"
            | "DATA_LOSS",
            wait,
        ) => Failure { wait: wait.unwrap_or_default(), ..Failure::passing(reason) },
        // Without a time it means that there will never be room.
        ("RESOURCE_EXHAUSTED", Some(wait)) => Failure { wait, ..Failure::passing(reason) },
        _ => Failure::lasting(reason),
    }
}

/// `google.rpc.Status`, as far as it matters here.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(message, repeated, tag = "3")]
    details: Vec<Detail>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Detail {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How long the details of a failure ask to wait.
fn retry_delay(details: &[u8]) -> Option<Duration> {
    // With padding or without it, as the gRPC specification wants.
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let status = Status::decode(&*engine.decode(details).ok()?).ok()?;
    let info =
        status.details.iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(&*info.value).ok()?.retry_delay?;
    let nanos = u32::try_from(delay.nanos).unwrap_or(0).min(999_999_999);
    Some(Duration::new(u64::try_from(delay.seconds).unwrap_or(0), nanos))
}

#[cfg(test)]
mod tests {
    use base64::prelude::BASE64_STANDARD;
    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::{pipeline::Accepted, testing::block_on};

    /// The judgement on an answer with this body and its outcome in the trailers.
    fn judged(outcome: &[(HeaderName, &str)], body: &[u8]) -> Result<Bytes, Failure> {
        let outcome = headers(outcome);
        let body = Full::new(Bytes::copy_from_slice(body));
        let body = body.with_trailers(async move { Some(Ok(outcome)) });
        judge(Response::new(block_on(body.collect()).unwrap()))
    }

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn empty(status: u16, outcome: &[(HeaderName, &str)]) -> Result<Bytes, Failure> {
        let mut answer = Response::new(block_on(Full::new(Bytes::new()).collect()).unwrap());
        *answer.status_mut() = status.try_into().unwrap();
        *answer.headers_mut() = headers(outcome);
        judge(answer)
    }

    #[test]
    fn a_good_answer_may_refuse_some_spans() {
        let ok = [(GRPC_STATUS, "0")];
        let accepted = |body| judged(&ok, body).map(|message| Accepted::read(&message));
        assert_eq!(accepted(b"\0\0\0\0\0"), Ok(Accepted::default()));
        assert_eq!(accepted(b""), Ok(Accepted::default()));
        let wanted = Accepted { refused: 3, message: "n o".to_owned() };
        assert_eq!(accepted(b"\0\0\0\0\x09\x0a\x07\x08\x03\x12\x03n\no"), Ok(wanted));
    }

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        let may_pass = [1, 4, 10, 11, 14, 15];
        for code in 1..20 {
            let outcome = [(GRPC_STATUS, &*code.to_string())];
            for failure in [judged(&outcome, b"").unwrap_err(), empty(200, &outcome).unwrap_err()] {
                assert_eq!(failure.may_pass, may_pass.contains(&code), "{failure:?}");
            }
        }
        for (status, may_pass) in [(200, false), (404, false), (429, true), (503, true)] {
            assert_eq!(empty(status, &[]).unwrap_err().may_pass, may_pass, "{status}");
        }
    }

    #[test]
    fn the_collector_s_reason_is_repeated() {
        let outcome = [(GRPC_STATUS, "16"), (GRPC_MESSAGE, "no%20way, caf%C3%A9")];
        let failure = empty(200, &outcome).unwrap_err();
        assert_eq!(failure.reason, "the server answers UNAUTHENTICATED: no way, café");
        let failure = empty(200, &[(GRPC_STATUS, "99")]).unwrap_err();
        assert_eq!(failure.reason, "the server answers an unknown code");
    }

    #[test]
    fn a_collector_without_room_says_when_there_will_be_some() {
        let delay = Delay { seconds: 2, nanos: 500_000_000 };
        let info = Detail {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo { retry_delay: Some(delay) }.encode_to_vec(),
        };
        let other = Detail { type_url: "type.googleapis.com/other".to_owned(), value: vec![1] };
        let status = Status { details: vec![other, info] };
        let details = BASE64_STANDARD.encode(status.encode_to_vec());
        for details in [&*details, details.trim_end_matches('=')] {
            for code in ["8", "14"] {
                let outcome = [(GRPC_STATUS, code), (GRPC_DETAILS, details)];
                let failure = judged(&outcome, b"").unwrap_err();
                assert!(failure.may_pass, "{failure:?}");
                assert_eq!(failure.wait, Duration::from_millis(2500));
            }
        }
        for nonsense in ["", "?", "AAAA"] {
            let outcome = [(GRPC_STATUS, "8"), (GRPC_DETAILS, nonsense)];
            assert!(!judged(&outcome, b"").unwrap_err().may_pass, "{nonsense}");
        }
    }
}
