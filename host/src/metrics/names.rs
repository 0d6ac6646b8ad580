//! OpenTelemetry's rules for names in Prometheus: what a name may not hold is `_`, and the unit is spelled
//! out behind it.

use plugin_api::metrics::{Metric, MetricKind};

/// The unit as it is spelled out; empty where there is none.
pub(super) fn unit(metric: &Metric<'_>) -> &'static str {
    match metric.unit() {
        "s" => "seconds",
        "ms" => "milliseconds",
        "By" => "bytes",
        "1" if metric.kind() == MetricKind::GAUGE => "ratio",
        // `{request}` is a remark.
        _ => "",
    }
}

/// The name of a metric with its unit, without the `_total` of a counter.
pub(super) fn name(name: &str, unit: &str) -> String {
    let mut text = word(name);
    if !unit.is_empty() && !text.ends_with(unit) {
        text.push('_');
        text.push_str(unit);
    }
    text
}

/// The name of a metric or a label: letters, digits and single `_`, no digit first.
pub(super) fn word(text: &str) -> String {
    let mut word = String::with_capacity(text.len());
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        word.push('_');
    }
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            word.push(c);
        } else if !word.ends_with('_') {
            word.push('_');
        }
    }
    word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_units_are_those_of_prometheus() {
        for (kind, from, unit_of, wanted) in [
            (MetricKind::GAUGE, "process.memory.usage", "By", "process_memory_usage_bytes"),
            (MetricKind::GAUGE, "a.seconds", "s", "a_seconds"),
            (MetricKind::GAUGE, "cpu.utilization", "1", "cpu_utilization_ratio"),
            (MetricKind::COUNTER, "cpu.utilization", "1", "cpu_utilization"),
            (
                MetricKind::GAUGE,
                "http.server.active_requests",
                "{request}",
                "http_server_active_requests",
            ),
            (MetricKind::GAUGE, "9..é-x", "parsecs", "_9_x"),
        ] {
            let metric = Metric::new(kind, from, unit_of, "");
            assert_eq!(name(metric.name(), unit(&metric)), wanted);
        }
    }

    proptest! {
        #[test]
        fn any_name_is_one_that_prometheus_takes(text in ".{1,20}") {
            let word = word(&text);
            let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            prop_assert!(word.chars().all(is_name), "{}", word);
            prop_assert!(!word.starts_with(|c: char| c.is_ascii_digit()), "{}", word);
        }
    }
}
