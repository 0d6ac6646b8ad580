//! The plugin's place in the client stack: innermost, so that every attempt is one exchange.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use hyper_util::client::legacy::{
    Client as LegacyClient, Error as ClientError, ResponseFuture,
    connect::{HttpConnector, HttpInfo},
};
use pin_project_lite::pin_project;
use plugin_api::{
    Outcome, Peer,
    abi::ClientLayerObject,
    adapter::{Lent, lend_headers},
};

use super::{
    Hooks,
    exchange::{Exchange, Over},
    head,
};
use crate::{Body, telemetry::context};

/// hyper's pooling client.
pub(crate) type HttpClient = LegacyClient<HttpConnector, Body>;

/// Sends requests, and lets the plugin follow each where there is one.
#[derive(Clone)]
pub(crate) struct ClientExchange {
    http: HttpClient,
    plugin: Option<Arc<ClientLayerObject>>,
    hooks: Arc<Hooks>,
}

impl ClientExchange {
    pub(crate) fn new(http: HttpClient, plugin: Option<Arc<ClientLayerObject>>) -> Self {
        Self { http, plugin, hooks: Arc::default() }
    }

    /// The hooks of outgoing requests; `None` without a plugin.
    pub(crate) fn hooks(&self) -> Option<&Arc<Hooks>> {
        self.plugin.is_some().then_some(&self.hooks)
    }

    /// Sends `request`, whose target is absolute, to an instance of the group `service`.
    pub(crate) fn send(&self, service: &str, request: Request<Body>) -> ClientFuture {
        let Some(plugin) = &self.plugin else {
            return ClientFuture { inner: self.http.request(request), exchange: None };
        };
        let (mut parts, mut body) = request.into_parts();
        let mut changes = head::Changes::default();
        let followed = {
            let headers = head::headers(&parts.headers);
            let head = head::request(&parts, &headers).with_service(service);
            let parent = context::current().unwrap_or_default();
            let mut lent = Lent(&mut changes);
            let lent = lend_headers(&mut lent);
            self.hooks.call(|| plugin.on_request(&head, &parent, lent).into_option())
        };
        changes.apply(&mut parts.headers);
        let mut exchange =
            followed.flatten().map(|plugin| Exchange::new(plugin, &self.hooks, &parts.method));
        if let Some(exchange) = &mut exchange {
            body = exchange.count_request(body);
        }
        ClientFuture { inner: self.http.request(Request::from_parts(parts, body)), exchange }
    }
}

pin_project! {
    /// One attempt on the wire, until its response head.
    pub(crate) struct ClientFuture {
        #[pin]
        inner: ResponseFuture,
        exchange: Option<Exchange>,
    }
}

impl Future for ClientFuture {
    type Output = Result<Response<Body>, ClientError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = ready!(this.inner.poll(cx));
        let exchange = this.exchange.take();
        Poll::Ready(match polled {
            Ok(response) => Ok(follow(exchange, response.map(Body::from))),
            Err(error) => {
                if let Some(mut exchange) = exchange {
                    exchange.end(outcome(&error));
                }
                Err(error)
            }
        })
    }
}

fn follow(exchange: Option<Exchange>, response: Response<Body>) -> Response<Body> {
    let Some(exchange) = exchange else { return response };
    let info: Option<&HttpInfo> = response.extensions().get();
    let peer = info.map_or(Peer::NONE, |info| info.remote_addr().into());
    let over = Over { version: response.version(), peer, context: None };
    exchange.respond(response, over)
}

fn outcome(error: &ClientError) -> Outcome {
    if is_request_body(error) {
        Outcome::CLIENT_GONE
    } else if error.is_connect() {
        Outcome::CONNECT_FAILED
    } else {
        Outcome::UPSTREAM_GONE
    }
}

/// Whether it was the request's own body that failed, and not the upstream.
pub(crate) fn is_request_body(error: &ClientError) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|source| source.downcast_ref()).is_some_and(hyper::Error::is_user)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;
    use crate::{
        client, config,
        layers::{testing::Journal, within},
    };

    fn exchange(journal: &Journal) -> ClientExchange {
        let http = client::http(&config::Client::default());
        ClientExchange::new(http, Some(journal.client_layer()))
    }

    fn get(place: &str) -> Request<Body> {
        let request = Request::get(format!("http://{place}/x")).header("traceparent", "there");
        request.header("tracestate", "a=1").body(Body::empty()).unwrap()
    }

    /// Answers one request with these bytes, and tells the bytes of the request.
    async fn answer_once(bytes: &'static str) -> (String, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            stream.write_all(bytes.as_bytes()).await.unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        });
        (place, served)
    }

    #[tokio::test]
    async fn an_attempt_is_told_and_carries_the_headers_of_its_context() {
        let journal = Journal::default();
        let (place, served) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
        let response = exchange(&journal).send("greeter", get(&place)).await.unwrap();
        response.into_body().collect().await.unwrap();
        let told = ["call greeter /x below 0", "response 200", "end complete 0 2"];
        assert_eq!(journal.take(), told);
        let request = served.await.unwrap();
        assert!(request.contains("traceparent: here\r\n"), "{request}");
        assert!(!request.contains("tracestate") && !request.contains("there"), "{request}");
    }

    #[tokio::test]
    async fn a_failed_attempt_says_where_it_failed() {
        for (answer, end) in [
            (None, "end connect failed 0 0"),
            (Some(""), "end upstream gone 0 0"),
            (Some("nonsense\r\n\r\n"), "end upstream gone 0 0"),
        ] {
            let journal = Journal::default();
            let place = match answer {
                Some(bytes) => answer_once(bytes).await.0,
                None => "127.0.0.1:1".to_owned(),
            };
            assert!(exchange(&journal).send("greeter", get(&place)).await.is_err());
            assert_eq!(journal.take()[1..], [end], "{answer:?}");
        }
    }

    #[tokio::test]
    async fn an_upload_that_breaks_off_is_not_the_upstreams_fault() {
        let journal = Journal::default();
        let (place, _) = answer_once("").await;
        let broken = futures_util::stream::iter([
            Ok(http_body::Frame::data(bytes::Bytes::from_static(b"half"))),
            Err(tower::BoxError::from("reset")),
        ]);
        let mut request = get(&place);
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = Body::new(http_body_util::StreamBody::new(broken));
        let error = exchange(&journal).send("greeter", request).await.unwrap_err();
        assert!(is_request_body(&error), "{error:?}");
        assert!(journal.take()[1].starts_with("end client gone "));
    }

    #[tokio::test]
    async fn a_body_that_the_upstream_cuts_is_told() {
        let journal = Journal::default();
        let (place, _) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi").await;
        let response = exchange(&journal).send("greeter", get(&place)).await.unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(journal.take().last().unwrap(), "end upstream gone 0 2");
    }

    #[tokio::test]
    async fn an_attempt_that_takes_too_long_says_so() {
        let journal = Journal::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let sent = exchange(&journal).send("greeter", get(&place));
        assert!(within(Duration::from_millis(50), sent).await.is_err());
        assert_eq!(journal.take()[1..], ["end timeout 0 0"]);
    }

    #[tokio::test]
    async fn trailers_are_told_before_the_end() {
        let journal = Journal::default();
        let (place, _) = answer_once(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n\
             2\r\nhi\r\n0\r\ngrpc-status: 0\r\n\r\n",
        )
        .await;
        let response = exchange(&journal).send("greeter", get(&place)).await.unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(journal.take()[2..], ["trailers grpc-status=0", "end complete 0 2"]);
    }
}
