//! The plugin's place in the server stack: outermost, so that everything below is seen.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use plugin_api::{
    Peer,
    abi::{AbiAccepted, ServerLayerObject},
};
use tower::Service;

use super::{exchange::Exchange, head};
use crate::{
    Body,
    telemetry::context::{self, Current},
};

/// Asks the plugin about every request and tells it how each one went.
#[derive(Clone)]
pub(crate) struct ServerExchange<S> {
    inner: S,
    plugin: Arc<ServerLayerObject>,
}

impl<S> ServerExchange<S> {
    pub(crate) fn new(inner: S, plugin: Arc<ServerLayerObject>) -> Self {
        Self { inner, plugin }
    }
}

impl<S> Service<Request<Body>> for ServerExchange<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (mut parts, mut body) = request.into_parts();
        let AbiAccepted { context, exchange } = {
            let headers = head::headers(&parts.headers);
            self.plugin.on_request(&head::request(&parts, &headers))
        };
        let mut exchange =
            exchange.into_option().map(|plugin| Exchange::new(plugin, &parts.method));
        if let Some(exchange) = &mut exchange {
            body = exchange.count_request(body);
        }
        parts.extensions.insert(context.clone());
        let mut current = Some(Current { context, route: None });
        let request = Request::from_parts(parts, body);
        let inner = context::enter(&mut current, || self.inner.call(request));
        ServerFuture { inner, current, exchange }
    }
}

pin_project! {
    /// The handler's future in the context of its exchange.
    pub(crate) struct ServerFuture<F> {
        #[pin]
        inner: F,
        current: Option<Current>,
        exchange: Option<Exchange>,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for ServerFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let response = ready!(context::enter(this.current, || this.inner.poll(cx)))?;
        let Some(mut exchange) = this.exchange.take() else { return Poll::Ready(Ok(response)) };
        let current = this.current.take();
        if let Some(route) = current.as_ref().and_then(|current| current.route.as_deref()) {
            exchange.route(route);
        }
        Poll::Ready(Ok(exchange.respond(response, Peer::NONE, current)))
    }
}
