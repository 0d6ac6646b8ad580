//! The wire form of the contract: the objects that cross.
//!
//! An author of a plugin needs nothing from here. The host calls these objects; behind each stands
//! an [adapter](crate::adapter). The doc links name the author's side of each method.
//!
//! A minor version appends methods, each with a default body, below the last one there is.

use abi_stable::{
    StableAbi, sabi_trait,
    std_types::{RBox, RErr, RNone, ROption, RResult, RSlice, RStr, RString, RVec},
};

use crate::{
    context::Context,
    error::{ErrorKind, PluginError},
    host::{Level, Service},
    http::{End, Header, Outcome, RequestHead, ResponseHead},
    metrics::Metric,
    plugin::State,
    telemetry::{Event, Fields, SpanHead},
};

/// [`Exchange`](crate::Exchange), as it crosses.
#[sabi_trait]
pub trait AbiExchange: Send {
    /// [`Exchange::on_route`](crate::Exchange::on_route)
    fn on_route(&mut self, route: RStr<'_>);
    /// [`Exchange::on_response`](crate::Exchange::on_response)
    fn on_response(&mut self, head: &ResponseHead<'_>);
    /// [`Exchange::on_end`](crate::Exchange::on_end)
    #[sabi(last_prefix_field)]
    fn on_end(&mut self, end: &End);
    /// [`Exchange::on_trailers`](crate::Exchange::on_trailers)
    fn on_trailers(&mut self, trailers: RSlice<'_, Header<'_>>) {
        let _ = trailers;
    }
    /// [`Exchange::context`](crate::Exchange::context)
    fn context(&self) -> Context {
        Context::default()
    }
    /// [`Exchange::on_retry`](crate::Exchange::on_retry)
    fn on_retry(&mut self, end: &End) -> ROption<ExchangeObject> {
        self.on_end(end);
        RNone
    }
    /// [`Exchange::on_upgrade`](crate::Exchange::on_upgrade)
    fn on_upgrade(&mut self) -> ROption<ExchangeObject> {
        self.on_end(&End::new(Outcome::COMPLETE, 0, 0));
        RNone
    }
}

/// [`ServerLayer`](crate::ServerLayer), as it crosses.
#[sabi_trait]
pub trait AbiServerLayer: Send + Sync {
    /// [`ServerLayer::on_request`](crate::ServerLayer::on_request)
    #[sabi(last_prefix_field)]
    fn on_request(&self, head: &RequestHead<'_>) -> AbiAccepted;
    /// [`ServerLayer::on_response`](crate::ServerLayer::on_response)
    fn on_response(&self, context: &Context, headers: AbiHeaders<'_>) {
        let _ = (context, headers);
    }
    /// [`ServerLayer::tells_clients`](crate::ServerLayer::tells_clients)
    fn tells_clients(&self) -> bool {
        false
    }
}

/// [`ClientLayer`](crate::ClientLayer), as it crosses.
#[sabi_trait]
pub trait AbiClientLayer: Send + Sync {
    /// [`ClientLayer::on_request`](crate::ClientLayer::on_request)
    #[sabi(last_prefix_field)]
    fn on_request(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
        headers: AbiHeaders<'_>,
    ) -> ROption<ExchangeObject>;
}

/// [`Headers`](crate::Headers), as they cross: the host's side of an outgoing request's headers.
#[sabi_trait]
pub trait AbiHeaderMap {
    /// [`Headers::set`](crate::Headers::set)
    fn set(&mut self, name: RStr<'_>, value: RStr<'_>);
    /// [`Headers::remove`](crate::Headers::remove)
    #[sabi(last_prefix_field)]
    fn remove(&mut self, name: RStr<'_>);
    /// [`Headers::append`](crate::Headers::append)
    fn append(&mut self, name: RStr<'_>, value: RStr<'_>) {
        let _ = (name, value);
    }
}

/// [`Plugin`](crate::Plugin), as it crosses.
#[sabi_trait]
pub trait AbiPlugin: Send + Sync {
    /// [`Plugin::server_layer`](crate::Plugin::server_layer)
    fn server_layer(&self) -> ROption<ServerLayerObject>;
    /// [`Plugin::client_layer`](crate::Plugin::client_layer)
    fn client_layer(&self) -> ROption<ClientLayerObject>;
    /// [`Plugin::state`](crate::Plugin::state)
    fn state(&self) -> State;
    /// [`Plugin::status`](crate::Plugin::status)
    fn status(&self) -> RString;
    /// How many panics were caught in the library.
    fn panics(&self) -> u64;
    /// [`Plugin::check`](crate::Plugin::check)
    fn check(&self, timeout_millis: u64) -> RResult<(), PluginError>;
    /// [`Plugin::flush`](crate::Plugin::flush)
    fn flush(&self, timeout_millis: u64) -> RResult<(), PluginError>;
    /// [`Plugin::shutdown`](crate::Plugin::shutdown)
    #[sabi(last_prefix_field)]
    fn shutdown(&self, timeout_millis: u64) -> RResult<(), PluginError>;
    /// [`Plugin::metrics`](crate::Plugin::metrics)
    fn metrics(&self, visitor: AbiMetrics<'_>) {
        let _ = visitor;
    }
    /// [`Plugin::LIVE_SETTINGS`](crate::Plugin::LIVE_SETTINGS)
    fn live_settings(&self) -> RVec<RStr<'static>> {
        RVec::new()
    }
    /// [`Plugin::reconfigure`](crate::Plugin::reconfigure)
    fn reconfigure(&self, settings: RStr<'_>) -> RResult<(), PluginError> {
        let _ = settings;
        RErr(PluginError::new(ErrorKind::OTHER, "it takes no settings while it runs"))
    }
    /// [`Plugin::telemetry`](crate::Plugin::telemetry)
    fn telemetry(&self) -> ROption<TelemetryObject> {
        RNone
    }
}

/// [`Host`](crate::Host), as it crosses.
#[sabi_trait]
pub trait AbiHost: Send + Sync {
    /// [`Host::log`](crate::Host::log)
    fn log(&self, level: Level, target: RStr<'_>, message: RStr<'_>);
    /// [`Host::service`](crate::Host::service)
    #[sabi(last_prefix_field)]
    fn service(&self) -> Service;
    /// [`Host::metrics`](crate::Host::metrics)
    fn metrics(&self, visitor: AbiMetrics<'_>) {
        let _ = visitor;
    }
    /// [`Host::folder`](crate::Host::folder)
    fn folder(&self) -> RString {
        RString::new()
    }
}

/// [`Visit`](crate::metrics::Visit), as it crosses.
#[sabi_trait]
pub trait AbiMetricVisitor {
    /// Takes one metric, which is borrowed for the call.
    #[sabi(last_prefix_field)]
    fn metric(&mut self, metric: &Metric<'_>);
}

/// [`Telemetry`](crate::telemetry::Telemetry), as it crosses.
#[sabi_trait]
pub trait AbiTelemetry: Send + Sync {
    /// [`Telemetry::span_level`](crate::telemetry::Telemetry::span_level)
    fn span_level(&self) -> ROption<Level>;
    /// [`Telemetry::event_level`](crate::telemetry::Telemetry::event_level)
    fn event_level(&self) -> ROption<Level>;
    /// [`Telemetry::unsampled`](crate::telemetry::Telemetry::unsampled)
    fn unsampled(&self) -> bool;
    /// [`Telemetry::on_span`](crate::telemetry::Telemetry::on_span)
    fn on_span(&self, head: &SpanHead<'_>, parent: &Context) -> AbiBegun;
    /// [`Telemetry::on_event`](crate::telemetry::Telemetry::on_event)
    #[sabi(last_prefix_field)]
    fn on_event(&self, event: &Event<'_>, context: &Context);
}

/// [`Span`](crate::telemetry::Span), as it crosses.
#[sabi_trait]
pub trait AbiSpan: Send {
    /// [`Span::on_record`](crate::telemetry::Span::on_record)
    fn on_record(&mut self, fields: Fields<'_>);
    /// [`Span::on_event`](crate::telemetry::Span::on_event)
    fn on_event(&mut self, event: &Event<'_>);
    /// [`Span::on_follows_from`](crate::telemetry::Span::on_follows_from)
    #[sabi(last_prefix_field)]
    fn on_follows_from(&mut self, context: &Context);
}

/// An [`Exchange`](crate::Exchange) behind the boundary.
pub type ExchangeObject = AbiExchange_TO<'static, RBox<()>>;
/// A [`ServerLayer`](crate::ServerLayer) behind the boundary.
pub type ServerLayerObject = AbiServerLayer_TO<'static, RBox<()>>;
/// A [`ClientLayer`](crate::ClientLayer) behind the boundary.
pub type ClientLayerObject = AbiClientLayer_TO<'static, RBox<()>>;
/// A [`Plugin`](crate::Plugin) behind the boundary.
pub type PluginObject = AbiPlugin_TO<'static, RBox<()>>;
/// A [`Host`](crate::Host) behind the boundary.
pub type HostObject = AbiHost_TO<'static, RBox<()>>;
/// A [`Telemetry`](crate::telemetry::Telemetry) behind the boundary.
pub type TelemetryObject = AbiTelemetry_TO<'static, RBox<()>>;
/// A [`Span`](crate::telemetry::Span) behind the boundary.
pub type SpanObject = AbiSpan_TO<'static, RBox<()>>;
/// Headers that the host lends for one call.
pub type AbiHeaders<'a> = AbiHeaderMap_TO<'a, abi_stable::RMut<'a, ()>>;
/// A visitor that whoever asks for metrics lends for one call.
pub type AbiMetrics<'a> = AbiMetricVisitor_TO<'a, abi_stable::RMut<'a, ()>>;

/// [`Accepted`](crate::Accepted), as it crosses.
#[repr(C)]
#[derive(StableAbi)]
#[allow(missing_debug_implementations, reason = "an object has nothing to print")]
pub struct AbiAccepted {
    /// [`Accepted::context`](crate::Accepted::context)
    pub context: Context,
    /// [`Accepted::exchange`](crate::Accepted::exchange)
    pub exchange: ROption<ExchangeObject>,
}

/// [`Begun`](crate::telemetry::Begun), as it crosses.
#[repr(C)]
#[derive(StableAbi)]
#[allow(missing_debug_implementations, reason = "an object has nothing to print")]
pub struct AbiBegun {
    /// [`Begun::context`](crate::telemetry::Begun::context)
    pub context: Context,
    /// [`Begun::span`](crate::telemetry::Begun::span)
    pub span: ROption<SpanObject>,
}
