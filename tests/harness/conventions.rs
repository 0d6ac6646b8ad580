//! What every exported span must keep to: OpenTelemetry's stable conventions for HTTP spans, and OTLP.
//!
//! The [`Collector`](crate::Collector) asks [`check`] of each span when it comes and [`orphans`] of
//! all of them when its test is over, and fails the test then. A rule says one thing; a complaint
//! names the span, the rule and what it found.

use std::collections::{BTreeMap, HashSet};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, any_value::Value},
    trace::v1::{ScopeSpans, Span, span::SpanKind, status::StatusCode},
};

use crate::collector;

/// The bits of the flags that tell where the parent is: whether they do, and whether it is remote.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Namespaces in which no key is ours to invent.
const NAMESPACES: [&str; 5] = ["http.", "url.", "network.", "server.", "client."];

/// The keys there are in them.
const KEYS: [(&str, Type); 25] = [
    ("client.address", Type::Text),
    ("client.port", Type::Port),
    ("http.request.body.size", Type::Count),
    ("http.request.method", Type::Text),
    ("http.request.method_original", Type::Text),
    ("http.request.resend_count", Type::Count),
    ("http.request.size", Type::Count),
    ("http.response.body.size", Type::Count),
    ("http.response.size", Type::Count),
    ("http.response.status_code", Type::Count),
    ("http.route", Type::Text),
    ("network.local.address", Type::Text),
    ("network.local.port", Type::Port),
    ("network.peer.address", Type::Text),
    ("network.peer.port", Type::Port),
    ("network.protocol.name", Type::Text),
    ("network.protocol.version", Type::Text),
    ("network.transport", Type::Text),
    ("network.type", Type::Text),
    ("server.address", Type::Text),
    ("server.port", Type::Port),
    ("url.full", Type::Text),
    ("url.path", Type::Text),
    ("url.query", Type::Text),
    ("url.scheme", Type::Text),
];

/// Keys elsewhere whose type is fixed.
const OTHER_KEYS: [(&str, Type); 3] =
    [("error.type", Type::Text), ("peer.service", Type::Text), ("user_agent.original", Type::Text)];

/// Keys whose last part is the name of a header.
const HEADERS: [&str; 2] = ["http.request.header.", "http.response.header."];

const REQUIRED_OF_SERVERS: [&str; 3] = ["http.request.method", "url.path", "url.scheme"];
const REQUIRED_OF_CLIENTS: [&str; 4] =
    ["http.request.method", "server.address", "server.port", "url.full"];

/// What stands in `error.type` where it is not the status code.
const ERROR_TYPES: [&str; 7] =
    ["_OTHER", "connect_failed", "panic", "shed", "stopped", "timeout", "upstream_gone"];

/// The names of gRPC's status codes by number, which stand in `error.type` too.
const GRPC_STATUS: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Query keys whose values the conventions call secret; their case counts.
const SECRET_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];

#[derive(Clone, Copy)]
enum Type {
    /// Text that is not empty.
    Text,
    /// A number that is not negative.
    Count,
    /// The number of a TCP port.
    Port,
}

impl Type {
    const fn holds(self, value: &Value) -> bool {
        match (self, value) {
            (Self::Text, Value::StringValue(text)) => !text.is_empty(),
            (Self::Count, Value::IntValue(number)) => *number >= 0,
            (Self::Port, Value::IntValue(number)) => *number > 0 && *number <= 65_535,
            _ => false,
        }
    }
}

/// A span, and what its rules look at.
struct Seen<'a> {
    span: &'a Span,
    attributes: BTreeMap<&'a str, &'a Value>,
    scope: &'a ScopeSpans,
}

impl Seen<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        match self.attributes.get(key)? {
            Value::StringValue(text) => Some(text),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<i64> {
        match self.attributes.get(key)? {
            Value::IntValue(number) => Some(*number),
            _ => None,
        }
    }

    fn is_error(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
    }

    /// Whether it is a span of an exchange, and not one around or after it.
    fn is_http(&self) -> bool {
        matches!(self.span.kind(), SpanKind::Server | SpanKind::Client)
    }

    /// From which status code on it failed.
    fn first_bad_status(&self) -> i64 {
        if self.span.kind() == SpanKind::Server { 500 } else { 400 }
    }
}

/// Says what is wrong, if anything is.
type Rule = fn(&Seen<'_>) -> Option<String>;

/// What any span must keep to, whoever made it.
const OF_ALL: [(&str, Rule); 4] =
    [("ids", ids), ("times", times), ("flags", flags), ("duplicate key", duplicate_key)];

/// What ours must keep to as well.
const OF_OURS: [(&str, Rule); 4] = [
    ("schema URL", schema_url),
    ("unknown key", unknown_key),
    ("type", value_type),
    ("secret", secret),
];

/// And, of these, the exchanges. A service's own code may say of its spans what it likes.
const OF_EXCHANGES: [(&str, Rule); 11] = [
    ("kind", kind),
    ("required attribute", required),
    ("method", method),
    ("name", name),
    ("scheme", scheme),
    ("protocol", protocol),
    ("status code", status_code),
    ("status", status),
    ("error.type", error_type),
    ("description", description),
    ("URL", url),
];

/// What is wrong with the span, which came in `scope`.
#[must_use]
pub fn check(span: &Span, scope: &ScopeSpans) -> Vec<String> {
    let attributes = span.attributes.iter();
    let attributes = attributes.filter_map(|pair| Some((&*pair.key, pair.value.as_ref()?)));
    let attributes =
        attributes.filter_map(|(key, value)| Some((key, value.value.as_ref()?))).collect();
    let seen = Seen { span, attributes, scope };
    let is_exchange = !seen.attributes.contains_key("code.function.name");
    let rules_of =
        |are_held: bool, rules: &'static [(&str, Rule)]| if are_held { rules } else { &[] };
    let rules = OF_ALL.iter().chain(rules_of(is_ours(scope), &OF_OURS));
    let rules = rules.chain(rules_of(is_ours(scope) && is_exchange, &OF_EXCHANGES));
    let complaints = rules.filter_map(|(name, rule)| Some((name, rule(&seen)?)));
    complaints
        .map(|(rule, found)| format!("{:?} span {:?}: {rule}: {found}", span.kind(), span.name))
        .collect()
}

/// Those who say that their parent is a span of their own process, which nobody has received.
#[must_use]
pub fn orphans(spans: &[collector::Span]) -> Vec<String> {
    let ids: HashSet<_> = spans.iter().map(|span| (&span.trace_id, &span.span_id)).collect();
    let is_local =
        |span: &&collector::Span| !span.parent_span_id.is_empty() && span.flags & IS_REMOTE == 0;
    let orphans = spans
        .iter()
        .filter(is_local)
        .filter(|span| !ids.contains(&(&span.trace_id, &span.parent_span_id)));
    orphans
        .map(|span| {
            let (kind, name, parent) = (span.kind, &span.name, &span.parent_span_id);
            format!("{kind:?} span {name:?}: parent: {parent} has not come")
        })
        .collect()
}

/// Whether the spans of this scope are the plugin's; those of other programs keep to rules of theirs.
fn is_ours(scope: &ScopeSpans) -> bool {
    let name = scope.scope.as_ref().map_or("", |scope| &scope.name);
    !name.starts_with("opentelemetry.instrumentation.")
}

fn ids(Seen { span, .. }: &Seen<'_>) -> Option<String> {
    let valid = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
    let parent = &span.parent_span_id;
    let own = valid(&span.trace_id, 16) && valid(&span.span_id, 8);
    let is_right = own && (parent.is_empty() || valid(parent, 8)) && *parent != span.span_id;
    let found = || format!("{:?} {:?} below {parent:?}", span.trace_id, span.span_id);
    (!is_right).then(found)
}

fn times(Seen { span, .. }: &Seen<'_>) -> Option<String> {
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    (start == 0 || end < start).then(|| format!("from {start} to {end}"))
}

fn flags(Seen { span, .. }: &Seen<'_>) -> Option<String> {
    let flags = span.flags;
    let says_more_than_it_knows = flags & IS_REMOTE != 0 && span.parent_span_id.is_empty();
    let is_right = flags & HAS_IS_REMOTE != 0 && !says_more_than_it_knows;
    (!is_right).then(|| format!("{flags:#x} of a child of {:?}", span.parent_span_id))
}

fn duplicate_key(Seen { span, .. }: &Seen<'_>) -> Option<String> {
    let mut keys = HashSet::new();
    let again = span.attributes.iter().find(|pair| !keys.insert(&pair.key));
    again.map(|pair| pair.key.clone())
}

fn schema_url(Seen { scope, .. }: &Seen<'_>) -> Option<String> {
    let url = &scope.schema_url;
    (!url.starts_with("https://opentelemetry.io/schemas/1.")).then(|| format!("{url:?}"))
}

fn kind(Seen { span, .. }: &Seen<'_>) -> Option<String> {
    let kinds = [SpanKind::Server, SpanKind::Client, SpanKind::Internal];
    (!kinds.contains(&span.kind())).then(|| "is none of HTTP".to_owned())
}

fn header_of(key: &str) -> Option<&str> {
    HEADERS.iter().find_map(|prefix| key.strip_prefix(prefix))
}

fn unknown_key(seen: &Seen<'_>) -> Option<String> {
    let is_known = |key: &str| match header_of(key) {
        Some(header) => !header.is_empty() && header == header.to_ascii_lowercase(),
        None => KEYS.iter().any(|(known, _)| *known == key),
    };
    let mut keys = seen.attributes.keys();
    let in_namespace = |key: &str| NAMESPACES.iter().any(|namespace| key.starts_with(namespace));
    keys.find(|key| in_namespace(key) && !is_known(key)).map(ToString::to_string)
}

fn value_type(seen: &Seen<'_>) -> Option<String> {
    let is_text = |item: &AnyValue| matches!(item.value, Some(Value::StringValue(_)));
    let is_right = |key: &str, value: &Value| {
        if header_of(key).is_some() {
            return matches!(value, Value::ArrayValue(array) if array.values.iter().all(is_text));
        }
        let known = KEYS.iter().chain(&OTHER_KEYS).find(|(known, _)| *known == key);
        known.is_none_or(|(_, wanted)| wanted.holds(value))
    };
    let wrong = seen.attributes.iter().find(|(key, value)| !is_right(key, value));
    wrong.map(|(key, value)| format!("{key} is {value:?}"))
}

fn required(seen: &Seen<'_>) -> Option<String> {
    let required = match seen.span.kind() {
        SpanKind::Server => &REQUIRED_OF_SERVERS[..],
        SpanKind::Client => &REQUIRED_OF_CLIENTS[..],
        _ => &[],
    };
    // The target of CONNECT is a place and nothing more: RFC 9110, section 9.3.6.
    let is_connect = seen.text("http.request.method") == Some("CONNECT");
    let mut absent = required.iter().filter(|key| !seen.attributes.contains_key(**key));
    let absent = absent.find(|key| !(is_connect && **key == "url.path"));
    absent.map(|key| format!("no {key}"))
}

fn method(seen: &Seen<'_>) -> Option<String> {
    let method = seen.text("http.request.method")?;
    let original = seen.text("http.request.method_original");
    let is_right = match original {
        // A method in other letters is normalised, and any other is not told.
        Some(original) => original != method,
        None => method != "_OTHER",
    };
    (!is_right).then(|| format!("{method} of {original:?}"))
}

fn name(seen: &Seen<'_>) -> Option<String> {
    let method = match seen.text("http.request.method").filter(|_| seen.is_http())? {
        "_OTHER" => "HTTP",
        method => method,
    };
    let wanted = match seen.text("http.route") {
        Some(route) if seen.span.kind() == SpanKind::Server => format!("{method} {route}"),
        _ => method.to_owned(),
    };
    (seen.span.name != wanted).then(|| format!("wanted {wanted:?}"))
}

fn scheme(seen: &Seen<'_>) -> Option<String> {
    let scheme = seen.text("url.scheme")?;
    (!["http", "https"].contains(&scheme)).then(|| format!("{scheme:?}"))
}

fn protocol(seen: &Seen<'_>) -> Option<String> {
    let (name, version) =
        (seen.text("network.protocol.name"), seen.text("network.protocol.version"));
    let is_right = name.is_none_or(|name| name == "http")
        && version.is_none_or(|version| ["1.0", "1.1", "2", "3"].contains(&version));
    (!is_right).then(|| format!("{name:?} {version:?}"))
}

fn status_code(seen: &Seen<'_>) -> Option<String> {
    let code = seen.number("http.response.status_code")?;
    (!(100..600).contains(&code)).then(|| code.to_string())
}

/// An error by its code is one, success is nobody's to claim, and what is wrong has a type.
fn status(seen: &Seen<'_>) -> Option<String> {
    let code = seen.number("http.response.status_code").filter(|_| seen.is_http());
    let failed = code.is_some_and(|code| code >= seen.first_bad_status());
    let has_type = seen.attributes.contains_key("error.type");
    let status = seen.span.status.as_ref().map_or(StatusCode::Unset, |status| status.code());
    let is_right = match status {
        StatusCode::Unset => !failed && !has_type,
        StatusCode::Error => has_type,
        StatusCode::Ok => false,
    };
    (!is_right).then(|| {
        format!("{status:?} with code {code:?} and error.type {:?}", seen.text("error.type"))
    })
}

fn error_type(seen: &Seen<'_>) -> Option<String> {
    let found = seen.text("error.type")?;
    let code = seen.number("http.response.status_code");
    let is_code = |code: i64| code >= seen.first_bad_status() && code.to_string() == found;
    let grpc = seen.number("rpc.grpc.status_code").filter(|code| *code > 0);
    let grpc = grpc.and_then(|code| GRPC_STATUS.get(usize::try_from(code).ok()?));
    let is_right =
        ERROR_TYPES.contains(&found) || code.is_some_and(is_code) || grpc == Some(&found);
    (!is_right).then(|| format!("{found:?} with code {code:?}"))
}

/// Where the code says it all there is nothing to describe.
fn description(seen: &Seen<'_>) -> Option<String> {
    let message = &seen.span.status.as_ref()?.message;
    let has_word = seen.text("error.type").is_some_and(|found| ERROR_TYPES.contains(&found));
    let may_be = seen.is_error() && has_word;
    (!message.is_empty() && !may_be).then(|| format!("{message:?}"))
}

fn url(seen: &Seen<'_>) -> Option<String> {
    let full = seen.text("url.full").filter(|url| {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    let path = seen.text("url.path").filter(|path| !path.starts_with('/') && *path != "*");
    let query = seen.text("url.query").filter(|query| query.starts_with('?'));
    full.or(path).or(query).map(|found| format!("{found:?}"))
}

fn secret(seen: &Seen<'_>) -> Option<String> {
    let full = seen.text("url.full").unwrap_or_default();
    let authority = full.split('/').nth(2).unwrap_or_default();
    if authority.contains('@') && !authority.starts_with("REDACTED:REDACTED@") {
        return Some("user information in url.full".to_owned());
    }
    let queries = [full.split_once('?').map(|(_, query)| query), seen.text("url.query")];
    let mut pairs = queries.into_iter().flatten().flat_map(|query| query.split('&'));
    let is_secret = |pair: &&str| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        SECRET_KEYS.contains(&key) && !["REDACTED", ""].contains(&value)
    };
    // Not the value: a failing test is printed.
    pairs.find(is_secret).map(|pair| format!("{:?}", pair.split('=').next()))
}
