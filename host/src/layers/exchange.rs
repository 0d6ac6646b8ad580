//! One exchange that a plugin follows, from its request head to the last byte of its response.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version, response};
use http_body::{Body as _, Frame, SizeHint};
use pin_project_lite::pin_project;
use plugin_api::{Context, End, Outcome, Peer, ResponseHead, abi::ExchangeObject};
use tower::BoxError;

use super::{Hooks, cut, head, tunnel};
use crate::{Body, telemetry::context, telemetry::context::Current};

/// Why a response of the host's own was given; an extension of that response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended(pub(super) Outcome);

/// A followed exchange. Tells the plugin its end exactly once: when asked to, or when dropped.
pub(super) struct Exchange {
    plugin: ExchangeObject,
    hooks: Arc<Hooks>,
    is_head: bool,
    is_connect: bool,
    is_over: bool,
    /// How it ends when it is dropped, where that is known beforehand.
    otherwise: Option<Outcome>,
    /// Counted by the request's body, which may live on while the response is sent.
    request_bytes: Option<Arc<AtomicU64>>,
    response_bytes: u64,
}

impl Exchange {
    pub(super) fn new(plugin: ExchangeObject, hooks: &Arc<Hooks>, method: &Method) -> Self {
        Self {
            plugin,
            hooks: Arc::clone(hooks),
            is_head: method == Method::HEAD,
            is_connect: method == Method::CONNECT,
            is_over: false,
            otherwise: None,
            request_bytes: None,
            response_bytes: 0,
        }
    }

    /// Counts the bytes of the request's body; an empty one costs nothing.
    pub(super) fn count_request(&mut self, body: Body) -> Body {
        if body.is_end_stream() {
            return body;
        }
        let bytes = Arc::<AtomicU64>::default();
        self.request_bytes = Some(Arc::clone(&bytes));
        Body::new(CountedBody { inner: body, bytes })
    }

    pub(super) fn route(&mut self, route: &str) {
        self.hooks.call(|| self.plugin.on_route(route.into()));
    }

    /// Tells the response head and follows the body to its end. `over` is the connection that the
    /// response goes or comes by.
    pub(super) fn respond(mut self, response: Response<Body>, over: Over) -> Response<Body> {
        let Over { version, peer, context } = over;
        let (parts, inner) = response.into_parts();
        self.tell_head(&parts, peer);
        let outcome = parts.extensions.get().map_or(Outcome::COMPLETE, |Ended(outcome)| *outcome);
        let unread = self.is_head || has_no_body(parts.status);
        let expected = if unread { Some(0) } else { inner.size_hint().exact() };
        let may_have_trailers = version == Version::HTTP_2;
        let body =
            FollowedBody { inner, exchange: self, outcome, expected, may_have_trailers, context };
        Response::from_parts(parts, Body::new(body))
    }

    fn tell_head(&mut self, parts: &response::Parts, peer: Peer) {
        let headers = head::headers(&parts.headers);
        let head = ResponseHead::new(parts.status.as_u16(), &headers);
        let head = head.over(head::version(parts.version), peer);
        self.hooks.call(|| self.plugin.on_response(&head));
    }

    fn tell_trailers(&mut self, trailers: &HeaderMap) {
        let trailers = head::headers(trailers);
        self.hooks.call(|| self.plugin.on_trailers(trailers.as_slice().into()));
    }

    /// Tells the end; only the first one counts.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let end = self.how(outcome);
        self.hooks.call(|| self.plugin.on_end(&end));
    }

    fn how(&self, outcome: Outcome) -> End {
        let request_bytes =
            self.request_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        End::new(outcome, request_bytes, self.response_bytes)
    }

    /// Sets how it ends when it is dropped; `None`: as the drop itself says.
    pub(super) const fn ends_otherwise(&mut self, outcome: Option<Outcome>) {
        self.otherwise = outcome;
    }

    /// The context that the plugin has made for it.
    pub(super) fn context(&self) -> Context {
        self.hooks.call(|| self.plugin.context()).unwrap_or_default()
    }

    /// Whether the connection no longer speaks HTTP after a response of this status.
    pub(super) fn ends_http(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success())
    }

    /// Tells the head of the response that ends HTTP; what the plugin answers follows the tunnel.
    pub(super) fn upgrade(mut self, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        self.tell_head(&parts, Peer::NONE);
        match parts.extensions.get::<tunnel::Followed>() {
            Some(tunnel) => tunnel.by(self.upgraded()),
            // A handler has taken the connection by itself: nobody can tell its end.
            None => self.end(Outcome::COMPLETE),
        }
        Response::from_parts(parts, body)
    }

    fn upgraded(&mut self) -> Option<Self> {
        self.is_over = true;
        let tunnel = self.hooks.call(|| self.plugin.on_upgrade().into_option()).flatten()?;
        Some(self.succeeded_by(tunnel))
    }

    /// Tells the end of a tunnel, with the bytes from the client and to it.
    pub(super) fn end_tunnel(mut self, outcome: Outcome, up: u64, down: u64) {
        self.is_over = true;
        let end = End::new(outcome, up, down);
        self.hooks.call(|| self.plugin.on_end(&end));
    }

    /// Tells that this attempt is over and another one follows; the answer is the whole call.
    pub(super) fn retry(mut self, outcome: Outcome) -> Option<Self> {
        self.is_over = true;
        let end = self.how(outcome);
        let whole = self.hooks.call(|| self.plugin.on_retry(&end).into_option()).flatten()?;
        Some(self.succeeded_by(whole))
    }

    /// What the plugin has answered in place of this exchange.
    fn succeeded_by(&self, plugin: ExchangeObject) -> Self {
        Self {
            plugin,
            hooks: Arc::clone(&self.hooks),
            is_head: self.is_head,
            is_connect: self.is_connect,
            is_over: false,
            otherwise: None,
            request_bytes: None,
            response_bytes: 0,
        }
    }
}

/// What a response goes or comes by.
pub(super) struct Over {
    pub(super) version: Version,
    pub(super) peer: Peer,
    /// The context that the response's body is made in, where it is made here.
    pub(super) context: Option<Current>,
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(self.otherwise.unwrap_or_else(cut::reason));
    }
}

/// RFC 9110, section 6.4.1.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

pin_project! {
    /// A response body whose end is the exchange's end.
    struct FollowedBody {
        inner: Body,
        exchange: Exchange,
        // How the exchange ends when the last byte has gone.
        outcome: Outcome,
        // The whole length, where it is known beforehand.
        expected: Option<u64>,
        // HTTP/1.1 has trailers only where the length is not known, and asks for no frame past it.
        may_have_trailers: bool,
        context: Option<Current>,
    }

    impl PinnedDrop for FollowedBody {
        fn drop(this: Pin<&mut Self>) {
            // A body without a byte is dropped without having been asked for one.
            if this.has_all_bytes() {
                let this = this.project();
                this.exchange.end(*this.outcome);
            }
        }
    }
}

impl FollowedBody {
    fn has_all_bytes(&self) -> bool {
        self.expected == Some(self.exchange.response_bytes) || self.inner.is_end_stream()
    }

    /// The last frame ends the exchange, so that it ends before whatever it is a part of.
    fn passed(self: Pin<&mut Self>, frame: &Frame<Bytes>) {
        let is_last = !self.may_have_trailers || self.inner.is_end_stream();
        let is_last = is_last && self.has_all_bytes();
        let this = self.project();
        if let Some(trailers) = frame.trailers_ref() {
            this.exchange.tell_trailers(trailers);
            this.exchange.end(*this.outcome);
        } else if is_last {
            this.exchange.end(*this.outcome);
        }
    }
}

impl http_body::Body for FollowedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.as_mut().project();
        let inner = Pin::new(this.inner);
        let polled = match this.context {
            slot @ Some(_) => context::enter(slot, || inner.poll_frame(cx)),
            None => inner.poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.exchange.response_bytes += length(frame);
                self.passed(frame);
            }
            Poll::Ready(Some(Err(_))) => this.exchange.end(Outcome::UPSTREAM_GONE),
            Poll::Ready(None) => this.exchange.end(*this.outcome),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn length(frame: &Frame<Bytes>) -> u64 {
    frame.data_ref().map_or(0, |data| data.len() as u64)
}

/// A request body that counts what is read of it.
struct CountedBody {
    inner: Body,
    bytes: Arc<AtomicU64>,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.bytes.fetch_add(length(frame), Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
