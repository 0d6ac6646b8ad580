//! The URL that exports are sent to.

use http::{Uri, uri::Authority};

use super::Protocol;
use crate::{redact::shown_url, signal::Signal};

/// The URL that exports of a signal are sent to below this base.
pub(super) fn export_url(base: &str, protocol: Protocol, signal: Signal) -> Result<String, String> {
    let base = checked_url(base)?;
    match protocol {
        Protocol::Grpc => Ok(base),
        Protocol::HttpProtobuf | Protocol::HttpJson => {
            let (base, query) = base.split_at(base.find('?').unwrap_or(base.len()));
            let base = base.trim_end_matches('/');
            let path = signal.path();
            if base.ends_with(path) {
                let shown = shown_url(base);
                return Err(format!("wanted the URL that /{path} is added to, found {shown:?}"));
            }
            Ok(format!("{base}/{path}{query}"))
        }
    }
}

/// The text, if it is a URL that exports can go to.
pub(super) fn checked_url(text: &str) -> Result<String, String> {
    let shown = shown_url(text);
    let is_http = ["http://", "https://"].iter().any(|start| text.starts_with(start));
    let uri: Option<Uri> = text.parse().ok().filter(|_| is_http);
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    if host.is_empty() {
        return Err(format!("wanted a URL such as \"http://localhost:4317\", found {shown:?}"));
    }
    if uri.as_ref().and_then(Uri::authority).is_some_and(|place| place.as_str().contains('@')) {
        return Err(format!("wanted a URL without user, found {shown:?}: use headers instead"));
    }
    if uri.as_ref().is_some_and(has_wrong_port) {
        return Err(format!("wanted a URL with a port up to 65535, found {shown:?}"));
    }
    Ok(text.to_owned())
}

/// Whether a port is written that is none: `http` then answers as if there were no port at all.
fn has_wrong_port(uri: &Uri) -> bool {
    let parts = uri.authority().map(Authority::as_str).zip(uri.host());
    let port = parts.and_then(|(authority, host)| authority.strip_prefix(host));
    port.is_some_and(|port| port.len() > ":".len()) && uri.port().is_none()
}
