//! The plugin's settings: its table of the host's configuration, with the `OTEL_*` variables and the
//! defaults behind it.

use std::{collections::BTreeMap, fmt, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use percent_encoding::percent_decode_str;
use plugin_api::{PluginError, Setting};
use serde_json::{Map, Value};

use crate::{propagation::Propagators, redact, sampling::Sampler, semconv};

/// Every key, with its default and the variables that stand in for it.
pub(crate) const SETTINGS: &[Setting] = &[
    Setting::new("exporter", "\"otlp\"", "where spans go: otlp, console or none")
        .or_variable("OTEL_TRACES_EXPORTER"),
    Setting::new(
        "endpoint",
        "\"http://localhost:4317\"",
        "the collector; port 4318 is the default of the http protocols, which add v1/traces",
    )
    .or_variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT OTEL_EXPORTER_OTLP_ENDPOINT"),
    Setting::new("protocol", "\"grpc\"", "grpc, http/protobuf or http/json")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL OTEL_EXPORTER_OTLP_PROTOCOL"),
    Setting::new("headers", "{}", "sent to the collector with every export")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_HEADERS OTEL_EXPORTER_OTLP_HEADERS")
        .secret(),
    Setting::new("timeout", "\"10s\"", "for one export with its retries")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT OTEL_EXPORTER_OTLP_TIMEOUT"),
    Setting::new("compression", "\"none\"", "of exports: none or gzip")
        .or_variable("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION OTEL_EXPORTER_OTLP_COMPRESSION"),
    Setting::new(
        "max-queue-size",
        "65536",
        "how many finished spans may wait, those on their way included",
    )
    .or_variable("OTEL_BSP_MAX_QUEUE_SIZE"),
    Setting::new(
        "max-queue-bytes",
        "8388608",
        "how many bytes the finished spans that wait may take",
    ),
    Setting::new("max-export-batch-size", "4096", "how many spans one export holds at most")
        .or_variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE"),
    Setting::new("schedule-delay", "\"5s\"", "how long a finished span waits at most")
        .or_variable("OTEL_BSP_SCHEDULE_DELAY"),
    Setting::new("sampler", "\"parentbased_always_on\"", "which spans are recorded")
        .or_variable("OTEL_TRACES_SAMPLER"),
    Setting::new("sampler-arg", "1.0", "the ratio of the traceidratio samplers, 0 to 1")
        .or_variable("OTEL_TRACES_SAMPLER_ARG"),
    Setting::new(
        "propagators",
        "[\"tracecontext\", \"baggage\"]",
        "which headers carry the context: tracecontext, baggage, or none alone",
    )
    .or_variable("OTEL_PROPAGATORS"),
    Setting::new("resource", "{}", "attributes of this instance; added to those of the variables")
        .or_variable("OTEL_RESOURCE_ATTRIBUTES OTEL_SERVICE_NAME"),
];

/// What the plugin does, completely decided.
///
/// The values of `headers` are marked as sensitive, so that `Debug` does not print them.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// `OTEL_SDK_DISABLED`: no layer, no thread.
    pub(crate) disabled: bool,
    /// Where spans go.
    pub(crate) exporter: Exporter,
    /// The URL of exports, path included; checked.
    pub(crate) endpoint: String,
    /// How exports are sent.
    pub(crate) protocol: Protocol,
    /// Sent with every export.
    pub(crate) headers: HeaderMap,
    /// For one export with its retries.
    pub(crate) timeout: Duration,
    /// Whether exports are compressed with gzip.
    pub(crate) gzip: bool,
    /// How many finished spans may wait, those on their way included, at least 1.
    pub(crate) max_queue_size: usize,
    /// How many bytes they may take, at least 1.
    pub(crate) max_queue_bytes: usize,
    /// How many spans one export holds at most, from 1 to `max_queue_size`.
    pub(crate) max_export_batch_size: usize,
    /// How long a finished span waits at most, longer than nothing.
    pub(crate) schedule_delay: Duration,
    /// Which spans are recorded.
    pub(crate) sampler: Sampler,
    /// Which requests are kept that nobody samples.
    pub(crate) keep: Keep,
    /// Which headers carry the context.
    pub(crate) propagators: Propagators,
    /// Attributes that the operator wants on the resource.
    pub(crate) resource: BTreeMap<String, String>,
    /// What was wrong in the environment and was therefore ignored, one line each.
    pub(crate) warnings: Vec<String>,
}

/// Which requests are kept that nobody samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Those that failed.
    pub(crate) errors: bool,
    /// Those that took longer.
    pub(crate) slower_than: Option<Duration>,
    /// How many spans may wait for the end of their request.
    pub(crate) max_spans: usize,
}

/// Where spans go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exporter {
    /// To a collector.
    Otlp,
    /// To the standard output.
    Console,
    /// Nowhere.
    None,
}

/// How exports are sent to a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP, in protobuf.
    HttpProtobuf,
    /// OTLP over HTTP, in JSON.
    HttpJson,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
            Self::HttpJson => "http/json",
        })
    }
}

impl Config {
    /// Reads the settings (a JSON object), behind them the variables, behind them the defaults.
    ///
    /// A variable that is empty counts as not set. One whose number or name cannot be understood is
    /// ignored with a warning, as the OpenTelemetry specification wants.
    ///
    /// # Errors
    /// The first setting that is wrong; what was wanted and what was found.
    pub(crate) fn read(
        settings: &str,
        env: &impl Fn(&str) -> Option<String>,
    ) -> Result<Self, PluginError> {
        let mut reader = Reader { table: table(settings)?, env, warnings: Vec::new() };
        let protocol = reader.value("protocol", protocol, Protocol::Grpc)?;
        let max_queue_size = reader.value("max-queue-size", count, 65536)?;
        let config = Self {
            disabled: reader.variable("OTEL_SDK_DISABLED").is_some_and(|text| is_true(&text)),
            exporter: reader.value("exporter", exporter, Exporter::Otlp)?,
            endpoint: reader.endpoint(protocol)?,
            protocol,
            headers: reader.headers()?,
            timeout: reader.value("timeout", duration, Duration::from_secs(10))?,
            gzip: reader.value("compression", compression, false)?,
            max_queue_size,
            max_queue_bytes: reader.value("max-queue-bytes", count, 8 * 1024 * 1024)?,
            max_export_batch_size: reader.batch_size(max_queue_size)?,
            schedule_delay: reader.value("schedule-delay", duration, Duration::from_secs(5))?,
            sampler: reader.sampler()?,
            keep: Keep::default(),
            propagators: reader.propagators()?,
            resource: reader.resource()?,
            warnings: std::mem::take(&mut reader.warnings),
        };
        reader.nothing_is_left()?;
        Ok(config)
    }
}

fn table(settings: &str) -> Result<Map<String, Value>, PluginError> {
    match serde_json::from_str(settings) {
        Ok(Value::Object(table)) => Ok(table),
        Ok(_) => Err(PluginError::setting("", "wanted a table of settings")),
        // The error's own text may quote a value, which may be a secret.
        Err(error) => Err(PluginError::setting(
            "",
            format_args!("settings are no JSON, at line {}", error.line()),
        )),
    }
}

/// A value as it was found, before it is understood.
#[derive(Clone, Copy)]
enum Raw<'a> {
    /// In the settings: TOML's types.
    Setting(&'a Value),
    /// In a variable: text, durations in milliseconds.
    Variable(&'a str),
}

impl<'a> Raw<'a> {
    /// The text of a variable or of a setting that is one.
    fn text(self) -> Result<&'a str, String> {
        match self {
            Self::Variable(text) => Ok(text.trim()),
            Self::Setting(Value::String(text)) => Ok(text),
            Self::Setting(other) => Err(format!("wanted text, found {other}")),
        }
    }

    /// The text of a number, in quotes or not: numbers from the host's environment come in quotes.
    fn number(self) -> Result<String, String> {
        match self {
            Self::Setting(Value::Number(number)) => Ok(number.to_string()),
            Self::Setting(Value::String(text)) => Ok(text.trim().to_owned()),
            Self::Setting(other) => Err(format!("wanted a number, found {other}")),
            Self::Variable(text) => Ok(text.trim().to_owned()),
        }
    }
}

/// Takes one key after the other out of the table.
struct Reader<'a, E> {
    table: Map<String, Value>,
    env: &'a E,
    warnings: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Reader<'_, E> {
    fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|text| !text.trim().is_empty())
    }

    /// The variables of a key that are set, first one first.
    fn variables(&self, key: &str) -> Vec<(&'static str, String)> {
        let setting = SETTINGS.iter().find(|setting| setting.key() == key);
        setting
            .into_iter()
            .flat_map(Setting::variables)
            .filter_map(|name| Some((name, self.variable(name)?)))
            .collect()
    }

    fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Raw<'_>) -> Result<T, String>,
        default: T,
    ) -> Result<T, PluginError> {
        if let Some(value) = self.table.remove(key) {
            return parse(Raw::Setting(&value)).map_err(|reason| PluginError::setting(key, reason));
        }
        for (name, text) in self.variables(key) {
            match parse(Raw::Variable(&text)) {
                Ok(value) => return Ok(value),
                Err(reason) => self.warnings.push(format!("{name} is ignored: {reason}")),
            }
        }
        Ok(default)
    }

    fn endpoint(&mut self, protocol: Protocol) -> Result<String, PluginError> {
        let wrong = |reason| PluginError::setting("endpoint", reason);
        if let Some(value) = self.table.remove("endpoint") {
            let base = Raw::Setting(&value).text().map_err(wrong)?;
            return export_url(base, protocol).map_err(wrong);
        }
        // A collector elsewhere than the operator said is worse than no start: no warning here.
        let Some((name, text)) = self.variables("endpoint").into_iter().next() else {
            let grpc = protocol == Protocol::Grpc;
            let base = if grpc { "http://localhost:4317" } else { "http://localhost:4318" };
            return export_url(base, protocol).map_err(wrong);
        };
        let checked = if name == "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" {
            checked_url(text.trim())
        } else {
            export_url(text.trim(), protocol)
        };
        checked.map_err(|reason| wrong(format!("{name}: {reason}")))
    }

    fn headers(&mut self) -> Result<HeaderMap, PluginError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = self.table.remove("headers") {
            for (name, text) in texts("headers", &value)? {
                let (name, value) = header(name, text)
                    .map_err(|reason| PluginError::setting(&format!("headers.{name}"), reason))?;
                headers.insert(name, value);
            }
        } else if let Some((variable, text)) = self.variables("headers").into_iter().next() {
            for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
                match header_pair(pair) {
                    Ok((name, value)) => _ = headers.insert(name, value),
                    Err(reason) => {
                        self.warnings.push(format!("a member of {variable} is ignored: {reason}"));
                    }
                }
            }
        }
        Ok(headers)
    }

    fn batch_size(&mut self, max_queue_size: usize) -> Result<usize, PluginError> {
        let key = "max-export-batch-size";
        let is_setting = self.table.contains_key(key);
        let size = self.value(key, count, 4096)?;
        if is_setting && size > max_queue_size {
            let reason = format_args!(
                "wanted at most max-queue-size, which is {max_queue_size}, found {size}"
            );
            return Err(PluginError::setting(key, reason));
        }
        Ok(size.min(max_queue_size))
    }

    fn sampler(&mut self) -> Result<Sampler, PluginError> {
        let ratio = self.value("sampler-arg", ratio, 1.0)?;
        let parse = |raw: Raw<'_>| {
            let name = raw.text()?;
            Sampler::of(name, ratio).ok_or_else(|| unknown("sampler", name, &Sampler::NAMES))
        };
        let default = parse(Raw::Variable("parentbased_always_on"))
            .map_err(|reason| PluginError::setting("sampler", reason))?;
        self.value("sampler", parse, default)
    }

    fn propagators(&mut self) -> Result<Propagators, PluginError> {
        if let Some(value) = self.table.remove("propagators") {
            return propagators(&value).map_err(|r| PluginError::setting("propagators", r));
        }
        let Some((variable, text)) = self.variables("propagators").into_iter().next() else {
            return Ok(Propagators { trace_context: true, baggage: true });
        };
        let mut chosen = Propagators { trace_context: false, baggage: false };
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if let Err(reason) = choose(&mut chosen, name) {
                self.warnings.push(format!("a member of {variable} is ignored: {reason}"));
            }
        }
        Ok(chosen)
    }

    fn resource(&mut self) -> Result<BTreeMap<String, String>, PluginError> {
        let mut attributes = BTreeMap::new();
        if let Some(text) = self.variable("OTEL_RESOURCE_ATTRIBUTES") {
            match resource_pairs(&text) {
                Ok(pairs) => attributes.extend(pairs),
                Err(reason) => {
                    self.warnings.push(format!("OTEL_RESOURCE_ATTRIBUTES is ignored: {reason}"));
                }
            }
        }
        if let Some(name) = self.variable("OTEL_SERVICE_NAME") {
            attributes.insert(semconv::SERVICE_NAME.to_owned(), name);
        }
        if let Some(value) = self.table.remove("resource") {
            for (key, text) in texts("resource", &value)? {
                attributes.insert(key.to_owned(), text.to_owned());
            }
        }
        Ok(attributes)
    }

    /// The host refuses unknown keys by [`SETTINGS`]; a host that does not is no excuse.
    fn nothing_is_left(&self) -> Result<(), PluginError> {
        match self.table.keys().next() {
            Some(key) => Err(PluginError::setting(key, "unknown setting")),
            None => Ok(()),
        }
    }
}

fn is_true(text: &str) -> bool {
    text.trim().eq_ignore_ascii_case("true")
}

fn unknown(what: &str, found: &str, known: &[&str]) -> String {
    format!("unknown {what} {found:?}: one of {}", known.join(", "))
}

fn exporter(raw: Raw<'_>) -> Result<Exporter, String> {
    match raw.text()? {
        "otlp" => Ok(Exporter::Otlp),
        "console" => Ok(Exporter::Console),
        "none" => Ok(Exporter::None),
        other => Err(unknown("exporter", other, &["otlp", "console", "none"])),
    }
}

fn protocol(raw: Raw<'_>) -> Result<Protocol, String> {
    match raw.text()? {
        "grpc" => Ok(Protocol::Grpc),
        "http/protobuf" => Ok(Protocol::HttpProtobuf),
        "http/json" => Ok(Protocol::HttpJson),
        other => Err(unknown("protocol", other, &["grpc", "http/protobuf", "http/json"])),
    }
}

fn compression(raw: Raw<'_>) -> Result<bool, String> {
    match raw.text()? {
        "none" => Ok(false),
        "gzip" => Ok(true),
        other => Err(unknown("compression", other, &["none", "gzip"])),
    }
}

fn count(raw: Raw<'_>) -> Result<usize, String> {
    let text = raw.number()?;
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("wanted a whole number above 0, found {text}")),
    }
}

fn ratio(raw: Raw<'_>) -> Result<f64, String> {
    let text = raw.number()?;
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err(format!("wanted a number from 0 to 1, found {text}")),
    }
}

fn duration(raw: Raw<'_>) -> Result<Duration, String> {
    let text = raw.text()?;
    let (parsed, wanted) = match raw {
        Raw::Setting(_) => (humantime::parse_duration(text).ok(), "a duration such as \"10s\""),
        Raw::Variable(_) => (text.parse().ok().map(Duration::from_millis), "milliseconds"),
    };
    match parsed {
        Some(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(format!("wanted {wanted}, above 0, found {text:?}")),
    }
}

/// The URL that spans are sent to below this base.
fn export_url(base: &str, protocol: Protocol) -> Result<String, String> {
    let base = checked_url(base)?;
    match protocol {
        Protocol::Grpc => Ok(base),
        Protocol::HttpProtobuf | Protocol::HttpJson => {
            Ok(format!("{}/v1/traces", base.trim_end_matches('/')))
        }
    }
}

/// The text, if it is a URL that exports can go to.
fn checked_url(text: &str) -> Result<String, String> {
    let shown = shown_url(text);
    if text.starts_with("https://") {
        return Err(format!("this version exports in plain text only: found {shown:?}"));
    }
    let uri: Option<Uri> = text.parse().ok().filter(|_| text.starts_with("http://"));
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    if host.is_empty() {
        return Err(format!("wanted a URL such as \"http://localhost:4317\", found {shown:?}"));
    }
    if uri.as_ref().and_then(Uri::authority).is_some_and(|place| place.as_str().contains('@')) {
        return Err(format!("wanted a URL without user, found {shown:?}: use headers instead"));
    }
    Ok(text.to_owned())
}

/// A URL that may be shown: no user, no query.
pub(crate) fn shown_url(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{}", redact::authority(rest))
}

/// The members of a table whose values are all texts. The values are never shown.
fn texts<'a>(
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
fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let header = HeaderName::try_from(name)
        .map_err(|_| format!("wanted the name of an HTTP header, found {name:?}"))?;
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| format!("the value of {name:?} has characters that HTTP does not allow"))?;
    value.set_sensitive(true);
    Ok((header, value))
}

/// A header as a variable has it: `name=value`, percent-encoded.
fn header_pair(pair: &str) -> Result<(HeaderName, HeaderValue), String> {
    // A pair without `=` may be a value that was cut at a comma, so it is not shown.
    let (name, value) = decoded_pair(pair).ok_or("wanted name=value, percent-encoded")?;
    if HeaderName::try_from(&name).is_err() {
        return Err("wanted the name of an HTTP header before the first =".to_owned());
    }
    header(&name, &value)
}

fn decoded_pair(pair: &str) -> Option<(String, String)> {
    let (key, value) = pair.split_once('=')?;
    let decode =
        |text: &str| Some(percent_decode_str(text.trim()).decode_utf8().ok()?.into_owned());
    Some((decode(key)?, decode(value)?)).filter(|(key, _)| !key.is_empty())
}

/// The whole variable or, as the specification wants, nothing of it.
fn resource_pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    text.split(',')
        .filter(|pair| !pair.trim().is_empty())
        .map(|pair| {
            let wanted = || format!("wanted key=value, percent-encoded, found {pair:?}");
            decoded_pair(pair).ok_or_else(wanted)
        })
        .collect()
}

fn propagators(value: &Value) -> Result<Propagators, String> {
    let mut chosen = Propagators { trace_context: false, baggage: false };
    match value {
        Value::String(names) => {
            for name in names.split(',') {
                choose(&mut chosen, name.trim())?;
            }
        }
        Value::Array(names) => {
            for name in names {
                choose(&mut chosen, Raw::Setting(name).text()?)?;
            }
        }
        other => return Err(format!("wanted a list of names, found {other}")),
    }
    Ok(chosen)
}

fn choose(chosen: &mut Propagators, name: &str) -> Result<(), String> {
    match name {
        "tracecontext" => chosen.trace_context = true,
        "baggage" => chosen.baggage = true,
        "none" => {}
        other => return Err(unknown("propagator", other, &["tracecontext", "baggage", "none"])),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(settings: &str, variables: &[(&str, &str)]) -> Result<Config, PluginError> {
        Config::read(settings, &|name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    fn good(settings: &str, variables: &[(&str, &str)]) -> Config {
        read(settings, variables).unwrap()
    }

    fn sampler(name: &str, ratio: f64) -> Sampler {
        Sampler::of(name, ratio).unwrap()
    }

    #[test]
    fn the_defaults_are_those_that_are_documented() {
        let config = good("{}", &[]);
        assert!(!config.disabled && !config.gzip);
        assert_eq!(config.exporter, Exporter::Otlp);
        assert_eq!(config.endpoint, "http://localhost:4317");
        assert_eq!(config.protocol, Protocol::Grpc);
        assert_eq!(config.timeout, Duration::from_secs(10));
        assert_eq!((config.max_queue_size, config.max_export_batch_size), (65536, 4096));
        assert_eq!(config.schedule_delay, Duration::from_secs(5));
        assert_eq!(config.sampler, sampler("parentbased_always_on", 1.0));
        assert_eq!(config.propagators, Propagators { trace_context: true, baggage: true });
        assert!(config.headers.is_empty() && config.resource.is_empty());
        assert!(config.warnings.is_empty());
    }

    #[test]
    fn every_documented_default_can_be_given_as_a_setting() {
        // All but tables and lists are JSON as well as TOML, and these lists are both, too.
        let pairs: Vec<String> = SETTINGS
            .iter()
            .map(|setting| format!("{:?}: {}", setting.key(), setting.default_value()))
            .collect();
        let given = good(&format!("{{{}}}", pairs.join(", ")), &[]);
        assert_eq!(format!("{given:?}"), format!("{:?}", good("{}", &[])));
    }

    #[test]
    fn a_setting_beats_a_variable_and_the_signal_s_variable_beats_the_general_one() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "3000"),
            ("OTEL_TRACES_SAMPLER", "always_off"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", ""),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1"),
        ];
        let config = good(r#"{"sampler": "always_on"}"#, &variables);
        assert_eq!(config.timeout, Duration::from_secs(2));
        assert_eq!(config.sampler, sampler("always_on", 1.0));
        assert_eq!(config.headers["a"], "1");
        let config = good(r#"{"timeout": "250ms", "headers": {"b": "2"}}"#, &variables[1..]);
        assert_eq!(config.timeout, Duration::from_millis(250));
        assert_eq!(config.sampler, sampler("always_off", 1.0));
        assert_eq!((config.headers.get("a"), config.headers.len()), (None, 1));
    }

    #[test]
    fn endpoints_get_their_path_and_port_by_protocol() {
        let base = "OTEL_EXPORTER_OTLP_ENDPOINT";
        let traces = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        for (settings, variables, wanted) in [
            (r#"{"protocol": "grpc"}"#, &[][..], "http://localhost:4317"),
            (r#"{"protocol": "http/json"}"#, &[], "http://localhost:4318/v1/traces"),
            (r#"{"endpoint": "http://c:1"}"#, &[], "http://c:1"),
            (
                r#"{"endpoint": "http://c:1/", "protocol": "http/protobuf"}"#,
                &[],
                "http://c:1/v1/traces",
            ),
            (
                r#"{"endpoint": "http://c:1/x", "protocol": "http/protobuf"}"#,
                &[(traces, "http://d")],
                "http://c:1/x/v1/traces",
            ),
            (r#"{"protocol": "http/json"}"#, &[(base, "http://c:1")], "http://c:1/v1/traces"),
            (
                r#"{"protocol": "http/json"}"#,
                &[(base, "http://c:1"), (traces, "http://d:2/in")],
                "http://d:2/in",
            ),
        ] {
            assert_eq!(good(settings, variables).endpoint, wanted, "{settings} {variables:?}");
        }
    }

    #[test]
    fn numbers_may_come_in_quotes() {
        let settings = r#"{"max-queue-size": "100", "sampler-arg": "0.25", "sampler": "traceidratio",
            "max-export-batch-size": 10}"#;
        let config = good(settings, &[]);
        assert_eq!((config.max_queue_size, config.max_export_batch_size), (100, 10));
        assert_eq!(config.sampler, sampler("traceidratio", 0.25));
        assert_eq!(good(r#"{"sampler-arg": 1}"#, &[]).sampler, good("{}", &[]).sampler);
    }

    #[test]
    fn a_batch_is_never_larger_than_the_queue() {
        assert_eq!(good(r#"{"max-queue-size": 7}"#, &[]).max_export_batch_size, 7);
        let variable = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50")];
        assert_eq!(good(r#"{"max-queue-size": 7}"#, &variable).max_export_batch_size, 7);
    }

    /// Settings, the key that is to blame, the message.
    const BAD: &[(&str, &str, &str)] = &[
        (
            r#"{"sampler": "alway_on"}"#,
            "sampler",
            "unknown sampler \"alway_on\": one of always_on, always_off, traceidratio, \
                 parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
        ),
        (
            r#"{"exporter": "jaeger"}"#,
            "exporter",
            "unknown exporter \"jaeger\": one of otlp, console, none",
        ),
        (r#"{"exporter": 1}"#, "exporter", "wanted text, found 1"),
        (
            r#"{"protocol": "http"}"#,
            "protocol",
            "unknown protocol \"http\": one of grpc, http/protobuf, http/json",
        ),
        (
            r#"{"compression": "zip"}"#,
            "compression",
            "unknown compression \"zip\": one of none, gzip",
        ),
        (
            r#"{"timeout": "soon"}"#,
            "timeout",
            "wanted a duration such as \"10s\", above 0, found \"soon\"",
        ),
        (r#"{"timeout": 10}"#, "timeout", "wanted text, found 10"),
        (
            r#"{"schedule-delay": "0s"}"#,
            "schedule-delay",
            "wanted a duration such as \"10s\", above 0, found \"0s\"",
        ),
        (r#"{"max-queue-size": 0}"#, "max-queue-size", "wanted a whole number above 0, found 0"),
        (r#"{"max-queue-size": -1}"#, "max-queue-size", "wanted a whole number above 0, found -1"),
        (r#"{"max-queue-size": true}"#, "max-queue-size", "wanted a number, found true"),
        (
            r#"{"max-queue-size": 10, "max-export-batch-size": 11}"#,
            "max-export-batch-size",
            "wanted at most max-queue-size, which is 10, found 11",
        ),
        (r#"{"sampler-arg": 1.5}"#, "sampler-arg", "wanted a number from 0 to 1, found 1.5"),
        (
            r#"{"propagators": ["b3"]}"#,
            "propagators",
            "unknown propagator \"b3\": one of tracecontext, baggage, none",
        ),
        (r#"{"propagators": 1}"#, "propagators", "wanted a list of names, found 1"),
        (
            r#"{"endpoint": "https://c:1"}"#,
            "endpoint",
            "this version exports in plain text only: found \"https://c:1\"",
        ),
        (
            r#"{"endpoint": "c:4317"}"#,
            "endpoint",
            "wanted a URL such as \"http://localhost:4317\", found \"c:4317\"",
        ),
        (
            r#"{"endpoint": "http://u:s3cret@c:1"}"#,
            "endpoint",
            "wanted a URL without user, found \"http://REDACTED:REDACTED@c:1\": \
                 use headers instead",
        ),
        (r#"{"headers": 1}"#, "headers", "wanted a table of texts"),
        (r#"{"headers": {"x": 1}}"#, "headers.x", "wanted text"),
        (
            r#"{"headers": {"x y": "s3cret"}}"#,
            "headers.x y",
            "wanted the name of an HTTP header, found \"x y\"",
        ),
        (
            r#"{"headers": {"x": "s3cret\n"}}"#,
            "headers.x",
            "the value of \"x\" has characters that HTTP does not allow",
        ),
        (r#"{"resource": {"a": 1}}"#, "resource.a", "wanted text"),
        (r#"{"tls": {}}"#, "tls", "unknown setting"),
    ];

    #[test]
    fn a_bad_setting_names_its_key_and_says_what_was_wanted_and_found() {
        for &(settings, key, message) in BAD {
            let error = read(settings, &[]).unwrap_err();
            assert_eq!((error.key(), error.message()), (key, message), "{settings}");
            assert_eq!(error.kind(), plugin_api::ErrorKind::SETTING);
        }
    }

    #[test]
    fn a_bad_variable_is_a_warning_and_the_next_one_or_the_default_holds() {
        let variables = [
            ("OTEL_TRACES_EXPORTER", "jaeger"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "soon"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
            ("OTEL_PROPAGATORS", "b3,baggage"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
        ];
        let config = good("{}", &variables);
        assert_eq!(config.exporter, Exporter::Otlp);
        assert_eq!(config.timeout, Duration::from_millis(1500));
        assert_eq!(config.max_queue_size, 65536);
        assert_eq!(config.sampler, sampler("parentbased_always_on", 1.0));
        assert_eq!(config.propagators, Propagators { trace_context: false, baggage: true });
        assert!(config.resource.is_empty());
        assert_eq!(config.warnings.len(), 6, "{:?}", config.warnings);
        let first = "OTEL_BSP_MAX_QUEUE_SIZE is ignored: wanted a whole number above 0, found many";
        assert!(config.warnings.iter().any(|line| line == first), "{:?}", config.warnings);
    }

    #[test]
    fn a_bad_endpoint_variable_is_refused() {
        let error = read("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c:1")]).unwrap_err();
        assert_eq!(error.key(), "endpoint");
        assert!(error.message().starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: this version exports"));
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let names = SETTINGS.iter().flat_map(Setting::variables).chain(["OTEL_SDK_DISABLED"]);
        let empty: Vec<(&str, &str)> = names.map(|name| (name, " ")).collect();
        assert_eq!(format!("{:?}", good("{}", &empty)), format!("{:?}", good("{}", &[])));
    }

    #[test]
    fn headers_and_attributes_of_variables_are_percent_decoded() {
        let variables = [
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                " x-token = s%20e%2Cc , x-other=a=b,nonsense, bad name=1",
            ),
            ("OTEL_RESOURCE_ATTRIBUTES", "a=%C3%A9, service.name=one ,b="),
            ("OTEL_SERVICE_NAME", "two"),
        ];
        let config = good(r#"{"resource": {"b": "3"}}"#, &variables);
        assert_eq!(config.headers["x-token"], "s e,c");
        assert_eq!(config.headers["x-other"], "a=b");
        assert_eq!(config.headers.len(), 2);
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
        let resource: Vec<(&str, &str)> =
            config.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(resource, [("a", "\u{e9}"), ("b", "3"), ("service.name", "two")]);
    }

    #[test]
    fn propagators_are_chosen_by_name() {
        for (settings, trace_context, baggage) in [
            (r#"{"propagators": ["tracecontext"]}"#, true, false),
            (r#"{"propagators": "tracecontext, baggage"}"#, true, true),
            (r#"{"propagators": ["none"]}"#, false, false),
            (r#"{"propagators": []}"#, false, false),
        ] {
            let wanted = Propagators { trace_context, baggage };
            assert_eq!(good(settings, &[]).propagators, wanted, "{settings}");
        }
    }

    #[test]
    fn the_sdk_can_be_switched_off() {
        for (text, disabled) in [("true", true), ("TRUE", true), ("1", false), ("false", false)] {
            assert_eq!(good("{}", &[("OTEL_SDK_DISABLED", text)]).disabled, disabled, "{text}");
        }
    }

    #[test]
    fn a_compression_of_the_environment_can_be_switched_off() {
        let variables = [("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")];
        assert!(good("{}", &variables).gzip);
        assert!(!good(r#"{"compression": "none"}"#, &variables).gzip);
    }

    #[test]
    fn no_secret_is_printed() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_HEADERS", "x=s3cret,s3cret,s3cret\u{1}=s3cret,y=s3cret%0A"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
        ];
        let config = good("{}", &variables);
        assert_eq!(config.headers["x"], "s3cret");
        assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
        let error = read(r#"{"headers": {"x": "s3cret"}, "#, &[]).unwrap_err();
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
