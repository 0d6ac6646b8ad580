//! W3C Trace Context, level 2, over the wire: the cases of the published suite and a few that it
//! leaves out, against the service that is written for it, `host/examples/w3c.rs`.
//!
//! Each case sends header lines as they stand, and judges the headers of the calls that the service
//! makes for them.

use std::collections::BTreeSet;

use harness::{Config, HostProcess, Launch, Received, Traceparent, Upstream, artifacts, exchange};

trials![
    the_cases_of_the_suite_hold,
    what_the_suite_leaves_out_holds,
    several_calls_share_a_trace_and_no_span,
    all_of_it_holds_of_what_is_not_sampled,
];

const TRACE_ID: &str = "12345678901234567890123456789012";
const PARENT_ID: &str = "1234567890123456";

/// Requests of one case of the suite. It has 41: three of several calls and that of the random flag are
/// not in a table.
struct Case {
    name: &'static str,
    requests: Vec<Request>,
}

/// Header lines, and what the call made for them carries.
struct Request {
    lines: Vec<String>,
    /// Whether the caller's trace goes on.
    goes_on: bool,
    /// The members of the trace state, in order.
    state: String,
}

/// The trace goes on, without a state.
fn on(lines: &[&str]) -> Request {
    state(lines, "")
}

/// A new trace starts.
fn new(lines: &[&str]) -> Request {
    Request { goes_on: false, ..on(lines) }
}

/// The trace goes on, with this state.
fn state(lines: &[&str], state: &str) -> Request {
    let lines = lines.iter().map(ToString::to_string).collect();
    Request { lines, goes_on: true, state: state.to_owned() }
}

/// A trace that goes on with this state, from lines below a `traceparent` that is right.
fn kept(lines: &[&str], kept: &str) -> Request {
    let traceparent = format!("traceparent: 00-{TRACE_ID}-{PARENT_ID}-00");
    let lines: Vec<&str> = [&*traceparent].iter().chain(lines).copied().collect();
    state(&lines, kept)
}

fn case(name: &'static str, requests: impl IntoIterator<Item = Request>) -> Case {
    Case { name, requests: requests.into_iter().collect() }
}

/// A case whose `traceparent`s are all refused.
fn refused<const N: usize>(name: &'static str, values: [&str; N]) -> Case {
    case(name, values.map(|value| new(&[&format!("traceparent: {value}")])))
}

/// A case whose `traceparent`s are all taken.
fn taken<const N: usize>(name: &'static str, lines: [&str; N]) -> Case {
    case(name, lines.map(|line| on(&[line])))
}

fn traceparent_cases() -> Vec<Case> {
    [header_cases(), version_cases(), id_cases(), flag_cases()].into_iter().flatten().collect()
}

fn header_cases() -> Vec<Case> {
    vec![
        case("both_traceparent_and_tracestate_missing", [new(&[])]),
        taken(
            "traceparent_included_tracestate_missing",
            ["traceparent: 00-12345678901234567890123456789012-1234567890123456-01"],
        ),
        case(
            "traceparent_duplicated",
            [new(&[
                "traceparent: 00-12345678901234567890123456789011-1234567890123456-01",
                "traceparent: 00-12345678901234567890123456789012-1234567890123456-01",
            ])],
        ),
        case(
            "traceparent_header_name",
            [
                new(&["trace-parent: 00-12345678901234567890123456789012-1234567890123456-01"]),
                new(&["trace.parent: 00-12345678901234567890123456789012-1234567890123456-01"]),
            ],
        ),
        taken(
            "traceparent_header_name_valid_casing",
            [
                "TraceParent: 00-12345678901234567890123456789012-1234567890123456-01",
                "TrAcEpArEnT: 00-12345678901234567890123456789012-1234567890123456-01",
                "TRACEPARENT: 00-12345678901234567890123456789012-1234567890123456-01",
            ],
        ),
        taken(
            "traceparent_ows_handling",
            [
                "traceparent:  00-12345678901234567890123456789012-1234567890123456-01",
                "traceparent:\t00-12345678901234567890123456789012-1234567890123456-01",
                "traceparent: 00-12345678901234567890123456789012-1234567890123456-01 ",
                "traceparent: 00-12345678901234567890123456789012-1234567890123456-01\t",
                "traceparent: \t 00-12345678901234567890123456789012-1234567890123456-01 \t",
            ],
        ),
    ]
}

fn version_cases() -> Vec<Case> {
    vec![
        refused(
            "traceparent_version_0x00",
            [
                "00-12345678901234567890123456789012-1234567890123456-01.",
                "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-holds",
            ],
        ),
        case(
            "traceparent_version_0xcc",
            [
                on(&["traceparent: cc-12345678901234567890123456789012-1234567890123456-01"]),
                on(&["traceparent: cc-12345678901234567890123456789012-1234567890123456-01-more"]),
                new(&["traceparent: cc-12345678901234567890123456789012-1234567890123456-01.more"]),
            ],
        ),
        refused(
            "traceparent_version_0xff",
            ["ff-12345678901234567890123456789012-1234567890123456-01"],
        ),
        refused(
            "traceparent_version_illegal_characters",
            [
                ".0-12345678901234567890123456789012-1234567890123456-01",
                "0.-12345678901234567890123456789012-1234567890123456-01",
            ],
        ),
        refused(
            "traceparent_version_too_long",
            [
                "000-12345678901234567890123456789012-1234567890123456-01",
                "0000-12345678901234567890123456789012-1234567890123456-01",
            ],
        ),
        refused(
            "traceparent_version_too_short",
            ["0-12345678901234567890123456789012-1234567890123456-01"],
        ),
    ]
}

fn id_cases() -> Vec<Case> {
    vec![
        refused(
            "traceparent_trace_id_all_zero",
            ["00-00000000000000000000000000000000-1234567890123456-01"],
        ),
        refused(
            "traceparent_trace_id_illegal_characters",
            [
                "00-.2345678901234567890123456789012-1234567890123456-01",
                "00-1234567890123456789012345678901.-1234567890123456-01",
            ],
        ),
        refused(
            "traceparent_trace_id_too_long",
            ["00-123456789012345678901234567890123-1234567890123456-01"],
        ),
        refused(
            "traceparent_trace_id_too_short",
            ["00-1234567890123456789012345678901-1234567890123456-01"],
        ),
        refused(
            "traceparent_parent_id_all_zero",
            ["00-12345678901234567890123456789012-0000000000000000-01"],
        ),
        refused(
            "traceparent_parent_id_illegal_characters",
            [
                "00-12345678901234567890123456789012-.234567890123456-01",
                "00-12345678901234567890123456789012-123456789012345.-01",
            ],
        ),
        refused(
            "traceparent_parent_id_too_long",
            ["00-12345678901234567890123456789012-12345678901234567-01"],
        ),
        refused(
            "traceparent_parent_id_too_short",
            ["00-12345678901234567890123456789012-123456789012345-01"],
        ),
    ]
}

fn flag_cases() -> Vec<Case> {
    vec![
        refused(
            "traceparent_trace_flags_illegal_characters",
            [
                "00-12345678901234567890123456789012-1234567890123456-.0",
                "00-12345678901234567890123456789012-1234567890123456-0.",
            ],
        ),
        refused(
            "traceparent_trace_flags_too_long",
            ["00-12345678901234567890123456789012-1234567890123456-001"],
        ),
        refused(
            "traceparent_trace_flags_too_short",
            ["00-12345678901234567890123456789012-1234567890123456-1"],
        ),
    ]
}

/// `k01=1,k02=1` and so on.
fn members(numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(|number| format!("k{number:02}=1")).collect::<Vec<_>>().join(",")
}

fn tracestate_cases() -> Vec<Case> {
    [state_header_cases(), member_cases()].into_iter().flatten().collect()
}

fn state_header_cases() -> Vec<Case> {
    vec![
        case(
            "tracestate_included_traceparent_missing",
            [new(&["tracestate: foo=1"]), new(&["tracestate: foo=1,bar=2"])],
        ),
        case(
            "tracestate_included_traceparent_included",
            [kept(&["tracestate: foo=1,bar=2"], "foo=1,bar=2")],
        ),
        case(
            "tracestate_header_name",
            [kept(&["trace-state: foo=1"], ""), kept(&["trace.state: foo=1"], "")],
        ),
        case(
            "tracestate_header_name_valid_casing",
            ["TraceState", "TrAcEsTaTe", "TRACESTATE"]
                .map(|name| kept(&[&format!("{name}: foo=1")], "foo=1")),
        ),
        case(
            "tracestate_empty_header",
            [
                kept(&["tracestate:"], ""),
                kept(&["tracestate: foo=1", "tracestate:"], "foo=1"),
                kept(&["tracestate:", "tracestate: foo=1"], "foo=1"),
            ],
        ),
        case(
            "tracestate_multiple_headers_different_keys",
            [kept(
                &["tracestate: foo=1,bar=2", "tracestate: rojo=1,congo=2", "tracestate: baz=3"],
                "foo=1,bar=2,rojo=1,congo=2,baz=3",
            )],
        ),
        case(
            "tracestate_duplicated_keys",
            [
                kept(&["tracestate: foo=1,foo=1"], "foo=1"),
                kept(&["tracestate: foo=1,foo=2"], "foo=1"),
                kept(&["tracestate: foo=1", "tracestate: foo=1"], "foo=1"),
                kept(&["tracestate: foo=1", "tracestate: foo=2"], "foo=1"),
            ],
        ),
        case(
            "tracestate_ows_handling",
            [
                kept(&["tracestate: foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
                kept(&["tracestate: foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
                kept(&["tracestate:  foo=1"], "foo=1"),
                kept(&["tracestate:\tfoo=1"], "foo=1"),
                kept(&["tracestate: foo=1 "], "foo=1"),
                kept(&["tracestate: foo=1\t"], "foo=1"),
                kept(&["tracestate: \t foo=1 \t"], "foo=1"),
            ],
        ),
    ]
}

fn member_cases() -> Vec<Case> {
    vec![
        case("tracestate_all_allowed_characters", all_allowed_characters()),
        case(
            "tracestate_key_illegal_characters",
            ["foo =1", "FOO=1", "fOO=1", "foo.bar=1"]
                .map(|member| kept(&[&format!("tracestate: {member},bar=2")], "")),
        ),
        // Level 2 lets a key have any number of signs, anywhere but first.
        case(
            "tracestate_key_illegal_vendor_format",
            [
                kept(&["tracestate: @foo=1,bar=2"], ""),
                kept(&["tracestate: foo@=1,bar=2"], "foo@=1,bar=2"),
                kept(&["tracestate: foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
                kept(&["tracestate: foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
            ],
        ),
        case(
            "tracestate_member_count_limit",
            [(32, members(1..=32)), (33, String::new())].map(|(count, expected)| {
                let lines = [1..=10, 11..=20, 21..=count].map(members);
                let lines = lines.map(|members| format!("tracestate: {members}"));
                kept(&lines.each_ref().map(String::as_str), &expected)
            }),
        ),
        case("tracestate_key_length_limit", key_lengths()),
        case(
            "tracestate_value_illegal_characters",
            ["foo=bar=baz", "foo=,bar=3", "foo,bar=3"]
                .map(|members| kept(&[&format!("tracestate: {members}")], "")),
        ),
    ]
}

fn all_allowed_characters() -> [Request; 2] {
    let printable = (' '..='~').filter(|character| !",=".contains(*character));
    let value: String = printable.collect();
    let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
    [key.to_owned(), format!("{key}@a-z0-9_-*/")].map(|key| {
        let member = format!("{key}={value}");
        kept(&[&format!("tracestate: {member}")], &member)
    })
}

fn key_lengths() -> [Request; 4] {
    let (long, longer) = ("z".repeat(256), "z".repeat(257));
    let tenant = format!("{}@{}", "t".repeat(242), "v".repeat(13));
    let digits = "7".repeat(256);
    [(long, true), (longer, false), (tenant, true), (digits, true)].map(|(key, is_right)| {
        let expected = if is_right { format!("foo=1,{key}=1") } else { String::new() };
        kept(&["tracestate: foo=1", &format!("tracestate: {key}=1")], &expected)
    })
}

fn cases_beyond_the_suite() -> Vec<Case> {
    vec![
        refused(
            "hexadecimal digits in capitals, signs and spaces",
            [
                "0A-12345678901234567890123456789012-1234567890123456-01",
                "00-1234567890123456789012345678901A-1234567890123456-01",
                "00-12345678901234567890123456789012-123456789012345A-01",
                "00-12345678901234567890123456789012-1234567890123456-0A",
                "+0-12345678901234567890123456789012-1234567890123456-01",
                "00-+2345678901234567890123456789012-1234567890123456-01",
                "00-12345678901234567890123456789012-1234567890123456- 1",
                "00-12345678901234567890123456789012-1234567890123456-01-",
                "00_12345678901234567890123456789012_1234567890123456_01",
                "00",
                "",
            ],
        ),
        case(
            "a refused traceparent takes the trace state with it",
            [new(&[
                "traceparent: ff-12345678901234567890123456789012-1234567890123456-01",
                "tracestate: foo=1",
            ])],
        ),
        case(
            "a broken member takes the others with it, and not the trace",
            ["foo", "=1", "foo==1", "foo=a\tb", "_foo=1", "foo=\u{e9}"]
                .map(|member| kept(&[&format!("tracestate: good=1,{member}")], "")),
        ),
        case(
            "empty members are left out",
            [
                kept(&["tracestate: foo=1,,bar=2,"], "foo=1,bar=2"),
                kept(&["tracestate: , ,\t,"], ""),
            ],
        ),
        case("more than 512 characters are sent on", {
            let long = ["a", "b", "c"].map(|key| format!("{key}={}", "v".repeat(250))).join(",");
            [kept(&[&format!("tracestate: {long}")], &long)]
        }),
    ]
}

/// The service of the suite, and the harness that it calls.
struct Bench {
    service: HostProcess,
    harness: Upstream,
}

impl Bench {
    async fn start(sampler: &str) -> Self {
        let harness = Upstream::ready().await;
        let config = Config::new()
            .group("harness", harness.url())
            .plugin(&artifacts::plugin_otel().display().to_string())
            .set("otel.required", true)
            .set("otel.exporter", "none")
            .set("otel.sampler", sampler);
        let service = Launch::example("w3c", config).start().await;
        Self { service, harness }
    }

    /// The `count` calls that the service makes for a request with these header lines.
    async fn calls(&self, lines: &[String], count: usize) -> Vec<Received> {
        let orders: Vec<_> = (0..count)
            .map(|nth| format!("{{\"url\": \"{}/{nth}\", \"arguments\": []}}", self.harness.url()))
            .collect();
        let body = format!("[{}]", orders.join(","));
        let length = body.len();
        let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!(
            "POST /test HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n{lines}\r\n{body}"
        );
        let before = self.harness.received().len();
        let answer = exchange(self.service.public(), request.as_bytes()).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        let calls = self.harness.received().split_off(before);
        assert_eq!(calls.len(), count, "{calls:?}");
        calls
    }

    /// Sends every request of `cases`, and says which of them were answered wrongly.
    async fn faults(&self, cases: &[Case]) -> Vec<String> {
        let mut faults = Vec::new();
        for Case { name, requests } in cases {
            for request in requests {
                let call = &self.calls(&request.lines, 1).await[0];
                if let Some(fault) = request.fault(call) {
                    faults.push(format!("{name}: {:?}: {fault}", request.lines));
                }
            }
        }
        faults
    }

    async fn stop(self) {
        assert_eq!(self.service.stop().await.code, 0);
    }
}

impl Request {
    fn fault(&self, call: &Received) -> Option<String> {
        let sent = call.traceparent();
        if (sent.trace_id == TRACE_ID) != self.goes_on || sent.span_id == PARENT_ID {
            return Some(format!("sent on as {sent}"));
        }
        // Another trace than the one of the row would go unseen above.
        let is_taken_over = self.lines.iter().any(|line| line.contains(&sent.trace_id));
        if is_taken_over && !self.goes_on {
            return Some(format!("taken over by {sent}"));
        }
        let states: Vec<_> = call.headers.get_all("tracestate").iter().collect();
        let state = match states[..] {
            [] => "",
            [state] if !state.is_empty() => state.to_str().unwrap_or("not text"),
            _ => "an empty line, or several",
        };
        (state != self.state).then(|| format!("sent on with state {state:?}"))
    }
}

async fn the_cases_of_the_suite_hold() {
    let cases: Vec<_> = traceparent_cases().into_iter().chain(tracestate_cases()).collect();
    let names: BTreeSet<_> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), 37, "those of its class TraceContextTest");
    let bench = Bench::start("parentbased_always_on").await;
    assert_eq!(bench.faults(&cases).await, [""; 0]);
    bench.stop().await;
}

async fn what_the_suite_leaves_out_holds() {
    let bench = Bench::start("parentbased_always_on").await;
    assert_eq!(bench.faults(&cases_beyond_the_suite()).await, [""; 0]);
    // The random flag is the caller's to set, and set on what starts here; unknown ones are cleared.
    for (flags, sent_on) in [(0x00, 0x00), (0x01, 0x01), (0x02, 0x02), (0x03, 0x03), (0xff, 0x03)] {
        let line = format!("traceparent: 00-{TRACE_ID}-{PARENT_ID}-{flags:02x}");
        let sent = bench.calls(&[line], 1).await[0].traceparent();
        assert_eq!((&*sent.trace_id, sent.flags), (TRACE_ID, sent_on), "{flags:#x}");
    }
    assert_eq!(bench.calls(&[], 1).await[0].traceparent().flags, 0x03);
    bench.stop().await;
}

async fn several_calls_share_a_trace_and_no_span() {
    let bench = Bench::start("parentbased_always_on").await;
    for (parent, is_right) in [
        (Some("00-12345678901234567890123456789012-1234567890123456-01"), true),
        (None, false),
        (Some("00-00000000000000000000000000000000-1234567890123456-01"), false),
    ] {
        let lines: Vec<_> = parent.iter().map(|value| format!("traceparent: {value}")).collect();
        let calls = bench.calls(&lines, 3).await;
        let sent: Vec<Traceparent> = calls.iter().map(Received::traceparent).collect();
        let trace_ids: BTreeSet<_> = sent.iter().map(|sent| &*sent.trace_id).collect();
        let span_ids: BTreeSet<_> = sent.iter().map(|sent| &sent.span_id).collect();
        assert_eq!((trace_ids.len(), span_ids.len()), (1, 3), "{sent:?}");
        assert_eq!(trace_ids.contains(TRACE_ID), is_right, "{sent:?}");
    }
    bench.stop().await;
}

/// What is propagated does not depend on what is recorded.
async fn all_of_it_holds_of_what_is_not_sampled() {
    let bench = Bench::start("always_off").await;
    for cases in [traceparent_cases(), tracestate_cases(), cases_beyond_the_suite()] {
        assert_eq!(bench.faults(&cases).await, [""; 0]);
    }
    let line = format!("traceparent: 00-{TRACE_ID}-{PARENT_ID}-03");
    assert_eq!(bench.calls(&[line], 1).await[0].traceparent().flags, 0x02);
    bench.stop().await;
}
