//! OTLP over HTTP/1.1, in protobuf or in JSON.

use bytes::Bytes;
use http::{
    HeaderValue, Request, Response, Uri,
    header::{CONTENT_ENCODING, CONTENT_TYPE},
};
use http_body_util::Collected;
use plugin_api::PluginError;
use prost::Message;
use serde_json::Value;

use super::{
    export::{Accepted, Failure},
    transport::{self, Transport},
};
use crate::{
    config::{Destination, Protocol},
    signal::Signal,
};

/// Sends exports over HTTP/1.1.
#[derive(Debug)]
pub(super) struct Http {
    transport: Transport,
    endpoint: Uri,
    json: bool,
    signal: Signal,
}

/// `google.rpc.Status`, with which a collector says what was wrong.
#[derive(Clone, PartialEq, Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

impl Http {
    /// As the settings ask.
    ///
    /// # Errors
    /// What is wrong with the endpoint or a file for TLS.
    pub(super) fn new(signal: Signal, destination: &Destination) -> Result<Self, PluginError> {
        let endpoint = destination.endpoint.parse();
        Ok(Self {
            transport: Transport::new(destination, false)?,
            endpoint: endpoint.map_err(|error| PluginError::setting("endpoint", error))?,
            json: destination.protocol == Protocol::HttpJson,
            signal,
        })
    }

    /// Sends a framed request.
    ///
    /// # Errors
    /// Why the collector did not take it.
    pub(super) async fn send(&self, parts: Vec<Bytes>) -> Result<Accepted, Failure> {
        let (parts, content_type) = if self.json {
            let json = self.signal.to_json(&parts.concat()).map_err(Failure::lasting)?;
            (vec![json.to_string().into()], "application/json")
        } else {
            (parts, "application/x-protobuf")
        };
        let parts = self.transport.compress(parts)?;
        let mut request = Request::new(parts.into());
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() = self.endpoint.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        if self.transport.gzip() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        self.transport.send(request).await.and_then(|answer| judge(answer, self.signal))
    }
}

/// What an answer means.
fn judge(answer: Response<Collected<Bytes>>, signal: Signal) -> Result<Accepted, Failure> {
    let (head, body) = answer.into_parts();
    let body = body.to_bytes();
    let content_type = head.headers.get(CONTENT_TYPE);
    let json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if head.status.is_success() {
        return Ok(if json { accepted(&body, signal) } else { Accepted::read(&body) });
    }
    let message = if json { json_message(&body) } else { proto_message(&body) };
    let separator = if message.is_empty() { "" } else { ": " };
    let reason = format!("the collector answers {}{separator}{message}", head.status);
    Err(match head.status.as_u16() {
        429 | 502 | 503 | 504 => {
            Failure { wait: transport::retry_after(&head.headers), ..Failure::passing(reason) }
        }
        _ => Failure::lasting(reason),
    })
}

/// Reads an answer in JSON, where a 64-bit number may be a text.
fn accepted(body: &[u8], signal: Signal) -> Accepted {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let part = &answer["partialSuccess"];
    let refused = match &part[signal.names().rejected] {
        Value::String(text) => text.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    };
    Accepted {
        refused: usize::try_from(refused).unwrap_or(usize::MAX),
        message: transport::shown(part["errorMessage"].as_str().unwrap_or_default()),
    }
}

fn json_message(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    transport::shown(answer["message"].as_str().unwrap_or_default())
}

fn proto_message(body: &[u8]) -> String {
    match Status::decode(body) {
        Ok(status) if !status.message.is_empty() => transport::shown(&status.message),
        // A proxy on the way says it in plain text or as a page.
        _ => transport::shown(std::str::from_utf8(body).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::{BodyExt as _, Full};

    use super::*;
    use crate::testing::block_on;

    fn judged(
        status: u16,
        headers: &[(&'static str, &str)],
        body: &[u8],
    ) -> Result<Accepted, Failure> {
        let body = block_on(Full::new(Bytes::copy_from_slice(body)).collect()).unwrap();
        let mut answer = Response::new(body);
        *answer.status_mut() = status.try_into().unwrap();
        for (name, value) in headers {
            answer.headers_mut().insert(*name, value.parse().unwrap());
        }
        judge(answer, Signal::Traces)
    }

    const JSON: (&str, &str) = ("content-type", "application/json; charset=utf-8");

    #[test]
    fn a_good_answer_may_refuse_some_spans() {
        for (headers, body, refused, message) in [
            (&[][..], &b""[..], 0, ""),
            (&[], b"\x0a\x06\x08\x03\x12\x02no", 3, "no"),
            (&[], b"\x0a\x09\x12\x07careful", 0, "careful"),
            (&[], b"<html>", 0, ""),
            (&[JSON], b"{}", 0, ""),
            (
                &[JSON],
                br#"{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "no"}}"#,
                3,
                "no",
            ),
            (&[JSON], br#"{"partialSuccess": {"rejectedSpans": 3}}"#, 3, ""),
            (&[JSON], b"{", 0, ""),
        ] {
            let wanted = Accepted { refused, message: message.to_owned() };
            assert_eq!(judged(200, headers, body), Ok(wanted), "{body:?}");
        }
    }

    #[test]
    fn what_may_pass_is_told_from_what_lasts() {
        for status in [429, 502, 503, 504] {
            let failure = judged(status, &[("retry-after", "7")], b"").unwrap_err();
            assert!(failure.may_pass, "{status}");
            assert_eq!(failure.wait, Duration::from_secs(7), "{status}");
        }
        for status in [301, 400, 401, 403, 404, 413, 500, 501, 505] {
            assert!(
                !judged(status, &[("retry-after", "7")], b"").unwrap_err().may_pass,
                "{status}"
            );
        }
    }

    #[test]
    fn the_collector_s_reason_is_repeated() {
        for (headers, body, wanted) in [
            (
                &[][..],
                &b"\x08\x03\x12\x06no way"[..],
                "the collector answers 400 Bad Request: no way",
            ),
            (&[], b"no\nway", "the collector answers 400 Bad Request: no way"),
            (
                &[JSON],
                br#"{"code": 3, "message": "no way"}"#,
                "the collector answers 400 Bad Request: no way",
            ),
            (&[], b"", "the collector answers 400 Bad Request"),
            (&[], b"\xff\xff", "the collector answers 400 Bad Request"),
        ] {
            assert_eq!(judged(400, headers, body).unwrap_err().reason, wanted);
        }
    }
}
