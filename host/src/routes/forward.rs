//! A request that goes on to a service, and its response that comes back: RFC 9110, section 7.6.

use std::sync::Arc;

use http::{
    HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header,
    uri::PathAndQuery,
};

use hyper_util::rt::TokioIo;
use tower::BoxError;

use crate::{Body, CallError, Client, Tunnel};

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
///
/// An `async` function would hold the request twice: as it was given, and as it is worked on.
pub(super) fn forward(
    client: Client,
    service: Arc<str>,
    path: Option<Result<PathAndQuery, http::Error>>,
    mut request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, CallError>> + Send {
    let path = path.transpose().map(|path| {
        if let Some(path) = path {
            *request.uri_mut() = Uri::from(path);
        }
    });
    let upgrade = prepare(&mut request);
    async move {
        path.map_err(|source| CallError::Request { service: service.to_string(), source })?;
        let mut response = client.send(&service, &mut request).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return switched(&service, upgrade, response).await;
        }
        if has_hop_by_hop(response.headers()) {
            if has_other_coding(response.headers()) {
                return Err(CallError::Coding { service: service.to_string() });
            }
            strip(response.headers_mut());
        }
        // A service may speak an older version than our client does.
        *response.version_mut() = Version::HTTP_11;
        Ok(response)
    }
}

/// Takes out what belongs to the connection that the request came by; the answer is what it asks
/// that connection to become.
fn prepare(request: &mut Request<Body>) -> Option<Upgrade> {
    let (mut upgrade, mut wants_trailers) = (None, false);
    if has_hop_by_hop(request.headers()) {
        upgrade = Upgrade::of(request);
        wants_trailers = takes_trailers(request.headers());
        strip(request.headers_mut());
    }
    join_cookies(request.headers_mut());
    if let Some(upgrade) = &upgrade {
        ask(request.headers_mut(), &upgrade.protocol);
    }
    if wants_trailers {
        take_trailers(request.headers_mut());
    }
    upgrade
}

/// Whether trailers are welcome: RFC 9110, section 10.1.4. Whatever else `TE` lists is a coding of
/// this one connection.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::TE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|name| name.trim().eq_ignore_ascii_case("trailers"))
}

/// Trailers pass here, so the next hop may send some: many send none unasked.
fn take_trailers(headers: &mut HeaderMap) {
    // In one line: there are those who look at the first one alone.
    let names = if headers.contains_key(header::UPGRADE) { "upgrade, te" } else { "te" };
    headers.insert(header::CONNECTION, HeaderValue::from_static(names));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
}

/// A request for another protocol on the same connection, and what it asks for.
struct Upgrade {
    tunnel: Tunnel,
    protocol: HeaderValue,
}

impl Upgrade {
    fn of(request: &mut Request<Body>) -> Option<Self> {
        let headers = request.headers();
        let mut protocols = headers.get_all(header::UPGRADE).iter();
        let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return None };
        if !named_by_connection(headers).contains(&header::UPGRADE) || !may_pass(protocol) {
            return None;
        }
        let protocol = protocol.clone();
        Some(Self { tunnel: Tunnel::of(request)?, protocol })
    }
}

/// Whether a protocol is one to tunnel. Another version of HTTP, or TLS with whatever is in it,
/// would bring requests past the routes.
fn may_pass(protocol: &HeaderValue) -> bool {
    let is_http = |name: &str| ["h2c", "h2", "http", "tls"].contains(&name);
    protocol.to_str().is_ok_and(|names| {
        let mut names = names.split(',').map(|name| name.trim().to_ascii_lowercase());
        names.all(|name| !is_http(name.split('/').next().unwrap_or_default()))
    })
}

fn ask(headers: &mut HeaderMap, protocol: &HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol.clone());
}

/// The 101 of a service: joins its connection with the client's.
async fn switched(
    service: &str,
    upgrade: Option<Upgrade>,
    mut response: Response<Body>,
) -> Result<Response<Body>, CallError> {
    let failed = |source: BoxError| CallError::Switch { service: service.to_owned(), source };
    let upgrade = upgrade.ok_or_else(|| failed("nobody has asked for it".into()))?;
    let upstream = hyper::upgrade::on(&mut response).await.map_err(|e| failed(e.into()))?;
    let protocol = response.headers().get(header::UPGRADE).cloned().unwrap_or(upgrade.protocol);
    strip(response.headers_mut());
    ask(response.headers_mut(), &protocol);
    // The call ends here, before the request that it is a part of.
    *response.body_mut() = Body::empty();
    upgrade.tunnel.join(TokioIo::new(upstream), &mut response);
    Ok(response)
}

/// Most messages have nothing to take out, so one look over the names comes first: eight look-ups
/// would cost as much as the rest of the forwarding.
fn has_hop_by_hop(headers: &HeaderMap) -> bool {
    headers.keys().any(is_hop_by_hop)
}

fn strip(headers: &mut HeaderMap) {
    let mut names = named_by_connection(headers);
    names.extend(headers.keys().filter(|name| is_hop_by_hop(name)).cloned());
    for name in names {
        headers.remove(name);
    }
}

/// Whether a body is in a transfer coding that is not hyper's to undo. It would go on without a word of
/// that: RFC 9112, section 7.
pub(super) fn has_other_coding(headers: &HeaderMap) -> bool {
    // As above.
    let lines = headers.iter().filter(|(name, _)| *name == header::TRANSFER_ENCODING);
    lines.flat_map(|(_, line)| line.as_bytes().split(|byte| *byte == b',')).any(|coding| {
        let coding = coding.trim_ascii();
        !coding.is_empty() && !coding.eq_ignore_ascii_case(b"chunked")
    })
}

/// HTTP/2 may have cut the cookies into several lines, HTTP/1.1 has one: RFC 9113, section 8.2.3.
fn join_cookies(headers: &mut HeaderMap) {
    // As above: a look over the names is less than one look-up.
    if !headers.keys().any(|name| *name == header::COOKIE) {
        return;
    }
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
    fn http_is_not_tunnelled() {
        for (protocol, passes) in [
            ("websocket", true),
            ("WebSocket", true),
            ("foo/2, bar", true),
            ("h2c", false),
            ("H2C", false),
            ("HTTP/2.0", false),
            ("websocket, h2c", false),
            ("TLS/1.0,HTTP/1.1", false),
        ] {
            assert_eq!(may_pass(&HeaderValue::from_static(protocol)), passes, "{protocol}");
        }
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

    #[test]
    fn chunked_is_the_only_coding_that_is_known() {
        for (lines, is_other) in [
            (&[][..], false),
            (&["chunked"], false),
            (&[" , Chunked"], false),
            (&["gzip, chunked"], true),
            (&["gzip", "chunked"], true),
            (&["deflate"], true),
            (&["chunked;q=1"], true),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::TRANSFER_ENCODING, HeaderValue::from_static(line));
            }
            assert_eq!(has_other_coding(&headers), is_other, "{lines:?}");
        }
    }

    #[test]
    fn that_trailers_are_welcome_goes_on_and_other_codings_do_not() {
        for (te, goes_on) in [
            (&["trailers"][..], true),
            (&["gzip;q=0.5, Trailers"], true),
            (&["deflate", "trailers"], true),
            (&["gzip"], false),
            (&["trailers-of-another-kind"], false),
        ] {
            let mut request = Request::new(Body::empty());
            for line in te {
                request.headers_mut().append(header::TE, HeaderValue::from_static(line));
            }
            prepare(&mut request);
            let line = |name| request.headers().get(name).map(HeaderValue::as_bytes);
            assert_eq!(line(header::TE), goes_on.then_some(&b"trailers"[..]), "{te:?}");
            assert_eq!(line(header::CONNECTION), goes_on.then_some(&b"te"[..]), "{te:?}");
        }
    }

    #[test]
    fn an_upgrade_and_trailers_are_asked_for_in_one_line() {
        let mut headers = HeaderMap::new();
        ask(&mut headers, &HeaderValue::from_static("websocket"));
        take_trailers(&mut headers);
        let lines: Vec<_> = headers.get_all(header::CONNECTION).iter().collect();
        assert_eq!(lines, ["upgrade, te"]);
    }
}
