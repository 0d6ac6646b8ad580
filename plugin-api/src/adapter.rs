//! What stands around the objects that cross: plain Rust on one side of each, the wire form on the
//! other, and a guard in between.
//!
//! A plugin's author meets these only through [`export_plugin!`](crate::export_plugin); a host
//! makes its own objects with [`host_object`] and [`lend_headers`], and a plugin that is linked into it
//! with [`plugin_object`].

use std::time::Duration;

use abi_stable::{
    sabi_trait::prelude::TD_Opaque,
    std_types::{RErr, RNone, ROption, RResult, RSlice, RStr, RString, RVec},
};

use crate::{
    abi::{
        AbiAccepted, AbiBegun, AbiClientLayer, AbiClientLayer_TO, AbiExchange, AbiExchange_TO,
        AbiHeaderMap, AbiHeaderMap_TO, AbiHeaders, AbiHost, AbiHost_TO, AbiMetricVisitor,
        AbiMetricVisitor_TO, AbiMetrics, AbiPlugin, AbiPlugin_TO, AbiServerLayer,
        AbiServerLayer_TO, AbiSpan, AbiSpan_TO, AbiTelemetry, AbiTelemetry_TO, ClientLayerObject,
        ExchangeObject, HostObject, PluginObject, ServerLayerObject, TelemetryObject,
    },
    context::Context,
    error::{ErrorKind, PluginError},
    guard,
    host::{Host, Level, Service},
    http::{End, Header, RequestHead, ResponseHead},
    layer::{Accepted, ClientLayer, Exchange, Headers, ServerLayer},
    metrics::{Metric, Visit},
    plugin::{Plugin, PluginInfo, State},
    telemetry::{Begun, Event, Fields, Span, SpanHead, Telemetry},
};

/// A value of the plugin's, whose drop is guarded as its methods are.
struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    /// Runs a method of the value, unless the plugin is off.
    fn hook<R>(&self, neutral: impl Fn() -> R, body: impl FnOnce(&T) -> R) -> R {
        let Some(value) = &self.0 else { return neutral() };
        guard::hook(&neutral, || body(value))
    }

    /// Like [`Guarded::hook`], for what changes the value.
    fn hook_mut(&mut self, body: impl FnOnce(&mut T)) {
        let Some(value) = &mut self.0 else { return };
        guard::hook(|| (), || body(value));
    }

    /// Runs a method of the value, also when the plugin is off.
    fn call<R>(&self, neutral: impl Fn() -> R, body: impl FnOnce(&T) -> R) -> R {
        let Some(value) = &self.0 else { return neutral() };
        guard::call(&neutral, || body(value))
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // Where it stands: it may be large, and is dropped for every request.
        guard::call(|| (), || self.0 = None);
    }
}

fn exchange_object<E: Exchange>(exchange: E) -> ExchangeObject {
    AbiExchange_TO::from_value(Guarded(Some(exchange)), TD_Opaque)
}

impl<E: Exchange> Guarded<E> {
    /// Runs a method that may answer an exchange which follows this one.
    fn follow(&mut self, body: impl FnOnce(&mut E) -> Option<E>) -> ROption<ExchangeObject> {
        let Some(exchange) = &mut self.0 else { return RNone };
        guard::hook(|| RNone, || body(exchange).map(exchange_object).into())
    }
}

impl<E: Exchange> AbiExchange for Guarded<E> {
    fn on_route(&mut self, route: RStr<'_>) {
        self.hook_mut(|exchange| exchange.on_route(route.as_str()));
    }

    fn on_response(&mut self, head: &ResponseHead<'_>) {
        self.hook_mut(|exchange| exchange.on_response(head));
    }

    fn on_end(&mut self, end: &End) {
        self.hook_mut(|exchange| exchange.on_end(end));
    }

    fn on_trailers(&mut self, trailers: RSlice<'_, Header<'_>>) {
        self.hook_mut(|exchange| exchange.on_trailers(trailers.as_slice()));
    }

    fn context(&self) -> Context {
        self.hook(Context::default, Exchange::context)
    }

    fn on_retry(&mut self, end: &End) -> ROption<ExchangeObject> {
        self.follow(|exchange| exchange.on_retry(end))
    }

    fn on_upgrade(&mut self) -> ROption<ExchangeObject> {
        self.follow(Exchange::on_upgrade)
    }
}

impl<L: ServerLayer> AbiServerLayer for Guarded<L> {
    fn on_request(&self, head: &RequestHead<'_>) -> AbiAccepted {
        // Written where it goes: what a guard returns is copied more than once.
        let mut answer = AbiAccepted { context: Context::default(), exchange: RNone };
        self.hook(
            || (),
            |layer| {
                let Accepted { context, exchange } = layer.on_request(head);
                answer = AbiAccepted { context, exchange: exchange.map(exchange_object).into() };
            },
        );
        answer
    }

    fn on_response(&self, context: &Context, headers: AbiHeaders<'_>) {
        self.hook(|| (), |layer| layer.on_response(context, &mut Headers::new(headers)));
    }

    fn tells_clients(&self) -> bool {
        self.call(|| false, ServerLayer::tells_clients)
    }
}

impl<L: ClientLayer> AbiClientLayer for Guarded<L> {
    fn on_request(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
        headers: AbiHeaders<'_>,
    ) -> ROption<ExchangeObject> {
        self.hook(
            || RNone,
            |layer| {
                layer
                    .on_request(head, parent, &mut Headers::new(headers))
                    .map(exchange_object)
                    .into()
            },
        )
    }
}

impl<P: Plugin> AbiPlugin for Guarded<P> {
    fn server_layer(&self) -> ROption<ServerLayerObject> {
        let wrap = |layer| AbiServerLayer_TO::from_value(Guarded(Some(layer)), TD_Opaque);
        self.call(|| RNone, |plugin| plugin.server_layer().map(wrap).into())
    }

    fn client_layer(&self) -> ROption<ClientLayerObject> {
        let wrap = |layer| AbiClientLayer_TO::from_value(Guarded(Some(layer)), TD_Opaque);
        self.call(|| RNone, |plugin| plugin.client_layer().map(wrap).into())
    }

    fn state(&self) -> State {
        self.hook(|| State::FAILED, Plugin::state)
    }

    fn status(&self) -> RString {
        self.call(|| RString::from("{}"), |plugin| plugin.status().into())
    }

    fn panics(&self) -> u64 {
        guard::panics()
    }

    fn check(&self, timeout_millis: u64) -> RResult<(), PluginError> {
        let timeout = Duration::from_millis(timeout_millis);
        self.call(|| RErr(panicked("check")), |plugin| plugin.check(timeout).into())
    }

    fn flush(&self, timeout_millis: u64) -> RResult<(), PluginError> {
        let timeout = Duration::from_millis(timeout_millis);
        self.call(|| RErr(panicked("flush")), |plugin| plugin.flush(timeout).into())
    }

    fn shutdown(&self, timeout_millis: u64) -> RResult<(), PluginError> {
        let timeout = Duration::from_millis(timeout_millis);
        self.call(|| RErr(panicked("shutdown")), |plugin| plugin.shutdown(timeout).into())
    }

    fn telemetry(&self) -> ROption<TelemetryObject> {
        self.call(|| RNone, |plugin| plugin.telemetry().into())
    }

    fn metrics(&self, mut visitor: AbiMetrics<'_>) {
        self.call(|| (), |plugin| plugin.metrics(&mut |metric| visitor.metric(metric)));
    }

    fn live_settings(&self) -> RVec<RStr<'static>> {
        P::LIVE_SETTINGS.iter().copied().map(RStr::from_str).collect()
    }

    fn reconfigure(&self, settings: RStr<'_>) -> RResult<(), PluginError> {
        let neutral = || RErr(panicked("reconfigure"));
        self.call(neutral, |plugin| plugin.reconfigure(settings.as_str()).into())
    }
}

/// Makes what hears of the host's spans and events ready to cross.
pub fn telemetry_object<T: Telemetry>(telemetry: T) -> TelemetryObject {
    AbiTelemetry_TO::from_value(Guarded(Some(telemetry)), TD_Opaque)
}

impl<T: Telemetry> AbiTelemetry for Guarded<T> {
    fn span_level(&self) -> ROption<Level> {
        self.call(|| RNone, |telemetry| telemetry.span_level().into())
    }

    fn event_level(&self) -> ROption<Level> {
        self.call(|| RNone, |telemetry| telemetry.event_level().into())
    }

    fn unsampled(&self) -> bool {
        self.call(|| false, Telemetry::unsampled)
    }

    fn on_span(&self, head: &SpanHead<'_>, parent: &Context) -> AbiBegun {
        // Written where it goes: what a guard returns is copied more than once.
        let mut begun = AbiBegun { context: Context::default(), span: RNone };
        let has_answered = self.hook(
            || false,
            |telemetry| {
                let Begun { context, span } = telemetry.on_span(head, parent);
                let object = |span| AbiSpan_TO::from_value(Guarded(Some(span)), TD_Opaque);
                begun = AbiBegun { context, span: span.map(object).into() };
                true
            },
        );
        if !has_answered {
            begun.context = parent.clone();
        }
        begun
    }

    fn on_event(&self, event: &Event<'_>, context: &Context) {
        self.hook(|| (), |telemetry| telemetry.on_event(event, context));
    }
}

impl<S: Span> AbiSpan for Guarded<S> {
    fn on_record(&mut self, fields: Fields<'_>) {
        self.hook_mut(|span| span.on_record(fields));
    }

    fn on_event(&mut self, event: &Event<'_>) {
        self.hook_mut(|span| span.on_event(event));
    }

    fn on_follows_from(&mut self, context: &Context) {
        self.hook_mut(|span| span.on_follows_from(context));
    }
}

fn panicked(place: &str) -> PluginError {
    PluginError::new(ErrorKind::PANIC, format_args!("the plugin panicked in {place}"))
}

/// The `info` function of a plugin library; used by [`export_plugin!`](crate::export_plugin).
pub extern "C" fn info<P: Plugin, const UNWINDS: bool>() -> PluginInfo {
    PluginInfo::of::<P>(UNWINDS)
}

/// The `create` function of a plugin library; used by [`export_plugin!`](crate::export_plugin).
///
/// It takes over the panic hook, that of the plugin's own copy of the standard library.
pub extern "C" fn create<P: Plugin>(
    settings: RStr<'_>,
    host: HostObject,
) -> RResult<PluginObject, PluginError> {
    let host = Host::new(host);
    guard::report_to(&host);
    made::<P>(settings.as_str(), host).into()
}

/// Makes a plugin that is linked into its host, as tests and benchmarks have them.
///
/// Unlike [`create`] it leaves the panic hook alone, which here is that of the whole process: panics
/// are caught, but neither counted nor sent to `host`.
///
/// # Errors
/// Those of [`Plugin::create`], and [`ErrorKind::PANIC`].
pub fn plugin_object<P: Plugin>(
    settings: &str,
    host: HostObject,
) -> Result<PluginObject, PluginError> {
    made::<P>(settings, Host::new(host))
}

fn made<P: Plugin>(settings: &str, host: Host) -> Result<PluginObject, PluginError> {
    guard::call(
        || Err(panicked("create")),
        || {
            let plugin = P::create(settings, host)?;
            Ok(AbiPlugin_TO::from_value(Guarded(Some(plugin)), TD_Opaque))
        },
    )
}

/// What a host implements to be a [`Host`] for its plugins. Called on the plugin's threads.
pub trait HostServices: Send + Sync + 'static {
    /// Writes a line to the host's log.
    fn log(&self, level: Level, target: &str, message: &str);
    /// Who the host is.
    fn service(&self) -> Service;
    /// Shows every metric that the host has.
    fn metrics(&self, visit: Visit<'_>) {
        let _ = visit;
    }
    /// The folder that relative paths in settings start at.
    fn folder(&self) -> String {
        String::new()
    }
}

/// Makes a host's services ready to cross.
pub fn host_object(services: impl HostServices) -> HostObject {
    AbiHost_TO::from_value(Guarded(Some(services)), TD_Opaque)
}

impl<H: HostServices> AbiHost for Guarded<H> {
    fn log(&self, level: Level, target: RStr<'_>, message: RStr<'_>) {
        self.call(|| (), |host| host.log(level, target.as_str(), message.as_str()));
    }

    fn service(&self) -> Service {
        self.call(Service::default, HostServices::service)
    }

    fn metrics(&self, mut visitor: AbiMetrics<'_>) {
        self.call(|| (), |host| host.metrics(&mut |metric| visitor.metric(metric)));
    }

    fn folder(&self) -> RString {
        self.call(RString::new, |host| host.folder().into())
    }
}

/// A visitor, for the length of a call.
#[allow(missing_debug_implementations, reason = "a function has nothing to print")]
pub struct LentVisitor<'a>(pub Visit<'a>);

/// Lends a visitor for one call.
pub fn lend_visitor<'a>(visitor: &'a mut LentVisitor<'_>) -> AbiMetrics<'a> {
    AbiMetricVisitor_TO::from_ptr(abi_stable::RMut::new(visitor), TD_Opaque)
}

impl AbiMetricVisitor for LentVisitor<'_> {
    fn metric(&mut self, metric: &Metric<'_>) {
        guard::call(|| (), || (self.0)(metric));
    }
}

/// What a host implements for the headers of one message that it sends.
pub trait HeaderMap {
    /// Sets `name` to `value`, in place of every line of that name.
    fn set(&mut self, name: &str, value: &str);
    /// Takes every line of `name` out.
    fn remove(&mut self, name: &str);
    /// Adds a line to those of `name`.
    fn append(&mut self, name: &str, value: &str);
}

/// Lends the headers of a host's message for one call.
pub fn lend_headers<'a, M: HeaderMap>(headers: &'a mut Lent<'_, M>) -> AbiHeaders<'a> {
    AbiHeaderMap_TO::from_ptr(abi_stable::RMut::new(headers), TD_Opaque)
}

/// Headers of the host, for the length of a call.
#[derive(Debug)]
pub struct Lent<'a, M>(pub &'a mut M);

impl<M: HeaderMap> AbiHeaderMap for Lent<'_, M> {
    fn set(&mut self, name: RStr<'_>, value: RStr<'_>) {
        guard::call(|| (), || self.0.set(name.as_str(), value.as_str()));
    }

    fn remove(&mut self, name: RStr<'_>) {
        guard::call(|| (), || self.0.remove(name.as_str()));
    }

    fn append(&mut self, name: RStr<'_>, value: RStr<'_>) {
        guard::call(|| (), || self.0.append(name.as_str(), value.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{context::SpanContext, layer::NoLayer, metrics::Visit, telemetry::Callsite};

    struct Silent;

    impl HostServices for Silent {
        fn log(&self, _: Level, _: &str, _: &str) {}

        fn service(&self) -> Service {
            Service::default()
        }
    }

    /// Panics wherever it is entered, but for its start.
    struct Fragile;

    impl Plugin for Fragile {
        const NAME: &'static str = "fragile";
        const VERSION: &'static str = "0";
        type ServerLayer = NoLayer;
        type ClientLayer = NoLayer;

        fn create(_: &str, _: Host) -> Result<Self, PluginError> {
            Ok(Self)
        }

        fn server_layer(&self) -> Option<NoLayer> {
            panic!("server_layer")
        }

        fn client_layer(&self) -> Option<NoLayer> {
            panic!("client_layer")
        }

        fn state(&self) -> State {
            panic!("state")
        }

        fn status(&self) -> String {
            panic!("status")
        }

        fn check(&self, _: Duration) -> Result<(), PluginError> {
            panic!("check")
        }

        fn flush(&self, _: Duration) -> Result<(), PluginError> {
            panic!("flush")
        }

        fn reconfigure(&self, _: &str) -> Result<(), PluginError> {
            panic!("reconfigure")
        }

        fn shutdown(&self, _: Duration) -> Result<(), PluginError> {
            panic!("shutdown")
        }

        fn metrics(&self, _: Visit<'_>) {
            panic!("metrics")
        }
    }

    impl Drop for Fragile {
        fn drop(&mut self) {
            panic!("drop")
        }
    }

    struct FragileLayer;

    impl ServerLayer for FragileLayer {
        type Exchange = ();

        fn on_request(&self, _: &RequestHead<'_>) -> Accepted<()> {
            panic!("on_request")
        }
    }

    struct FragileTelemetry;

    enum NoSpan {}

    impl Span for NoSpan {
        fn on_record(&mut self, _: Fields<'_>) {}

        fn on_event(&mut self, _: &Event<'_>) {}

        fn on_follows_from(&mut self, _: &Context) {}
    }

    impl Telemetry for FragileTelemetry {
        type Span = NoSpan;

        fn on_span(&self, _: &SpanHead<'_>, _: &Context) -> Begun<NoSpan> {
            panic!("on_span")
        }

        fn on_event(&self, _: &Event<'_>, _: &Context) {
            panic!("on_event")
        }
    }

    #[test]
    fn what_panics_as_it_begins_leaves_the_context_as_it_is() {
        let layer = AbiServerLayer_TO::from_value(Guarded(Some(FragileLayer)), TD_Opaque);
        let AbiAccepted { context, exchange } =
            layer.on_request(&RequestHead::new("GET", "/", &[]));
        assert!(exchange.is_none() && !context.span().is_valid());
        let parent = Context::new(SpanContext::new([1; 16], [2; 8], 1)).with_state("a=1", "");
        let callsite = Callsite::new(Level::INFO, "tests", "one");
        let head = SpanHead::new(&callsite, Fields::default());
        let AbiBegun { context, span } = telemetry_object(FragileTelemetry).on_span(&head, &parent);
        assert!(span.is_none());
        assert_eq!((context.span(), context.tracestate()), (parent.span(), "a=1"));
    }

    #[test]
    fn a_panic_in_any_method_of_a_plugin_is_an_answer() {
        let plugin = plugin_object::<Fragile>("", host_object(Silent)).unwrap();
        assert!(plugin.server_layer().is_none() && plugin.client_layer().is_none());
        assert_eq!((plugin.state(), plugin.status().as_str()), (State::FAILED, "{}"));
        plugin.metrics(lend_visitor(&mut LentVisitor(&mut |_| panic!("nothing is told"))));
        for (place, answer) in [
            ("check", plugin.check(1)),
            ("flush", plugin.flush(1)),
            ("reconfigure", plugin.reconfigure("{}".into())),
            ("shutdown", plugin.shutdown(1)),
        ] {
            let error = answer.into_result().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PANIC);
            assert_eq!(error.to_string(), format!("the plugin panicked in {place}"));
        }
        drop(plugin);
    }
}
