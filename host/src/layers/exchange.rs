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
use crate::{
    Body,
    body::Keep,
    connect::Via,
    monotonic,
    telemetry::context::{self, Current},
};

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
    /// A box for another exchange, where they are kept.
    fn kept() -> Option<Box<State<Self>>>
    where
        Self: Sized,
    {
        None
    }
    /// Takes the box of one that is over.
    fn keep(_: Box<State<Self>>)
    where
        Self: Sized,
    {
    }
}

/// A followed exchange. Tells its end exactly once: when asked to, or when dropped.
///
/// It stays where it is from its beginning to its end: it passes every layer, and the response's
/// body is made of it.
pub(super) struct Exchange<F: Follower>(Box<State<F>>);

/// See [`Exchange`].
pub(super) struct State<F: Follower> {
    pub(super) follower: F,
    is_head: bool,
    is_over: bool,
    /// How it ends when it is dropped, where that is known beforehand.
    otherwise: Option<Outcome>,
    /// Counted by the request's body, which may live on while the response is sent.
    request_bytes: Option<Arc<AtomicU64>>,
    response_bytes: u64,
    /// The context that its handler and the response's body work in; nothing where others tell it.
    current: Current,
    /// What follows the response head, once that is there.
    rest: Option<Rest>,
}

/// The body of a response on its way.
struct Rest {
    body: Body,
    /// How the exchange ends when the last byte has gone.
    outcome: Outcome,
    /// The whole length, where it is known beforehand.
    expected: Option<u64>,
    /// HTTP/1.1 has trailers only where the length is not known, and asks for no frame past it.
    may_have_trailers: bool,
    /// Whether code may run in it, which is to find the context of the exchange.
    is_in_context: bool,
}

impl<F: Follower> Exchange<F> {
    pub(super) fn new(follower: F, method: &Method) -> Self {
        Self::of(follower, method == Method::HEAD)
    }

    fn of(follower: F, is_head: bool) -> Self {
        let Some(mut kept) = F::kept() else {
            return Self(Box::new(State {
                follower,
                is_head,
                is_over: false,
                otherwise: None,
                request_bytes: None,
                response_bytes: 0,
                current: Current::default(),
                rest: None,
            }));
        };
        // The rest is as in a new one, and would be copied for nothing.
        (kept.follower, kept.is_head, kept.is_over) = (follower, is_head, false);
        (kept.otherwise, kept.response_bytes) = (None, 0);
        Self(kept)
    }

    pub(super) const fn follower(&mut self) -> &mut F {
        &mut self.0.follower
    }

    /// The context to enter around whatever works for this exchange.
    pub(super) const fn current(&mut self) -> &mut Current {
        &mut self.0.current
    }

    /// Counts the bytes of the request's body; an empty one costs nothing.
    pub(super) fn count_request(&mut self, body: &mut Body) {
        if body.is_end_stream() {
            return;
        }
        let bytes = Arc::<AtomicU64>::default();
        self.0.request_bytes = Some(Arc::clone(&bytes));
        *body = Body::boxed(Box::new(CountedBody { inner: std::mem::take(body), bytes }));
    }

    /// Tells the response head, which goes as this `version` or comes by way of a connection, and
    /// follows the body to its end. The response stays where it is: a move is a copy of all its head.
    pub(super) fn respond(mut self, response: &mut Response<Body>, version: Version, via: Via) {
        self.follower().on_response(response, via);
        let ended = response.extensions().get();
        let outcome = ended.map_or(Outcome::COMPLETE, |Ended(outcome)| *outcome);
        let unread = self.0.is_head || has_no_body(response.status());
        let body = std::mem::take(response.body_mut());
        let expected = if unread { Some(0) } else { body.size_hint().exact() };
        let may_have_trailers = version == Version::HTTP_2;
        let is_in_context = self.0.current.outer().is_some() && body.runs_code();
        self.0.rest = Some(Rest { body, outcome, expected, may_have_trailers, is_in_context });
        *response.body_mut() = Body::kept(self.0);
    }

    /// Tells the end; only the first one counts.
    pub(super) fn end(&mut self, outcome: Outcome) {
        self.0.end(outcome);
    }

    /// Ends it without telling the end, which is returned.
    pub(super) fn close(&mut self, outcome: Outcome) -> End {
        self.0.close(outcome)
    }

    /// Sets how it ends when it is dropped; `None`: as the drop itself says.
    pub(super) const fn ends_otherwise(&mut self, outcome: Option<Outcome>) {
        self.0.otherwise = outcome;
    }

    /// Another exchange of the same request.
    pub(super) fn succeeded_by(&self, follower: F) -> Self {
        Self::of(follower, self.0.is_head)
    }
}

/// RFC 9110, section 6.4.1.
fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

impl Rest {
    fn is_sent(&self, bytes: u64) -> bool {
        self.expected == Some(bytes) || self.body.is_end_stream()
    }
}

impl<F: Follower> State<F> {
    fn end(&mut self, outcome: Outcome) {
        if !self.is_over {
            let end = self.close(outcome);
            self.follower.on_end(&end);
        }
    }

    fn close(&mut self, outcome: Outcome) -> End {
        self.is_over = true;
        let request_bytes =
            self.request_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed));
        End::new(outcome, request_bytes, self.response_bytes).seen_at(monotonic::now())
    }

    /// How it ends where it is dropped now.
    fn dropped(&self) -> Outcome {
        match &self.rest {
            // A body without a byte is dropped without having been asked for one.
            Some(rest) if rest.is_sent(self.response_bytes) => rest.outcome,
            _ => self.otherwise.unwrap_or_else(cut::reason),
        }
    }

    /// Nobody asks for anything any more.
    fn is_dropped(&mut self) {
        if !self.is_over {
            let outcome = self.dropped();
            // What it is made of ends first.
            self.rest = None;
            self.end(outcome);
        }
    }

    /// What a look at the body has shown. The last frame ends the exchange, so that it ends before
    /// whatever it is a part of.
    fn passed(&mut self, polled: &Polled) {
        let Some(rest) = &self.rest else { return };
        let outcome = rest.outcome;
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.response_bytes += length(frame);
                let may_follow = rest.may_have_trailers && !rest.body.is_end_stream();
                let is_last = !may_follow && rest.is_sent(self.response_bytes);
                if let Some(trailers) = frame.trailers_ref() {
                    self.follower.on_trailers(trailers);
                    self.end(outcome);
                } else if is_last {
                    self.end(outcome);
                }
            }
            Poll::Ready(Some(Err(_))) => self.end(Outcome::UPSTREAM_GONE),
            Poll::Ready(None) => self.end(outcome),
            Poll::Pending => {}
        }
    }
}

impl<F: Follower> Drop for State<F> {
    fn drop(&mut self) {
        self.is_dropped();
    }
}

impl<F: Follower> Keep for State<F> {
    fn runs_code(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.body.runs_code())
    }

    fn keep(mut self: Box<Self>) {
        self.is_dropped();
        (self.rest, self.request_bytes) = (None, None);
        self.current.clear();
        F::keep(self);
    }
}

// A body is pinned for the sake of what is in it, and of that only the response's is ever polled.
impl<F: Follower> Unpin for State<F> {}

type Polled = Poll<Option<Result<Frame<Bytes>, BoxError>>>;

/// The response's body, whose end is the exchange's end.
impl<F: Follower> http_body::Body for State<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Polled {
        let this = self.get_mut();
        let Some(rest) = &mut this.rest else { return Poll::Ready(None) };
        let body = Pin::new(&mut rest.body);
        let polled = if rest.is_in_context {
            context::enter(&mut this.current, || body.poll_frame(cx))
        } else {
            body.poll_frame(cx)
        };
        this.passed(&polled);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.rest.as_ref().is_none_or(|rest| rest.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.rest.as_ref().map_or_else(SizeHint::default, |rest| rest.body.size_hint())
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
