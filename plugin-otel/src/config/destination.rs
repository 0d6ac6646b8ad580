//! Where one signal's exports go: the same settings for each signal, behind them its own variables.

use std::{mem, time::Duration};

use http::HeaderMap;
use plugin_api::PluginError;

use super::{
    Destination, Exporter, Protocol,
    endpoint::{checked_url, export_url},
    parse::{self, Raw},
    read::Reader,
    tls,
};
use crate::signal::Signal;

/// Reads the destination of this signal.
pub(super) fn read<E: Fn(&str) -> Option<String>>(
    reader: &mut Reader<'_, E>,
    signal: Signal,
) -> Result<Destination, PluginError> {
    let before = mem::replace(&mut reader.signal, signal);
    let destination = fill(reader);
    reader.signal = before;
    destination
}

fn fill<E: Fn(&str) -> Option<String>>(
    reader: &mut Reader<'_, E>,
) -> Result<Destination, PluginError> {
    let protocol = reader.value("protocol", parse::protocol, Protocol::Grpc)?;
    let max_queue_size = reader.value("max-queue-size", parse::count, 65536)?;
    Ok(Destination {
        exporter: reader.value("exporter", parse::exporter, Exporter::Otlp)?,
        endpoint: endpoint(reader, protocol)?,
        protocol,
        tls: tls::read(reader)?,
        headers: headers(reader)?,
        timeout: reader.value("timeout", parse::duration, Duration::from_secs(10))?,
        gzip: reader.value("compression", parse::compression, false)?,
        max_queue_size,
        max_queue_bytes: reader.value("max-queue-bytes", parse::count, 8 * 1024 * 1024)?,
        max_export_batch_size: batch_size(reader, max_queue_size)?,
        schedule_delay: reader.value("schedule-delay", parse::duration, Duration::from_secs(5))?,
    })
}

fn endpoint<E: Fn(&str) -> Option<String>>(
    reader: &mut Reader<'_, E>,
    protocol: Protocol,
) -> Result<String, PluginError> {
    let wrong = |reason| PluginError::setting("endpoint", reason);
    let signal = reader.signal;
    if let Some(value) = reader.setting("endpoint") {
        let base = Raw::Setting(&value).text().map_err(wrong)?;
        return export_url(base, protocol, signal).map_err(wrong);
    }
    // A collector elsewhere than the operator said is worse than no start: no warning here.
    let Some((name, text)) = reader.variables("endpoint").into_iter().next() else {
        let grpc = protocol == Protocol::Grpc;
        let base = if grpc { "http://localhost:4317" } else { "http://localhost:4318" };
        return export_url(base, protocol, signal).map_err(wrong);
    };
    let checked = if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
        export_url(text.trim(), protocol, signal)
    } else {
        checked_url(text.trim())
    };
    checked.map_err(|reason| wrong(format!("{name}: {reason}")))
}

fn headers<E: Fn(&str) -> Option<String>>(
    reader: &mut Reader<'_, E>,
) -> Result<HeaderMap, PluginError> {
    let mut headers = HeaderMap::new();
    if let Some(value) = reader.setting("headers") {
        for (name, text) in parse::texts("headers", &value)? {
            let (name, value) = parse::header(name, text)
                .map_err(|reason| PluginError::setting(&format!("headers.{name}"), reason))?;
            headers.insert(name, value);
        }
    } else if let Some((variable, text)) = reader.variables("headers").into_iter().next() {
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            match parse::header_pair(pair) {
                Ok((name, value)) => _ = headers.insert(name, value),
                Err(reason) => {
                    reader.warn(format!("a member of {variable} is ignored: {reason}"));
                }
            }
        }
    }
    Ok(headers)
}

fn batch_size<E: Fn(&str) -> Option<String>>(
    reader: &mut Reader<'_, E>,
    max_queue_size: usize,
) -> Result<usize, PluginError> {
    let key = "max-export-batch-size";
    let is_setting = reader.setting(key).is_some();
    let size = reader.value(key, parse::count, 4096)?;
    if is_setting && size > max_queue_size {
        let reason =
            format_args!("wanted at most max-queue-size, which is {max_queue_size}, found {size}");
        return Err(PluginError::setting(key, reason));
    }
    Ok(size.min(max_queue_size))
}
