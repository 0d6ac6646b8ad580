//! Metrics as Prometheus reads them: its text format 0.0.4, and OpenMetrics 1.0.

use std::fmt::{self, Write as _};

use plugin_api::metrics::{Attribute, AttributeValue, Exemplar, Metric, MetricKind, Point};

use super::{
    format::Format,
    names::{name, unit, word},
};

/// A text that grows by a metric at a time.
#[derive(Debug)]
pub(crate) struct Exposition {
    format: Format,
    text: String,
}

impl Exposition {
    pub(crate) const fn new(format: Format) -> Self {
        Self { format, text: String::new() }
    }

    /// Adds a metric; one without a point has nothing to say.
    pub(crate) fn add(&mut self, metric: &Metric<'_>) {
        if metric.points().is_empty() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = self.write(metric);
    }

    /// Who the metrics are of: OpenTelemetry's resource, which Prometheus knows as `target_info`.
    pub(crate) fn add_target(&mut self, resource: &[Attribute<'_>]) {
        let (family, kind) = match self.format {
            Format::Text => ("target_info", "gauge"),
            Format::OpenMetrics => ("target", "info"),
        };
        let labels = Labels { attributes: resource, bound: None };
        let _ = write!(
            self.text,
            "# HELP {family} Target metadata.\n# TYPE {family} {kind}\ntarget_info{labels} 1\n"
        );
    }

    /// The text, without its end: more may follow.
    pub(crate) fn text(self) -> String {
        self.text
    }

    fn write(&mut self, metric: &Metric<'_>) -> fmt::Result {
        let unit = unit(metric);
        let name = name(metric.name(), unit);
        let is_counter = metric.kind() == MetricKind::COUNTER;
        let total = if is_counter { "_total" } else { "" };
        // In OpenMetrics a counter's family goes without the suffix of its samples.
        let is_text = self.format == Format::Text;
        let family = format!("{name}{}", if is_text { total } else { "" });
        let text = &mut self.text;
        let help = Escaped { text: metric.description(), quotes: !is_text };
        writeln!(text, "# HELP {family} {help}\n# TYPE {family} {}", kind(metric.kind()))?;
        if !is_text && !unit.is_empty() {
            writeln!(text, "# UNIT {family} {unit}")?;
        }
        for point in metric.points() {
            if metric.kind() == MetricKind::HISTOGRAM {
                self.write_histogram(&name, metric, point)?;
            } else {
                let labels = Labels { attributes: point.attributes(), bound: None };
                writeln!(self.text, "{name}{total}{labels} {}", Number(point.value()))?;
            }
        }
        Ok(())
    }

    fn write_histogram(
        &mut self,
        name: &str,
        metric: &Metric<'_>,
        point: &Point<'_>,
    ) -> fmt::Result {
        let attributes = point.attributes();
        let bounds = metric.bounds().iter().copied().chain([f64::INFINITY]);
        let (mut count, mut below) = (0, f64::NEG_INFINITY);
        for (bound, more) in bounds.zip(point.counts()) {
            count += more;
            let labels = Labels { attributes, bound: Some(bound) };
            write!(self.text, "{name}_bucket{labels} {count}")?;
            let is_here = |exemplar: &&Exemplar| below < exemplar.value && exemplar.value <= bound;
            let exemplar = point.exemplars().iter().find(is_here);
            if let (Some(exemplar), Format::OpenMetrics) = (exemplar, self.format) {
                write_exemplar(&mut self.text, exemplar)?;
            }
            self.text.push('\n');
            below = bound;
        }
        let labels = Labels { attributes, bound: None };
        writeln!(self.text, "{name}_sum{labels} {}", Number(point.value()))?;
        writeln!(self.text, "{name}_count{labels} {count}")
    }
}

fn write_exemplar(text: &mut String, exemplar: &Exemplar) -> fmt::Result {
    let Exemplar { trace_id, span_id, time, value } = exemplar;
    let (trace_id, span_id) = (u128::from_be_bytes(*trace_id), u64::from_be_bytes(*span_id));
    let (seconds, millis) = (time / 1_000_000_000, time / 1_000_000 % 1000);
    let value = Number(*value);
    write!(
        text,
        " # {{trace_id=\"{trace_id:032x}\",span_id=\"{span_id:016x}\"}} {value} {seconds}.{millis:03}"
    )
}

const fn kind(kind: MetricKind) -> &'static str {
    match kind {
        MetricKind::COUNTER => "counter",
        MetricKind::HISTOGRAM => "histogram",
        // Prometheus has one word for what grows and shrinks.
        _ => "gauge",
    }
}

/// `{a="b"}`, or nothing where there is none.
struct Labels<'a> {
    attributes: &'a [Attribute<'a>],
    /// The upper bound of a bucket.
    bound: Option<f64>,
}

impl fmt::Display for Labels<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = '{';
        for attribute in self.attributes {
            write!(f, "{before}{}=\"", word(attribute.key()))?;
            match attribute.value() {
                AttributeValue::Text(text) => Escaped { text, quotes: true }.fmt(f)?,
                AttributeValue::Number(number) => number.fmt(f)?,
                AttributeValue::Flag(flag) => flag.fmt(f)?,
            }
            f.write_char('"')?;
            before = ',';
        }
        if let Some(bound) = self.bound {
            write!(f, "{before}le=\"{}\"", Number(bound))?;
            before = ',';
        }
        if before == ',' { f.write_char('}') } else { Ok(()) }
    }
}

/// A text on one line, with or without quotes around it.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '"' if self.quotes => f.write_str("\\\""),
            c => f.write_char(c),
        })
    }
}

/// A number in the one form that both formats want: `1.0`, `+Inf`.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            f64::INFINITY => f.write_str("+Inf"),
            f64::NEG_INFINITY => f.write_str("-Inf"),
            number => write!(f, "{number:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(format: Format, metric: &Metric<'_>) -> String {
        let mut exposition = Exposition::new(format);
        exposition.add(metric);
        exposition.text() + format.end()
    }

    #[test]
    fn a_histogram_in_both_formats() {
        let attributes = [Attribute::text("http.route", "/a"), Attribute::number("n", 2)];
        let exemplars = [Exemplar {
            trace_id: [0x0a; 16],
            span_id: [0x0b; 8],
            time: 1_500_000_000_012_345_678,
            value: 0.5,
        }];
        let points = [Point::histogram(&attributes, &[1, 2, 0], 1.25, &exemplars)];
        let name = "http.server.request.duration";
        let metric = Metric::new(MetricKind::HISTOGRAM, name, "s", "How \"long\".\n");
        let metric = metric.with_bounds(&[0.25, 1.0]).with_points(&points);
        assert_eq!(
            written(Format::Text, &metric),
            r#"# HELP http_server_request_duration_seconds How "long".\n
# TYPE http_server_request_duration_seconds histogram
http_server_request_duration_seconds_bucket{http_route="/a",n="2",le="0.25"} 1
http_server_request_duration_seconds_bucket{http_route="/a",n="2",le="1.0"} 3
http_server_request_duration_seconds_bucket{http_route="/a",n="2",le="+Inf"} 3
http_server_request_duration_seconds_sum{http_route="/a",n="2"} 1.25
http_server_request_duration_seconds_count{http_route="/a",n="2"} 3
"#
        );
        assert_eq!(
            written(Format::OpenMetrics, &metric),
            r#"# HELP http_server_request_duration_seconds How \"long\".\n
# TYPE http_server_request_duration_seconds histogram
# UNIT http_server_request_duration_seconds seconds
http_server_request_duration_seconds_bucket{http_route="/a",n="2",le="0.25"} 1
http_server_request_duration_seconds_bucket{http_route="/a",n="2",le="1.0"} 3 # {trace_id="0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a",span_id="0b0b0b0b0b0b0b0b"} 0.5 1500000000.012
http_server_request_duration_seconds_bucket{http_route="/a",n="2",le="+Inf"} 3
http_server_request_duration_seconds_sum{http_route="/a",n="2"} 1.25
http_server_request_duration_seconds_count{http_route="/a",n="2"} 3
# EOF
"#
        );
    }

    #[test]
    fn a_counter_s_family_is_named_as_its_format_wants() {
        let points = [Point::new(&[], 7.0)];
        let metric = Metric::new(MetricKind::COUNTER, "process.cpu.time", "s", "x");
        let metric = metric.with_points(&points);
        for (format, family) in [
            (Format::Text, "process_cpu_time_seconds_total"),
            (Format::OpenMetrics, "process_cpu_time_seconds"),
        ] {
            let text = written(format, &metric);
            assert!(text.starts_with(&format!("# HELP {family} x\n")), "{text}");
            assert!(text.contains("\nprocess_cpu_time_seconds_total 7.0\n"), "{text}");
        }
        assert_eq!(written(Format::Text, &metric.with_points(&[])), "");
    }

    #[test]
    fn the_target_is_known_by_its_resource() {
        let resource = [Attribute::text("service.name", "front")];
        for (format, head) in [
            (Format::Text, "# TYPE target_info gauge\n"),
            (Format::OpenMetrics, "# TYPE target info\n"),
        ] {
            let mut exposition = Exposition::new(format);
            exposition.add_target(&resource);
            let text = exposition.text();
            assert!(text.contains(head), "{text}");
            assert!(text.contains("\ntarget_info{service_name=\"front\"} 1\n"), "{text}");
        }
    }

    /// Reads a label's value back as the format says.
    fn unescaped(text: &str) -> String {
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            plain.push(match c {
                '\\' => match chars.next() {
                    Some('n') => '\n',
                    other => other.unwrap(),
                },
                c => c,
            });
        }
        plain
    }

    proptest! {
        #[test]
        fn any_label_reads_back(value in r#"[\\"\n{}=,né\PC]{0,20}"#, number in any::<f64>()) {
            let attributes = [Attribute::text("a", &value)];
            let points = [Point::new(&attributes, number)];
            let metric = Metric::new(MetricKind::GAUGE, "x", "", "").with_points(&points);
            let text = written(Format::Text, &metric);
            let sample = text.strip_prefix("# HELP x \n# TYPE x gauge\nx{a=\"").unwrap();
            let (label, read) = sample.strip_suffix('\n').unwrap().rsplit_once("\"} ").unwrap();
            prop_assert_eq!(unescaped(label), value.clone());
            prop_assert!(!label.contains('\n'));
            let read: f64 = read.parse().unwrap();
            prop_assert!(read == number || (read.is_nan() && number.is_nan()));
        }
    }
}
