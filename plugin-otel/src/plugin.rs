//! The plugin's life: create, layers, status, flush, shutdown.

use std::{
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime},
};

use opentelemetry::KeyValue;
use opentelemetry_sdk::{Resource, resource::TelemetryResourceDetector, trace::SdkTracerProvider};
use plugin_api::{
    ErrorKind, Host, Level, Plugin, PluginError, Service, Setting, State, abi::TelemetryObject,
    adapter::telemetry_object, guard, metrics::Visit,
};
use serde_json::json;

use crate::{
    config::{self, Config, Destination, SETTINGS},
    exchange::{Client, Server, Tally, Tracing},
    live::LIVE_SETTINGS,
    log,
    metrics::{Own, Reader},
    pipeline::{Counts, ExportState, Pipeline, export::Exporter},
    provider, redact,
    remote_sampler::Asker,
    semconv,
    signal::Signal,
    telemetry::Inside,
};

const TARGET: &str = "plugin_otel";

/// The plugin. `None` where `OTEL_SDK_DISABLED` says so.
#[derive(Debug)]
pub(crate) struct Otel(Option<Running>);

#[derive(Debug)]
struct Running {
    pipeline: Arc<Pipeline>,
    /// Where the host's log goes; `None` where it goes nowhere.
    logs: Option<Arc<Pipeline>>,
    own: Own,
    /// `None` where metrics go nowhere.
    metrics: Option<Reader>,
    provider: SdkTracerProvider,
    tracing: Arc<Tracing>,
}

impl Plugin for Otel {
    const NAME: &'static str = "otel";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SETTINGS: &'static [Setting] = SETTINGS;
    const LIVE_SETTINGS: &'static [&'static str] = LIVE_SETTINGS;
    type ServerLayer = Server;
    type ClientLayer = Client;

    fn create(settings: &str, host: Host) -> Result<Self, PluginError> {
        let mut config = read(settings)?;
        config.start_paths_at(Path::new(host.folder().as_str()));
        for warning in &config.warnings {
            host.log(Level::WARN, TARGET, warning);
        }
        if config.disabled {
            host.log(Level::INFO, TARGET, "OTEL_SDK_DISABLED is set: no request is traced");
            return Ok(Self(None));
        }
        log::forward_to(host.clone());
        host.log(Level::INFO, TARGET, &description(&config));
        Running::start(&config, host).map(|running| Self(Some(running)))
    }

    fn server_layer(&self) -> Option<Server> {
        self.0.as_ref().map(|running| Server(Arc::clone(&running.tracing)))
    }

    fn client_layer(&self) -> Option<Client> {
        self.0.as_ref().map(|running| Client(Arc::clone(&running.tracing)))
    }

    fn telemetry(&self) -> Option<TelemetryObject> {
        let Running { tracing, logs, .. } = self.0.as_ref()?;
        Some(telemetry_object(Inside { tracing: Arc::clone(tracing), logs: logs.clone() }))
    }

    fn state(&self) -> State {
        let is_failing = |running: &Running| running.pipelines().any(|one| one.export().is_failing);
        if self.0.as_ref().is_some_and(is_failing) { State::DEGRADED } else { State::RUNNING }
    }

    fn status(&self) -> String {
        match &self.0 {
            Some(Running { pipeline, tracing, logs, metrics, .. }) => {
                let metrics = metrics.as_ref().map(Reader::pipeline);
                let others = [("logs", logs.as_ref()), ("metrics", metrics)];
                let told = |one: &Arc<Pipeline>| (one.counts(), one.export());
                let others = others.map(|(name, one)| (name, one.map(told)));
                status(pipeline.counts(), tracing.tally(), &pipeline.export(), others)
            }
            None => status(Counts::default(), None, &ExportState::default(), []),
        }
    }

    fn check(&self, timeout: Duration) -> Result<(), PluginError> {
        self.0.as_ref().map_or(Ok(()), |running| running.each(|pipeline| pipeline.check(timeout)))
    }

    fn reconfigure(&self, settings: &str) -> Result<(), PluginError> {
        let config = read(settings)?;
        if let Some(running) = &self.0 {
            running.tracing.live().replace(&config);
        }
        Ok(())
    }

    fn flush(&self, timeout: Duration) -> Result<(), PluginError> {
        match &self.0 {
            Some(running) => {
                if let Some(metrics) = &running.metrics {
                    metrics.collect();
                }
                running.each(|pipeline| pipeline.flush(timeout))
            }
            None => Ok(()),
        }
    }

    fn shutdown(&self, timeout: Duration) -> Result<(), PluginError> {
        let Some(running) = &self.0 else { return Ok(()) };
        let began = Instant::now();
        // From now on the API makes no spans. Its own part has nothing to wait for.
        _ = running.provider.shutdown_with_timeout(timeout);
        if let Some(metrics) = &running.metrics {
            metrics.stop();
        }
        let left = timeout.saturating_sub(began.elapsed());
        running.each(|pipeline| pipeline.shutdown(left))
    }

    fn metrics(&self, visit: Visit<'_>) {
        if let Some(running) = &self.0 {
            running.own.visit(visit);
        }
    }
}

impl Running {
    fn start(config: &Config, host: Host) -> Result<Self, PluginError> {
        let resource = resource(config, &host.service());
        let start = |signal, destination| pipeline(signal, destination, &host, &resource);
        let pipeline = start(Signal::Traces, &config.traces)?;
        let has_logs = config.log_level.is_some() && config.logs.exporter != config::Exporter::None;
        let logs = has_logs.then(|| start(Signal::Logs, &config.logs)).transpose()?;
        let own = Own::new(&config.traces, &pipeline);
        let own = logs.iter().fold(own, |own, logs| own.with_logs(&config.logs, logs));
        let every = config.metric_interval;
        let every = every.filter(|_| config.metrics.exporter != config::Exporter::None);
        let collections = every.map(|_| start(Signal::Metrics, &config.metrics)).transpose()?;
        let own = collections
            .iter()
            .fold(own, |own, collections| own.with_metrics(&config.metrics, collections));
        let metrics = every
            .zip(collections)
            .map(|(every, pipeline)| {
                Reader::start(host.clone(), own.clone(), pipeline, every, config.exemplars)
                    .map_err(|error| failed(format_args!("no thread for metrics: {error}")))
            })
            .transpose()?;
        let tracing = Tracing::new(config, host.clone(), Arc::clone(&pipeline));
        let live = tracing.live().clone();
        let asker = Asker::new(live.clone(), host, config.traces.clone(), &resource);
        pipeline.run_beside(asker.run());
        let provider = provider::register(live, resource, Arc::clone(&pipeline));
        Ok(Self { pipeline, logs, own, metrics, provider, tracing })
    }

    fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        let metrics = self.metrics.as_ref().map(Reader::pipeline);
        let all = [Some(&self.pipeline), self.logs.as_ref(), metrics];
        all.into_iter().flatten().map(Arc::as_ref)
    }

    /// Does with every pipeline what blocks, at the same time; answers the first failure.
    fn each(
        &self,
        work: impl Fn(&Pipeline) -> Result<(), PluginError> + Sync,
    ) -> Result<(), PluginError> {
        let work = &work;
        thread::scope(|scope| {
            let all: Vec<_> =
                self.pipelines().map(|pipeline| scope.spawn(move || work(pipeline))).collect();
            let panicked = |_| Err(PluginError::new(ErrorKind::PANIC, "a pipeline panicked"));
            all.into_iter().map(|one| one.join().unwrap_or_else(panicked)).fold(Ok(()), Result::and)
        })
    }
}

fn pipeline(
    signal: Signal,
    destination: &Destination,
    host: &Host,
    resource: &Resource,
) -> Result<Arc<Pipeline>, PluginError> {
    let exporter = Exporter::new(signal, destination, resource)?;
    let pipeline = Pipeline::start(signal, destination, host.clone(), exporter);
    pipeline.map(Arc::new).map_err(|error| failed(format_args!("no export thread: {error}")))
}

fn read(settings: &str) -> Result<Config, PluginError> {
    Config::read(settings, &|name| std::env::var(name).ok())
}

fn failed(reason: impl std::fmt::Display) -> PluginError {
    PluginError::new(ErrorKind::OTHER, reason)
}

/// One line that says what the plugin will do, without anything secret.
fn description(config: &Config) -> String {
    let sampler = &config.sampler;
    match config.traces.exporter {
        config::Exporter::Otlp => {
            let place = redact::shown_url(&config.traces.endpoint);
            format!("spans go to {place} over {}, sampler {sampler}", config.traces.protocol)
        }
        config::Exporter::Console => format!("spans go to the console, sampler {sampler}"),
        config::Exporter::None => format!("spans go nowhere, sampler {sampler}"),
    }
}

/// Who makes the spans: what the host says of itself, under what the operator says of it.
fn resource(config: &Config, service: &Service) -> Resource {
    let own = [
        (semconv::SERVICE_NAME, &service.group),
        (semconv::SERVICE_INSTANCE_ID, &service.id),
        (semconv::SERVICE_INSTANCE_NAME, &service.name),
        (semconv::SERVICE_VERSION, &service.version),
    ];
    let own = own
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| KeyValue::new(key, value.to_string()));
    let operators =
        config.resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
    Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(own)
        .with_attributes(operators)
        .build()
}

/// The plugin's part of `GET /plugins`; `held` only where spans wait for their request's end,
/// `others` only where they are exported.
fn status(
    counts: Counts,
    held: Option<Tally>,
    export: &ExportState,
    others: impl IntoIterator<Item = (&'static str, Option<(Counts, ExportState)>)>,
) -> String {
    let mut status = json!({
        "spans": {
            "live": counts.live,
            "started": counts.started,
            "sampled": counts.sampled,
            "exported": counts.exported,
            "dropped": counts.dropped,
        },
        "export": export_status(&counts, export),
        "panics": guard::panics(),
    });
    for (name, told) in others {
        let Some((counts, export)) = told else { continue };
        status[name] = json!({
            "exported": counts.exported,
            "dropped": counts.dropped,
            "export": export_status(&counts, &export),
        });
    }
    if let Some(Tally { held, bytes, dropped }) = held {
        status["held"] = json!({"spans": held, "bytes": bytes, "dropped": dropped});
    }
    status.to_string()
}

fn export_status(counts: &Counts, export: &ExportState) -> serde_json::Value {
    json!({
        "state": if export.is_failing { "failing" } else { "healthy" },
        "since": rfc3339(export.since),
        "last-error": export.last_error,
        "queued": counts.queued,
    })
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plugin_api::{RequestHead, ServerLayer as _};

    use super::*;
    use crate::testing::{Journal, config};

    #[test]
    fn the_resource_takes_what_the_operator_says_over_what_the_host_says() {
        let service = Service {
            group: "manager".into(),
            name: "manager-1".into(),
            id: "id-1".into(),
            version: "1.2.3".into(),
        };
        let mut config = config("always_on");
        config.resource.insert("service.name".to_owned(), "other".to_owned());
        config.resource.insert("deployment".to_owned(), "test".to_owned());
        let resource = resource(&config, &service);
        let all: BTreeMap<String, String> =
            resource.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        for (key, value) in [
            ("service.name", "other"),
            ("service.instance.id", "id-1"),
            ("service.instance.name", "manager-1"),
            ("service.version", "1.2.3"),
            ("deployment", "test"),
            ("telemetry.sdk.language", "rust"),
        ] {
            assert_eq!(all.get(key).map(String::as_str), Some(value), "{key}");
        }
    }

    #[test]
    fn the_status_has_the_shape_of_the_contract() {
        let since = SystemTime::UNIX_EPOCH;
        let export = ExportState { is_failing: true, since, ..ExportState::default() };
        let counts = Counts {
            live: 6,
            started: 4,
            sampled: 3,
            exported: 1,
            dropped: 2,
            queued: 5,
            ..Counts::default()
        };
        let tally = Some(Tally { held: 7, bytes: 12, dropped: 8 });
        let logs = Counts { exported: 9, dropped: 10, queued: 11, ..Counts::default() };
        let logs = Some((logs, ExportState { since, ..ExportState::default() }));
        let told: serde_json::Value = serde_json::from_str(&status(
            counts,
            tally,
            &export,
            [("logs", logs), ("metrics", None)],
        ))
        .unwrap();
        let wanted = json!({
            "spans": {"live": 6, "started": 4, "sampled": 3, "exported": 1, "dropped": 2},
            "export": {
                "state": "failing",
                "since": "1970-01-01T00:00:00.000Z",
                "last-error": null,
                "queued": 5,
            },
            "panics": guard::panics(),
            "held": {"spans": 7, "bytes": 12, "dropped": 8},
            "logs": {
                "exported": 9,
                "dropped": 10,
                "export": {
                    "state": "healthy",
                    "since": "1970-01-01T00:00:00.000Z",
                    "last-error": null,
                    "queued": 11,
                },
            },
        });
        assert_eq!(told, wanted);
    }

    #[test]
    fn a_plugin_that_is_switched_off_offers_nothing_and_answers_all_the_same() {
        let otel = Otel(None);
        assert!(otel.server_layer().is_none() && otel.client_layer().is_none());
        assert_eq!(otel.state(), State::RUNNING);
        assert!(otel.status().contains("\"healthy\""), "{}", otel.status());
        otel.flush(Duration::ZERO).unwrap();
        otel.shutdown(Duration::ZERO).unwrap();
    }

    #[test]
    fn a_plugin_that_exports_nowhere_lives_and_stops() {
        let journal = Journal::default();
        let otel = Otel::create(r#"{"exporter": "none"}"#, journal.host()).unwrap();
        assert!(otel.client_layer().is_some());
        assert_eq!(otel.state(), State::RUNNING);
        let accepted = otel.server_layer().unwrap().on_request(&RequestHead::new("GET", "/", &[]));
        assert!(accepted.context.span().is_sampled(), "others may record the trace");
        assert!(accepted.exchange.is_none());
        assert!(journal.text().contains("spans go nowhere, sampler parentbased_always_on"));
        otel.shutdown(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn new_settings_hold_from_the_next_request_on_and_bad_ones_change_nothing() {
        let otel = Otel::create(r#"{"exporter": "none"}"#, Journal::default().host()).unwrap();
        let server = otel.server_layer().unwrap();
        let is_sampled = |path| {
            let accepted = server.on_request(&RequestHead::new("GET", path, &[]));
            accepted.context.span().is_sampled()
        };
        assert!(is_sampled("/"));
        otel.reconfigure(r#"{"exporter": "none", "sampler": "always_off"}"#).unwrap();
        assert!(!is_sampled("/"));
        let error = otel.reconfigure(r#"{"sampler": "always_on", "exclude": 5}"#).unwrap_err();
        assert_eq!(error.key(), "exclude");
        assert!(!is_sampled("/"), "nothing of it is applied");
        let rule = r#"{"sampler": "always_off", "rule": [{"route": "/on", "ratio": 1}]}"#;
        otel.reconfigure(rule).unwrap();
        assert!(is_sampled("/on") && !is_sampled("/"));
        otel.shutdown(Duration::from_secs(5)).unwrap();
    }

    #[test]
    fn every_live_setting_is_a_setting() {
        let known = |live: &&&str| SETTINGS.iter().any(|setting| setting.key() == **live);
        assert_eq!(LIVE_SETTINGS.iter().filter(known).count(), LIVE_SETTINGS.len());
    }

    #[test]
    fn a_bad_setting_stops_the_start_and_names_the_key() {
        let error = Otel::create(r#"{"sampler": "alway_on"}"#, Journal::default().host());
        assert_eq!(error.unwrap_err().key(), "sampler");
    }

    #[test]
    fn the_description_shows_no_secret() {
        let mut config = config("always_on");
        config.traces.endpoint = "http://user:pass@there:1/v1/traces?key=s3cret".to_owned();
        let text = description(&config);
        assert!(text.contains("there:1/v1/traces over grpc"), "{text}");
        assert!(!text.contains("pass") && !text.contains("s3cret"), "{text}");
    }
}
