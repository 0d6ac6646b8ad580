//! Sampling as a server tells: the sampler `jaeger_remote`. The servers are ours: they speak its
//! protocol, over HTTP and over gRPC.

use std::sync::{Arc, Mutex};

use harness::{
    Collector, Config, HostProcess, Launch, Traceparent, Upstream,
    jaeger::{Operation, Operations, Ratio, SamplingManager, Strategy},
    text,
    wait::until,
};
use http::{Response, StatusCode};

trials![
    a_server_says_what_is_sampled_and_when_it_is_away_its_last_word_stays,
    a_server_may_name_operations_and_rates,
    the_variables_name_the_server_and_what_is_sampled_until_it_answers,
    a_server_is_asked_over_grpc_and_when_it_fails_its_last_word_stays,
    so_many_a_second_of_an_operation_are_sampled_whatever_its_ratio,
];

const ONE_BY_ONE: &str = r#"{"strategyType": 0, "operationSampling": {
    "defaultSamplingProbability": 0,
    "perOperationStrategies": [
        {"operation": "GET /hello/{name}", "probabilisticSampling": {"samplingRate": 1}}
    ]}}"#;

fn share(ratio: u8) -> String {
    format!(
        r#"{{"strategyType": "PROBABILISTIC", "probabilisticSampling": {{"samplingRate": {ratio}}}}}"#
    )
}

/// Answers with the strategy that it is given last.
struct Strategies {
    server: Upstream,
    answer: Arc<Mutex<(StatusCode, String)>>,
}

impl Strategies {
    async fn of(answer: String) -> Self {
        let answer = Arc::new(Mutex::new((StatusCode::OK, answer)));
        let current = Arc::clone(&answer);
        let server = Upstream::start(move |_| {
            let (status, body) = current.lock().unwrap().clone();
            async move { Response::builder().status(status).body(text(body)).unwrap() }
        });
        Self { server: server.await, answer }
    }

    fn now(&self, status: StatusCode, answer: impl Into<String>) {
        *self.answer.lock().unwrap() = (status, answer.into());
    }

    fn argument(&self, endpoint: &str) -> String {
        let url = self.server.url();
        format!("endpoint={url}{endpoint}, pollingIntervalMs=20, initialSamplingRate=0")
    }
}

fn config(collector: &Collector, sampler: &str, argument: String) -> Config {
    Config::new()
        .respond("/hello/{name}", 200, "")
        .respond("/other", 200, "")
        .traced(&collector.grpc_endpoint(), "grpc")
        .set("otel.sampler", sampler)
        .set("otel.sampler-arg", argument)
        .set("otel.response-header", "traceresponse")
}

async fn is_sampled(host: &HostProcess, path: &str) -> bool {
    let answer = host.get(path).send().await;
    answer.headers["traceresponse"].to_str().unwrap().ends_with("-03")
}

async fn until_sampled(host: &HostProcess, path: &str, wanted: bool) {
    let what = format!("a decision for {path}: {wanted}");
    until(&what, async || (is_sampled(host, path).await == wanted).then_some(())).await;
}

async fn until_asked(server: &Upstream, times: usize) {
    let asked = server.received().len();
    server.wait_for(asked + times).await;
}

async fn a_server_says_what_is_sampled_and_when_it_is_away_its_last_word_stays() {
    let collector = Collector::start().await;
    let strategies = Strategies::of(share(1)).await;
    let config = config(&collector, "parentbased_jaeger_remote", strategies.argument(""));
    let config = config.set("service.group", "a b&c").set("otel.headers.api-key", "s3cret");
    let host = HostProcess::start(config).await;
    until_sampled(&host, "/other", true).await;
    let asked = &strategies.server.received()[0];
    assert_eq!(asked.target, "/sampling?service=a%20b%26c");
    assert!(!asked.headers.contains_key("api-key"), "it is the collector's: {:?}", asked.headers);

    let unsampled = Traceparent::unsampled();
    let answer = host.get("/other").header("traceparent", &unsampled).send().await;
    let told = answer.headers["traceresponse"].to_str().unwrap();
    assert!(told.ends_with("-00"), "the caller has decided: {told}");

    for (status, answer, why) in [
        (StatusCode::SERVICE_UNAVAILABLE, share(0), "it answers 503"),
        (StatusCode::OK, "<html>".to_owned(), "no JSON"),
        (StatusCode::OK, share(2), "samplingRate: wanted a number from 0 to 1, found 2"),
    ] {
        strategies.now(status, answer);
        until_asked(&strategies.server, 3).await;
        assert!(is_sampled(&host, "/other").await, "{why}");
        let line = ["WARN", "says nothing, sampling stays as it is", why];
        assert_eq!(host.lines_with(&line).len(), 1, "{}", host.stderr());
        strategies.now(StatusCode::OK, share(1));
        until_asked(&strategies.server, 3).await;
    }
    assert_eq!(host.lines_with(&["INFO", "says what is sampled"]).len(), 4, "{}", host.stderr());
    strategies.now(StatusCode::OK, share(0));
    until_sampled(&host, "/other", false).await;
}

async fn a_server_may_name_operations_and_rates() {
    let collector = Collector::start().await;
    let strategies = Strategies::of(ONE_BY_ONE.to_owned()).await;
    let host = HostProcess::start(config(
        &collector,
        "jaeger_remote",
        strategies.argument("/api/sampling"),
    ))
    .await;
    until_sampled(&host, "/hello/ada", true).await;
    assert!(!is_sampled(&host, "/other").await);
    assert_eq!(strategies.server.received()[0].target, "/api/sampling?service=front");

    strategies.now(StatusCode::OK, r#"{"rateLimitingSampling": {"maxTracesPerSecond": 1}}"#);
    until_sampled(&host, "/other", true).await;
    // One a second: of two at once, the second is one too many.
    until_sampled(&host, "/hello/ada", false).await;
    until_sampled(&host, "/hello/ada", true).await;
}

async fn the_variables_name_the_server_and_what_is_sampled_until_it_answers() {
    let collector = Collector::start().await;
    let library = harness::artifacts::plugin_otel().display().to_string();
    let argument = "endpoint=http://127.0.0.1:1,pollingIntervalMs=5000,initialSamplingRate=1";
    let config = Config::new()
        .respond("/other", 200, "")
        .plugin(&library)
        .set("otel.endpoint", collector.grpc_endpoint())
        .set("otel.response-header", "traceresponse");
    let host = Launch::host(config)
        .env("OTEL_TRACES_SAMPLER", "jaeger_remote")
        .env("OTEL_TRACES_SAMPLER_ARG", argument)
        .start()
        .await;
    assert!(is_sampled(&host, "/other").await);
    let sampler = ["sampler jaeger_remote http://127.0.0.1:1/sampling"];
    assert_eq!(host.lines_with(&sampler).len(), 1, "{}", host.stderr());
    let line = ["WARN", "the sampling server http://127.0.0.1:1/sampling says nothing", "refused"];
    until("a warning", async || (host.lines_with(&line).len() == 1).then_some(())).await;
}

fn of_all(rate: f64) -> Strategy {
    Strategy { ratio: Some(Ratio { rate }), operations: None }
}

/// Nothing of `GET /hello/{name}` but the bound, which is so low that there is one in a test.
fn one_hello(default: f64) -> Strategy {
    let hello =
        Operation { name: "GET /hello/{name}".to_owned(), ratio: Some(Ratio { rate: 0.0 }) };
    let operations = Operations { default, lower_bound: 0.001, listed: vec![hello] };
    Strategy { ratio: None, operations: Some(operations) }
}

fn over_grpc(server: &SamplingManager) -> String {
    let address = server.address();
    format!("endpoint=grpc://{address},pollingIntervalMs=20,initialSamplingRate=0")
}

async fn a_server_is_asked_over_grpc_and_when_it_fails_its_last_word_stays() {
    let collector = Collector::start().await;
    let server = SamplingManager::start(of_all(1.0)).await;
    let config = config(&collector, "parentbased_jaeger_remote", over_grpc(&server));
    // A sampling server may know no compression.
    let host = HostProcess::start(config.set("otel.compression", "gzip")).await;
    until_sampled(&host, "/other", true).await;
    assert_eq!(server.services()[0], "front");

    server.now(Err(tonic::Status::unavailable("not now")));
    let line = ["WARN", "says nothing, sampling stays as it is", "UNAVAILABLE: not now"];
    until("a warning", async || (host.lines_with(&line).len() == 1).then_some(())).await;
    assert!(is_sampled(&host, "/other").await);
    server.now(Ok(of_all(0.0)));
    until_sampled(&host, "/other", false).await;
    let line = ["INFO", "says what is sampled"];
    until("it to answer again", async || (host.lines_with(&line).len() == 2).then_some(())).await;
}

async fn so_many_a_second_of_an_operation_are_sampled_whatever_its_ratio() {
    let collector = Collector::start().await;
    let server = SamplingManager::start(one_hello(0.0)).await;
    let host = HostProcess::start(config(&collector, "jaeger_remote", over_grpc(&server))).await;
    until_sampled(&host, "/hello/ada", true).await;
    for name in ["ada", "bob", "cy"] {
        assert!(!is_sampled(&host, &format!("/hello/{name}")).await, "{name}");
    }
    assert!(!is_sampled(&host, "/other").await, "the server names no bound for it");

    // What is left of a bound outlives a new answer.
    server.now(Ok(one_hello(1.0)));
    until_sampled(&host, "/other", true).await;
    assert!(!is_sampled(&host, "/hello/ada").await);
}
