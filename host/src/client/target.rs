//! Where an attempt goes.

use std::time::Duration;

use http::{Request, Response, Uri, Version, header, uri};

use super::{CallError, call_error::root_cause};
use crate::{
    Body,
    config::BaseUrl,
    discovery::{Chosen, Member},
    layers::{Attempts, Failed},
};

/// The instance that an attempt goes to, and is in flight on.
pub(super) struct Target(Chosen);

impl Target {
    pub(super) const fn new(chosen: Chosen) -> Self {
        Self(chosen)
    }

    pub(super) fn member(&self) -> &Member {
        self.0.member()
    }

    fn url(&self) -> &BaseUrl {
        &self.0.member().instance().url
    }

    fn instance(&self) -> String {
        self.url().uri().to_string()
    }

    /// The exchange is in flight on the instance until the response's body has ended.
    pub(super) fn answered(self, response: &mut Response<Body>) {
        self.0.answered();
        response.body_mut().be_of(self.0);
    }

    pub(super) fn timeout(&self, service: &str, timeout: Duration) -> CallError {
        CallError::Timeout { service: service.to_owned(), instance: self.instance(), timeout }
    }

    pub(super) fn failed(
        &self,
        service: &str,
        failed: Failed,
        attempts: &mut Attempts,
    ) -> CallError {
        let error = failed.give_up(attempts);
        let (service, instance) = (service.to_owned(), self.instance());
        if error.is_request_body() {
            CallError::RequestBody { service, source: error.into_source() }
        } else if error.is_connect() {
            CallError::Connect { service, instance, source: root_cause(error) }
        } else {
            CallError::Upstream { service, instance, source: error.into_source() }
        }
    }

    /// Puts the instance's address in front of the request's path, and takes out what belonged to
    /// the connection that the request came by.
    pub(super) fn address(
        &self,
        service: &str,
        request: &mut Request<Body>,
    ) -> Result<(), CallError> {
        *request.uri_mut() = join(self.url(), request.uri())
            .map_err(|source| CallError::Request { service: service.to_owned(), source })?;
        // Which version is spoken to an instance is the connection's business.
        *request.version_mut() = Version::HTTP_11;
        request.headers_mut().insert(header::HOST, self.url().host().clone());
        Ok(())
    }
}

fn join(base: &BaseUrl, target: &Uri) -> Result<Uri, http::Error> {
    let base = base.uri().clone().into_parts();
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
            let base = BaseUrl::try_from(base.to_owned()).unwrap();
            let joined = join(&base, &own.parse().unwrap()).unwrap();
            assert_eq!(joined.to_string(), wanted, "{base:?} {own}");
        }
    }
}
