//! The plugin's side of an exchange: every hook of it, called while hooks are.

use std::{cell::RefCell, sync::Arc};

use http::{HeaderMap, Method, Response, StatusCode};
use plugin_api::{Context, End, Outcome, ResponseHead, abi::ExchangeObject};

use super::{
    Hooks,
    exchange::{Exchange, Follower, State},
    head,
    meter::Meter,
    tunnel,
};
use crate::{Body, connect::Via};

/// What the plugin answered to a request head, and what the host measures itself.
pub(super) struct Recorder {
    /// `None` where the plugin does not record it.
    plugin: Option<ExchangeObject>,
    /// `None` for what is more, or less, than an exchange.
    meter: Option<Meter>,
    hooks: Arc<Hooks>,
    is_connect: bool,
    /// The connection of an attempt, until its head has told it.
    via: Via,
}

/// How many boxes of exchanges a thread keeps for the next ones.
const MOST_KEPT: usize = 64;

/// Boxed, because each goes from here to its exchange and back and is not copied.
type Boxes = Vec<Box<State<Recorder>>>;

thread_local! {
    /// Without them, the boxes of both sides would be the only allocations of a request that is not
    /// recorded.
    static KEPT: RefCell<Boxes> = const { RefCell::new(Boxes::new()) };
}

/// An exchange that is measured, and that the plugin may record.
pub(super) type Recorded = Exchange<Recorder>;

impl Recorder {
    /// The exchange of a request of this method.
    pub(super) fn follow(
        plugin: Option<ExchangeObject>,
        meter: Meter,
        hooks: &Arc<Hooks>,
        method: &Method,
    ) -> Recorded {
        let is_connect = method == Method::CONNECT;
        let meter = Some(meter);
        let (hooks, via) = (Arc::clone(hooks), Via::UNKNOWN);
        Exchange::new(Self { plugin, meter, hooks, is_connect, via }, method)
    }

    /// What the plugin has answered in place of this.
    fn successor(&self, plugin: ExchangeObject) -> Self {
        let hooks = Arc::clone(&self.hooks);
        let (is_connect, via) = (self.is_connect, Via::UNKNOWN);
        Self { plugin: Some(plugin), meter: None, hooks, is_connect, via }
    }

    /// Runs a hook of the exchange where it is recorded, unless the plugin is stopped.
    fn hook<R>(&mut self, hook: impl FnOnce(&mut ExchangeObject) -> R) -> Option<R> {
        let plugin = self.plugin.as_mut()?;
        self.hooks.call(|| hook(plugin))
    }

    /// Where the connection of this attempt is to be told.
    pub(super) const fn via(&mut self) -> &mut Via {
        &mut self.via
    }

    /// The end as the plugin is told it.
    fn told(&self, end: &End) -> End {
        match self.via {
            Via { peer, is_pooled: Some(is_pooled) } => end.over(peer).over_pooled(is_pooled),
            Via { is_pooled: None, .. } => *end,
        }
    }

    pub(super) fn route(&mut self, route: &Arc<str>) {
        if let Some(meter) = &mut self.meter {
            meter.route(route);
        }
        self.hook(|plugin| plugin.on_route((&**route).into()));
    }

    /// The context that the plugin has made for it.
    pub(super) fn context(&mut self) -> Context {
        self.hook(|plugin| plugin.context()).unwrap_or_default()
    }

    /// Its measurements may name this span, if it is recorded and sampled.
    pub(super) fn measured_in(&mut self, context: &Context) {
        if let (Some(meter), Some(_)) = (&mut self.meter, &self.plugin) {
            meter.sampled_as(context.span());
        }
    }

    /// Whether the connection no longer speaks HTTP after a response of this status.
    pub(super) fn ends_http(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self.is_connect && status.is_success())
    }
}

impl Follower for Recorder {
    fn on_response(&mut self, response: &Response<Body>, via: Via) {
        let is_tunnel = self.ends_http(response.status());
        if let Some(meter) = &mut self.meter {
            meter.answered(response, is_tunnel);
        }
        self.hook(|plugin| {
            head::with_headers(response.headers(), |headers| {
                let head = ResponseHead::new(response.status().as_u16(), headers);
                let head = head.over(head::version(response.version()), via.peer);
                plugin.on_response(
                    &via.is_pooled.map_or(head, |is_pooled| head.over_pooled(is_pooled)),
                );
            });
        });
    }

    fn on_trailers(&mut self, trailers: &HeaderMap) {
        self.hook(|plugin| {
            head::with_headers(trailers, |trailers| plugin.on_trailers(trailers.into()));
        });
    }

    fn kept() -> Option<Box<State<Self>>> {
        // Where a thread ends nothing is kept any more.
        KEPT.try_with(|kept| kept.borrow_mut().pop()).ok().flatten()
    }

    fn keep(mut state: Box<State<Self>>) {
        state.follower.plugin = None;
        _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < MOST_KEPT {
                kept.push(state);
            }
        });
    }

    fn on_end(&mut self, end: &End) {
        // Gone with its measurement: an incoming request is active no more.
        if let Some(mut meter) = self.meter.take() {
            meter.end(end);
        }
        if self.plugin.is_some() {
            let end = self.told(end);
            self.hook(|plugin| plugin.on_end(&end));
        }
    }
}

impl Exchange<Recorder> {
    /// Tells that this attempt is over and another one follows; the answer is the whole call.
    pub(super) fn retry(mut self, outcome: Outcome) -> Option<Self> {
        let end = self.close(outcome);
        let attempt = self.follower();
        if let Some(mut meter) = attempt.meter.take() {
            meter.end(&end);
        }
        let end = attempt.told(&end);
        let whole = attempt.hook(|plugin| plugin.on_retry(&end).into_option()).flatten()?;
        let whole = attempt.successor(whole);
        Some(self.succeeded_by(whole))
    }

    /// Tells the head of the response that ends HTTP; what the plugin answers follows the tunnel.
    pub(super) fn upgrade(mut self, response: &Response<Body>) {
        self.follower().on_response(response, Via::UNKNOWN);
        match response.extensions().get::<tunnel::Followed>() {
            Some(tunnel) => tunnel.by(self.upgraded()),
            // A handler has taken the connection by itself: nobody can tell its end.
            None => self.end(Outcome::COMPLETE),
        }
    }

    fn upgraded(&mut self) -> Option<Self> {
        self.close(Outcome::COMPLETE);
        let request = self.follower();
        // A tunnel is no active request.
        request.meter = None;
        let tunnel = request.hook(|plugin| plugin.on_upgrade().into_option()).flatten()?;
        let tunnel = request.successor(tunnel);
        Some(self.succeeded_by(tunnel))
    }

    /// Tells the end of a tunnel, with the bytes from the client and to it.
    pub(super) fn end_tunnel(mut self, outcome: Outcome, up: u64, down: u64) {
        self.close(outcome);
        self.follower().on_end(&End::new(outcome, up, down));
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::{
        metrics::{Requests, testing::allocations},
        telemetry::context,
    };

    /// An exchange that the plugin does not record.
    fn unrecorded(requests: &Arc<Requests>, hooks: &Arc<Hooks>) -> Recorded {
        let request = Request::new(Body::empty());
        let meter = Meter::of_request(requests.begin(&request, false, 0));
        Recorder::follow(None, meter, hooks, request.method())
    }

    fn answered(exchange: Recorded) -> Response<Body> {
        let mut response = Response::new(Body::from("hello"));
        exchange.respond(&mut response, http::Version::HTTP_11, Via::UNKNOWN);
        response
    }

    #[test]
    fn what_is_not_recorded_allocates_nothing_once_others_have_ended() {
        let (requests, hooks) = Default::default();
        let exchange = || {
            let mut exchange = unrecorded(&requests, &hooks);
            exchange.current().begin(Context::default());
            drop(answered(exchange));
        };
        exchange();
        assert_eq!(allocations(|| (0..1000).for_each(|_| exchange())), 0);
        // One without a response takes its box with it.
        drop(unrecorded(&requests, &hooks));
        assert_eq!(allocations(exchange), 2, "the box and the context's");
    }

    #[test]
    fn a_thread_keeps_so_many_boxes_and_no_more() {
        let (requests, hooks) = Default::default();
        let all = (0..2 * MOST_KEPT).map(|_| answered(unrecorded(&requests, &hooks)));
        drop(all.collect::<Vec<_>>());
        assert_eq!(KEPT.with_borrow(Vec::len), MOST_KEPT);
    }

    #[test]
    fn a_box_that_is_kept_holds_nothing_of_its_exchange() {
        let (requests, hooks) = Default::default();
        let route = Arc::<str>::from("/{x}");
        let mut exchange = unrecorded(&requests, &hooks);
        exchange.current().begin(Context::default());
        context::enter(exchange.current(), || context::set_route(&route));
        drop(answered(exchange));
        assert_eq!(Arc::strong_count(&route), 1);
        let mut next = unrecorded(&requests, &hooks);
        assert!(next.current().outer().is_none(), "the next one works for nobody yet");
    }
}
