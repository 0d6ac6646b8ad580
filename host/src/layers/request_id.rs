//! The id that a request keeps from its first hop to its last: `x-request-id`.
//!
//! tower-http has this layer too; its ids travel in extensions, which cost five allocations a
//! request more than the header alone.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use http::{HeaderName, HeaderValue, Request, Response, header::Entry};
use pin_project_lite::pin_project;
use tower::{Layer, Service};
use uuid::Uuid;

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Puts a [`RequestId`] around a service.
#[derive(Debug, Clone)]
pub(crate) struct RequestIdLayer(Ids);

impl RequestIdLayer {
    pub(crate) fn new() -> Self {
        Self(Ids::new())
    }
}

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestId<S>;

    fn layer(&self, inner: S) -> RequestId<S> {
        RequestId { inner, ids: self.0.clone() }
    }
}

/// Gives an id to a request that comes without one, and every response the id of its request.
#[derive(Debug, Clone)]
pub(crate) struct RequestId<S> {
    inner: S,
    ids: Ids,
}

impl<S, B, R> Service<Request<B>> for RequestId<S>
where
    S: Service<Request<B>, Response = Response<R>>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RequestIdFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let header = request.headers_mut().entry(X_REQUEST_ID);
        let id = header.or_insert_with(|| self.ids.next()).clone();
        RequestIdFuture { inner: self.inner.call(request), id }
    }
}

pin_project! {
    /// A response that is about to get its request's id.
    pub(crate) struct RequestIdFuture<F> {
        #[pin]
        inner: F,
        id: HeaderValue,
    }
}

impl<F, R, E> Future for RequestIdFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut polled = this.inner.poll(cx);
        if let Poll::Ready(Ok(response)) = &mut polled
            && let Entry::Vacant(header) = response.headers_mut().entry(X_REQUEST_ID)
        {
            header.insert(this.id.clone());
        }
        polled
    }
}

/// Ids of 16 hex digits that are random for this process, and 16 that count. A random id for each
/// request would ask the kernel for bytes every time.
#[derive(Debug, Clone)]
struct Ids {
    process: [u8; DIGITS],
    next: Arc<AtomicU64>,
}

/// How many digits a 64-bit number has.
const DIGITS: usize = 16;

impl Ids {
    fn new() -> Self {
        let (process, _) = Uuid::new_v4().as_u64_pair();
        Self { process: digits(process), next: Arc::default() }
    }

    fn next(&self) -> HeaderValue {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut text = [0; 2 * DIGITS];
        text[..DIGITS].copy_from_slice(&self.process);
        text[DIGITS..].copy_from_slice(&digits(count));
        // Hex digits are always a header's value.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("none"))
    }
}

fn digits(mut number: u64) -> [u8; DIGITS] {
    let mut text = [0; DIGITS];
    for digit in text.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 0xf) as usize];
        number >>= 4;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_hex_and_differ() {
        let ids = Ids::new();
        let [first, second] = [ids.next(), ids.next()].map(|id| id.to_str().unwrap().to_owned());
        assert!(first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
        assert!(first.ends_with("0000000000000000") && second.ends_with("0000000000000001"));
    }

    async fn ids_of(own: Option<&str>, answered: Option<&'static str>) -> (String, String) {
        let (mut service, mut handle) = tower_test::mock::spawn_layer(RequestIdLayer::new());
        let mut request = Request::new(());
        if let Some(own) = own {
            request.headers_mut().insert(X_REQUEST_ID, own.parse().unwrap());
        }
        assert!(service.poll_ready().is_ready());
        let answer = service.call(request);
        let (seen, send): (Request<()>, _) = handle.next_request().await.unwrap();
        let mut response = Response::new(());
        if let Some(id) = answered {
            response.headers_mut().insert(X_REQUEST_ID, HeaderValue::from_static(id));
        }
        send.send_response(response);
        let response = answer.await.unwrap();
        let id = |headers: &http::HeaderMap| headers[X_REQUEST_ID].to_str().unwrap().to_owned();
        (id(seen.headers()), id(response.headers()))
    }

    #[tokio::test]
    async fn a_response_has_the_id_of_its_request() {
        let (seen, answered) = ids_of(None, None).await;
        assert_eq!(seen, answered);
        assert_eq!(ids_of(Some("mine"), None).await, ("mine".into(), "mine".into()));
        assert_eq!(ids_of(Some("mine"), Some("yours")).await, ("mine".into(), "yours".into()));
    }
}
