//! From one value as it was found to what it means.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use plugin_api::{Level, PluginError};
use serde_json::Value;

use super::{Exporter, Protocol, endpoint::checked_url};
use crate::{
    methods::KnownMethods,
    networks::Networks,
    propagation::Propagators,
    redact::shown_url,
    remote_sampler::{Dialect, Remote},
    response_header::ResponseHeader,
    sampling::Sampler,
    template::Template,
    trust::Trust,
};

/// A value as it was found, before it is understood.
#[derive(Clone, Copy)]
pub(super) enum Raw<'a> {
    /// In the settings: TOML's types.
    Setting(&'a Value),
    /// In a variable: text, durations in milliseconds.
    Variable(&'a str),
}

impl<'a> Raw<'a> {
    /// The text of a variable or of a setting that is one.
    pub(super) fn text(self) -> Result<&'a str, String> {
        match self {
            Self::Variable(text) => Ok(text.trim()),
            Self::Setting(Value::String(text)) => Ok(text),
            Self::Setting(other) => Err(format!("wanted text, found {other}")),
        }
    }

    /// The text of a number, in quotes or not: numbers from the host's environment come in quotes.
    pub(super) fn number(self) -> Result<String, String> {
        match self {
            Self::Setting(Value::Number(number)) => Ok(number.to_string()),
            Self::Setting(Value::String(text)) => Ok(text.trim().to_owned()),
            Self::Setting(other) => Err(format!("wanted a number, found {other}")),
            Self::Variable(text) => Ok(text.trim().to_owned()),
        }
    }
}

pub(super) fn is_true(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true")
}

pub(super) fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    format!("unknown {what} {found:?}: one of {}", known.join(", "))
}

pub(super) fn exporter(raw: Raw<'_>) -> Result<Exporter, String> {
    match raw.text()? {
        "otlp" => Ok(Exporter::Otlp),
        "console" => Ok(Exporter::Console),
        "none" => Ok(Exporter::None),
        other => Err(unknown("exporter", other, &["otlp", "console", "none"])),
    }
}

pub(super) fn protocol(raw: Raw<'_>) -> Result<Protocol, String> {
    match raw.text()? {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "http/json" => Ok(Protocol::HttpJson),
        other => Err(unknown("protocol", other, &["grpc", "http/protobuf", "http/json"])),
    }
}

pub(super) fn compression(raw: Raw<'_>) -> Result<bool, String> {
    match raw.text()? {
        "none" => Ok(false),
        "gzip" => Ok(true),
        other => Err(unknown("compression", other, &["none", "gzip"])),
    }
}

/// A level of `tracing`, or none.
pub(super) fn level(raw: Raw<'_>) -> Result<Option<Level>, String> {
    let name = raw.text()?;
    match name.to_ascii_uppercase().as_str() {
        "ERROR" => Ok(Some(Level::ERROR)),
        "WARN" => Ok(Some(Level::WARN)),
        "INFO" => Ok(Some(Level::INFO)),
        "DEBUG" => Ok(Some(Level::DEBUG)),
        "TRACE" => Ok(Some(Level::TRACE)),
        "OFF" => Ok(None),
        _ => Err(unknown("level", name, &["ERROR", "WARN", "INFO", "DEBUG", "TRACE", "OFF"])),
    }
}

pub(super) fn count(raw: Raw<'_>) -> Result<usize, String> {
    let text = raw.number()?;
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("wanted a whole number above 0, found {text}")),
    }
}

pub(super) fn ratio(raw: Raw<'_>) -> Result<f64, String> {
    let text = raw.number()?;
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        // It may be what another sampler is told.
        _ => Err(format!("wanted a number from 0 to 1, found {}", shown_url(&text))),
    }
}

/// A sampler that has no argument yet.
pub(super) fn sampler(raw: Raw<'_>) -> Result<Sampler, String> {
    let name = raw.text()?;
    Sampler::of(name).ok_or_else(|| unknown("sampler", name, &Sampler::NAMES))
}

/// The argument of a sampler that asks a server, by default this one: `key=value`, with commas in
/// between.
pub(super) fn remote(raw: Raw<'_>, default: &Remote) -> Result<Remote, String> {
    let mut remote = default.clone();
    for pair in raw.text()?.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (key, value) = (key.trim_end(), value.trim());
        set_part(&mut remote, key, value)?;
    }
    Ok(remote)
}

fn set_part(remote: &mut Remote, key: &str, value: &str) -> Result<(), String> {
    let raw = Raw::Variable(value);
    let wrong = |reason| format!("{key}: {reason}");
    match (&mut remote.dialect, key) {
        (Dialect::Jaeger { .. }, "endpoint") => {
            remote.endpoint = sampling_url(value).map_err(wrong)?;
        }
        (Dialect::Jaeger { .. }, "pollingIntervalMs") => {
            remote.every = duration(raw).map_err(wrong)?;
        }
        (Dialect::Jaeger { initial }, "initialSamplingRate") => {
            *initial = ratio(raw).map_err(wrong)?;
        }
        (Dialect::Jaeger { .. }, _) => {
            let known = ["endpoint", "pollingIntervalMs", "initialSamplingRate"];
            return Err(unknown("part", &shown_url(key), &known));
        }
        (Dialect::Xray, "endpoint") => remote.endpoint = checked_url(value).map_err(wrong)?,
        (Dialect::Xray, "polling_interval") => remote.every = seconds(value).map_err(wrong)?,
        (Dialect::Xray, _) => {
            return Err(unknown("part", &shown_url(key), &["endpoint", "polling_interval"]));
        }
    }
    Ok(())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (1..=LONGEST.as_secs()).contains(&seconds) => {
            Ok(Duration::from_secs(seconds))
        }
        _ => Err(format!("wanted seconds, above 0, found {text:?}")),
    }
}

/// The URL of a server of strategies, which says how it is asked. Without a path it is gRPC's on the
/// port that is known for it, and elsewhere the one of HTTP.
fn sampling_url(text: &str) -> Result<String, String> {
    if let Some(rest) = text.strip_prefix("grpc") {
        let url = checked_url(&format!("http{rest}"))?;
        if !url.parse::<Uri>().is_ok_and(|uri| uri.port().is_some()) {
            let shown = shown_url(text);
            return Err(format!("wanted a port as in \"grpc://localhost:14250\", found {shown:?}"));
        }
        return Ok(text.trim_end_matches('/').to_owned());
    }
    let url = checked_url(text)?;
    let server = url.trim_end_matches('/');
    let has_path = server.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    Ok(match server.strip_prefix("http") {
        Some(rest) if !has_path && server.ends_with(JAEGER_GRPC_PORT) => format!("grpc{rest}"),
        _ if has_path => url,
        _ => format!("{server}/sampling"),
    })
}

/// Where Jaeger's collector, and OpenTelemetry's for it, serve strategies over gRPC.
const JAEGER_GRPC_PORT: &str = ":14250";

/// The longest time that a setting may want: what is longer is an error, and clocks may end before it.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

pub(super) fn duration(raw: Raw<'_>) -> Result<Duration, String> {
    let text = raw.text()?;
    let (parsed, wanted) = match raw {
        Raw::Setting(_) => (humantime::parse_duration(text).ok(), "a duration such as \"10s\""),
        Raw::Variable(_) => (text.parse().ok().map(Duration::from_millis), "milliseconds"),
    };
    match parsed {
        Some(duration) if duration > LONGEST => {
            Err(format!("wanted {wanted}, at most a year, found {text:?}"))
        }
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("wanted {wanted}, above 0, found {text:?}")),
    }
}

/// The members of a table whose values are all texts. The values are never shown.
pub(super) fn texts<'a>(
    key: &str,
    value: &'a Value,
) -> Result<impl Iterator<Item = (&'a str, &'a str)>, PluginError> {
    let Value::Object(table) = value else {
        return Err(PluginError::setting(key, "wanted a table of texts"));
    };
    if let Some(name) = table.iter().find_map(|(name, value)| (!value.is_string()).then_some(name))
    {
        return Err(PluginError::setting(&format!("{key}.{name}"), "wanted text"));
    }
    Ok(table.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_str()?))))
}

/// A header to send to the collector. No error shows the value.
pub(super) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let header = HeaderName::try_from(name)
        .map_err(|_| format!("wanted the name of an HTTP header, found {name:?}"))?;
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of {name:?} has characters that HTTP does not allow"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

/// A header as a variable has it: `name=value`, percent-encoded.
pub(super) fn header_pair(pair: &str) -> Result<(HeaderName, HeaderValue), String> {
    // A pair without `=` may be a value that was cut at a comma, so it is not shown.
    let (name, value) = decoded_pair(pair).ok_or("wanted name=value, percent-encoded")?;
    if HeaderName::try_from(&name).is_err() {
        return Err("wanted the name of an HTTP header before the first =".to_owned());
    }
    header(&name, &value)
}

pub(super) fn decoded_pair(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    let decode =
        |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    Some((decode(key)?, decode(value)?)).filter(|(key, _)| !key.is_empty())
}

/// The whole variable or, as the specification wants, nothing of it.
pub(super) fn resource_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let wanted = || format!("wanted key=value, percent-encoded, found {pair:?}");
            decoded_pair(pair).ok_or_else(wanted)
        })
        .collect()
}

/// A list of names, or one text of them with commas in between.
pub(super) fn names(raw: Raw<'_>) -> Result<Vec<String>, String> {
    let split = |text: &str| {
        let names = text.split(',').map(str::trim).filter(|name| !name.is_empty());
        Ok(names.map(str::to_owned).collect())
    };
    match raw {
        Raw::Setting(Value::Array(names)) => {
            names.iter().map(|name| Ok(Raw::Setting(name).text()?.to_owned())).collect()
        }
        Raw::Setting(Value::String(names)) => split(names),
        Raw::Setting(other) => Err(format!("wanted a list of names, found {other}")),
        Raw::Variable(text) => split(text),
    }
}

/// The propagators of these names, in their order.
pub(super) fn propagators(raw: Raw<'_>) -> Result<Propagators, String> {
    let mut chosen = Propagators::none();
    for name in names(raw)? {
        propagator(&mut chosen, &name)?;
    }
    Ok(chosen)
}

/// One propagator more.
pub(super) fn propagator(chosen: &mut Propagators, name: &str) -> Result<(), String> {
    if chosen.add(name) { Ok(()) } else { Err(unknown("propagator", name, &Propagators::NAMES)) }
}

/// True or false, in quotes or not.
pub(super) fn flag(raw: Raw<'_>) -> Result<bool, String> {
    match raw {
        Raw::Setting(Value::Bool(flag)) => Ok(*flag),
        raw => match raw.text() {
            Ok("true") => Ok(true),
            Ok("false") => Ok(false),
            Ok(other) => Err(format!("wanted true or false, found {other:?}")),
            Err(_) => Err("wanted true or false".to_owned()),
        },
    }
}

/// A duration, or `none`.
pub(super) fn optional_duration(raw: Raw<'_>) -> Result<Option<Duration>, String> {
    if raw.text() == Ok("none") { Ok(None) } else { duration(raw).map(Some) }
}

/// Whether metrics name spans that they were measured in.
pub(super) fn exemplar_filter(raw: Raw<'_>) -> Result<bool, String> {
    match raw.text()? {
        "trace_based" => Ok(true),
        "always_off" => Ok(false),
        other => Err(unknown("exemplar filter", other, &["trace_based", "always_off"])),
    }
}

/// What is done with a caller's context.
pub(super) fn trust(raw: Raw<'_>) -> Result<Trust, String> {
    let name = raw.text()?;
    Trust::of(name).ok_or_else(|| unknown("way", name, &Trust::NAMES))
}

/// The header that tells clients their trace.
pub(super) fn response_header(raw: Raw<'_>) -> Result<ResponseHeader, String> {
    let name = raw.text()?;
    ResponseHeader::of(name).ok_or_else(|| unknown("header", name, &ResponseHeader::NAMES))
}

/// A route template or a path prefix.
pub(super) fn template(raw: Raw<'_>) -> Result<Template, String> {
    Template::compile(raw.text()?)
}

/// Route templates and path prefixes.
pub(super) fn templates(raw: Raw<'_>) -> Result<Vec<Template>, String> {
    names(raw)?.iter().map(|text| Template::compile(text)).collect()
}

/// One network, or a list of them.
pub(super) fn networks(raw: Raw<'_>) -> Result<Networks, String> {
    let mut networks = Networks::default();
    for text in names(raw)? {
        networks.add(&text)?;
    }
    Ok(networks)
}

/// One method, with its case.
pub(super) fn method(raw: Raw<'_>) -> Result<String, String> {
    let text = raw.text()?;
    match http::Method::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("wanted a request method, found {text:?}")),
    }
}

/// The methods that are told apart.
pub(super) fn known_methods(raw: Raw<'_>) -> Result<KnownMethods, String> {
    let names = names(raw)?;
    for name in &names {
        method(Raw::Variable(name))?;
    }
    Ok(KnownMethods::of(names))
}

/// The name of a header, in lower case.
fn header_name(text: &str) -> Result<String, String> {
    match HeaderName::try_from(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(format!("wanted the name of an HTTP header, found {text:?}")),
    }
}

/// The names of headers, in lower case, each once.
pub(super) fn header_names(raw: Raw<'_>) -> Result<Vec<String>, String> {
    let mut all = Vec::new();
    for text in names(raw)? {
        let name = header_name(&text)?;
        if !all.contains(&name) {
            all.push(name);
        }
    }
    Ok(all)
}

/// A header that has to be there: `name`, or `name=value`.
pub(super) fn header_condition(raw: Raw<'_>) -> Result<(String, Option<String>), String> {
    let text = raw.text()?;
    match text.split_once('=') {
        None => Ok((header_name(text.trim())?, None)),
        Some((name, value)) => Ok((header_name(name.trim())?, Some(value.trim().to_owned()))),
    }
}
