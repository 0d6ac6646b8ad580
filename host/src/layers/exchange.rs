//! One exchange that is followed, from its request head to the last byte of its response.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{self, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use plugin_api::{End, Outcome};
use tower::BoxError;

use super::cut;
use crate::{Body, connect::Via, telemetry::context, telemetry::context::Current};

/// Why a response of the host's own was given; an extension of that response.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended(pub(super) Outcome);

/// Whoever is told of an exchange: the plugin's recorder, or the access log.
pub(super) trait Follower: Send + 'static {
    /// The response head is about to be sent, or has come.
    fn on_response(&mut self, response: &Response<Body>, via: Via);
    /// The body has trailers.
    fn on_trailers(&mut self, trailers: &HeaderMap);
    /// The exchange is over; called once.
    fn on_end(&mut self, end: &End);
}

/// A followed exchange. Tells its end exactly once: when asked to, or when dropped.
pub(super) struct Exchange<F: Follower> {
    follower: F,
    is_head: bool,
    is_over: bool,
    /// How it ends when it is dropped, where that is known beforehand.
    otherwise: Option<Outcome>,
    /// Counted by the request's body, which may live on while the response is sent.
    request_bytes: Option<Arc<AtomicU64>>,
    response_bytes: u64,
}

impl<F: Follower> Exchange<F> {
    pub(super) fn new(follower: F, method: &Method) -> Self {
        Self::of(follower, method == Method::HEAD)
    }

    const fn of(follower: F, is_head: bool) -> Self {
        let (request_bytes, otherwise) = (None, None);
        Self { follower, is_head, is_over: false, otherwise, request_bytes, response_bytes: 0 }
    }

    pub(super) const fn follower(&mut self) -> &mut F {
        &mut self.follower
    }

    /// Counts the bytes of the request's body; an empty one costs nothing.
    pub(super) fn count_request(&mut self, body: &mut Body) {
        if body.is_end_stream() {
            return;
        }
        let bytes = Arc::<AtomicU64>::default();
        self.request_bytes = Some(Arc::clone(&bytes));
        *body = Body::boxed(CountedBody { inner: std::mem::take(body), bytes });
    }

    /// Tells the response head and follows the body to its end. `over` is the connection that the
    /// response goes or comes by.
    pub(super) fn respond(mut self, mut response: Response<Body>, over: Over) -> Response<Body> {
        let Over { version, via, context } = over;
        self.follower.on_response(&response, via);
        let ended = response.extensions().get();
        let outcome = ended.map_or(Outcome::COMPLETE, |Ended(outcome)| *outcome);
        let unread = self.is_head || has_no_body(response.status());
        let inner = std::mem::take(response.body_mut());
        let expected = if unread { Some(0) } else { inner.size_hint().exact() };
        let may_have_trailers = version == Version::HTTP_2;
        let body =
            FollowedBody { inner, exchange: self, outcome, expected, may_have_trailers, context };
        *response.body_mut() = Body::boxed(body);
        response
    }

    /// Tells the end; only the first one counts.
    pub(super) fn end(&mut self, outcome: Outcome) {
        if !self.is_over {
            let end = self.close(outcome);
            self.follower.on_end(&end);
        }
    }

    /// Ends it without telling the end, which is returned.
    pub(super) fn close(&mut self, outcome: Outcome) -> End {
        self.is_over = true;
        let request_bytes =
            self.request_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        End::new(outcome, request_bytes, self.response_bytes)
    }

    /// Sets how it ends when it is dropped; `None`: as the drop itself says.
    pub(super) const fn ends_otherwise(&mut self, outcome: Option<Outcome>) {
        self.otherwise = outcome;
    }

    /// Another exchange of the same request.
    pub(super) const fn succeeded_by(&self, follower: F) -> Self {
        Self::of(follower, self.is_head)
    }
}

/// What a response goes or comes by.
pub(super) struct Over {
    pub(super) version: Version,
    pub(super) via: Via,
    /// The context that the response's body is made in, where it is made here.
    pub(super) context: Option<Current>,
}

impl<F: Follower> Drop for Exchange<F> {
    fn drop(&mut self) {
        self.end(self.otherwise.unwrap_or_else(cut::reason));
    }
}

/// RFC 9110, section 6.4.1.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// A response body whose end is the exchange's end.
struct FollowedBody<F: Follower> {
    inner: Body,
    exchange: Exchange<F>,
    /// How the exchange ends when the last byte has gone.
    outcome: Outcome,
    /// The whole length, where it is known beforehand.
    expected: Option<u64>,
    /// HTTP/1.1 has trailers only where the length is not known, and asks for no frame past it.
    may_have_trailers: bool,
    context: Option<Current>,
}

// A body is pinned for the sake of what is in it, and of that only `inner` is ever polled.
impl<F: Follower> Unpin for FollowedBody<F> {}

impl<F: Follower> Drop for FollowedBody<F> {
    fn drop(&mut self) {
        // A body without a byte is dropped without having been asked for one.
        if !self.exchange.is_over && self.has_all_bytes() {
            // What it is made of ends first.
            drop(std::mem::take(&mut self.inner));
            self.exchange.end(self.outcome);
        }
    }
}

impl<F: Follower> FollowedBody<F> {
    fn has_all_bytes(&self) -> bool {
        self.expected == Some(self.exchange.response_bytes) || self.inner.is_end_stream()
    }

    /// The last frame ends the exchange, so that it ends before whatever it is a part of.
    fn passed(&mut self, frame: &Frame<Bytes>) {
        self.exchange.response_bytes += length(frame);
        let is_last = !self.may_have_trailers || self.inner.is_end_stream();
        if let Some(trailers) = frame.trailers_ref() {
            self.exchange.follower.on_trailers(trailers);
            self.exchange.end(self.outcome);
        } else if is_last && self.has_all_bytes() {
            self.exchange.end(self.outcome);
        }
    }
}

impl<F: Follower> http_body::Body for FollowedBody<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let inner = Pin::new(&mut this.inner);
        let polled = match &mut this.context {
            slot @ Some(_) => context::enter(slot, || inner.poll_frame(cx)),
            None => inner.poll_frame(cx),
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => this.passed(frame),
            Poll::Ready(Some(Err(_))) => this.exchange.end(Outcome::UPSTREAM_GONE),
            Poll::Ready(None) => this.exchange.end(this.outcome),
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
