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

use super::{exchange::Exchange, head};
use crate::{Body, telemetry::context};

/// hyper's pooling client.
pub(crate) type HttpClient = LegacyClient<HttpConnector, Body>;

/// Sends requests, and lets the plugin follow each where there is one.
#[derive(Clone)]
pub(crate) struct ClientExchange {
    http: HttpClient,
    plugin: Option<Arc<ClientLayerObject>>,
}

impl ClientExchange {
    pub(crate) fn new(http: HttpClient, plugin: Option<Arc<ClientLayerObject>>) -> Self {
        Self { http, plugin }
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
            plugin.on_request(&head, &parent, lend_headers(&mut lent))
        };
        changes.apply(&mut parts.headers);
        let mut exchange =
            followed.into_option().map(|plugin| Exchange::new(plugin, &parts.method));
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

impl ClientFuture {
    /// Tells the plugin why the attempt is given up; to be dropped afterwards.
    pub(crate) fn give_up(self: Pin<&mut Self>, outcome: Outcome) {
        if let Some(exchange) = self.project().exchange {
            exchange.end(outcome);
        }
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
    exchange.respond(response, peer, None)
}

fn outcome(error: &ClientError) -> Outcome {
    if error.is_connect() { Outcome::CONNECT_FAILED } else { Outcome::UPSTREAM_GONE }
}
