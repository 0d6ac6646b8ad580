//! Values that need more than a type: URLs of instances, log filters, status codes.

use std::fmt;

use http::{
    HeaderValue, Uri,
    uri::{Authority, Scheme},
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use super::secret;

/// The URL under which an instance is reached: scheme, authority and an optional path.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl {
    uri: Uri,
    host: HeaderValue,
}

impl BaseUrl {
    /// The URL; its scheme and authority are always there.
    #[must_use]
    pub const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The value of `Host` in a request to it: RFC 9110, section 7.2. Made once, because a client
    /// that is given none formats one for every request.
    #[must_use]
    pub const fn host(&self) -> &HeaderValue {
        &self.host
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // It may hold a password.
        let shown = secret::mask(&text);
        let uri: Uri =
            text.parse().map_err(|error| format!("wanted a URL, found {shown:?}: {error}"))?;
        match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS => {}
            _ => {
                let wanted = "wanted a URL that starts with http:// or https://";
                return Err(format!("{wanted}, found {shown:?}"));
            }
        }
        if uri.host().is_none_or(str::is_empty) {
            return Err(format!("wanted a URL with a host, found {shown:?}"));
        }
        if uri.query().is_some() || uri.authority().is_some_and(|a| a.as_str().contains('@')) {
            return Err("wanted a URL without a query and without user information".to_owned());
        }
        if has_wrong_port(&uri) {
            return Err(format!("wanted a URL with a port up to 65535, found {shown:?}"));
        }
        let uri = without_usual_port(uri).map_err(|error| format!("{shown:?}: {error}"))?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(host)
            .map_err(|_| format!("wanted a URL with a host, found {shown:?}"))?;
        Ok(Self { uri, host })
    }
}

/// Whether a port is written that is none: `http` then answers as if there were no port at all.
fn has_wrong_port(uri: &Uri) -> bool {
    let parts = uri.authority().map(Authority::as_str).zip(uri.host());
    let port = parts.and_then(|(authority, host)| authority.strip_prefix(host));
    port.is_some_and(|port| port.len() > ":".len()) && uri.port().is_none()
}

/// The same URL in one form only: RFC 9110, section 4.2.3.
fn without_usual_port(uri: Uri) -> Result<Uri, http::Error> {
    let usual = if uri.scheme() == Some(&Scheme::HTTPS) { ":443" } else { ":80" };
    let mut parts = uri.into_parts();
    let short = parts.authority.as_ref().and_then(|it| it.as_str().strip_suffix(usual));
    if let Some(authority) = short.map(Authority::try_from).transpose()? {
        parts.authority = Some(authority);
    }
    Ok(Uri::from_parts(parts)?)
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.uri.to_string()
    }
}

impl fmt::Debug for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.uri)
    }
}

/// Directives for the log, checked; kept as text because a filter cannot be cloned.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter.
    #[must_use]
    pub fn build(&self) -> EnvFilter {
        EnvFilter::new(&self.0)
    }

    /// Whether a directive names spans or their fields, so that the filter has to be told of spans.
    #[must_use]
    pub fn names_spans(&self) -> bool {
        self.0.contains('[')
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // A lone word that is no level would be read as the name of a module.
        let bare_word = !text.contains(['=', ',', '[']);
        if bare_word && text.parse::<tracing_subscriber::filter::LevelFilter>().is_err() {
            return Err(format!(
                "wanted off, error, warn, info, debug, trace or filter directives, found {text:?}"
            ));
        }
        EnvFilter::try_new(&text).map_err(|error| {
            format!("wanted a level or filter directives, found {text:?}: {error}")
        })?;
        Ok(Self(text))
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

/// A status code that a final response may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct StatusCode(http::StatusCode);

impl StatusCode {
    /// The code.
    #[must_use]
    pub const fn code(self) -> http::StatusCode {
        self.0
    }
}

impl Default for StatusCode {
    fn default() -> Self {
        Self(http::StatusCode::OK)
    }
}

impl TryFrom<u16> for StatusCode {
    type Error = String;

    fn try_from(code: u16) -> Result<Self, String> {
        let wanted = || format!("wanted a status code from 200 to 599, found {code}");
        if !(200..600).contains(&code) {
            return Err(wanted());
        }
        http::StatusCode::from_u16(code).map(Self).map_err(|_| wanted())
    }
}

impl From<StatusCode> for u16 {
    fn from(code: StatusCode) -> Self {
        code.0.as_u16()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_needs_http_and_a_host() {
        for (good, host) in [
            ("http://127.0.0.1:8080", "127.0.0.1:8080"),
            ("http://[::1]:1/base", "[::1]:1"),
            ("http://greeter:80", "greeter"),
            ("https://greeter:443/base", "greeter"),
            ("http://greeter:443", "greeter:443"),
            ("http://[::1]:80", "[::1]"),
            ("http://[::80]", "[::80]"),
            ("https://greeter:80", "greeter:80"),
            ("http://greeter:65535", "greeter:65535"),
        ] {
            let url = BaseUrl::try_from(good.to_owned()).unwrap();
            assert_eq!(url.host(), host, "{good}");
            assert_eq!(url.uri().authority().unwrap(), host, "{good}");
        }
        for bad in [
            "",
            "greeter:80",
            "https://",
            "http://u:p@a",
            "http://a/?q",
            "ftp://a",
            "/x",
            "http://a:65536",
            "https://[::1]:99999/base",
            "http://port:port",
        ] {
            assert!(BaseUrl::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_module() {
        assert!(LogFilter::try_from("inof".to_owned()).is_err());
        assert!(LogFilter::try_from("info,hyper=debug".to_owned()).is_ok());
        assert!(LogFilter::try_from("hyper=loud".to_owned()).is_err());
    }
}
