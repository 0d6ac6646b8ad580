//! The id that a request keeps from its first hop to its last: `x-request-id`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::Uuid;

/// The header that carries the id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives an id to a request that comes without one: 16 hex digits that are random for this process,
/// and 16 that count. A random id for each would ask the kernel for bytes at every request.
#[derive(Debug, Clone)]
pub(crate) struct CountingIds {
    process: u64,
    next: Arc<AtomicU64>,
}

impl CountingIds {
    pub(crate) fn new() -> Self {
        let (process, _) = Uuid::new_v4().as_u64_pair();
        Self { process, next: Arc::default() }
    }
}

impl MakeRequestId for CountingIds {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let text = format!("{:016x}{count:016x}", self.process);
        HeaderValue::from_maybe_shared(Bytes::from(text)).ok().map(RequestId::new)
    }
}
