//! Why a call brought no response.

use std::time::Duration;

use tower::BoxError;

/// A call that brought no response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The host is still starting.
    #[error("service {service}: called before the host has started")]
    NotSealed {
        /// The service group that was called.
        service: String,
    },
    /// Discovery knows no instance of the group.
    #[error("service {service}: {reason}")]
    NoInstance {
        /// The service group that was called.
        service: String,
        /// Whether the group itself is unknown.
        reason: &'static str,
    },
    /// The request cannot be sent to anybody.
    #[error("service {service}: cannot be called with this request")]
    Request {
        /// The service group that was called.
        service: String,
        /// What is wrong with it.
        source: http::Error,
    },
    /// The request's body broke off while it was sent: whoever sends it is gone.
    #[error("service {service}: the request's body broke off")]
    RequestBody {
        /// The service group that was called.
        service: String,
        /// Why.
        source: BoxError,
    },
    /// No connection could be made.
    #[error("service {service}: cannot connect to {instance}")]
    Connect {
        /// The service group that was called.
        service: String,
        /// The instance that was chosen.
        instance: String,
        /// Why.
        source: BoxError,
    },
    /// The connection broke before a response head came.
    #[error("service {service}: no response from {instance}")]
    Upstream {
        /// The service group that was called.
        service: String,
        /// The instance that was chosen.
        instance: String,
        /// Why.
        source: BoxError,
    },
    /// The service answered with another protocol, which could not be spoken.
    #[error("service {service}: switched protocols in vain")]
    Switch {
        /// The service group that was called.
        service: String,
        /// Why not.
        source: BoxError,
    },
    /// The response's body is in a transfer coding that nobody here can undo.
    #[error("service {service}: answered in a transfer coding other than chunked")]
    Coding {
        /// The service group that was called.
        service: String,
    },
    /// No response head came in time.
    #[error("service {service}: no response from {instance} within {timeout:?}")]
    Timeout {
        /// The service group that was called.
        service: String,
        /// The instance that was chosen.
        instance: String,
        /// `client.request-timeout`.
        timeout: Duration,
    },
}

/// hyper's "client error (Connect)" and "tcp connect error" say nothing that `Connect` does not.
pub(crate) fn root_cause(error: impl std::error::Error + Send + Sync + 'static) -> BoxError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().into()
}
