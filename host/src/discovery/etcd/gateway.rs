//! etcd's HTTP/JSON gateway, which every etcd serves beside gRPC on its client port.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use serde::de::DeserializeOwned;
use serde_json::{Value as Json, json};

use super::wire::{Refusal, Streamed, Token};
use crate::{
    client::root_cause,
    config::{self, BaseUrl},
    connect::Connector,
    discovery::DiscoveryError,
    tls::ClientFiles,
};

/// How long an answer may take to come; the messages of a watch may take for ever.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What stands in the refusal of a signed token that was given before users or roles were changed;
/// its status is that of a wrong request.
const OLD_TOKEN: &str = "auth store is old";

/// A message of a watch that is longer than this is none.
const MOST_BYTES: usize = 256 << 20;

/// A client of one etcd cluster.
pub(super) struct Gateway {
    endpoints: Vec<BaseUrl>,
    /// Which endpoint is asked first: the one that answered last.
    current: AtomicUsize,
    login: Option<Json>,
    token: Mutex<Option<HeaderValue>>,
    http: Client<Connector, Full<Bytes>>,
}

impl Gateway {
    pub(super) fn new(config: &config::Etcd, tls: ClientFiles) -> Self {
        // Without ALPN's h2 every answer is HTTP/1.1.
        let connector = Connector::new(TIMEOUT, tls, &[b"http/1.1"]);
        let http =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        let login = json!({"name": config.user, "password": config.password});
        Self {
            endpoints: config.endpoints.clone(),
            current: AtomicUsize::new(0),
            login: (!config.user.is_empty()).then_some(login),
            token: Mutex::default(),
            http,
        }
    }

    /// One question, one answer.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Json,
    ) -> Result<T, DiscoveryError> {
        let response = self.send(path, Bytes::from(body.to_string())).await?;
        read(path, response).await
    }

    /// One question whose answer is a stream of one message.
    pub(super) async fn call_streamed<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &Json,
    ) -> Result<T, DiscoveryError> {
        unwrap(path, self.call(path, body).await?)
    }

    /// Several questions whose answers go on for ever.
    pub(super) async fn stream(
        &self,
        path: &'static str,
        body: String,
    ) -> Result<Stream, DiscoveryError> {
        let response = self.send(path, Bytes::from(body)).await?;
        Ok(Stream { path, body: response.into_body(), received: BytesMut::new(), scanned: 0 })
    }

    /// The head of an answer that is no refusal: by any endpoint, and with a new token where the
    /// last one is not taken any more.
    async fn send(&self, path: &str, body: Bytes) -> Result<Response<Incoming>, DiscoveryError> {
        let mut renewed = false;
        if self.login.is_some() && self.token().is_none() {
            self.log_in().await?;
            renewed = true;
        }
        loop {
            let (status, response) = self.send_anywhere(path, &body).await?;
            if status == StatusCode::OK {
                return Ok(response);
            }
            let refused = refusal(path, status, response).await;
            let is_worthless =
                status == StatusCode::UNAUTHORIZED || refused.message.contains(OLD_TOKEN);
            if self.login.is_none() || renewed || !is_worthless {
                return Err(refused);
            }
            self.log_in().await?;
            renewed = true;
        }
    }

    async fn log_in(&self) -> Result<(), DiscoveryError> {
        const PATH: &str = "/v3/auth/authenticate";
        *self.lock() = None;
        let body = self.login.as_ref().map(Json::to_string).unwrap_or_default();
        let (status, response) = self.send_anywhere(PATH, &Bytes::from(body)).await?;
        if status != StatusCode::OK {
            return Err(refusal(PATH, status, response).await);
        }
        let Token { token } = read(PATH, response).await?;
        let mut token = HeaderValue::try_from(token).map_err(|source| error(PATH, source))?;
        token.set_sensitive(true);
        *self.lock() = Some(token);
        Ok(())
    }

    /// Asks each endpoint in turn until one answers with anything but a failure of its own.
    async fn send_anywhere(
        &self,
        path: &str,
        body: &Bytes,
    ) -> Result<(StatusCode, Response<Incoming>), DiscoveryError> {
        let mut failed = None;
        for _ in &self.endpoints {
            let current = self.current.load(Ordering::Relaxed);
            let Some(endpoint) = self.endpoints.get(current % self.endpoints.len()) else { break };
            let base = endpoint.uri().to_string();
            let base = base.trim_end_matches('/');
            let reason = match self.send_to(&format!("{base}{path}"), body).await {
                Ok(response) if !response.status().is_server_error() => {
                    return Ok((response.status(), response));
                }
                Ok(response) => refusal(path, response.status(), response).await.message,
                Err(reason) => reason,
            };
            failed = Some(error(base, reason));
            // Whoever else found the same has moved on already.
            let _ = self.current.compare_exchange(
                current,
                current.wrapping_add(1),
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
        Err(failed.unwrap_or_else(|| error(path, "no endpoint")))
    }

    async fn send_to(&self, url: &str, body: &Bytes) -> Result<Response<Incoming>, String> {
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/json")
            // A member that has lost the others ends its watches instead of falling silent.
            .header("grpc-metadata-hasleader", "true")
            .body(Full::new(body.clone()))
            .map_err(|source| source.to_string())?;
        if let Some(token) = self.token() {
            request.headers_mut().insert(header::AUTHORIZATION, token);
        }
        match tokio::time::timeout(TIMEOUT, self.http.request(request)).await {
            Ok(sent) => sent.map_err(|source| root_cause(source).to_string()),
            Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
        }
    }

    fn token(&self) -> Option<HeaderValue> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<HeaderValue>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Messages, one a line, for as long as the connection holds.
pub(super) struct Stream {
    path: &'static str,
    body: Incoming,
    received: BytesMut,
    /// How much of it was looked through for the end of a line.
    scanned: usize,
}

impl Stream {
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, DiscoveryError> {
        loop {
            let unseen = self.received.get(self.scanned..).unwrap_or_default();
            if let Some(end) = memchr::memchr(b'\n', unseen) {
                let line = self.received.split_to(self.scanned + end);
                self.received.advance(1);
                self.scanned = 0;
                let message = serde_json::from_slice(&line);
                return unwrap(self.path, message.map_err(|source| error(self.path, source))?);
            }
            self.scanned = self.received.len();
            if self.scanned > MOST_BYTES {
                return Err(error(self.path, "a message without end"));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    self.received.extend_from_slice(&frame.into_data().unwrap_or_default());
                }
                Some(Err(source)) => return Err(error(self.path, root_cause(source))),
                None => return Err(error(self.path, "the stream ended")),
            }
        }
    }
}

fn unwrap<T>(path: &str, message: Streamed<T>) -> Result<T, DiscoveryError> {
    let refused = |refusal: Option<Refusal>| refusal.map_or_else(String::new, |r| r.message);
    message.result.ok_or_else(|| error(path, refused(message.error)))
}

/// What stands in an answer that is no refusal.
async fn read<T: DeserializeOwned>(
    path: &str,
    response: Response<Incoming>,
) -> Result<T, DiscoveryError> {
    let collected = tokio::time::timeout(TIMEOUT, response.into_body().collect()).await;
    let body = collected.map_err(|_| error(path, format!("no answer within {TIMEOUT:?}")))?;
    let body = body.map_err(|source| error(path, root_cause(source)))?.to_bytes();
    serde_json::from_slice(&body).map_err(|source| error(path, source))
}

/// What stands in an answer that is a refusal.
async fn refusal(path: &str, status: StatusCode, response: Response<Incoming>) -> DiscoveryError {
    let body = tokio::time::timeout(TIMEOUT, response.into_body().collect()).await;
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    let message = serde_json::from_slice::<Refusal>(&body).map(|refusal| refusal.message);
    error(path, message.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| status.to_string()))
}

pub(super) fn error(what: &str, reason: impl std::fmt::Display) -> DiscoveryError {
    DiscoveryError { backend: "etcd", message: format!("{what}: {reason}") }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::config::ClientTls;

    #[tokio::test(start_paused = true)]
    async fn a_login_that_is_answered_by_half_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let config = config::Etcd {
            endpoints: vec![BaseUrl::try_from(endpoint).unwrap()],
            user: "root".to_owned(),
            ..config::Etcd::default()
        };
        let gateway = Gateway::new(&config, ClientFiles::read(&ClientTls::default()).unwrap());
        let _half = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 4096]).await.unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{").await.unwrap();
            std::future::pending::<()>().await;
        });
        let sent = gateway.call::<Json>("/v3/kv/txn", &Json::Null);
        let sent = tokio::time::timeout(TIMEOUT * 3, sent).await.expect("an end");
        assert!(sent.unwrap_err().message.contains("/authenticate: no answer within"));
    }
}
