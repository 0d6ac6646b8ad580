//! The hooks that a plugin may offer: its layers, and the exchanges that these follow.
//!
//! The host owns the tower layers, futures and bodies. A plugin is called at three moments of an
//! exchange: the request head, the response head, the end; and where a body has trailers, an attempt
//! is repeated or a connection changes its protocol, then too. All hooks are synchronous, may be
//! called on any host thread, and delay the request by what they take: no blocking I/O in a hook.
//! Each is called at the moment that it tells of. Where the host has read the clock for it, it says so,
//! see [`RequestHead::monotonic`]; a plugin that wants other times reads its own.

use std::fmt;

use abi_stable::std_types::RStr;

use crate::{
    abi::AbiHeaders,
    context::Context,
    http::{End, Header, Outcome, RequestHead, ResponseHead},
};

/// The headers of a message that the host sends, for the length of one call of
/// [`ClientLayer::on_request`] or [`ServerLayer::on_response`].
///
/// Names and values are checked by the host; one that HTTP does not allow is dropped and logged.
pub struct Headers<'a>(AbiHeaders<'a>);

impl<'a> Headers<'a> {
    /// Headers that were [lent](crate::adapter::lend_headers); tests of a plugin start here.
    #[must_use]
    pub const fn new(lent: AbiHeaders<'a>) -> Self {
        Self(lent)
    }

    /// Sets `name` to `value`, in place of every line of that name.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.set(RStr::from_str(name), RStr::from_str(value));
    }

    /// Takes every line of `name` out.
    pub fn remove(&mut self, name: &str) {
        self.0.remove(RStr::from_str(name));
    }

    /// Adds a line to those of `name`. Since 1.1: an older host does nothing.
    pub fn append(&mut self, name: &str, value: &str) {
        self.0.append(RStr::from_str(name), RStr::from_str(value));
    }
}

impl fmt::Debug for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Headers")
    }
}

/// One exchange that a plugin follows: called from one thread at a time, not always the same.
///
/// The host calls `on_response` at most once and then `on_end` at most once; `on_retry` or
/// `on_upgrade` stand in its place where the exchange goes on in another form. A value that is
/// dropped without any of them belongs to an exchange that was cancelled.
///
/// What is marked "since 1.1" is never called by an older host.
pub trait Exchange: Send + 'static {
    /// The route template that matched (`/users/{id}`), as soon as it is known. Servers only.
    fn on_route(&mut self, route: &str) {
        let _ = route;
    }

    /// The response head is about to be sent (server) or has come (client).
    fn on_response(&mut self, head: &ResponseHead<'_>) {
        let _ = head;
    }

    /// The exchange is over.
    fn on_end(&mut self, end: &End) {
        let _ = end;
    }

    /// Trailers came after the response's body; `on_end` follows. Since 1.1.
    fn on_trailers(&mut self, trailers: &[Header<'_>]) {
        let _ = trailers;
    }

    /// The context that the exchange has made. Since 1.1, and only asked of what `on_retry` answered:
    /// it is the parent of the attempts that follow.
    fn context(&self) -> Context {
        Context::default()
    }

    /// This attempt of a call is over, as `end` says, and the host will make another. Since 1.1;
    /// clients only, and only for the first attempt of a call.
    ///
    /// `Some` is the whole call, which began with this attempt and which the host ends after its
    /// last one; each further attempt comes to [`ClientLayer::on_request`] with that as its parent.
    fn on_retry(&mut self, end: &End) -> Option<Self>
    where
        Self: Sized,
    {
        self.on_end(end);
        None
    }

    /// The connection now speaks another protocol: the response was a 101, or CONNECT succeeded
    /// (RFC 9110, sections 7.8 and 9.3.6). The exchange is over, as complete. Since 1.1.
    ///
    /// `Some` follows what the connection is used for from now on. Its `on_end` has the bytes of
    /// both directions: those from the client as `request_bytes`, those to it as `response_bytes`.
    fn on_upgrade(&mut self) -> Option<Self>
    where
        Self: Sized,
    {
        self.on_end(&End::new(Outcome::COMPLETE, 0, 0));
        None
    }
}

/// Follows nothing: the exchange type of a plugin without exchanges.
impl Exchange for () {}

/// What a plugin answers to an incoming request.
#[derive(Debug)]
pub struct Accepted<E> {
    /// The context of this exchange, sampled or not: the parent of every call made for it.
    pub context: Context,
    /// Where the rest of the exchange is to be told; `None` when it is not recorded.
    pub exchange: Option<E>,
}

/// A plugin's part in every incoming request.
pub trait ServerLayer: Send + Sync + 'static {
    /// Follows one exchange.
    type Exchange: Exchange;

    /// Whether a plugin of this type offers a layer at all; only [`NoLayer`] says no.
    const OFFERED: bool = true;

    /// A request head has come and nothing has been done with it yet.
    fn on_request(&self, head: &RequestHead<'_>) -> Accepted<Self::Exchange>;

    /// The response to a request is about to be sent, recorded or not: headers that tell the client
    /// of its trace may be put in `headers`. `context` is the one that `on_request` answered.
    /// Since 1.1: an older host never calls it.
    fn on_response(&self, context: &Context, headers: &mut Headers<'_>) {
        let _ = (context, headers);
    }

    /// Whether [`on_response`](ServerLayer::on_response) has anything to tell. Asked once, when the
    /// layer is spliced: where it has not, it is not called. Since 1.1.
    fn tells_clients(&self) -> bool {
        true
    }
}

/// A plugin's part in every outgoing request, each attempt of a retried call included.
pub trait ClientLayer: Send + Sync + 'static {
    /// Follows one exchange.
    type Exchange: Exchange;

    /// Whether a plugin of this type offers a layer at all; only [`NoLayer`] says no.
    const OFFERED: bool = true;

    /// A request is about to be sent: put the context's headers in `headers`.
    ///
    /// `parent` is the context of the exchange that the call is made for; its span is invalid when
    /// there is none. `None` when the attempt is not recorded.
    fn on_request(
        &self,
        head: &RequestHead<'_>,
        parent: &Context,
        headers: &mut Headers<'_>,
    ) -> Option<Self::Exchange>;
}

/// The layer type of a plugin that offers none.
#[derive(Debug)]
pub enum NoLayer {}

impl ServerLayer for NoLayer {
    type Exchange = ();
    const OFFERED: bool = false;

    fn on_request(&self, _: &RequestHead<'_>) -> Accepted<()> {
        match *self {}
    }
}

impl ClientLayer for NoLayer {
    type Exchange = ();
    const OFFERED: bool = false;

    fn on_request(&self, _: &RequestHead<'_>, _: &Context, _: &mut Headers<'_>) -> Option<()> {
        match *self {}
    }
}
