//! Takes the settings one by one: the table first, then the variables, then the default.

use std::collections::BTreeMap;

use http::HeaderMap;
use plugin_api::{PluginError, Setting};
use serde_json::{Map, Value};

use super::{
    Capture, Keep, Protocol, SETTINGS,
    endpoint::{checked_url, export_url},
    parse::{self, Raw},
    tables,
};
use crate::{
    policy::Policy,
    propagation::Propagators,
    rules::Rules,
    sampling::Sampler,
    semconv,
    trust::{Trust, TrustTable},
};

/// Takes one key after the other out of the table.
pub(super) struct Reader<'a, E> {
    table: Map<String, Value>,
    env: &'a E,
    /// What was wrong in the environment, one line each.
    pub(super) warnings: Vec<String>,
}

impl<'a, E: Fn(&str) -> Option<String>> Reader<'a, E> {
    /// A reader of this JSON object.
    pub(super) fn new(settings: &str, env: &'a E) -> Result<Self, PluginError> {
        Ok(Self { table: table(settings)?, env, warnings: Vec::new() })
    }

    /// `OTEL_SDK_DISABLED`
    pub(super) fn is_disabled(&self) -> bool {
        self.variable("OTEL_SDK_DISABLED").is_some_and(|text| parse::is_true(&text))
    }

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

    pub(super) fn value<T>(
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

    pub(super) fn endpoint(&mut self, protocol: Protocol) -> Result<String, PluginError> {
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

    pub(super) fn headers(&mut self) -> Result<HeaderMap, PluginError> {
        let mut headers = HeaderMap::new();
        if let Some(value) = self.table.remove("headers") {
            for (name, text) in parse::texts("headers", &value)? {
                let (name, value) = parse::header(name, text)
                    .map_err(|reason| PluginError::setting(&format!("headers.{name}"), reason))?;
                headers.insert(name, value);
            }
        } else if let Some((variable, text)) = self.variables("headers").into_iter().next() {
            for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
                match parse::header_pair(pair) {
                    Ok((name, value)) => _ = headers.insert(name, value),
                    Err(reason) => {
                        self.warnings.push(format!("a member of {variable} is ignored: {reason}"));
                    }
                }
            }
        }
        Ok(headers)
    }

    pub(super) fn batch_size(&mut self, max_queue_size: usize) -> Result<usize, PluginError> {
        let key = "max-export-batch-size";
        let is_setting = self.table.contains_key(key);
        let size = self.value(key, parse::count, 4096)?;
        if is_setting && size > max_queue_size {
            let reason = format_args!(
                "wanted at most max-queue-size, which is {max_queue_size}, found {size}"
            );
            return Err(PluginError::setting(key, reason));
        }
        Ok(size.min(max_queue_size))
    }

    pub(super) fn sampler(&mut self) -> Result<Sampler, PluginError> {
        let ratio = self.value("sampler-arg", parse::ratio, 1.0)?;
        let parse = |raw: Raw<'_>| {
            let name = raw.text()?;
            Sampler::of(name, ratio).ok_or_else(|| parse::unknown("sampler", name, &Sampler::NAMES))
        };
        let default = parse(Raw::Variable("parentbased_always_on"))
            .map_err(|reason| PluginError::setting("sampler", reason))?;
        self.value("sampler", parse, default)
    }

    pub(super) fn propagators(&mut self) -> Result<Propagators, PluginError> {
        let key = "propagators";
        if self.table.contains_key(key) {
            return self.value(key, parse::propagators, Propagators::none());
        }
        let Some((variable, text)) = self.variables(key).into_iter().next() else {
            return Ok(Propagators::default());
        };
        let mut chosen = Propagators::none();
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if let Err(reason) = parse::propagator(&mut chosen, name) {
                self.warnings.push(format!("a member of {variable} is ignored: {reason}"));
            }
        }
        Ok(chosen)
    }

    pub(super) fn policy(&mut self) -> Result<Policy, PluginError> {
        let entries = self.table.remove("trust").map_or(Ok(Vec::new()), tables::trust)?;
        let rules = self.table.remove("rule").map_or(Ok(Vec::new()), tables::rules)?;
        Ok(Policy {
            exclude: self.value("exclude", parse::templates, Vec::new())?,
            trust: TrustTable {
                entries,
                otherwise: self.value("incoming", parse::trust, Trust::Continue)?,
            },
            rules: Rules(rules),
        })
    }

    pub(super) fn capture(&mut self) -> Result<Capture, PluginError> {
        let mut headers = |key| self.value(key, parse::header_names, Vec::new());
        Ok(Capture {
            request_headers: headers("capture-request-headers")?,
            response_headers: headers("capture-response-headers")?,
        })
    }

    pub(super) fn keep(&mut self) -> Result<Keep, PluginError> {
        Ok(Keep {
            errors: self.value("keep-errors", parse::flag, false)?,
            slower_than: self.value("keep-slower-than", parse::optional_duration, None)?,
            max_spans: self.value("keep-max-spans", parse::count, 8192)?,
        })
    }

    pub(super) fn resource(&mut self) -> Result<BTreeMap<String, String>, PluginError> {
        let mut attributes = BTreeMap::new();
        if let Some(text) = self.variable("OTEL_RESOURCE_ATTRIBUTES") {
            match parse::resource_pairs(&text) {
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
            for (key, text) in parse::texts("resource", &value)? {
                attributes.insert(key.to_owned(), text.to_owned());
            }
        }
        Ok(attributes)
    }

    /// The host refuses unknown keys by [`SETTINGS`]; a host that does not is no excuse.
    pub(super) fn nothing_is_left(&self) -> Result<(), PluginError> {
        match self.table.keys().next() {
            Some(key) => Err(PluginError::setting(key, "unknown setting")),
            None => Ok(()),
        }
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
