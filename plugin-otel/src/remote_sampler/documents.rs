//! What is said to and by X-Ray, or a collector in front of it, in JSON: `GetSamplingRules` and
//! `GetSamplingTargets` of its API.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    numbers::{number, ratio},
    service::Service,
};
use crate::{
    rate::Rate,
    xray::{Counts, Quota, Target, Terms, Wildcard},
};

/// How many rules count: each request may be compared with all of them.
const MOST_RULES: usize = 256;

/// The time, by both clocks: X-Ray names moments by the wall's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) instant: Instant,
    /// Seconds since the Unix epoch.
    pub(super) wall: f64,
}

/// What is answered to statistics.
#[derive(Debug, PartialEq)]
pub(super) struct Targets {
    /// Each with the name of its rule.
    pub(super) all: Vec<(String, Target)>,
    /// When statistics are wanted again, where it is said.
    pub(super) interval: Option<Duration>,
    /// When a rule was changed last, in seconds since the Unix epoch.
    pub(super) modified: f64,
}

/// Reads the rules that may be for requests of this service.
pub(super) fn rules(body: &[u8], service: &Service) -> Result<Vec<Terms>, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "no JSON".to_owned())?;
    let records = answer.get("SamplingRuleRecords").and_then(Value::as_array);
    let records = records.ok_or_else(|| "no SamplingRuleRecords".to_owned())?;
    let all = records.iter().filter_map(|record| record.get("SamplingRule"));
    all.filter(|rule| is_for(rule, service)).take(MOST_RULES).map(terms).collect()
}

/// Whether this is a rule of the form that is known, for this service.
fn is_for(rule: &Value, service: &Service) -> bool {
    let is = |name, text: &str| wildcard(rule, name).matches(text);
    rule.get("Version").and_then(Value::as_i64) == Some(1)
        && !text(rule, "RuleName").is_empty()
        && is("ServiceName", &service.name)
        && is("ServiceType", service.platform)
        && is("ResourceARN", &service.arn)
}

fn terms(rule: &Value) -> Result<Terms, String> {
    let attributes = rule.get("Attributes").and_then(Value::as_object).into_iter().flatten();
    Ok(Terms {
        name: text(rule, "RuleName").to_owned(),
        priority: rule.get("Priority").and_then(Value::as_i64).unwrap_or(i64::MAX),
        host: wildcard(rule, "Host"),
        method: wildcard(rule, "HTTPMethod"),
        path: wildcard(rule, "URLPath"),
        attributes: attributes
            .map(|(name, wanted)| (name.clone(), Wildcard::of(wanted.as_str().unwrap_or_default())))
            .collect(),
        has_reservoir: number(rule, "ReservoirSize")? > 0.0,
        fixed_rate: ratio(rule, "FixedRate")?,
    })
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn wildcard(rule: &Value, name: &str) -> Wildcard {
    Wildcard::of(text(rule, name))
}

/// How often, and how rarely, a server may want statistics. Only their answers say that rules have
/// changed.
const OFTEN: Duration = Duration::from_secs(1);
const RARELY: Duration = Duration::from_secs(60 * 60);

/// Reads what is answered to statistics.
pub(super) fn targets(body: &[u8], now: Now) -> Result<Targets, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "no JSON".to_owned())?;
    let documents = answer.get("SamplingTargetDocuments").and_then(Value::as_array);
    let documents = documents.ok_or_else(|| "no SamplingTargetDocuments".to_owned())?;
    let all: Result<_, String> = documents
        .iter()
        .map(|document| Ok((text(document, "RuleName").to_owned(), target(document, now)?)))
        .collect();
    let intervals = documents.iter().filter_map(|document| document.get("Interval")?.as_u64());
    Ok(Targets {
        all: all?,
        interval: intervals.min().map(|seconds| Duration::from_secs(seconds).clamp(OFTEN, RARELY)),
        modified: number(&answer, "LastRuleModification").unwrap_or_default(),
    })
}

fn target(document: &Value, now: Now) -> Result<Target, String> {
    let has = |name: &str| document.get(name).is_some_and(|value| !value.is_null());
    let fixed_rate = has("FixedRate").then(|| ratio(document, "FixedRate")).transpose()?;
    let quota = (has("ReservoirQuota") && has("ReservoirQuotaTTL")).then(|| {
        let per_second = number(document, "ReservoirQuota")?;
        let left = number(document, "ReservoirQuotaTTL")? - now.wall;
        let left = Duration::try_from_secs_f64(left).unwrap_or_default();
        let rate = (per_second > 0.0).then(|| Arc::new(Rate::of(per_second)));
        let until = now.instant.checked_add(left).unwrap_or(now.instant);
        Ok::<_, String>(Quota { rate, until })
    });
    Ok(Target { fixed_rate, quota: quota.transpose()? })
}

/// What the rules did, from this process.
pub(super) fn statistics(client: &str, all: &[(String, Counts)], now: Now) -> String {
    let document = |(name, counts): &(String, Counts)| {
        json!({
            "ClientID": client,
            "RuleName": name,
            "Timestamp": now.wall.floor(),
            "RequestCount": counts.requests,
            "SampledCount": counts.sampled,
            "BorrowCount": counts.borrowed,
        })
    };
    let all: Vec<_> = all.iter().map(document).collect();
    json!({"SamplingStatisticsDocuments": all}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        let arn = "arn:aws:ecs:eu-west-1:1:container/a".to_owned();
        Service { name: "Scorekeep".to_owned(), platform: "AWS::ECS::Container", arn }
    }

    fn now() -> Now {
        Now { instant: Instant::now(), wall: 1_530_923_100.5 }
    }

    /// The example of the X-Ray developer guide, and rules that are for others.
    const RULES: &str = r#"{"SamplingRuleRecords": [
        {"SamplingRule": {"RuleName": "Default",
            "RuleARN": "arn:aws:xray:us-east-1::sampling-rule/Default", "ResourceARN": "*",
            "Priority": 10000, "FixedRate": 0.01, "ReservoirSize": 0, "ServiceName": "*",
            "ServiceType": "*", "Host": "*", "HTTPMethod": "*", "URLPath": "*", "Version": 1,
            "Attributes": {}}, "CreatedAt": 0.0, "ModifiedAt": 1530558121.0},
        {"SamplingRule": {"RuleName": "polling-scorekeep", "ResourceARN": "arn:aws:ecs:*",
            "Priority": 5000, "FixedRate": 0.003, "ReservoirSize": 2, "ServiceName": "Score*",
            "ServiceType": "aws::ecs::container", "Host": "a.b", "HTTPMethod": "GET",
            "URLPath": "/api/state/*", "Version": 1, "Attributes": {"url.scheme": "https"}}},
        {"SamplingRule": {"RuleName": "other", "ResourceARN": "*", "ServiceName": "other",
            "ServiceType": "*", "Version": 1}},
        {"SamplingRule": {"RuleName": "elsewhere", "ResourceARN": "*", "ServiceName": "*",
            "ServiceType": "AWS::EC2::Instance", "Version": 1}},
        {"SamplingRule": {"RuleName": "thing", "ResourceARN": "arn:aws:s3:*",
            "ServiceName": "*", "ServiceType": "*", "Version": 1}},
        {"SamplingRule": {"RuleName": "next", "ResourceARN": "*", "ServiceName": "*",
            "ServiceType": "*", "Version": 2}},
        {"SamplingRule": {"ResourceARN": "*", "ServiceName": "*", "ServiceType": "*",
            "Version": 1}}
    ], "NextToken": null}"#;

    #[test]
    fn the_rules_for_this_service_are_read() {
        let any = || Wildcard::of("*");
        let wanted = [
            Terms {
                name: "Default".to_owned(),
                priority: 10_000,
                host: any(),
                method: any(),
                path: any(),
                attributes: Vec::new(),
                has_reservoir: false,
                fixed_rate: 0.01,
            },
            Terms {
                name: "polling-scorekeep".to_owned(),
                priority: 5000,
                host: Wildcard::of("a.b"),
                method: Wildcard::of("GET"),
                path: Wildcard::of("/api/state/*"),
                attributes: vec![("url.scheme".to_owned(), Wildcard::of("https"))],
                has_reservoir: true,
                fixed_rate: 0.003,
            },
        ];
        assert_eq!(rules(RULES.as_bytes(), &service()).unwrap(), wanted);
    }

    #[test]
    fn rules_that_make_no_sense_are_none() {
        let odd = RULES.replace("0.003", "3");
        for (answer, wanted) in [
            ("<html>", "no JSON"),
            ("{}", "no SamplingRuleRecords"),
            (&odd, "FixedRate: wanted a number from 0 to 1, found 3"),
        ] {
            assert_eq!(rules(answer.as_bytes(), &service()).unwrap_err(), wanted, "{answer}");
        }
    }

    #[test]
    fn targets_are_read_with_the_time_that_they_hold() {
        let now = now();
        // The example of the X-Ray developer guide, and two that say less.
        let answer = br#"{"SamplingTargetDocuments": [
            {"RuleName": "base", "FixedRate": 0.1, "ReservoirQuota": 2,
                "ReservoirQuotaTTL": 1530923107.0, "Interval": 10},
            {"RuleName": "none", "FixedRate": 0.003, "ReservoirQuota": 0,
                "ReservoirQuotaTTL": 1530923000.0, "Interval": 20},
            {"RuleName": "no quota", "FixedRate": 0, "ReservoirQuota": null}
        ], "LastRuleModification": 1530920505.0, "UnprocessedStatistics": []}"#;
        let quota =
            |rate, left| Some(Quota { rate, until: now.instant + Duration::from_millis(left) });
        let all = [
            ("base", Some(0.1), quota(Some(Rate::of(2.0).into()), 6500)),
            ("none", Some(0.003), quota(None, 0)),
            ("no quota", Some(0.0), None),
        ];
        let all = all.map(|(name, fixed_rate, quota)| (name.into(), Target { fixed_rate, quota }));
        let wanted = Targets {
            all: all.into(),
            interval: Some(Duration::from_secs(10)),
            modified: 1_530_920_505.0,
        };
        assert_eq!(targets(answer, now).unwrap(), wanted);
        for (seconds, wanted) in [(0, OFTEN), (u64::MAX, RARELY)] {
            let answer = json!({"SamplingTargetDocuments": [{"Interval": seconds}]}).to_string();
            assert_eq!(targets(answer.as_bytes(), now).unwrap().interval, Some(wanted));
        }
        assert_eq!(targets(b"[]", now).unwrap_err(), "no SamplingTargetDocuments");
    }

    #[test]
    fn statistics_are_reported_as_x_ray_wants_them() {
        let counts = Counts { requests: 110, sampled: 20, borrowed: 10 };
        let report = statistics("ABCDEF1234567890ABCDEF10", &[("base".to_owned(), counts)], now());
        let wanted = json!({"SamplingStatisticsDocuments": [{
            "ClientID": "ABCDEF1234567890ABCDEF10", "RuleName": "base",
            "Timestamp": 1_530_923_100.0, "RequestCount": 110, "SampledCount": 20,
            "BorrowCount": 10,
        }]});
        assert_eq!(serde_json::from_str::<Value>(&report).unwrap(), wanted);
    }
}
