//! How an exchange ended, and whether that is an error.
//!
//! `error.type` is one of: a status code (`500`), a gRPC status (`UNAVAILABLE`), or a word of
//! [`describe`].

use plugin_api::{Header, Outcome};

use crate::record::Kind;

/// The end reason of an outcome and, where the outcome is a fault, its `error.type`.
///
/// Someone who goes away is no fault of this exchange: the status code alone decides then.
pub(super) fn describe(outcome: Outcome) -> (&'static str, Option<&'static str>) {
    match outcome {
        Outcome::COMPLETE => ("complete", None),
        Outcome::CLIENT_GONE => ("client gone", None),
        Outcome::UPSTREAM_GONE => ("upstream gone", Some("upstream_gone")),
        Outcome::TIMEOUT => ("timeout", Some("timeout")),
        Outcome::SHED => ("shed", Some("shed")),
        Outcome::PANIC => ("panic", Some("panic")),
        Outcome::CONNECT_FAILED => ("connect failed", Some("connect_failed")),
        Outcome::STOPPED => ("stopped", Some("stopped")),
        // A newer host knows more ends than this plugin.
        _ => ("unknown", None),
    }
}

/// Whether a status code makes a span of this kind an error.
pub(super) const fn is_bad_status(kind: Kind, status: u32) -> bool {
    let first = match kind {
        Kind::Server => 500,
        _ => 400,
    };
    status >= first
}

/// The status of a gRPC call, as it comes in trailers or, where there is no body, in the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct GrpcStatus(u8);

impl GrpcStatus {
    /// The names of the codes, by number.
    const NAMES: [&str; 17] = [
        "OK",
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    ];

    /// The status among these headers, if there is one that gRPC knows.
    pub(super) fn among(headers: &[Header<'_>]) -> Option<Self> {
        let header = headers.iter().find(|header| header.name() == "grpc-status")?;
        let code: u8 = std::str::from_utf8(header.value()).ok()?.parse().ok()?;
        (usize::from(code) < Self::NAMES.len()).then_some(Self(code))
    }

    /// The code.
    pub(super) const fn code(self) -> u8 {
        self.0
    }

    /// The name, where the status makes a span of this kind an error: any but OK for a client; for a
    /// server those that are its own fault, as the conventions for RPC want.
    pub(super) fn error(self, kind: Kind) -> Option<&'static str> {
        let is_error = match kind {
            Kind::Server => matches!(self.0, 2 | 4 | 12 | 13 | 14 | 15),
            _ => self.0 != 0,
        };
        is_error.then(|| Self::NAMES[usize::from(self.0)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grpc_status_is_read_and_judged_by_the_kind() {
        for (value, code, server, client) in [
            (&b"0"[..], 0, None, None),
            (b"5", 5, None, Some("NOT_FOUND")),
            (b"14", 14, Some("UNAVAILABLE"), Some("UNAVAILABLE")),
            (b"16", 16, None, Some("UNAUTHENTICATED")),
        ] {
            let status = GrpcStatus::among(&[Header::new("grpc-status", value)]).unwrap();
            assert_eq!(status.code(), code);
            assert_eq!((status.error(Kind::Server), status.error(Kind::Client)), (server, client));
        }
        for odd in [&b""[..], b"17", b"-1", b"x", b"256"] {
            assert_eq!(GrpcStatus::among(&[Header::new("grpc-status", odd)]), None);
        }
        assert_eq!(GrpcStatus::among(&[]), None);
    }
}
