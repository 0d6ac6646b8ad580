//! Calls to other services: a handler's way out.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{Request, Response, Uri, Version, header, uri};
use hyper_util::{
    client::legacy::{Client as LegacyClient, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tower::BoxError;

use crate::{
    Body,
    config::{self, BaseUrl},
    layers::{HttpClient, is_request_body, within},
    stack::SealedClientStack,
};

/// A handle to call other services with; cheap to clone, usable from any task.
///
/// It is given out before the client stack is sealed, so that a handler can be built around it, and
/// answers [`CallError::NotSealed`] until then.
#[derive(Clone, Debug, Default)]
pub struct Client(Arc<OnceLock<SealedClientStack>>);

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

impl Client {
    /// Opens the way out. Called once, by the start-up.
    pub(crate) fn seal(&self, stack: SealedClientStack) {
        // A second stack would be a second start-up, which nothing can bring about.
        let _ = self.0.set(stack);
    }

    /// Sends `request` to an instance of the service group `service` and waits for the response
    /// head. Of the request's target only path and query count.
    ///
    /// The call is a child of the exchange that the calling task works for; see
    /// [`telemetry::context`](crate::telemetry::context).
    ///
    /// # Errors
    /// When no response head came; see [`CallError`]. A body that breaks later is an error of that
    /// body.
    pub async fn call(
        &self,
        service: &str,
        request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let not_sealed = || CallError::NotSealed { service: service.to_owned() };
        let stack = self.0.get().ok_or_else(not_sealed)?;
        let target = stack.balance(service)?;
        let request = target.address(service, request)?;
        let Ok(answer) = within(stack.timeout(), stack.send(service, request)).await else {
            return Err(CallError::Timeout {
                service: service.to_owned(),
                instance: target.instance(),
                timeout: stack.timeout(),
            });
        };
        answer.map_err(|error| {
            let (service, instance) = (service.to_owned(), target.instance());
            if is_request_body(&error) {
                return CallError::RequestBody { service, source: error.into() };
            }
            if error.is_connect() {
                return CallError::Connect { service, instance, source: root_cause(error) };
            }
            CallError::Upstream { service, instance, source: error.into() }
        })
    }
}

/// hyper's "client error (Connect)" and "tcp connect error" say nothing that `Connect` does not.
fn root_cause(error: impl std::error::Error + Send + Sync + 'static) -> BoxError {
    let mut cause: &dyn std::error::Error = &error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string().into()
}

/// The instance that a call goes to.
#[derive(Debug)]
pub(crate) struct Target(pub(crate) BaseUrl);

impl Target {
    fn instance(&self) -> String {
        self.0.uri().to_string()
    }

    /// Puts the instance's address in front of the request's path, and takes out what belonged to
    /// the connection that the request came by.
    fn address(&self, service: &str, request: Request<Body>) -> Result<Request<Body>, CallError> {
        let (mut parts, body) = request.into_parts();
        parts.uri = self
            .join(&parts.uri)
            .map_err(|source| CallError::Request { service: service.to_owned(), source })?;
        // Which version is spoken to an instance is the connection's business.
        parts.version = Version::HTTP_11;
        parts.headers.insert(header::HOST, self.0.host().clone());
        Ok(Request::from_parts(parts, body))
    }

    fn join(&self, target: &Uri) -> Result<Uri, http::Error> {
        let base = self.0.uri().clone().into_parts();
        let prefix = base.path_and_query.as_ref().map_or("", |path| path.path());
        let own = target.path_and_query().cloned();
        let path = match prefix.trim_end_matches('/') {
            "" => own.unwrap_or_else(|| uri::PathAndQuery::from_static("/")),
            prefix => {
                let own = own.as_ref().map_or("/", uri::PathAndQuery::as_str);
                uri::PathAndQuery::try_from(format!("{prefix}{own}"))?
            }
        };
        let mut parts = uri::Parts::default();
        parts.scheme = base.scheme;
        parts.authority = base.authority;
        parts.path_and_query = Some(path);
        Ok(Uri::from_parts(parts)?)
    }
}

/// The pooling client at the bottom of the stack.
pub(crate) fn http(config: &config::Client) -> HttpClient {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(config.connect_timeout));
    connector.set_nodelay(true);
    LegacyClient::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instance_stands_in_front_of_the_path() {
        for (base, own, wanted) in [
            ("http://a:1", "/x?y=z", "http://a:1/x?y=z"),
            ("http://a:1/", "/x", "http://a:1/x"),
            ("http://a:1/base/", "/x?y", "http://a:1/base/x?y"),
            ("http://a:1", "http://greeter/x", "http://a:1/x"),
        ] {
            let target = Target(BaseUrl::try_from(base.to_owned()).unwrap());
            let joined = target.join(&own.parse().unwrap()).unwrap();
            assert_eq!(joined.to_string(), wanted, "{base} {own}");
        }
    }

    #[tokio::test]
    async fn a_call_before_the_start_is_refused() {
        let answer = Client::default().call("a", Request::new(Body::empty())).await;
        assert!(matches!(answer, Err(CallError::NotSealed { .. })));
    }
}
