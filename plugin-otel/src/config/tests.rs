//! Settings, variables and defaults as one: what is read, what is refused, what is said.

use std::time::Duration;

use plugin_api::{PluginError, Setting};

use super::*;
use crate::{
    remote_sampler::{Dialect, Remote},
    trust::Trust,
};

fn read(settings: &str, variables: &[(&str, &str)]) -> Result<Config, PluginError> {
    Config::read(settings, &|name| {
        let found = variables.iter().find(|(variable, _)| *variable == name);
        found.map(|(_, text)| (*text).to_owned())
    })
}

fn good(settings: &str, variables: &[(&str, &str)]) -> Config {
    read(settings, variables).unwrap()
}

fn propagators(names: &[&str]) -> Propagators {
    let mut propagators = Propagators::none();
    assert!(names.iter().all(|name| propagators.add(name)), "{names:?}");
    propagators
}

fn sampler(name: &str, ratio: f64) -> Sampler {
    Sampler::of(name).unwrap().with_ratio(ratio)
}

#[test]
fn the_defaults_are_those_that_are_documented() {
    let config = good("{}", &[]);
    assert!(!config.disabled && !config.traces.gzip);
    assert_eq!(config.traces.exporter, Exporter::Otlp);
    assert_eq!(config.traces.endpoint, "http://localhost:4317");
    assert_eq!(config.traces.protocol, Protocol::Grpc);
    assert_eq!(config.traces.timeout, Duration::from_secs(10));
    assert_eq!((config.traces.max_queue_size, config.traces.max_export_batch_size), (65536, 4096));
    assert_eq!(config.traces.schedule_delay, Duration::from_secs(5));
    assert_eq!(config.log_level, Some(Level::INFO));
    assert_eq!(config.metric_interval, Some(Duration::from_secs(60)));
    assert!(config.exemplars);
    assert_eq!(config.sampler, sampler("parentbased_always_on", 1.0));
    assert_eq!(config.propagators, propagators(&["tracecontext", "baggage"]));
    assert!(config.traces.headers.is_empty() && config.resource.is_empty());
    assert_eq!(config.policy, Policy::default());
    assert_eq!(config.trusted_proxies, Networks::default());
    assert_eq!(config.known_methods, KnownMethods::default());
    assert_eq!(config.redaction, Redaction::default());
    assert_eq!(config.capture, Capture::default());
    assert_eq!(
        config.keep,
        Keep { errors: false, slower_than: None, max_spans: 8192, max_bytes: 8 * 1024 * 1024 }
    );
    assert_eq!((config.response_header, config.max_distinct), (ResponseHeader::Off, 1000));
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
    assert_eq!(config.traces.timeout, Duration::from_secs(2));
    assert_eq!(config.sampler, sampler("always_on", 1.0));
    assert_eq!(config.traces.headers["a"], "1");
    let config = good(r#"{"timeout": "250ms", "headers": {"b": "2"}}"#, &variables[1..]);
    assert_eq!(config.traces.timeout, Duration::from_millis(250));
    assert_eq!(config.sampler, sampler("always_off", 1.0));
    assert_eq!((config.traces.headers.get("a"), config.traces.headers.len()), (None, 1));
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
            &[(base, "http://c:1/x/?a=b")],
            "http://c:1/x/v1/traces?a=b",
        ),
        (
            r#"{"protocol": "http/json"}"#,
            &[(base, "http://c:1"), (traces, "http://d:2/in")],
            "http://d:2/in",
        ),
    ] {
        assert_eq!(good(settings, variables).traces.endpoint, wanted, "{settings} {variables:?}");
    }
}

#[test]
fn each_signal_has_variables_of_its_own() {
    let variables = [
        ("OTEL_LOGS_EXPORTER", "console"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
        ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "a=1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "nonsense"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "5"),
        ("OTEL_BLRP_MAX_QUEUE_SIZE", "6"),
    ];
    let config = good("{}", &variables);
    let Config { traces, logs, .. } = &config;
    assert_eq!((traces.exporter, logs.exporter), (Exporter::Otlp, Exporter::Console));
    assert_eq!(traces.endpoint, "http://c:1/v1/traces");
    assert_eq!(logs.endpoint, "http://c:1/v1/logs");
    assert_eq!((traces.headers.len(), logs.headers.len()), (0, 1));
    assert_eq!((traces.max_queue_size, logs.max_queue_size), (5, 6));
    assert_eq!(config.warnings.len(), 1, "what concerns both is said once: {:?}", config.warnings);
    assert_eq!(config.metrics.endpoint, "http://c:1/v1/metrics");
    assert_eq!(config.metrics.max_queue_size, 65536, "these variables are not for metrics");
    let of_metrics = [
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "250"),
        ("OTEL_METRICS_EXEMPLAR_FILTER", "always_off"),
    ];
    let config = good("{}", &of_metrics);
    assert_eq!((config.metrics.exporter, config.traces.exporter), (Exporter::None, Exporter::Otlp));
    assert_eq!(
        (config.metric_interval, config.exemplars),
        (Some(Duration::from_millis(250)), false)
    );
    assert_eq!(good(r#"{"metric-interval": "none"}"#, &of_metrics).metric_interval, None);
    let own = [("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://d:2/in")];
    assert_eq!(good("{}", &own).logs.endpoint, "http://d:2/in");
    assert_eq!(good(r#"{"endpoint": "http://e:3"}"#, &own).logs.endpoint, "http://e:3");
}

#[test]
fn numbers_may_come_in_quotes() {
    let settings = r#"{"max-queue-size": "100", "sampler-arg": "0.25", "sampler": "traceidratio",
        "max-export-batch-size": 10}"#;
    let config = good(settings, &[]);
    assert_eq!((config.traces.max_queue_size, config.traces.max_export_batch_size), (100, 10));
    assert_eq!(config.sampler, sampler("traceidratio", 0.25));
    assert_eq!(good(r#"{"sampler-arg": 1}"#, &[]).sampler, good("{}", &[]).sampler);
}

#[test]
fn a_batch_is_never_larger_than_the_queue() {
    assert_eq!(good(r#"{"max-queue-size": 7}"#, &[]).traces.max_export_batch_size, 7);
    let variable = [("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50")];
    assert_eq!(good(r#"{"max-queue-size": 7}"#, &variable).traces.max_export_batch_size, 7);
}

/// Settings, the key that is to blame, the message.
const BAD: &[(&str, &str, &str)] = &[
    (
        r#"{"sampler": "alway_on"}"#,
        "sampler",
        "unknown sampler \"alway_on\": one of always_on, always_off, traceidratio, jaeger_remote, \
             parentbased_always_on, parentbased_always_off, parentbased_traceidratio, \
             parentbased_jaeger_remote, xray",
    ),
    (
        r#"{"exporter": "jaeger"}"#,
        "exporter",
        "unknown exporter \"jaeger\": one of otlp, console, none",
    ),
    (r#"{"exporter": 1}"#, "exporter", "wanted text, found 1"),
    (
        r#"{"protocol": "http/json", "endpoint": "http://c:4318/v1/traces"}"#,
        "endpoint",
        "wanted the URL that /v1/traces is added to, found \"http://c:4318/v1/traces\"",
    ),
    (
        r#"{"protocol": "http"}"#,
        "protocol",
        "unknown protocol \"http\": one of grpc, http/protobuf, http/json",
    ),
    (r#"{"compression": "zip"}"#, "compression", "unknown compression \"zip\": one of none, gzip"),
    (
        r#"{"timeout": "soon"}"#,
        "timeout",
        "wanted a duration such as \"10s\", above 0, found \"soon\"",
    ),
    (r#"{"timeout": 10}"#, "timeout", "wanted text, found 10"),
    (
        r#"{"schedule-delay": "18446744073709551615s"}"#,
        "schedule-delay",
        "wanted a duration such as \"10s\", at most a year, found \"18446744073709551615s\"",
    ),
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
    (
        r#"{"log-level": "LOUD"}"#,
        "log-level",
        "unknown level \"LOUD\": one of ERROR, WARN, INFO, DEBUG, TRACE, OFF",
    ),
    (r#"{"sampler-arg": 1.5}"#, "sampler-arg", "wanted a number from 0 to 1, found 1.5"),
    (
        r#"{"propagators": ["xray"]}"#,
        "propagators",
        "unknown propagator \"xray\": one of tracecontext, baggage, b3, b3multi, jaeger, none",
    ),
    (r#"{"propagators": 1}"#, "propagators", "wanted a list of names, found 1"),
    (
        r#"{"endpoint": "ftp://c:1"}"#,
        "endpoint",
        "wanted a URL such as \"http://localhost:4317\", found \"ftp://c:1\"",
    ),
    (r#"{"tls": {"ca": 1}}"#, "tls.ca", "wanted text"),
    (r#"{"tls": {"cacert": "a"}}"#, "tls.cacert", "unknown setting"),
    (
        r#"{"endpoint": "https://"}"#,
        "endpoint",
        "wanted a URL such as \"http://localhost:4317\", found \"https://\"",
    ),
    (
        r#"{"endpoint": "c:4317"}"#,
        "endpoint",
        "wanted a URL such as \"http://localhost:4317\", found \"c:4317\"",
    ),
    (
        r#"{"endpoint": "http://c:65536"}"#,
        "endpoint",
        "wanted a URL with a port up to 65535, found \"http://c:65536\"",
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
    (
        r#"{"sampler": "jaeger_remote", "sampler-arg": 0.5}"#,
        "sampler-arg",
        "wanted text, found 0.5",
    ),
    (
        r#"{"sampler": "jaeger_remote", "sampler-arg": "endpoint=c:5778"}"#,
        "sampler-arg",
        "endpoint: wanted a URL such as \"http://localhost:4317\", found \"c:5778\"",
    ),
    (
        r#"{"sampler": "jaeger_remote", "sampler-arg": "endpoint=grpc://c"}"#,
        "sampler-arg",
        "endpoint: wanted a port as in \"grpc://localhost:14250\", found \"grpc://c\"",
    ),
    (
        r#"{"sampler": "jaeger_remote", "sampler-arg": "pollingIntervalMs=0"}"#,
        "sampler-arg",
        "pollingIntervalMs: wanted milliseconds, above 0, found \"0\"",
    ),
    (
        r#"{"sampler": "xray", "sampler-arg": "polling_interval=0.5"}"#,
        "sampler-arg",
        "polling_interval: wanted seconds, above 0, found \"0.5\"",
    ),
    (
        r#"{"sampler": "jaeger_remote", "sampler-arg": "http://me:s3cret@c:5778/sampling?a=s3cret"}"#,
        "sampler-arg",
        "unknown part \"http://REDACTED:REDACTED@c:5778/sampling\": one of endpoint, \
         pollingIntervalMs, initialSamplingRate",
    ),
    (
        r#"{"sampler": "traceidratio", "sampler-arg": "endpoint=http://me:s3cret@c:5778"}"#,
        "sampler-arg",
        "wanted a number from 0 to 1, found endpoint=http://REDACTED:REDACTED@c:5778",
    ),
    (
        r#"{"sampler": "xray", "sampler-arg": "pollingIntervalMs=5"}"#,
        "sampler-arg",
        "unknown part \"pollingIntervalMs\": one of endpoint, polling_interval",
    ),
    (
        r#"{"sampler": "jaeger_remote", "sampler-arg": "initialSamplingRate=2"}"#,
        "sampler-arg",
        "initialSamplingRate: wanted a number from 0 to 1, found 2",
    ),
    (r#"{"rule": 1}"#, "rule", "wanted a list of tables"),
    (r#"{"rule": [1]}"#, "rule.0", "wanted a table"),
    (r#"{"rule": [{"route": "/a"}]}"#, "rule.0.ratio", "wanted a number from 0 to 1, found none"),
    (r#"{"rule": [{"ratio": 2}]}"#, "rule.0.ratio", "wanted a number from 0 to 1, found 2"),
    (
        r#"{"rule": [{"ratio": 1}, {"ratio": 1, "route": "a"}]}"#,
        "rule.1.route",
        "wanted a path that starts with /, found \"a\"",
    ),
    (
        r#"{"rule": [{"ratio": 1, "method": "G ET"}]}"#,
        "rule.0.method",
        "wanted a request method, found \"G ET\"",
    ),
    (
        r#"{"rule": [{"ratio": 1, "header": "a b=1"}]}"#,
        "rule.0.header",
        "wanted the name of an HTTP header, found \"a b\"",
    ),
    (r#"{"rule": [{"ratio": 1, "path": "/"}]}"#, "rule.0.path", "unknown setting"),
    (
        r#"{"incoming": "trust"}"#,
        "incoming",
        "unknown way \"trust\": one of continue, link, ignore",
    ),
    (
        r#"{"trust": [{"peer": "10.0.0.0/8"}]}"#,
        "trust.0.incoming",
        "wanted continue, link or ignore, found none",
    ),
    (
        r#"{"trust": [{"incoming": "link"}]}"#,
        "trust.0.peer",
        "wanted peer or route or both, found neither",
    ),
    (
        r#"{"trust": [{"peer": ["::1", "x"], "incoming": "link"}]}"#,
        "trust.0.peer",
        "wanted a network such as \"10.0.0.0/8\", found \"x\"",
    ),
    (
        r#"{"exclude": ["/a", "/{b"]}"#,
        "exclude",
        "wanted braces around a whole segment, found \"/{b\"",
    ),
    (
        r#"{"trusted-proxies": ["local"]}"#,
        "trusted-proxies",
        "wanted a network such as \"10.0.0.0/8\", found \"local\"",
    ),
    (r#"{"known-methods": ["A B"]}"#, "known-methods", "wanted a request method, found \"A B\""),
    (r#"{"redact-query-keys": 1}"#, "redact-query-keys", "wanted a list of names, found 1"),
    (
        r#"{"capture-request-headers": ["a b"]}"#,
        "capture-request-headers",
        "wanted the name of an HTTP header, found \"a b\"",
    ),
    (r#"{"keep-errors": 1}"#, "keep-errors", "wanted true or false"),
    (r#"{"keep-errors": "yes"}"#, "keep-errors", "wanted true or false, found \"yes\""),
    (
        r#"{"keep-slower-than": "soon"}"#,
        "keep-slower-than",
        "wanted a duration such as \"10s\", above 0, found \"soon\"",
    ),
    (r#"{"keep-max-spans": 0}"#, "keep-max-spans", "wanted a whole number above 0, found 0"),
    (
        r#"{"response-header": "x"}"#,
        "response-header",
        "unknown header \"x\": one of off, traceresponse, server-timing",
    ),
    (r#"{"max-distinct": 0}"#, "max-distinct", "wanted a whole number above 0, found 0"),
    (r#"{"resource": {"a": 1}}"#, "resource.a", "wanted text"),
    (r#"{"tlss": {}}"#, "tlss", "unknown setting"),
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
fn a_remote_sampler_is_named_with_its_server_in_any_part() {
    let remote = |settings: &str| good(settings, &[]).sampler.remote().cloned().unwrap();
    let default = Remote::jaeger();
    assert_eq!(remote(r#"{"sampler": "jaeger_remote"}"#), default);
    for (argument, endpoint, every, initial) in [
        ("", default.endpoint.as_str(), 60_000, 0.001),
        (
            "endpoint=http://localhost:14250,pollingIntervalMs=5000,initialSamplingRate=0.25",
            "grpc://localhost:14250",
            5000,
            0.25,
        ),
        ("endpoint=https://c:14250/", "grpcs://c:14250", 60_000, 0.001),
        ("endpoint=grpc://c:1", "grpc://c:1", 60_000, 0.001),
        ("endpoint=grpcs://c:1/", "grpcs://c:1", 60_000, 0.001),
        ("endpoint=http://c:14250/sampling", "http://c:14250/sampling", 60_000, 0.001),
        ("endpoint=http://c:1", "http://c:1/sampling", 60_000, 0.001),
        (" endpoint = https://c/ , ", "https://c/sampling", 60_000, 0.001),
        ("endpoint=http://c/api/sampling?a=1", "http://c/api/sampling?a=1", 60_000, 0.001),
        ("initialSamplingRate=1", default.endpoint.as_str(), 60_000, 1.0),
    ] {
        let settings =
            format!(r#"{{"sampler": "parentbased_jaeger_remote", "sampler-arg": "{argument}"}}"#);
        let every = Duration::from_millis(every);
        let dialect = Dialect::Jaeger { initial };
        let wanted = Remote { endpoint: endpoint.to_owned(), every, dialect };
        assert_eq!(remote(&settings), wanted, "{argument}");
    }
    let variables = [("OTEL_TRACES_SAMPLER", "jaeger_remote"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let config = good("{}", &variables);
    assert_eq!(config.sampler.remote(), Some(&default));
    let said = "OTEL_TRACES_SAMPLER_ARG is ignored: unknown part \"0.5\": one of endpoint, \
                pollingIntervalMs, initialSamplingRate";
    assert_eq!(config.warnings, [said]);
}

#[test]
fn x_ray_is_asked_where_and_as_often_as_it_is_said() {
    let xray = |argument: &str| {
        let variables = [("OTEL_TRACES_SAMPLER", "xray"), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let config = good("{}", &variables);
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
        config.sampler.remote().cloned().unwrap()
    };
    for (argument, endpoint, seconds) in [
        ("", "http://localhost:2000", 300),
        ("endpoint=http://agent:2000,polling_interval=60", "http://agent:2000", 60),
        (" polling_interval = 10 ", "http://localhost:2000", 10),
    ] {
        let (endpoint, every) = (endpoint.to_owned(), Duration::from_secs(seconds));
        let wanted = Remote { endpoint, every, dialect: Dialect::Xray };
        assert_eq!(xray(argument), wanted, "{argument}");
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
        ("OTEL_PROPAGATORS", "xray,baggage"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=1,b"),
    ];
    let config = good("{}", &variables);
    assert_eq!(config.traces.exporter, Exporter::Otlp);
    assert_eq!(config.traces.timeout, Duration::from_millis(1500));
    assert_eq!(config.traces.max_queue_size, 65536);
    assert_eq!(config.sampler, sampler("parentbased_always_on", 1.0));
    assert_eq!(config.propagators, propagators(&["baggage"]));
    assert!(config.resource.is_empty());
    assert_eq!(config.warnings.len(), 6, "{:?}", config.warnings);
    let first = "OTEL_BSP_MAX_QUEUE_SIZE is ignored: wanted a whole number above 0, found many";
    assert!(config.warnings.iter().any(|line| line == first), "{:?}", config.warnings);
}

#[test]
fn a_bad_endpoint_variable_is_refused() {
    let error = read("{}", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c:1")]).unwrap_err();
    assert_eq!(error.key(), "endpoint");
    assert!(error.message().starts_with("OTEL_EXPORTER_OTLP_ENDPOINT: wanted a URL"));
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
        ("OTEL_EXPORTER_OTLP_HEADERS", " x-token = s%20e%2Cc , x-other=a=b,nonsense, bad name=1"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=%C3%A9, service.name=one ,b="),
        ("OTEL_SERVICE_NAME", "two"),
    ];
    let config = good(r#"{"resource": {"b": "3"}}"#, &variables);
    assert_eq!(config.traces.headers["x-token"], "s e,c");
    assert_eq!(config.traces.headers["x-other"], "a=b");
    assert_eq!(config.traces.headers.len(), 2);
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    let resource: Vec<(&str, &str)> =
        config.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(resource, [("a", "\u{e9}"), ("b", "3"), ("service.name", "two")]);
}

#[test]
fn propagators_are_chosen_by_name() {
    for (settings, names) in [
        (r#"{"propagators": ["tracecontext"]}"#, &["tracecontext"][..]),
        (r#"{"propagators": "tracecontext, baggage"}"#, &["tracecontext", "baggage"]),
        (r#"{"propagators": ["jaeger", "b3", "b3multi"]}"#, &["jaeger", "b3", "b3multi"]),
        (r#"{"propagators": ["none"]}"#, &[]),
        (r#"{"propagators": []}"#, &[]),
    ] {
        assert_eq!(good(settings, &[]).propagators, propagators(names), "{settings}");
    }
    let ordered = good("{}", &[("OTEL_PROPAGATORS", "b3, tracecontext")]);
    assert_eq!(ordered.propagators, propagators(&["b3", "tracecontext"]));
    assert_ne!(ordered.propagators, propagators(&["tracecontext", "b3"]));
    for (variable, wanted, warnings) in [
        ("none", propagators(&[]), 0),
        ("none,xray", propagators(&[]), 1),
        ("xray,ottrace", Propagators::default(), 2),
        (",", Propagators::default(), 0),
    ] {
        let config = good("{}", &[("OTEL_PROPAGATORS", variable)]);
        assert_eq!((config.propagators, config.warnings.len()), (wanted, warnings), "{variable}");
    }
}

#[test]
fn what_metrics_are_not_made_of_is_a_warning() {
    let temporality = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    let aggregation = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
    for variables in [
        &[][..],
        &[(temporality, "Cumulative"), (aggregation, "explicit_bucket_histogram")],
        &[(temporality, ""), (aggregation, " ")],
    ] {
        assert!(good("{}", variables).warnings.is_empty(), "{variables:?}");
    }
    let other = [(temporality, "delta"), (aggregation, "base2_exponential_bucket_histogram")];
    let warnings = good("{}", &other).warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(
        warnings[0],
        format!("{temporality} is ignored: wanted cumulative, found \"delta\"")
    );
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
    assert!(good("{}", &variables).traces.gzip);
    assert!(!good(r#"{"compression": "none"}"#, &variables).traces.gzip);
}

#[test]
fn no_secret_is_printed() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x=s3cret,s3cret,s3cret\u{1}=s3cret,y=s3cret%0A"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:1"),
    ];
    let config = good("{}", &variables);
    assert_eq!(config.traces.headers["x"], "s3cret");
    assert!(!format!("{config:?}").contains("s3cret"), "{config:?}");
    let error = read(r#"{"headers": {"x": "s3cret"}, "#, &[]).unwrap_err();
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[test]
fn rules_for_requests_are_read_in_their_order() {
    let config = good(
        r#"{
            "exclude": ["/health", "/{x}/raw"],
            "incoming": "link",
            "trust": [
                {"peer": "10.0.0.0/8", "incoming": "continue"},
                {"peer": ["::1", "127.0.0.1"], "route": "/in", "incoming": "ignore"}
            ],
            "rule": [
                {"route": "/pay", "method": "POST", "header": "X-Debug = 1", "ratio": 1},
                {"ratio": 0.5}
            ]
        }"#,
        &[],
    );
    let Policy { exclude, trust, rules } = config.policy;
    assert!(exclude[0].matches("/health/live") && exclude[1].matches("/a/raw"));
    assert_eq!(trust.otherwise, Trust::Link);
    assert_eq!(trust.entries[0].trust, Trust::Continue);
    let second = trust.entries[1].peers.as_ref().unwrap();
    assert!(second.contains([127, 0, 0, 1].into()) && trust.entries[1].route.is_some());
    assert_eq!(rules.0[0].header, Some(("x-debug".to_owned(), Some("1".to_owned()))));
    assert_eq!(rules.0[0].method.as_deref(), Some("POST"));
    assert_eq!((rules.0[1].ratio, &rules.0[1].route), (0.5, &None));
}

#[test]
fn lists_of_names_are_read_from_lists_and_texts() {
    let config = good(
        r#"{
            "trusted-proxies": "10.0.0.0/8, ::1",
            "redact-query-keys": ["token"],
            "capture-request-headers": ["X-A", "x-a", "X-B"],
            "capture-response-headers": "Server",
            "keep-errors": "true",
            "keep-slower-than": "1s",
            "keep-max-spans": "10",
            "keep-max-bytes": 1000,
            "response-header": "server-timing",
            "max-distinct": 5
        }"#,
        &[("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "BREW, GET")],
    );
    assert!(config.trusted_proxies.contains([10, 1, 1, 1].into()));
    assert_eq!(config.redaction.query("token=1&sig=2"), "token=REDACTED&sig=REDACTED");
    let keep = config.keep;
    assert_eq!(
        (config.capture.request_headers, config.capture.response_headers.concat()),
        (vec!["x-a".into(), "x-b".into()], "server".into())
    );
    let slower_than = Some(Duration::from_secs(1));
    assert_eq!(keep, Keep { errors: true, slower_than, max_spans: 10, max_bytes: 1000 });
    assert_eq!((config.response_header, config.max_distinct), (ResponseHeader::ServerTiming, 5));
    let methods = config.known_methods;
    assert_eq!((methods.known("BREW"), methods.known("POST")), (Some("BREW"), None));
    assert!(good(r#"{"known-methods": ["POST"]}"#, &[]).known_methods.known("POST").is_some());
}

#[test]
fn a_file_for_tls_is_named_by_its_setting_or_the_first_of_its_variables() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "all.pem"),
        ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "traces.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "cert.pem"),
        ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "key.pem"),
    ];
    let paths = |destination: &Destination| {
        let Tls { ca, cert, key } = &destination.tls;
        [ca, cert, key].map(|file| file.as_ref().unwrap().path.display().to_string())
    };
    let mut config = good("{}", &variables);
    config.start_paths_at(std::path::Path::new("/there"));
    assert_eq!(paths(&config.traces), ["traces.pem", "cert.pem", "key.pem"]);
    assert_eq!(paths(&config.logs), ["all.pem", "cert.pem", "key.pem"]);

    let mut config = good(r#"{"tls": {"ca": "/ca.pem", "cert": "own.pem"}}"#, &variables);
    config.start_paths_at(std::path::Path::new("/there"));
    assert_eq!(paths(&config.traces), ["/ca.pem", "/there/own.pem", "key.pem"]);
    assert_eq!(good("{}", &[]).traces.tls, Tls::default());
}
