//! Takes the settings one by one: the table first, then the variables, then the default.

use std::collections::BTreeMap;

use plugin_api::{PluginError, Setting};
use serde_json::{Map, Value};

use super::{
    Capture, Keep, SETTINGS,
    parse::{self, Raw},
    tables,
};
use crate::{
    policy::Policy,
    propagation::Propagators,
    rules::Rules,
    sampling::Sampler,
    semconv,
    signal::Signal,
    trust::{Trust, TrustTable},
};

/// Takes one key after the other out of the table.
pub(super) struct Reader<'a, E> {
    table: Map<String, Value>,
    /// The keys that were asked for; those of destinations are, once for each signal.
    known: Vec<&'static str>,
    /// Whose variables count.
    pub(super) signal: Signal,
    env: &'a E,
    /// What was wrong in the environment, one line each.
    pub(super) warnings: Vec<String>,
}

impl<'a, E: Fn(&str) -> Option<String>> Reader<'a, E> {
    /// A reader of this JSON object.
    pub(super) fn new(settings: &str, env: &'a E) -> Result<Self, PluginError> {
        let table = table(settings)?;
        Ok(Self { table, known: Vec::new(), signal: Signal::Traces, env, warnings: Vec::new() })
    }

    /// `OTEL_SDK_DISABLED`
    pub(super) fn is_disabled(&self) -> bool {
        self.variable("OTEL_SDK_DISABLED").is_some_and(|text| parse::is_true(&text))
    }

    /// The text of a variable that is set.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|text| !text.trim().is_empty())
    }

    /// The variables of a key that are set, first one first.
    pub(super) fn variables(&self, key: &str) -> Vec<(String, String)> {
        let setting = SETTINGS.iter().find(|setting| setting.key() == key);
        setting
            .into_iter()
            .flat_map(Setting::variables)
            .filter_map(|name| self.signal.variable(name))
            .filter_map(|name| self.variable(&name).map(|text| (name, text)))
            .collect()
    }

    /// What the table has at this key.
    pub(super) fn setting(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.get(key).cloned()
    }

    /// Says that something in the environment is ignored; once, also where it concerns each signal.
    pub(super) fn warn(&mut self, line: String) {
        if !self.warnings.contains(&line) {
            self.warnings.push(line);
        }
    }

    pub(super) fn value<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(Raw<'_>) -> Result<T, String>,
        default: T,
    ) -> Result<T, PluginError> {
        if let Some(value) = self.setting(key) {
            return parse(Raw::Setting(&value)).map_err(|reason| PluginError::setting(key, reason));
        }
        for (name, text) in self.variables(key) {
            match parse(Raw::Variable(&text)) {
                Ok(value) => return Ok(value),
                Err(reason) => self.warn(format!("{name} is ignored: {reason}")),
            }
        }
        Ok(default)
    }

    pub(super) fn sampler(&mut self) -> Result<Sampler, PluginError> {
        let sampler = self.value("sampler", parse::sampler, Sampler::default())?;
        Ok(if let Some(remote) = sampler.remote().cloned() {
            let read = |raw: Raw<'_>| parse::remote(raw, &remote);
            let remote = self.value("sampler-arg", read, remote.clone())?;
            sampler.told_by(remote)
        } else {
            sampler.with_ratio(self.value("sampler-arg", parse::ratio, 1.0)?)
        })
    }

    /// Warns of what the variables of metrics want where they want what there is not.
    pub(super) fn check_metrics(&mut self) {
        for (end, only) in [
            ("TEMPORALITY_PREFERENCE", "cumulative"),
            ("DEFAULT_HISTOGRAM_AGGREGATION", "explicit_bucket_histogram"),
        ] {
            let name = format!("OTEL_EXPORTER_OTLP_METRICS_{end}");
            let Some(text) = self.variable(&name) else { continue };
            if !text.trim().eq_ignore_ascii_case(only) {
                self.warn(format!("{name} is ignored: wanted {only}, found {text:?}"));
            }
        }
    }

    pub(super) fn propagators(&mut self) -> Result<Propagators, PluginError> {
        let key = "propagators";
        if self.table.contains_key(key) {
            return self.value(key, parse::propagators, Propagators::none());
        }
        let Some((variable, text)) = self.variables(key).into_iter().next() else {
            return Ok(Propagators::default());
        };
        let (mut chosen, mut any) = (Propagators::none(), false);
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match parse::propagator(&mut chosen, name) {
                Ok(()) => any = true,
                Err(reason) => self.warn(format!("a member of {variable} is ignored: {reason}")),
            }
        }
        Ok(if any { chosen } else { Propagators::default() })
    }

    pub(super) fn policy(&mut self) -> Result<Policy, PluginError> {
        let entries = self.setting("trust").map_or(Ok(Vec::new()), tables::trust)?;
        let rules = self.setting("rule").map_or(Ok(Vec::new()), tables::rules)?;
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
            max_bytes: self.value("keep-max-bytes", parse::count, 8 * 1024 * 1024)?,
        })
    }

    pub(super) fn resource(&mut self) -> Result<BTreeMap<String, String>, PluginError> {
        let mut attributes = BTreeMap::new();
        if let Some(text) = self.variable("OTEL_RESOURCE_ATTRIBUTES") {
            match parse::resource_pairs(&text) {
                Ok(pairs) => attributes.extend(pairs),
                Err(reason) => {
                    self.warn(format!("OTEL_RESOURCE_ATTRIBUTES is ignored: {reason}"));
                }
            }
        }
        if let Some(name) = self.variable("OTEL_SERVICE_NAME") {
            attributes.insert(semconv::SERVICE_NAME.to_owned(), name);
        }
        if let Some(value) = self.setting("resource") {
            for (key, text) in parse::texts("resource", &value)? {
                attributes.insert(key.to_owned(), text.to_owned());
            }
        }
        Ok(attributes)
    }

    /// The host refuses unknown keys by [`SETTINGS`]; a host that does not is no excuse.
    pub(super) fn nothing_is_left(&self) -> Result<(), PluginError> {
        match self.table.keys().find(|key| !self.known.contains(&key.as_str())) {
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
