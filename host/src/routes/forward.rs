//! A request that goes on to a service, and its response that comes back: RFC 9110, section 7.6.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, header, uri::PathAndQuery,
};

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
    join_cookies(request.headers_mut());
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

/// HTTP/2 may have cut the cookies into several lines, HTTP/1.1 has one: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    let lines = headers.get_all(header::COOKIE);
    if lines.iter().nth(1).is_none() {
        return;
    }
    let all = lines.iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    // Values joined by a header's own separator are a header's value.
    if let Ok(all) = HeaderValue::from_bytes(&all) {
        headers.insert(header::COOKIE, all);
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
    fn cookies_become_one_line() {
        let mut headers = HeaderMap::new();
        for value in ["a=1", "b=2; c=3", "d=4"] {
            headers.append(header::COOKIE, HeaderValue::from_static(value));
        }
        join_cookies(&mut headers);
        assert_eq!(
            headers.get_all(header::COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2; c=3; d=4"]
        );
    }

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
