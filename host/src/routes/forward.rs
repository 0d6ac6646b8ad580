//! A request that goes on to a service, and its response that comes back: RFC 9110, section 7.6.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Request, Response, Uri, Version, header, uri::PathAndQuery};

use crate::{Body, CallError, Client};

/// Whether a header speaks of one connection only and does not go on: RFC 9110, section 7.6.1.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Sends `request` to `service`, under another path where there is one. Both bodies are streamed.
pub(super) async fn forward(
    client: Client,
    service: Arc<str>,
    path: Option<Result<PathAndQuery, http::Error>>,
    mut request: Request<Body>,
) -> Result<Response<Body>, CallError> {
    if let Some(path) = path
        .transpose()
        .map_err(|source| CallError::Request { service: service.to_string(), source })?
    {
        *request.uri_mut() = Uri::from(path);
    }
    strip(request.headers_mut());
    let mut response = client.call(&service, request).await?;
    strip(response.headers_mut());
    // A service may speak an older version than our client does.
    *response.version_mut() = Version::HTTP_11;
    Ok(response)
}

/// Most messages have nothing to take out, so one look over the names comes first: eight look-ups
/// would cost as much as the rest of the forwarding.
fn strip(headers: &mut HeaderMap) {
    if !headers.keys().any(is_hop_by_hop) {
        return;
    }
    let mut names = named_by_connection(headers);
    names.extend(headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    for name in names {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).filter_map(|name| name.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_the_connection_does_not_go_on() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("upgrade", "websocket"),
            ("accept", "*/*"),
        ] {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        strip(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["accept"]);
    }
}
