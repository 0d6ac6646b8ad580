//! The forwarder itself, as in `host/examples/forwarder.rs`.

use std::{convert::Infallible, mem};

use http::{
    Request, Response, StatusCode, Uri, Version, header,
    uri::{Authority, Scheme},
};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::{Context, global};
use opentelemetry_http::HeaderInjector;

use crate::Failure;

/// What is answered: the upstream's body, or none.
pub(crate) type Body = Either<Incoming, Empty<Bytes>>;

/// A client and where it asks.
#[derive(Clone)]
pub(crate) struct Forwarder {
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
}

impl Forwarder {
    pub(crate) fn new(upstream: Authority) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self { client: Client::builder(TokioExecutor::new()).build(connector), upstream }
    }

    /// The upstream's response, or 502.
    pub(crate) async fn forward(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        Ok(match self.ask(request).await {
            Ok(response) => response.map(Either::Left),
            Err(_) => {
                let mut response = Response::new(Either::Right(Empty::new()));
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        })
    }

    async fn ask(self, mut request: Request<Incoming>) -> Result<Response<Incoming>, Failure> {
        let mut parts = mem::take(request.uri_mut()).into_parts();
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = Some(self.upstream);
        *request.uri_mut() = Uri::from_parts(parts)?;
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().remove(header::HOST);
        request.headers_mut().remove(header::CONNECTION);
        Ok(self.client.request(request).await?)
    }
}

/// The request with the context that is current.
pub(crate) fn in_current_context(request: Request<Incoming>) -> Request<Incoming> {
    in_context(request, &Context::current())
}

/// The request with this context.
pub(crate) fn in_context(mut request: Request<Incoming>, context: &Context) -> Request<Incoming> {
    global::get_text_map_propagator(|propagator| {
        propagator.inject_context(context, &mut HeaderInjector(request.headers_mut()));
    });
    request
}
