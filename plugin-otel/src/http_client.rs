//! Sends exports over HTTP/1.1, on the export thread's own runtime.

use std::{
    error::Error,
    fmt::{self, Write as _},
    pin::Pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use opentelemetry_http::{HttpClient, HttpError, ResponseBodyTooLarge};

/// A collector's answer holds at most a message; the limit is the one of the SDK's own clients.
const LARGEST_RESPONSE: usize = 4 * 1024 * 1024;

/// The client of the HTTP exporters.
pub(crate) struct Client {
    client: legacy::Client<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    headers: HeaderMap,
    last_error: std::sync::Arc<LastError>,
}

/// Why the last request failed, for whoever knows no more than that it did.
#[derive(Debug, Default)]
pub(crate) struct LastError(Mutex<Option<String>>);

impl LastError {
    /// Takes the reason out.
    pub(crate) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, reason: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    }
}

impl Client {
    /// A client that gives each request this long and sends these headers with it, in place of all
    /// that the exporter found in the environment.
    pub(crate) fn new(
        timeout: Duration,
        headers: HeaderMap,
        last_error: std::sync::Arc<LastError>,
    ) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(timeout));
        connector.set_nodelay(true);
        let client = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client, timeout, headers, last_error }
    }

    fn with_own_headers(&self, mut request: Request<Bytes>) -> Request<Full<Bytes>> {
        let mut headers = self.headers.clone();
        for name in [header::CONTENT_TYPE, header::CONTENT_ENCODING] {
            if let Some(value) = request.headers_mut().remove(&name) {
                headers.insert(name, value);
            }
        }
        *request.headers_mut() = headers;
        request.map(Full::new)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = self.client.request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST_RESPONSE).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                ResponseBodyTooLarge::new().into()
            } else {
                error
            }
        })?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn send_in_time(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = self.with_own_headers(request);
        let answer = tokio::time::timeout(self.timeout, self.send(request)).await;
        let answer = answer.unwrap_or_else(|_| {
            Err(format!("no answer within {}", humantime::format_duration(self.timeout)).into())
        });
        answer.inspect_err(|error| self.last_error.set(chain(error.as_ref())))
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

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl HttpClient for Client {
    // Written out as `async_trait` would expand it.
    fn send_bytes<'a, 'async_trait>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'async_trait>>
    where
        'a: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(self.send_in_time(request))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;
    use crate::{pipeline, testing::PATIENCE};

    fn send(timeout: Duration, url: &str) -> (Result<Response<Bytes>, HttpError>, Option<String>) {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, "mine".parse().unwrap())]);
        let last_error = Arc::new(LastError::default());
        let client = Client::new(timeout, headers, Arc::clone(&last_error));
        let request = Request::post(url)
            .header("content-type", "application/json")
            .header("authorization", "of the environment")
            .header("x-other", "of the environment")
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        let answer = pipeline::runtime().unwrap().block_on(client.send_bytes(request));
        (answer, last_error.take())
    }

    fn read_request(stream: &mut TcpStream) -> String {
        let mut text = Vec::new();
        let mut byte = [0; 1];
        while !text.ends_with(b"\r\n\r\n{}") {
            stream.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_request_goes_out_with_the_configured_headers_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read_request(&mut stream);
            stream
                .write_all(b"HTTP/1.1 429 \r\nretry-after: 1\r\ncontent-length: 2\r\n\r\nno")
                .unwrap();
            request
        });
        let (answer, last_error) = send(PATIENCE, &url);
        let answer = answer.unwrap();
        assert_eq!((answer.status().as_u16(), &answer.body()[..]), (429, &b"no"[..]));
        assert_eq!(last_error, None);
        let request = server.join().unwrap();
        assert!(request.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("content-type: application/json\r\n"), "{request}");
        assert!(request.contains("authorization: mine\r\n"), "{request}");
        assert!(!request.contains("of the environment"), "{request}");
    }

    #[test]
    fn a_collector_that_is_not_there_is_told_with_the_reason() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        drop(listener);
        let (answer, last_error) = send(PATIENCE, &url);
        assert!(answer.is_err());
        assert!(last_error.unwrap().contains("refused"));
    }

    #[test]
    fn a_silent_collector_costs_no_more_than_the_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let (done, wait) = mpsc::channel::<()>();
        let server = thread::spawn(move || {
            let stream = listener.accept().unwrap();
            _ = wait.recv();
            drop(stream);
        });
        let (answer, _) = send(Duration::from_millis(30), &url);
        assert_eq!(answer.unwrap_err().to_string(), "no answer within 30ms");
        drop(done);
        server.join().unwrap();
    }
}
