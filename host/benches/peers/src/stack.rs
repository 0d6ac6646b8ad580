//! The layers of the host's server stack, from tower and tower-http, with no place for a plugin.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tower::{BoxError, Service, ServiceBuilder, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};

use crate::forward::Forwarder;

/// As many as the host takes by default.
const MOST_IN_FLIGHT: usize = 10_000;
/// As long as the host waits by default.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The forwarder, each of whose requests has an id, a limit and a timeout.
pub(crate) fn around(
    forwarder: Forwarder,
) -> impl Service<
    Request<Incoming>,
    Response = Response<
        impl hyper::body::Body<Data = hyper::body::Bytes, Error: Into<BoxError>> + Send,
    >,
    Error = BoxError,
    Future: Send,
> + Clone
+ Send {
    let forwarding = service_fn(move |request| forwarder.clone().forward(request));
    let limited = ServiceBuilder::new()
        .load_shed()
        .layer(GlobalConcurrencyLimitLayer::new(MOST_IN_FLIGHT))
        .timeout(TIMEOUT)
        .service(forwarding);
    ServiceBuilder::new()
        .layer(SetRequestIdLayer::x_request_id(MakeRequestUuid))
        .layer(PropagateRequestIdLayer::x_request_id())
        .layer(CatchPanicLayer::new())
        .service(limited)
}
