//! Sampling by rules of AWS X-Ray: the sampler `xray`. The server is one of ours that speaks the two
//! calls of its API as a collector passes them on; there is no AWS behind it.

use std::sync::{Arc, Mutex};

use harness::{Collector, Config, HostProcess, Launch, Traceparent, Upstream, text, wait::until};
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};

trials![
    x_ray_says_what_is_sampled_and_hears_what_was,
    changed_rules_are_asked_for_at_once_and_the_last_ones_hold_while_x_ray_is_away,
];

/// What the server says now, and what it was told.
#[derive(Debug)]
struct Said {
    rules: (StatusCode, Value),
    targets: (StatusCode, Value),
    /// Each report that was answered with targets.
    reports: Vec<Value>,
}

struct Xray {
    server: Upstream,
    said: Arc<Mutex<Said>>,
}

impl Xray {
    async fn of(rules: Value) -> Self {
        let rules = (StatusCode::OK, json!({"SamplingRuleRecords": rules, "NextToken": null}));
        let targets = (StatusCode::OK, json!({"SamplingTargetDocuments": []}));
        let said = Arc::new(Mutex::new(Said { rules, targets, reports: Vec::new() }));
        let current = Arc::clone(&said);
        let server = Upstream::start(move |request: http::Request<hyper::body::Incoming>| {
            let said = Arc::clone(&current);
            async move {
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let body: Value = serde_json::from_slice(&body).expect("JSON is posted");
                let mut said = said.lock().unwrap();
                let (status, answer) = match (head.method.as_str(), head.uri.path()) {
                    ("POST", "/GetSamplingRules") => said.rules.clone(),
                    ("POST", "/SamplingTargets") => {
                        if said.targets.0 == StatusCode::OK {
                            said.reports.push(body);
                        }
                        said.targets.clone()
                    }
                    call => panic!("{call:?}"),
                };
                Response::builder().status(status).body(text(answer.to_string())).unwrap()
            }
        });
        Self { server: server.await, said }
    }

    fn now(&self, change: impl FnOnce(&mut Said)) {
        change(&mut self.said.lock().unwrap());
    }

    /// The documents on this rule, of every report.
    fn documents(&self, rule: &str) -> Vec<Value> {
        let said = self.said.lock().unwrap();
        let all = said.reports.iter().flat_map(|report| {
            report["SamplingStatisticsDocuments"].as_array().expect("documents").clone()
        });
        all.filter(|document| document["RuleName"] == rule).collect()
    }

    /// Requests, those that were sampled, and those for which was borrowed, as reported of a rule.
    fn counts(&self, rule: &str) -> [u64; 3] {
        let documents = self.documents(rule);
        ["RequestCount", "SampledCount", "BorrowCount"].map(|count| {
            documents.iter().map(|document| document[count].as_u64().expect("a count")).sum()
        })
    }

    /// Waits until so much of a rule is reported, and no more.
    async fn until_reported(&self, rule: &str, wanted: [u64; 3]) {
        let what = format!("{wanted:?} of {rule}");
        until(&what, async || (self.counts(rule)[0] >= wanted[0]).then_some(())).await;
        assert_eq!(self.counts(rule), wanted, "{rule}");
    }
}

/// A rule for every request, as far as `change` does not say otherwise.
fn rule(name: &str, priority: u32, change: &Value) -> Value {
    let mut rule = json!({
        "RuleName": name, "RuleARN": format!("arn:aws:xray:us-east-1::sampling-rule/{name}"),
        "ResourceARN": "*", "Priority": priority, "FixedRate": 0, "ReservoirSize": 0,
        "ServiceName": "*", "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*",
        "Version": 1, "Attributes": {},
    });
    let change = change.as_object().expect("an object").clone();
    rule.as_object_mut().expect("an object").extend(change);
    json!({"SamplingRule": rule, "CreatedAt": 0.0, "ModifiedAt": 1530558121.0})
}

async fn start(xray: &Xray, collector: &Collector, every: u32) -> HostProcess {
    let library = harness::artifacts::plugin_otel().display().to_string();
    let config = Config::new()
        .respond("/{*path}", 200, "")
        .plugin(&library)
        .set("otel.endpoint", collector.grpc_endpoint())
        .set("otel.response-header", "traceresponse");
    let argument = format!("endpoint={},polling_interval={every}", xray.server.url());
    let host = Launch::host(config)
        .env("OTEL_TRACES_SAMPLER", "xray")
        .env("OTEL_TRACES_SAMPLER_ARG", &argument)
        .start()
        .await;
    let line = ["INFO", "the sampling server", "says what is sampled"];
    until("rules", async || (host.lines_with(&line).len() == 1).then_some(())).await;
    let sampler = format!("sampler xray {}", xray.server.url());
    assert_eq!(host.lines_with(&[&sampler]).len(), 1, "{}", host.stderr());
    host
}

/// How many of so many requests were sampled.
async fn sampled(host: &HostProcess, path: &str, header: (&str, &str), count: u64) -> u64 {
    let mut sampled = 0;
    for _ in 0..count {
        let answer = host.get(path).header(header.0, header.1).send().await;
        let told = answer.headers["traceresponse"].to_str().unwrap();
        sampled += u64::from(told.ends_with("-03") || told.ends_with("-01"));
    }
    sampled
}

async fn x_ray_says_what_is_sampled_and_hears_what_was() {
    let collector = Collector::start().await;
    let debug = json!({"Attributes": {"http.request.header.x-debug": "on"}, "FixedRate": 1});
    let pay = json!({"HTTPMethod": "get", "URLPath": "/pay/*", "Host": "127.0.0.?",
        "ServiceName": "front", "ReservoirSize": 10});
    let xray = Xray::of(json!([
        rule("Default", 10_000, &json!({})),
        rule("pay", 2, &pay),
        rule("debug", 1, &debug),
        rule("others", 1, &json!({"ServiceName": "back", "FixedRate": 1})),
        rule("containers", 1, &json!({"ServiceType": "AWS::ECS::Container", "FixedRate": 1})),
    ]))
    .await;
    xray.now(|said| said.targets.0 = StatusCode::SERVICE_UNAVAILABLE);
    let host = start(&xray, &collector, 1).await;
    let plain = ("x-plain", "");
    assert_eq!(sampled(&host, "/pay/1", ("x-debug", "ON"), 3).await, 3);
    assert_eq!(sampled(&host, "/other", plain, 4).await, 0);
    for (caller, wanted) in [(Traceparent::sampled(), 1), (Traceparent::unsampled(), 0)] {
        let caller = ("traceparent", caller.to_string());
        let found = sampled(&host, "/pay/1", (caller.0, &caller.1), 1).await;
        assert_eq!(found, wanted, "the caller has decided");
    }
    // One a second is borrowed: the first, and perhaps others where the machine is slow.
    let borrowed = sampled(&host, "/pay/1", plain, 5).await;
    assert!(borrowed >= 1);

    let line = ["WARN", "says nothing, sampling stays as it is", "SamplingTargets: it answers 503"];
    until("a report in vain", async || (host.lines_with(&line).len() == 1).then_some(())).await;
    xray.now(|said| {
        let target = json!({"RuleName": "pay", "FixedRate": 0, "ReservoirQuota": 100_000,
            "ReservoirQuotaTTL": 4_102_444_800.0, "Interval": 1});
        said.targets = (
            StatusCode::OK,
            json!({"SamplingTargetDocuments": [target], "LastRuleModification": 0.0,
                "UnprocessedStatistics": []}),
        );
    });
    xray.until_reported("pay", [5, borrowed, borrowed]).await;
    xray.until_reported("debug", [3, 3, 0]).await;
    xray.until_reported("Default", [4, 0, 0]).await;
    let document = &xray.documents("pay")[0];
    let client = document["ClientID"].as_str().unwrap();
    assert!(client.len() == 24 && client.bytes().all(|digit| digit.is_ascii_hexdigit()));
    assert!(document["Timestamp"].as_f64().unwrap() > 1.7e9, "{document}");

    // Five at once are sampled where the quota is in force, and nothing is borrowed from then on.
    let mut asked = 5;
    until("the quota", async || {
        asked += 5;
        (sampled(&host, "/pay/1", plain, 5).await == 5).then_some(())
    })
    .await;
    until("all requests", async || (xray.counts("pay")[0] == asked).then_some(())).await;
    let [_, taken, borrowed] = xray.counts("pay");
    assert_eq!(sampled(&host, "/pay/1", plain, 5).await, 5);
    xray.until_reported("pay", [asked + 5, taken + 5, borrowed]).await;
    assert!(xray.documents("others").is_empty() && xray.documents("containers").is_empty());
}

async fn changed_rules_are_asked_for_at_once_and_the_last_ones_hold_while_x_ray_is_away() {
    let collector = Collector::start().await;
    let xray = Xray::of(json!([rule("Default", 10_000, &json!({}))])).await;
    let host = start(&xray, &collector, 300).await;
    let plain = ("x-plain", "");
    assert_eq!(sampled(&host, "/", plain, 3).await, 0);
    let times = |call: &str| {
        let received = xray.server.received();
        received.iter().filter(|request| request.target == call).count()
    };
    assert_eq!(times("/GetSamplingRules"), 1);
    xray.now(|said| {
        let rules = [rule("Default", 10_000, &json!({"FixedRate": 1}))];
        said.rules.1 = json!({"SamplingRuleRecords": rules});
        let target = json!({"RuleName": "Default", "FixedRate": 0, "Interval": 1});
        said.targets.1 = json!({"SamplingTargetDocuments": [target],
            "LastRuleModification": 4_102_444_800.0});
    });
    xray.until_reported("Default", [3, 0, 0]).await;
    until("the new rules", async || (sampled(&host, "/", plain, 1).await == 1).then_some(())).await;
    assert_eq!(times("/GetSamplingRules"), 2);

    xray.now(|said| said.targets = (StatusCode::OK, json!("none")));
    let line = ["WARN", "says nothing, sampling stays as it is", "no SamplingTargetDocuments"];
    until("a warning", async || (host.lines_with(&line).len() == 1).then_some(())).await;
    assert_eq!(sampled(&host, "/", plain, 3).await, 3);
    xray.now(|said| said.targets.1 = json!({"SamplingTargetDocuments": []}));
    let line = ["INFO", "the sampling server", "says what is sampled"];
    until("an answer", async || (host.lines_with(&line).len() == 2).then_some(())).await;
}
