//! A plugin for the tests of the layers: it writes down every hook that is called.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use plugin_api::{
    Accepted, ClientLayer, Context, End, Exchange, Header, Headers, Host, Level, Outcome, Plugin,
    PluginError, RequestHead, ResponseHead, ServerLayer, Service, SpanContext,
    abi::{ClientLayerObject, PluginObject, ServerLayerObject},
    adapter::{self, HostServices},
};

/// What the plugin was told, a line a hook.
#[derive(Clone, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    /// A plugin that writes here; with "unrecorded" it follows no exchange.
    pub(crate) fn plugin(&self, settings: &str) -> PluginObject {
        let host = adapter::host_object(self.clone());
        adapter::plugin_object::<Scribe>(settings, host).unwrap()
    }

    pub(crate) fn server_layer(&self) -> ServerLayerObject {
        self.plugin("").server_layer().unwrap()
    }

    pub(crate) fn client_layer(&self) -> Arc<ClientLayerObject> {
        Arc::new(self.plugin("").client_layer().unwrap())
    }

    /// Waits for a line that starts like this, and returns all up to now.
    pub(crate) async fn until(&self, start: &str) -> Vec<String> {
        let is_there = || self.0.lock().unwrap().iter().any(|line| line.starts_with(start));
        let waited = tokio::time::timeout(Duration::from_secs(10), async {
            while !is_there() {
                tokio::task::yield_now().await;
            }
        });
        let waited = waited.await;
        let told = self.take();
        assert!(waited.is_ok(), "no {start:?} in {told:?}");
        told
    }

    /// The lines up to now.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl HostServices for Journal {
    fn log(&self, _: Level, _: &str, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }

    fn service(&self) -> Service {
        Service::default()
    }
}

#[derive(Clone)]
struct Scribe {
    host: Host,
    records: bool,
    /// Stands before the lines of what was answered by `on_retry` and `on_upgrade`.
    part: &'static str,
}

impl Scribe {
    fn write(&self, line: impl AsRef<str>) {
        self.host.log(Level::INFO, "test", &format!("{}{}", self.part, line.as_ref()));
    }
}

impl Plugin for Scribe {
    const NAME: &'static str = "scribe";
    const VERSION: &'static str = "0";
    type ServerLayer = Self;
    type ClientLayer = Self;

    fn create(settings: &str, host: Host) -> Result<Self, PluginError> {
        Ok(Self { host, records: settings != "unrecorded", part: "" })
    }

    fn server_layer(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn client_layer(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl ServerLayer for Scribe {
    type Exchange = Self;

    fn on_request(&self, head: &RequestHead<'_>) -> Accepted<Self> {
        let place = format!("{}://{}{}", head.scheme(), head.authority(), head.path());
        self.write(format!("serve {} {place} ? {}", head.method(), head.query()));
        let context = Context::new(SpanContext::new([1; 16], [2; 8], SpanContext::SAMPLED));
        Accepted { context, exchange: self.records.then(|| self.clone()) }
    }

    fn on_response(&self, context: &Context, headers: &mut Headers<'_>) {
        headers.set("traceresponse", &format!("of {}", context.span().span_id[0]));
        headers.append("server-timing", "trace");
        headers.remove("x-gone");
    }
}

impl ClientLayer for Scribe {
    type Exchange = Self;

    fn on_request(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
        headers: &mut Headers<'_>,
    ) -> Option<Self> {
        let parent = parent.span().span_id[0];
        let times = match head.resend_count() {
            0 => String::new(),
            times => format!(" again {times}"),
        };
        self.write(format!("call {} {} below {parent}{times}", head.service(), head.path()));
        headers.set("traceparent", "here");
        headers.remove("tracestate");
        headers.set("not a name", "dropped");
        self.records.then(|| self.clone())
    }
}

impl Exchange for Scribe {
    fn on_route(&mut self, route: &str) {
        self.write(format!("route {route}"));
    }

    fn on_response(&mut self, head: &ResponseHead<'_>) {
        self.write(format!("response {}", head.status()));
    }

    fn on_trailers(&mut self, trailers: &[Header<'_>]) {
        for trailer in trailers {
            self.write(format!("trailers {}={}", trailer.name(), text(trailer.value())));
        }
    }

    fn context(&self) -> Context {
        Context::new(SpanContext::new([1; 16], [9; 8], SpanContext::SAMPLED))
    }

    fn on_retry(&mut self, end: &End) -> Option<Self> {
        self.write(format!("retry after {}", how(end)));
        Some(Self { part: "all: ", ..self.clone() })
    }

    fn on_upgrade(&mut self) -> Option<Self> {
        self.write("upgrade");
        Some(Self { part: "tunnel: ", ..self.clone() })
    }

    fn on_end(&mut self, end: &End) {
        self.write(format!("end {}", how(end)));
    }
}

fn how(end: &End) -> String {
    let name = match end.outcome {
        Outcome::COMPLETE => "complete",
        Outcome::CLIENT_GONE => "client gone",
        Outcome::UPSTREAM_GONE => "upstream gone",
        Outcome::TIMEOUT => "timeout",
        Outcome::SHED => "shed",
        Outcome::PANIC => "panic",
        Outcome::CONNECT_FAILED => "connect failed",
        Outcome::STOPPED => "stopped",
        _ => "unknown",
    };
    let connection = match end.is_pooled() {
        Some(_) if end.peer().address().is_none() => " by nothing",
        Some(true) => " by a pooled connection",
        Some(false) => " by a new connection",
        None => "",
    };
    format!("{name} {} {}{connection}", end.request_bytes, end.response_bytes)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

#[test]
fn the_panic_of_another_test_is_not_in_the_journal() {
    let journal = Journal::default();
    let _plugin = journal.plugin("");
    assert!(std::panic::catch_unwind(|| panic!("in another test")).is_err());
    assert_eq!(journal.take(), [""; 0]);
}
