//! What is measured: the host in its states, and the programs beside it.

use std::{fmt, io, time::Duration};

use crate::{
    programs::Programs,
    scene::{self, sampled},
    server::{self, Server},
    sink::Sink,
};

/// How long a slow collector takes to answer.
pub(crate) const SLOW: Duration = Duration::from_millis(100);

/// One kind of program in one state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// `examples/forwarder.rs`.
    Bare,
    /// The bare forwarder in layers like the host's, with no place for a plugin.
    Stack,
    /// The host without a word of a plugin.
    Plain,
    /// The host whose plugin's file is not there.
    Missing,
    /// The host with `enabled = false`.
    Disabled,
    /// The host with a plugin that is asked about every request and does nothing.
    Noop,
    /// The host that records this share of the traces, given as the operator writes it.
    Sampled(&'static str, Protocol),
    /// The host that records all, and nobody listens at the collector's port.
    Dead,
    /// The host that records all for a collector that takes [`SLOW`] for every answer.
    Slow,
    /// The bare forwarder, traced by a program of `peers`, and the share that it records.
    Peer(&'static str, &'static str),
    /// nginx, forwarding.
    Nginx,
    /// Caddy, with its `tracing` directive or without.
    Caddy(bool),
    /// aiohttp, instrumented or not.
    Python(bool),
}

/// How spans are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Grpc,
    Http,
}

/// Every request recorded and sent in the way of the defaults.
pub(crate) const ALL: Subject = Subject::Sampled("1", Protocol::Grpc);

/// No request recorded.
pub(crate) const NONE: Subject = Subject::Sampled("0", Protocol::Grpc);

impl Subject {
    /// Starts it, and the collector that it sends to, if it does.
    ///
    /// # Errors
    /// When it is not installed or not ready in time.
    pub(crate) fn start(self, programs: &Programs<'_>) -> io::Result<(Server, Option<Sink>)> {
        let (to, plugin) = (programs.upstream, programs.artifacts.plugin.as_path());
        let sink = self
            .sends()
            .then(|| Sink::start(if self == Self::Slow { SLOW } else { Duration::ZERO }));
        let collector = sink.as_ref().map_or_else(server::free, |sink| sink.address);
        let server = match self {
            Self::Bare => programs.bare(),
            Self::Stack => programs.peer("stack", collector, "0"),
            Self::Plain => programs.host(&scene::plain(to)),
            Self::Missing => programs.host(&scene::missing(to)),
            Self::Disabled => programs.host(&scene::disabled(to, plugin)),
            Self::Noop => programs.host(&scene::loaded(to, &programs.artifacts.noop)),
            Self::Sampled(ratio, Protocol::Grpc) => programs.traced(collector, &sampled(ratio)),
            Self::Sampled(ratio, Protocol::Http) => {
                let own = format!("protocol = \"http/protobuf\"\n{}", sampled(ratio));
                programs.traced(collector, &own)
            }
            Self::Dead | Self::Slow => programs.traced(collector, &sampled("1")),
            Self::Peer(tracing, ratio) => programs.peer(tracing, collector, ratio),
            Self::Nginx => programs.nginx(),
            Self::Caddy(traced) => programs.caddy(traced.then_some(collector)),
            Self::Python(traced) => programs.python(traced.then_some(collector)),
        }?;
        Ok((server, sink))
    }

    const fn sends(self) -> bool {
        matches!(
            self,
            Self::Sampled(..)
                | Self::Slow
                | Self::Peer(..)
                | Self::Caddy(true)
                | Self::Python(true)
        )
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ratio: &str| ratio.parse::<f64>().map_or(f64::NAN, |ratio| ratio * 100.0);
        match self {
            Self::Bare => f.write_str("bare forwarder"),
            Self::Stack => f.write_str("bare forwarder in tower's layers"),
            Self::Plain => f.write_str("host, no plugin"),
            Self::Missing => f.write_str("host, plugin file missing"),
            Self::Disabled => f.write_str("host, `enabled = false`"),
            Self::Noop => f.write_str("host, a plugin that does nothing"),
            Self::Sampled(ratio, protocol) => {
                let protocol = match protocol {
                    Protocol::Grpc => "gRPC",
                    Protocol::Http => "HTTP",
                };
                write!(f, "host, {} %, {protocol}", percent(ratio))
            }
            Self::Dead => f.write_str("host, 100 %, collector dead"),
            Self::Slow => write!(f, "host, 100 %, collector slow ({SLOW:?})"),
            Self::Peer(tracing, ratio) => {
                let name = match *tracing {
                    "tower" => "`opentelemetry-instrumentation-tower`",
                    "axum" => "`axum-tracing-opentelemetry`",
                    _ => "a layer by hand on the SDK",
                };
                write!(f, "bare forwarder + {name}, {} %", percent(ratio))
            }
            Self::Nginx => f.write_str("nginx"),
            Self::Caddy(false) => f.write_str("Caddy"),
            Self::Caddy(true) => f.write_str("Caddy, `tracing`"),
            Self::Python(false) => f.write_str("Python, aiohttp"),
            Self::Python(true) => f.write_str("Python, aiohttp, instrumented"),
        }
    }
}
