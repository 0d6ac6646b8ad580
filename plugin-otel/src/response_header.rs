//! Tells a client the trace of its request, in a header of the response.

use plugin_api::{Context, Headers};

use crate::propagation::{PASSED_ON, traceparent};

const TRACERESPONSE: &str = "traceresponse";
const SERVER_TIMING: &str = "server-timing";

/// The header that tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResponseHeader {
    /// None.
    #[default]
    Off,
    /// `traceresponse`, as the W3C drafts it.
    TraceResponse,
    /// A metric of `server-timing`, which browsers give to scripts; beside those that are there.
    ServerTiming,
}

impl ResponseHeader {
    /// The names that [`ResponseHeader::of`] knows.
    pub(crate) const NAMES: [&str; 3] = ["off", "traceresponse", "server-timing"];

    /// The header of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "traceresponse" => Some(Self::TraceResponse),
            "server-timing" => Some(Self::ServerTiming),
            _ => None,
        }
    }

    /// Puts it in the headers of the response to a request with this context.
    pub(crate) fn put(self, context: &Context, headers: &mut Headers<'_>) {
        let span = context.span();
        if self == Self::Off || !span.is_valid() || span.flags & PASSED_ON != 0 {
            return;
        }
        let text = traceparent::Text::of(span);
        if self == Self::TraceResponse {
            headers.set(TRACERESPONSE, text.as_str());
        } else {
            // One allocation, only where it is asked for.
            headers.append(SERVER_TIMING, &format!("traceparent;desc=\"{}\"", text.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::{
        SpanContext,
        adapter::{HeaderMap, Lent, lend_headers},
    };

    use super::*;
    use crate::propagation::DEBUG;

    #[derive(Default)]
    struct Lines(Vec<String>);

    impl HeaderMap for Lines {
        fn set(&mut self, name: &str, value: &str) {
            self.0.push(format!("{name}: {value}"));
        }

        fn remove(&mut self, name: &str) {
            self.0.push(format!("{name} removed"));
        }

        fn append(&mut self, name: &str, value: &str) {
            self.0.push(format!("{name} + {value}"));
        }
    }

    fn put(header: &str, span: SpanContext) -> Vec<String> {
        let mut lines = Lines::default();
        let mut lent = Lent(&mut lines);
        let header = ResponseHeader::of(header).unwrap();
        header.put(&Context::new(span), &mut Headers::new(lend_headers(&mut lent)));
        lines.0
    }

    #[test]
    fn the_trace_is_told_as_configured() {
        let ids = format!("{}-{}", "01".repeat(16), "02".repeat(8));
        for (header, flags, wanted) in [
            ("off", 1, vec![]),
            ("traceresponse", 3, vec![format!("traceresponse: 00-{ids}-03")]),
            ("traceresponse", DEBUG, vec![format!("traceresponse: 00-{ids}-00")]),
            ("server-timing", 1, vec![format!("server-timing + traceparent;desc=\"00-{ids}-01\"")]),
        ] {
            assert_eq!(put(header, SpanContext::new([1; 16], [2; 8], flags)), wanted, "{header}");
        }
    }

    #[test]
    fn nothing_is_told_where_there_is_no_span_of_the_host() {
        for header in ResponseHeader::NAMES {
            assert!(put(header, SpanContext::default()).is_empty());
            assert!(put(header, SpanContext::new([1; 16], [2; 8], 1 | PASSED_ON)).is_empty());
        }
    }
}
