//! Carries exports to the collector, on the export thread's own runtime: HTTP/1.1 and HTTP/2.

use std::{
    collections::VecDeque,
    convert::Infallible,
    error::Error,
    fmt::{self, Write as _},
    io::Write as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, header, header::USER_AGENT};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Collected, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use plugin_api::PluginError;

use super::{export::Failure, tls};
use crate::config::Destination;

/// A collector's answer holds at most a message; the limit is the one of the SDKs' own clients.
const LARGEST_RESPONSE: usize = 4 * 1024 * 1024;

/// A connection on which nothing comes back for twice this long is given up: nobody else would
/// find out that the collector's machine is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How much of what a collector says is worth repeating.
const LONGEST_REASON: usize = 300;

/// A client for one collector.
pub(crate) struct Transport {
    client: legacy::Client<HttpsConnector<HttpConnector>, Payload>,
    headers: HeaderMap,
    gzip: bool,
}

impl Transport {
    /// A client as the settings ask, which speaks HTTP/2 only or HTTP/1.1 only.
    ///
    /// # Errors
    /// A file for TLS that cannot be used.
    pub(crate) fn new(destination: &Destination, http2: bool) -> Result<Self, PluginError> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(destination.timeout));
        connector.set_nodelay(true);
        let alpn = if http2 { "h2" } else { "http/1.1" };
        let connector = tls::connector(connector, destination, alpn.as_bytes())?;
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .http2_only(http2)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .build(connector);
        let mut headers = destination.headers.clone();
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(concat!(
            "plugin-otel/",
            env!("CARGO_PKG_VERSION")
        )));
        Ok(Self { client, headers, gzip: destination.gzip })
    }

    /// Whether exports are compressed.
    pub(super) const fn gzip(&self) -> bool {
        self.gzip
    }

    /// The parts as they are sent: as they are, or as one compressed part.
    pub(super) fn compress(&self, parts: Vec<Bytes>) -> Result<Vec<Bytes>, Failure> {
        if !self.gzip {
            return Ok(parts);
        }
        let failed = |error| Failure::lasting(format!("gzip: {error}"));
        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        for part in parts {
            gzip.write_all(&part).map_err(failed)?;
        }
        Ok(vec![gzip.finish().map_err(failed)?.into()])
    }

    /// Asks for what is at this URL.
    ///
    /// # Errors
    /// Why nothing came back.
    pub(crate) async fn get(&self, url: &Uri) -> Result<Response<Collected<Bytes>>, String> {
        let mut request = Request::new(Vec::new().into());
        *request.uri_mut() = url.clone();
        self.send(request).await.map_err(|failure| failure.reason)
    }

    /// Posts this JSON to this URL.
    ///
    /// # Errors
    /// Why nothing came back.
    pub(crate) async fn post(
        &self,
        url: &Uri,
        json: String,
    ) -> Result<Response<Collected<Bytes>>, String> {
        let mut request = Request::new(vec![json.into()].into());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let json = HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
        self.send(request).await.map_err(|failure| failure.reason)
    }

    /// Sends a request with the configured headers beside its own; answers head and body.
    ///
    /// # Errors
    /// The collector could not be reached, or did not answer to the end.
    pub(super) async fn send(
        &self,
        mut request: Request<Payload>,
    ) -> Result<Response<Collected<Bytes>>, Failure> {
        let mut headers = self.headers.clone();
        headers.extend(request.headers_mut().drain());
        *request.headers_mut() = headers;
        let sent = self.client.request(request).await;
        let (head, body) = sent.map_err(|error| Failure::passing(chain(&error)))?.into_parts();
        let body = Limited::new(body, LARGEST_RESPONSE).collect().await;
        let body = body.map_err(|error| Failure::passing(chain(&*error)))?;
        Ok(Response::from_parts(head, body))
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transport").field("gzip", &self.gzip).finish_non_exhaustive()
    }
}

/// The error with all its sources: the first says little more than that there is one.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        // Writing to a string cannot fail.
        _ = write!(text, ": {error}");
        source = error.source();
    }
    text
}

/// What a collector said, on one line and not too long.
pub(super) fn shown(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let line = line.trim();
    line[..line.floor_char_boundary(LONGEST_REASON)].to_owned()
}

/// How long a `Retry-After` header asks to wait: seconds, or a date.
pub(super) fn retry_after(headers: &HeaderMap) -> Duration {
    let value = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let Some(text) = value.map(str::trim) else { return Duration::ZERO };
    match (text.parse(), httpdate::parse_http_date(text)) {
        (Ok(seconds), _) => Duration::from_secs(seconds),
        (_, Ok(date)) => date.duration_since(std::time::SystemTime::now()).unwrap_or_default(),
        _ => Duration::ZERO,
    }
}

/// A request's body in parts.
#[derive(Debug)]
pub(super) struct Payload {
    parts: VecDeque<Bytes>,
    left: u64,
}

impl From<Vec<Bytes>> for Payload {
    fn from(parts: Vec<Bytes>) -> Self {
        let left = parts.iter().map(|part| part.len() as u64).sum();
        Self { parts: parts.into(), left }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let part = self.parts.pop_front();
        self.left -= part.as_ref().map_or(0, |part| part.len() as u64);
        Poll::Ready(part.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_collector_says_how_long_to_wait_in_seconds_or_as_a_date() {
        let wait = |text: &str| {
            retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, text.parse().unwrap())]))
        };
        assert_eq!(wait("3"), Duration::from_secs(3));
        let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        let left = wait(&date).as_secs();
        assert!((50..=60).contains(&left), "{left}");
        for nothing in ["soon", "-1", "Wed, 21 Oct 2015 07:28:00 GMT"] {
            assert_eq!(wait(nothing), Duration::ZERO, "{nothing}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), Duration::ZERO);
    }

    #[test]
    fn what_a_collector_says_is_one_short_line() {
        assert_eq!(shown(" no\r\nroom\0 "), "no  room");
        assert_eq!(shown(&"é".repeat(1000)).len(), LONGEST_REASON);
    }
}
