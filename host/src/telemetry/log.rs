//! The host's log: `tracing` events as lines on standard error.

use std::{io, panic};

use tracing_subscriber::fmt;

use crate::config::{Log, LogFormat};

/// Starts the log. Called once, before anything is logged; a second call keeps the first log.
pub(crate) fn start(log: &Log) {
    let builder = fmt().with_writer(io::stderr).with_env_filter(log.level.build());
    // Another subscriber is there only when a service author installed one: then it is theirs.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    report_panics();
}

/// Writes a panic's message and place as one line of the log, in place of a report on several.
fn report_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let message = info.payload_as_str().unwrap_or("no message");
        tracing::error!(target: "host::panic", place, "panicked: {message}");
    }));
}
