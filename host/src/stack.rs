//! The two stacks of tower layers: open while the host starts, sealed when it serves.
//!
//! Outermost first:
//!
//! | server stack | why it sits there |
//! | --- | --- |
//! | the plugin's layer | a shed, a timeout and a panic are traced as the responses they become |
//! | access-log | only with `log.access`: a line for each request, in the context of its exchange |
//! | request-id | every answer has an id, refusals included |
//! | catch-panic | a handler that panics answers with 500 |
//! | error-status | the one place where an error becomes a status code; a request without one valid `Host` is one |
//! | load-shed | answers at once when the limit below is reached |
//! | in-flight-limit | counts requests that have no response head yet |
//! | timeout | a handler's time, without any time in a queue |
//! | routes | the handler |
//!
//! | client stack | why it sits there |
//! | --- | --- |
//! | retry | each attempt is balanced, timed and traced by itself |
//! | balance | chooses an instance before the clock runs |
//! | timeout | one attempt's time |
//! | the plugin's layer | sees each attempt as it goes on the wire |
//! | http | connections and their pool |
//!
//! An open stack takes layers:
//!
//! ```
//! # fn example(mut stack: host::stack::ClientStack, layer: plugin_api::abi::ClientLayerObject,
//! #            directory: impl Fn() -> host::stack::Directory) {
//! stack.splice("otel", layer);
//! let sealed = stack.seal(directory());
//! # }
//! ```
//!
//! `seal` consumes it, and what it gives has no `splice`:
//!
//! ```compile_fail,E0382
//! # fn example(mut stack: host::stack::ClientStack, layer: plugin_api::abi::ClientLayerObject,
//! #            directory: impl Fn() -> host::stack::Directory) {
//! let sealed = stack.seal(directory());
//! stack.splice("otel", layer); // use of moved value: an open stack no longer exists
//! # }
//! ```
//!
//! ```compile_fail,E0599
//! # fn example(mut stack: host::stack::ClientStack, layer: plugin_api::abi::ClientLayerObject,
//! #            directory: impl Fn() -> host::stack::Directory) {
//! let mut sealed = stack.seal(directory());
//! sealed.splice("otel", layer); // no such method
//! # }
//! ```

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use plugin_api::abi::{ClientLayerObject, ServerLayerObject};
use tower::{
    BoxError, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, util::Either,
};

use crate::{
    Body, CallError, config,
    connect::HttpClient,
    discovery::{Chosen, Member, Nobody},
    layers::{
        AccessLog, Attempts, CatchPanicLayer, ClientExchange, ErrorStatusLayer, Failed, Hooks,
        RequestIdLayer, Retries, ServerExchange, TimeoutLayer,
    },
    metrics::{Calls, Requests},
    tls::{ClientFiles, TlsError},
};

pub use crate::discovery::Directory;

/// Whatever answers requests: any [`tower::Service`] over [`Body`], an axum router among them.
pub trait Handler<B>:
    Service<Request<Body>, Response = Response<B>, Error: Into<BoxError>, Future: Send + 'static>
    + Clone
    + Send
    + 'static
{
}

impl<S, B> Handler<B> for S where
    S: Service<
            Request<Body>,
            Response = Response<B>,
            Error: Into<BoxError>,
            Future: Send + 'static,
        > + Clone
        + Send
        + 'static
{
}

/// A plugin's layer under the name that `GET /stack` shows.
struct Spliced<L> {
    name: String,
    layer: L,
}

/// The layers around a handler, still open.
pub struct ServerStack<H> {
    handler: H,
    max_in_flight: usize,
    request_timeout: Duration,
    logs_access: bool,
    requests: Arc<Requests>,
    spliced: Option<Spliced<ServerLayerObject>>,
}

impl<H> ServerStack<H> {
    /// The stack around `handler`, with the limits of `[server]`.
    pub fn new(handler: H, config: &config::Server) -> Self {
        Self {
            handler,
            max_in_flight: config.max_in_flight.get(),
            request_timeout: config.request_timeout,
            logs_access: false,
            requests: Arc::default(),
            spliced: None,
        }
    }

    /// Where the measurements go that are made beside a plugin's layer.
    pub(crate) fn measure(&mut self, requests: &Arc<Requests>) {
        self.requests = Arc::clone(requests);
    }

    /// Logs every request at its end.
    pub const fn log_access(&mut self) {
        self.logs_access = true;
    }

    /// Puts a plugin's layer outermost, in place of one that was spliced before.
    pub fn splice(&mut self, name: &str, layer: ServerLayerObject) {
        self.spliced = Some(Spliced { name: name.to_owned(), layer });
    }

    /// Closes the stack: the only thing that serves.
    pub fn seal<B>(self) -> SealedServerStack<impl Sealed>
    where
        H: Handler<B>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let handler = self
            .handler
            .map_response(|response: Response<B>| response.map(Body::new))
            .map_err(Into::<BoxError>::into);
        let service = ServiceBuilder::new()
            .layer(RequestIdLayer::new())
            .layer(CatchPanicLayer)
            .layer(ErrorStatusLayer)
            .load_shed()
            .layer(GlobalConcurrencyLimitLayer::new(self.max_in_flight))
            .layer(TimeoutLayer(self.request_timeout))
            .service(handler);
        let access_log = self.logs_access.then(|| "access-log".to_owned());
        let own = access_log.into_iter().chain(SERVER_LAYERS.map(str::to_owned));
        let service = match self.logs_access {
            true => Either::Left(AccessLog(service)),
            false => Either::Right(service),
        };
        match self.spliced {
            None => SealedServerStack { service: Either::Right(service), layers: own.collect() },
            Some(Spliced { name, layer }) => SealedServerStack {
                service: Either::Left(ServerExchange::new(service, layer, self.requests)),
                layers: std::iter::once(name).chain(own).collect(),
            },
        }
    }
}

const SERVER_LAYERS: [&str; 7] = [
    "request-id",
    "catch-panic",
    "error-status",
    "load-shed",
    "in-flight-limit",
    "timeout",
    "routes",
];

impl<H> std::fmt::Debug for ServerStack<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerStack (open)")
    }
}

/// A service that always answers.
pub trait Sealed:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Sealed for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The layers around a handler, closed. Without a plugin it holds no trace of one but the side of
/// an enum.
pub struct SealedServerStack<S> {
    service: Either<ServerExchange<S>, S>,
    layers: Vec<String>,
}

impl<S: Sealed> SealedServerStack<S> {
    /// The names of the layers, outermost first.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    pub(crate) fn hooks(&self) -> Option<Arc<Hooks>> {
        match &self.service {
            Either::Left(spliced) => Some(Arc::clone(spliced.hooks())),
            Either::Right(_) => None,
        }
    }

    /// The service itself.
    pub fn into_service(self) -> impl Sealed {
        self.service
    }
}

impl<S> std::fmt::Debug for SealedServerStack<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealedServerStack").field(&self.layers).finish()
    }
}

/// The layers around outgoing calls, still open.
pub struct ClientStack {
    config: config::Client,
    http: HttpClient,
    calls: Arc<Calls>,
    spliced: Option<Spliced<ClientLayerObject>>,
}

impl ClientStack {
    /// The stack with the limits of `[client]`.
    ///
    /// # Errors
    /// A file of `client.tls` that cannot be used.
    pub fn new(config: &config::Client) -> Result<Self, TlsError> {
        let http = HttpClient::new(config, &ClientFiles::read(&config.tls)?);
        Ok(Self { config: config.clone(), http, calls: Arc::default(), spliced: None })
    }

    /// Where the measurements go that are made beside a plugin's layer.
    pub(crate) fn measure(&mut self, calls: &Arc<Calls>) {
        self.calls = Arc::clone(calls);
    }

    /// Puts a plugin's layer innermost, in place of one that was spliced before.
    pub fn splice(&mut self, name: &str, layer: ClientLayerObject) {
        self.spliced = Some(Spliced { name: name.to_owned(), layer });
    }

    /// Closes the stack; `directory` says where calls go.
    #[must_use]
    pub fn seal(self, directory: Directory) -> SealedClientStack {
        let (name, layer) = self.spliced.map(|spliced| (spliced.name, spliced.layer)).unzip();
        let layers = ["retry", "balance", "timeout"].map(str::to_owned).into_iter();
        SealedClientStack {
            directory,
            retries: Retries::new(self.config.retries),
            timeout: self.config.request_timeout,
            exchange: ClientExchange::new(self.http, layer.map(Arc::new)).measured_by(self.calls),
            layers: layers.chain(name).chain(["http".to_owned()]).collect(),
        }
    }
}

impl std::fmt::Debug for ClientStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientStack (open)")
    }
}

/// The layers around outgoing calls, closed.
pub struct SealedClientStack {
    directory: Directory,
    retries: Retries,
    timeout: Duration,
    exchange: ClientExchange,
    layers: Vec<String>,
}

impl SealedClientStack {
    /// The names of the layers, outermost first.
    #[must_use]
    pub fn layers(&self) -> &[String] {
        &self.layers
    }

    pub(crate) fn hooks(&self) -> Option<Arc<Hooks>> {
        self.exchange.hooks().cloned()
    }

    pub(crate) const fn retries(&self) -> &Retries {
        &self.retries
    }

    /// An instance of the group `service`; none of those that were `tried`, where it has another.
    pub(crate) fn balance(&self, service: &str, tried: &[Member]) -> Result<Chosen, CallError> {
        self.directory.choose(service, tried).map_err(|nobody| {
            let reason = match nobody {
                Nobody::UnknownGroup => "no such service group is known",
                Nobody::EmptyGroup => "the group has no instance now",
            };
            CallError::NoInstance { service: service.to_owned(), reason }
        })
    }

    /// No connection to the instance could be made.
    pub(crate) fn unreachable(&self, service: &str, member: &Member) {
        self.directory.unreachable(service, member);
    }

    pub(crate) const fn timeout(&self) -> Duration {
        self.timeout
    }

    pub(crate) fn send<'a>(
        &'a self,
        service: &str,
        request: &'a mut Request<Body>,
        attempts: &mut Attempts,
    ) -> impl Future<Output = Result<Response<Body>, Failed>> + use<'a> {
        self.exchange.send(service, request, attempts)
    }
}

impl std::fmt::Debug for SealedClientStack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealedClientStack").field(&self.layers).finish()
    }
}
