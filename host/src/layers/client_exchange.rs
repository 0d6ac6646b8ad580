//! The plugin's place in the client stack: innermost, so that every attempt is one exchange.

use std::{fmt, future::Future, sync::Arc};

use http::{Request, Response};
use plugin_api::{
    Outcome,
    abi::ClientLayerObject,
    adapter::{Lent, lend_headers},
};

use super::{
    Hooks, head,
    meter::Meter,
    recorder::{Recorded, Recorder},
};
use crate::{
    Body,
    connect::{HttpClient, SendError, Via},
    metrics::Calls,
    monotonic,
    telemetry::context,
};

/// Sends requests, and lets the plugin follow each where there is one.
#[derive(Clone)]
pub(crate) struct ClientExchange {
    http: HttpClient,
    plugin: Option<Arc<ClientLayerObject>>,
    hooks: Arc<Hooks>,
    calls: Arc<Calls>,
}

impl ClientExchange {
    pub(crate) fn new(http: HttpClient, plugin: Option<Arc<ClientLayerObject>>) -> Self {
        Self { http, plugin, hooks: Arc::default(), calls: Arc::default() }
    }

    /// The same layer, whose measurements go there.
    pub(crate) fn measured_by(self, calls: Arc<Calls>) -> Self {
        Self { calls, ..self }
    }

    /// The hooks of outgoing requests; `None` without a plugin.
    pub(crate) fn hooks(&self) -> Option<&Arc<Hooks>> {
        self.plugin.is_some().then_some(&self.hooks)
    }

    /// Sends `request`, whose target is absolute, to an instance of the group `service`.
    pub(crate) fn send<'a>(
        &'a self,
        service: &str,
        request: &'a mut Request<Body>,
        attempts: &mut Attempts,
    ) -> impl Future<Output = Result<Response<Body>, Failed>> + use<'a> {
        let plugin = self.plugin.as_ref();
        let exchange = plugin.map(|plugin| self.tell(plugin, service, request, attempts));
        attempt(&self.http, request, exchange)
    }

    /// Asks the plugin about `request`, which gets the headers of its context.
    fn tell(
        &self,
        plugin: &ClientLayerObject,
        service: &str,
        request: &mut Request<Body>,
        attempts: &mut Attempts,
    ) -> Recorded {
        let now = monotonic::now();
        let meter = Meter::of_call(self.calls.begin(request, now));
        let mut changes = head::Changes::default();
        let parent = attempts.parent();
        let followed = head::with_headers(request.headers(), |headers| {
            // It has no connection yet; that which a forwarded one came by is another.
            let head = head::request(request, head::scheme(request), headers);
            let head = head.with_service(service).resent(attempts.failed).seen_at(now);
            let mut lent = Lent(&mut changes);
            let lent = lend_headers(&mut lent);
            self.hooks.call(|| plugin.on_request(&head, &parent, lent).into_option())
        });
        changes.apply(request.headers_mut());
        let mut exchange =
            Recorder::follow(followed.flatten(), meter, &self.hooks, request.method());
        let context = exchange.follower().context();
        exchange.follower().measured_in(&context);
        for exchange in std::iter::once(&mut exchange).chain(&mut attempts.call) {
            exchange.count_request(request.body_mut());
            exchange.ends_otherwise(None);
        }
        exchange
    }
}

/// One attempt on the wire, until its response head.
async fn attempt(
    http: &HttpClient,
    request: &mut Request<Body>,
    mut exchange: Option<Recorded>,
) -> Result<Response<Body>, Failed> {
    let mut of_nobody = Via::UNKNOWN;
    let via = exchange.as_mut().map_or(&mut of_nobody, |exchange| exchange.follower().via());
    match http.send(request, via).await {
        Ok(response) => {
            let mut response = response.map(Body::from);
            if let Some(mut exchange) = exchange {
                // The head tells it, so the end need not.
                let via = std::mem::replace(exchange.follower().via(), Via::UNKNOWN);
                follow(exchange, &mut response, via);
            }
            Ok(response)
        }
        Err(error) => {
            if let Some(exchange) = &mut exchange {
                exchange.ends_otherwise(Some(outcome(&error)));
            }
            Err(Failed { error, exchange })
        }
    }
}

/// The attempts of one call, as the plugin is told of them.
#[derive(Default)]
pub(crate) struct Attempts {
    failed: u32,
    /// The whole call, once there is a second attempt.
    call: Option<Recorded>,
}

impl Attempts {
    /// How many have failed so far.
    pub(crate) const fn failed(&self) -> u32 {
        self.failed
    }

    fn parent(&mut self) -> plugin_api::Context {
        let call = self.call.as_mut().map(|call| call.follower().context());
        let call = call.filter(|context| context.span().is_valid());
        call.or_else(context::current).unwrap_or_default()
    }

    /// Another attempt follows this one.
    pub(crate) fn retry(&mut self, failed: Failed) {
        let outcome = outcome(&failed.error);
        if let (0, Some(exchange)) = (self.failed, failed.exchange) {
            self.call = exchange.retry(outcome);
        }
        // Where no instance is left to take it, the call ends as this attempt did.
        self.end_as(outcome);
        self.failed += 1;
    }

    /// The last attempt was answered.
    pub(crate) fn answered(self, response: &mut Response<Body>) {
        if let Some(call) = self.call {
            // The last attempt has told by what it came.
            follow(call, response, Via::UNKNOWN);
        }
    }

    /// The last attempt has failed.
    pub(crate) fn end_as(&mut self, outcome: Outcome) {
        if let Some(call) = &mut self.call {
            call.ends_otherwise(Some(outcome));
        }
    }
}

/// An attempt without a response head. Dropped, it ends as what it is; see [`Attempts::retry`].
pub(crate) struct Failed {
    error: SendError,
    exchange: Option<Recorded>,
}

impl fmt::Debug for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Failed {
    /// Whether no connection was made, so that nothing was sent.
    pub(crate) fn is_unsent(&self) -> bool {
        self.error.is_connect()
    }

    /// See [`SendError::is_unanswered`].
    pub(crate) fn is_unanswered(&self) -> bool {
        self.error.is_unanswered()
    }

    /// The last attempt of its call: ends that too, and gives what hyper said.
    pub(crate) fn give_up(self, attempts: &mut Attempts) -> SendError {
        attempts.end_as(outcome(&self.error));
        self.error
    }
}

fn follow(exchange: Recorded, response: &mut Response<Body>, via: Via) {
    let version = response.version();
    exchange.respond(response, version, via);
}

fn outcome(error: &SendError) -> Outcome {
    if error.is_request_body() {
        Outcome::CLIENT_GONE
    } else if error.is_connect() {
        Outcome::CONNECT_FAILED
    } else {
        Outcome::UPSTREAM_GONE
    }
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
        config,
        layers::{testing::Journal, within},
        tls::ClientFiles,
    };

    fn exchange(journal: &Journal) -> ClientExchange {
        let config = config::Client::default();
        let http = HttpClient::new(&config, &ClientFiles::read(&config.tls).unwrap());
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
        let response = exchange(&journal)
            .send("greeter", &mut get(&place), &mut Attempts::default())
            .await
            .unwrap();
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
            (Some(""), "end upstream gone 0 0 by a new connection"),
            (Some("nonsense\r\n\r\n"), "end upstream gone 0 0 by a new connection"),
        ] {
            let journal = Journal::default();
            let place = match answer {
                Some(bytes) => answer_once(bytes).await.0,
                None => "127.0.0.1:1".to_owned(),
            };
            assert!(
                exchange(&journal)
                    .send("greeter", &mut get(&place), &mut Attempts::default())
                    .await
                    .is_err()
            );
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
        let attempt = &mut Attempts::default();
        let failed = exchange(&journal).send("greeter", &mut request, attempt).await.err().unwrap();
        assert!(failed.error.is_request_body() && !failed.is_unanswered(), "{:?}", failed.error);
        drop(failed);
        assert!(journal.take()[1].starts_with("end client gone "));
    }

    #[tokio::test]
    async fn a_body_that_the_upstream_cuts_is_told() {
        let journal = Journal::default();
        let (place, _) = answer_once("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi").await;
        let response = exchange(&journal)
            .send("greeter", &mut get(&place), &mut Attempts::default())
            .await
            .unwrap();
        assert!(response.into_body().collect().await.is_err());
        assert_eq!(journal.take().last().unwrap(), "end upstream gone 0 2");
    }

    #[tokio::test]
    async fn an_attempt_that_takes_too_long_says_so() {
        let journal = Journal::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let (exchange, mut request) = (exchange(&journal), get(&place));
        let sent = exchange.send("greeter", &mut request, &mut Attempts::default());
        assert!(within(Duration::from_millis(50), sent).await.is_err());
        assert_eq!(journal.take()[1..], ["end timeout 0 0 by a new connection"]);
    }

    #[tokio::test]
    async fn trailers_are_told_before_the_end() {
        let journal = Journal::default();
        let (place, _) = answer_once(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n\
             2\r\nhi\r\n0\r\ngrpc-status: 0\r\n\r\n",
        )
        .await;
        let response = exchange(&journal)
            .send("greeter", &mut get(&place), &mut Attempts::default())
            .await
            .unwrap();
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(journal.take()[2..], ["trailers grpc-status=0", "end complete 0 2"]);
    }
}
