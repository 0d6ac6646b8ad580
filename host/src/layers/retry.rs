//! Which calls are made again, and of what: RFC 9110, section 9.2.2.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body::{Body as _, Frame, SizeHint};
use tower::BoxError;

use super::Failed;
use crate::Body;

/// The retries of one client.
#[derive(Debug)]
pub(crate) struct Retries {
    most: u32,
    budget: Budget,
}

impl Retries {
    /// At most this many for a call.
    pub(crate) const fn new(most: u32) -> Self {
        Self { most, budget: Budget::full() }
    }

    /// What is needed to send `request` once more; `None` where it is sent once only.
    pub(crate) fn prepare(&self, request: &mut Request<Body>) -> Option<Repeat> {
        (self.most > 0).then(|| Repeat::of(request))
    }

    /// The request once more after an attempt that has `failed`, where that may be made now; it was
    /// `resent` this many times already.
    ///
    /// What may do harm twice is only sent again where nothing of it was sent.
    pub(crate) fn again(
        &self,
        repeat: &Repeat,
        failed: &Failed,
        resent: u32,
    ) -> Option<Request<Body>> {
        let is_harmless = is_idempotent(&repeat.method) && failed.is_unanswered();
        let next = (is_harmless || failed.is_unsent()).then(|| repeat.request()).flatten();
        next.filter(|_| self.allow(resent))
    }

    /// Whether another attempt may be made now, after one that was sent this many times already.
    fn allow(&self, resent: u32) -> bool {
        resent < self.most && self.budget.withdraw()
    }

    /// An attempt was answered.
    pub(crate) fn answered(&self) {
        self.budget.deposit();
    }
}

/// RFC 9110, section 9.2.2. CONNECT and methods that are not known are none.
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Keeps retries from multiplying the load of services that are failing: a thousand at once, as all
/// that is in flight on an instance fails when it dies, and then one for ten answers. tower's budget takes
/// a lock and reads the clock for every request; this one is a load where all is well.
#[derive(Debug)]
struct Budget(AtomicU32);

impl Budget {
    const FULL: u32 = 10_000;
    const RETRY: u32 = 10;

    const fn full() -> Self {
        Self(AtomicU32::new(Self::FULL))
    }

    fn deposit(&self) {
        // Threads that pass the check together put in one too many each, which hurts nobody.
        if self.0.load(Ordering::Relaxed) < Self::FULL {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn withdraw(&self) -> bool {
        let rest = |budget: u32| budget.checked_sub(Self::RETRY);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, rest).is_ok()
    }
}

/// A request that may be sent again.
///
/// The headers stand here one by one and not as a map, whose copy would take two allocations and
/// a hash of each name for every request that is answered at once.
pub(crate) struct Repeat {
    method: Method,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Where the body comes back to; `None` where it is empty.
    body: Option<Slot>,
}

type Slot = Arc<Mutex<Option<Body>>>;

impl Repeat {
    fn of(request: &mut Request<Body>) -> Self {
        let headers = request.headers().iter();
        Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: headers.map(|(name, value)| (name.clone(), value.clone())).collect(),
            body: lend(request.body_mut()),
        }
    }

    /// The request once more, unless some of its body is gone.
    fn request(&self) -> Option<Request<Body>> {
        let body = match &self.body {
            Some(slot) => slot.lock().unwrap_or_else(PoisonError::into_inner).take()?,
            None => Body::empty(),
        };
        let mut request = Request::new(body);
        if let Some(slot) = &self.body {
            let body = std::mem::take(request.body_mut());
            *request.body_mut() = lent(body, slot);
        }
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let mut headers = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            headers.append(name, value.clone());
        }
        *request.headers_mut() = headers;
        Some(request)
    }
}

/// Makes `body` come back where nothing of it is read.
fn lend(body: &mut Body) -> Option<Slot> {
    if body.is_end_stream() {
        return None;
    }
    let slot = Slot::default();
    *body = lent(std::mem::take(body), &slot);
    Some(slot)
}

fn lent(body: Body, slot: &Slot) -> Body {
    Body::boxed(Box::new(Lent { body, is_touched: false, slot: Arc::clone(slot) }))
}

/// A body that goes back to its slot when it is dropped as it came.
struct Lent {
    body: Body,
    is_touched: bool,
    slot: Slot,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if !self.is_touched {
            let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
            *slot = Some(std::mem::take(&mut self.body));
        }
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        this.is_touched = true;
        Pin::new(&mut this.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn request(method: &str, body: &'static str) -> Request<Body> {
        let request = Request::builder().method(method).uri("/x?y=z").header("a", "1");
        request.header("b", "2").header("a", "3").body(Body::from(body)).unwrap()
    }

    #[test]
    fn only_what_does_no_harm_twice_is_repeated() {
        for (method, is_repeated) in [
            ("GET", true),
            ("HEAD", true),
            ("OPTIONS", true),
            ("TRACE", true),
            ("PUT", true),
            ("DELETE", true),
            ("POST", false),
            ("PATCH", false),
            ("CONNECT", false),
            ("get", false),
            ("PURGE", false),
        ] {
            let method = method.parse().unwrap();
            assert_eq!(is_idempotent(&method), is_repeated, "{method}");
        }
        assert!(Retries::new(0).prepare(&mut request("GET", "")).is_none());
    }

    #[tokio::test]
    async fn a_repeated_request_is_the_same() {
        let mut first = request("PUT", "body");
        let repeat = Retries::new(2).prepare(&mut first).unwrap();
        // Two attempts that did not get as far as the body.
        let (wanted, headers) = (first.uri().clone(), first.headers().clone());
        drop(first);
        drop(repeat.request().unwrap());
        let third = repeat.request().unwrap();
        assert_eq!(
            (third.method(), third.uri(), third.headers()),
            (&Method::PUT, &wanted, &headers)
        );
        assert_eq!(third.body().size_hint().exact(), Some(4));
        assert_eq!(third.into_body().collect().await.unwrap().to_bytes(), "body");
        assert!(repeat.request().is_none(), "the body is gone");
    }

    #[tokio::test]
    async fn a_body_that_was_begun_is_not_sent_again() {
        let mut first = request("PUT", "body");
        let repeat = Retries::new(2).prepare(&mut first).unwrap();
        assert!(repeat.request().is_none(), "the body is on its way");
        let mut body = first.into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert!(repeat.request().is_none());
    }

    #[test]
    fn retries_are_a_share_of_the_answers() {
        let retries = Retries::new(2);
        let allowed = || (0..5000).filter(|_| retries.allow(0)).count();
        assert_eq!(allowed(), 1000);
        (0..25).for_each(|_| retries.answered());
        assert_eq!(allowed(), 2);
        (0..100_000).for_each(|_| retries.answered());
        assert_eq!(allowed(), 1000, "no more than at the start");
    }

    #[test]
    fn a_call_is_made_so_often_and_no_more() {
        let retries = Retries::new(2);
        assert_eq!([0, 1, 2, 3].map(|resent| retries.allow(resent)), [true, true, false, false]);
    }
}
