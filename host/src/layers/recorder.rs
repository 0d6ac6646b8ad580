//! The plugin's side of an exchange: every hook of it, called while hooks are.

use std::sync::Arc;

use http::{HeaderMap, Method, Response, StatusCode, response};
use plugin_api::{Context, End, Outcome, Peer, ResponseHead, abi::ExchangeObject};

use super::{
    Hooks,
    exchange::{Exchange, Follower},
    head, tunnel,
};
use crate::Body;

/// What the plugin answered to a request head.
pub(super) struct Recorder {
    plugin: ExchangeObject,
    hooks: Arc<Hooks>,
    is_connect: bool,
}

/// An exchange that the plugin records.
pub(super) type Recorded = Exchange<Recorder>;

impl Recorder {
    /// The exchange of a request of this method.
    pub(super) fn follow(plugin: ExchangeObject, hooks: &Arc<Hooks>, method: &Method) -> Recorded {
        let is_connect = method == Method::CONNECT;
        Exchange::new(Self { plugin, hooks: Arc::clone(hooks), is_connect }, method)
    }

    /// What the plugin has answered in place of this.
    fn successor(&self, plugin: ExchangeObject) -> Self {
        Self { plugin, hooks: Arc::clone(&self.hooks), is_connect: self.is_connect }
    }

    pub(super) fn route(&mut self, route: &str) {
        self.hooks.call(|| self.plugin.on_route(route.into()));
    }

    /// The context that the plugin has made for it.
    pub(super) fn context(&self) -> Context {
        self.hooks.call(|| self.plugin.context()).unwrap_or_default()
    }

    /// Whether the connection no longer speaks HTTP after a response of this status.
    pub(super) fn ends_http(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success())
    }
}

impl Follower for Recorder {
    fn on_response(&mut self, head: &response::Parts, peer: Peer) {
        let headers = head::headers(&head.headers);
        let told = ResponseHead::new(head.status.as_u16(), &headers);
        let told = told.over(head::version(head.version), peer);
        self.hooks.call(|| self.plugin.on_response(&told));
    }

    fn on_trailers(&mut self, trailers: &HeaderMap) {
        let trailers = head::headers(trailers);
        self.hooks.call(|| self.plugin.on_trailers(trailers.as_slice().into()));
    }

    fn on_end(&mut self, end: &End) {
        self.hooks.call(|| self.plugin.on_end(end));
    }
}

impl Exchange<Recorder> {
    /// Tells that this attempt is over and another one follows; the answer is the whole call.
    pub(super) fn retry(mut self, outcome: Outcome) -> Option<Self> {
        let end = self.close(outcome);
        let Recorder { plugin, hooks, .. } = self.follower();
        let whole = hooks.call(|| plugin.on_retry(&end).into_option()).flatten()?;
        let whole = self.follower().successor(whole);
        Some(self.succeeded_by(whole))
    }

    /// Tells the head of the response that ends HTTP; what the plugin answers follows the tunnel.
    pub(super) fn upgrade(mut self, response: Response<Body>) -> Response<Body> {
        let (parts, body) = response.into_parts();
        self.follower().on_response(&parts, Peer::NONE);
        match parts.extensions.get::<tunnel::Followed>() {
            Some(tunnel) => tunnel.by(self.upgraded()),
            // A handler has taken the connection by itself: nobody can tell its end.
            None => self.end(Outcome::COMPLETE),
        }
        Response::from_parts(parts, body)
    }

    fn upgraded(&mut self) -> Option<Self> {
        self.close(Outcome::COMPLETE);
        let Recorder { plugin, hooks, .. } = self.follower();
        let tunnel = hooks.call(|| plugin.on_upgrade().into_option()).flatten()?;
        let tunnel = self.follower().successor(tunnel);
        Some(self.succeeded_by(tunnel))
    }

    /// Tells the end of a tunnel, with the bytes from the client and to it.
    pub(super) fn end_tunnel(mut self, outcome: Outcome, up: u64, down: u64) {
        self.close(outcome);
        self.follower().on_end(&End::new(outcome, up, down));
    }
}
