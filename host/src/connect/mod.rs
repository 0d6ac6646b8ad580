//! Connections to instances, kept for the next request, and TLS where the URL wants it.

mod pool;
mod stream;
mod upload;

use std::{
    error::Error,
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{
    Method, Request, Response, Uri,
    header::{CONNECTION, CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING, UPGRADE},
    uri::Scheme,
};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{
        self, Client,
        connect::{HttpConnector, HttpInfo},
    },
    rt::{TokioExecutor, TokioTimer},
};
use plugin_api::Peer;
use tower::{BoxError, Service};

use self::{
    pool::Pool,
    stream::{Stream, Uses},
    upload::Broken,
};
use crate::{Body, config, tls::ClientFiles};

/// A request that brought no response head.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// No connection could be made.
    #[error("no connection")]
    Connect(#[source] BoxError),
    /// The connection broke, or what came was no response.
    #[error("no response")]
    Exchange(#[source] hyper::Error),
    /// Either of them, over TLS.
    #[error(transparent)]
    Tls(legacy::Error),
    /// The request's own body broke off, over TLS.
    #[error("the body broke off")]
    Upload(#[source] legacy::Error),
}

impl SendError {
    pub(crate) fn is_connect(&self) -> bool {
        match self {
            Self::Connect(_) => true,
            Self::Exchange(_) | Self::Upload(_) => false,
            Self::Tls(error) => error.is_connect(),
        }
    }

    fn of_hyper(&self) -> Option<&hyper::Error> {
        match self {
            Self::Connect(_) | Self::Upload(_) => None,
            Self::Exchange(error) => Some(error),
            Self::Tls(error) => error.source().and_then(|source| source.downcast_ref()),
        }
    }

    /// Whether it was the request's own body that failed, and not the upstream.
    pub(crate) fn is_request_body(&self) -> bool {
        matches!(self, Self::Upload(_)) || self.of_hyper().is_some_and(hyper::Error::is_user)
    }

    /// Whether no byte of a response can have been acted on: no connection was made, or it broke
    /// before there was a head.
    pub(crate) fn is_unanswered(&self) -> bool {
        let broke = |error: &hyper::Error| !error.is_user() && !error.is_parse();
        self.is_connect() || self.of_hyper().is_some_and(broke)
    }

    /// What went wrong, without saying again where.
    pub(crate) fn into_source(self) -> BoxError {
        match self {
            Self::Connect(source) => source,
            Self::Exchange(source) => source.into(),
            Self::Tls(source) | Self::Upload(source) => source.into(),
        }
    }
}

/// The connection of an attempt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Via {
    /// Its other end.
    pub(crate) peer: Peer,
    /// Whether it had carried another request before; known of every connection to an instance.
    pub(crate) is_pooled: Option<bool>,
}

impl Via {
    /// Nothing is known of it.
    pub(crate) const UNKNOWN: Self = Self { peer: Peer::NONE, is_pooled: None };
}

/// The connections to all instances.
#[derive(Clone)]
pub(crate) struct HttpClient {
    plain: Pool,
    tls: Client<Connector, Body>,
    /// HTTP/2 has no upgrades, so they go by connections on which it was not offered.
    tls_upgrades: Client<Connector, Body>,
}

impl HttpClient {
    /// A client without a connection yet.
    pub(crate) fn new(config: &config::Client, tls: &ClientFiles) -> Self {
        let client = |alpn| {
            let connector = Connector::new(config.connect_timeout, tls.clone(), alpn);
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
        };
        Self {
            plain: Pool::new(config),
            tls: client(&[b"h2", b"http/1.1"]),
            tls_upgrades: client(&[b"http/1.1"]),
        }
    }

    /// Sends `request`, whose target is absolute, and waits for the response head. `via` is known as
    /// soon as there is a connection; over TLS, when the head is there.
    ///
    /// # Errors
    /// There is none; see [`SendError`].
    pub(crate) async fn send(
        &self,
        request: &mut Request<Body>,
        via: &mut Via,
    ) -> Result<Response<Incoming>, SendError> {
        announce_body(request);
        if request.uri().scheme() != Some(&Scheme::HTTPS) {
            return self.plain.send(request, via).await;
        }
        let is_upgrade = request.headers().contains_key(UPGRADE);
        // It may become a request of HTTP/2, which has no such line, and loses what the line names.
        if request.headers().get(CONNECTION).is_some_and(|names| names == "te") {
            request.headers_mut().remove(CONNECTION);
        }
        let client = if is_upgrade { &self.tls_upgrades } else { &self.tls };
        let broken = Broken::watch(request.body_mut());
        let failed = |error| match broken.is_true() {
            true => SendError::Upload(error),
            false => SendError::Tls(error),
        };
        let response = client.request(std::mem::take(request)).await.map_err(failed)?;
        let info: Option<&HttpInfo> = response.extensions().get();
        let peer = info.map_or(Peer::NONE, |info| info.remote_addr().into());
        let is_pooled = response.extensions().get().map(Uses::again);
        *via = Via { peer, is_pooled };
        Ok(response)
    }
}

/// A body with these methods is so rare that hyper sends none of unknown length, unless a header says
/// that it is there. Over HTTP/2, which has no such header, hyper leaves it out.
fn announce_body(request: &mut Request<Body>) {
    if !matches!(*request.method(), Method::GET | Method::HEAD) || request.body().is_end_stream() {
        return;
    }
    let has_length = request.headers().contains_key(CONTENT_LENGTH);
    if !has_length && request.body().size_hint().exact().is_none() {
        request.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Makes the connections.
#[derive(Clone)]
pub(crate) struct Connector {
    http: HttpConnector,
    timeout: Duration,
    tls: ClientFiles,
    alpn: &'static [&'static [u8]],
    /// Made for the first `https` URL: whoever calls none pays for no root certificates.
    https: Arc<OnceLock<HttpsConnector<HttpConnector>>>,
}

impl Connector {
    pub(crate) fn new(timeout: Duration, tls: ClientFiles, alpn: &'static [&'static [u8]]) -> Self {
        let mut http = plain(timeout);
        http.enforce_http(false);
        Self { http, timeout, tls, alpn, https: Arc::default() }
    }

    fn https(&self) -> io::Result<HttpsConnector<HttpConnector>> {
        if let Some(https) = self.https.get() {
            return Ok(https.clone());
        }
        let mut config = self.tls.config()?;
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        let made = HttpsConnector::from((self.http.clone(), config));
        Ok(self.https.get_or_init(|| made).clone())
    }
}

/// How long what was sent may lack the receipt of the system at the other end. All requests over HTTP/2
/// go by the same connection: where its other end is gone without a word, each would wait in vain.
/// Pings of HTTP/2 would tell as well, and gRPC's servers take those for an attack.
const RECEIPT_WITHIN: Duration = Duration::from_secs(20);

/// Makes connections in plain text. The system finds out that the other end of a silent one is gone.
fn plain(timeout: Duration) -> HttpConnector {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(timeout));
    http.set_nodelay(true);
    http.set_keepalive(Some(Duration::from_secs(10)));
    http.set_keepalive_interval(Some(Duration::from_secs(5)));
    http.set_keepalive_retries(Some(3));
    http.set_tcp_user_timeout(Some(RECEIPT_WITHIN));
    http
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(ready!(self.http.poll_ready(cx))?))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        if url.scheme() != Some(&Scheme::HTTPS) {
            let connection = self.http.call(url);
            return Box::pin(async { Ok(MaybeHttpsStream::Http(connection.await?).into()) });
        }
        let (https, timeout) = (self.https(), self.timeout);
        Box::pin(async move {
            let connection = https?.call(url);
            let late = |_| io::Error::other(format!("no TLS connection within {timeout:?}"));
            Ok(tokio::time::timeout(timeout, connection).await.map_err(late)??.into())
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::sockopt::{socket_keepalive, tcp_keepidle, tcp_user_timeout};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_instance_that_is_gone_without_a_word_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let connection = plain(Duration::from_secs(10)).call(url).await.unwrap();
        assert!(socket_keepalive(connection.inner()).unwrap());
        assert_eq!(tcp_keepidle(connection.inner()).unwrap(), Duration::from_secs(10));
        assert_eq!(tcp_user_timeout(connection.inner()).unwrap(), 20_000);
    }
}
