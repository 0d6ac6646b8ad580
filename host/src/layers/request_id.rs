//! The id that a request keeps from its first hop to its last: `x-request-id`.

use http::{HeaderName, HeaderValue, Request};
use tower_http::request_id::{MakeRequestId, RequestId};
use uuid::{Uuid, fmt::Simple};

/// The header that carries the id.
pub(crate) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives a random UUID to a request that comes without an id.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MakeUuid;

impl MakeRequestId for MakeUuid {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        let mut text = [0; Simple::LENGTH];
        let text = Uuid::new_v4().simple().encode_lower(&mut text);
        HeaderValue::from_str(text).ok().map(RequestId::new)
    }
}
