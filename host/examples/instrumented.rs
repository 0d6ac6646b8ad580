//! A service that makes events and spans of `tracing`, as many as it is asked for: `GET /WHAT/COUNT`
//! answers how many nanoseconds one took. `cargo bench -p host --bench figures -- inside` measures it.
//!
//! With the variable `PLAIN`, a log level, its log is that of `tracing-subscriber` as it comes, and not
//! the host's.
#![forbid(unsafe_code)]

#[path = "../benches/peers/src/work.rs"]
mod work;

use std::{convert::Infallible, env, io, process::ExitCode};

use host::Body;
use http::{Request, Response};
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _};

fn main() -> ExitCode {
    if let Ok(level) = env::var("PLAIN") {
        let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(false);
        let subscriber =
            tracing_subscriber::registry().with(lines.with_filter(EnvFilter::new(level)));
        // There is no other yet.
        _ = tracing::subscriber::set_global_default(subscriber);
    }
    host::main(|_config, _client| {
        tower::service_fn(|request: Request<Body>| async move {
            let (what, count) = request.uri().path()[1..].split_once('/').unwrap_or_default();
            let took = work::nanoseconds(what, count.parse().unwrap_or_default());
            let took = took.map(|took| took.to_string()).unwrap_or_default();
            Ok::<_, Infallible>(Response::new(Body::from(took)))
        })
    })
}
