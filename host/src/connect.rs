//! Connections to instances: their pool, and TLS where the URL wants it.

use std::{
    io,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Uri, header::UPGRADE, uri::Scheme};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::{
    client::legacy::{Client, ResponseFuture, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

use crate::{Body, config, tls::ClientFiles};

/// hyper's pooling client.
#[derive(Clone)]
pub(crate) struct HttpClient {
    pooled: Client<Connector, Body>,
    /// HTTP/2 has no upgrades, so they go by connections on which it was not offered.
    upgrades: Client<Connector, Body>,
}

impl HttpClient {
    /// A client without a connection yet.
    pub(crate) fn new(config: &config::Client, tls: &ClientFiles) -> Self {
        let client = |alpn| {
            let connector = Connector::new(config.connect_timeout, tls.clone(), alpn);
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
        };
        Self { pooled: client(&[b"h2", b"http/1.1"]), upgrades: client(&[b"http/1.1"]) }
    }

    /// Sends `request`, whose target is absolute.
    pub(crate) fn request(&self, request: Request<Body>) -> ResponseFuture {
        let is_tls = request.uri().scheme() == Some(&Scheme::HTTPS);
        if is_tls && request.headers().contains_key(UPGRADE) {
            return self.upgrades.request(request);
        }
        self.pooled.request(request)
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
        let mut http = HttpConnector::new();
        http.set_connect_timeout(Some(timeout));
        http.set_nodelay(true);
        http.enforce_http(false);
        Self { http, timeout, tls, alpn, https: Arc::default() }
    }

    /// Lets the system find out that the other end of a silent connection is gone.
    pub(crate) fn keep_alive(mut self) -> Self {
        self.http.set_keepalive(Some(Duration::from_secs(10)));
        self.http.set_keepalive_interval(Some(Duration::from_secs(5)));
        self.http.set_keepalive_retries(Some(3));
        self
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

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(ready!(self.http.poll_ready(cx))?))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        if url.scheme() != Some(&Scheme::HTTPS) {
            let connection = self.http.call(url);
            return Box::pin(async { Ok(MaybeHttpsStream::Http(connection.await?)) });
        }
        let (https, timeout) = (self.https(), self.timeout);
        Box::pin(async move {
            let connection = https?.call(url);
            let late = |_| io::Error::other(format!("no TLS connection within {timeout:?}"));
            tokio::time::timeout(timeout, connection).await.map_err(late)?
        })
    }
}
