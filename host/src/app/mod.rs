//! The order of a start, one screen.

mod listen;
mod load;
mod stop;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use plugin_api::{ErrorKind, PluginError};
use serde_json::Value as Json;
use tokio_util::task::AbortOnDropHandle;
use tower::{BoxError, service_fn};

use self::{
    listen::listen,
    load::Loaded,
    stop::{stop, stop_plugin},
};
use crate::{
    Body, Client, Error, Identity, Plugin,
    admin::{Admin, Phase, Started},
    config::{Backend, BaseUrl, Config, ConfigError, Effective, Settings},
    discovery::{Fleet, Instance},
    layers::StackHooks,
    live::LiveSettings,
    metrics::Metrics,
    server::Server,
    shutdown::{Signals, Stopped},
    stack::{ClientStack, Directory, Handler, Sealed, SealedServerStack, ServerStack},
    telemetry::bridge::BRIDGE,
    tls::{ServerFiles, TlsError},
};

/// How long past its timeout a plugin that keeps none is waited for.
const PLUGIN_GRACE: Duration = Duration::from_millis(500);

/// A host that is not started yet.
#[derive(Debug)]
pub struct App {
    settings: Arc<Settings>,
    identity: Identity,
    client: Client,
    metrics: Arc<Metrics>,
}

/// Everything between the configuration and the listeners.
struct Ready<S> {
    directory: Directory,
    plugin: Option<Arc<Plugin>>,
    refused: Option<Json>,
    tls: Option<ServerFiles>,
    live: LiveSettings,
    server: SealedServerStack<S>,
    client_layers: Vec<String>,
    hooks: StackHooks,
}

impl<S: Sealed> Ready<S> {
    /// What operators are told of it, where the listener got `address`.
    fn tell(&self, address: SocketAddr) -> Started {
        Started {
            address,
            server_layers: self.server.layers().to_vec(),
            client_layers: self.client_layers.clone(),
            directory: self.directory.clone(),
            plugin: self.plugin.clone(),
            refused: self.refused.clone(),
            settings: self.live.current(),
            hooks: self.hooks.clone(),
        }
    }
}

/// What `host check` has found.
#[derive(Debug)]
pub struct Checked {
    /// Every setting in force.
    pub settings: Vec<Effective>,
    /// The server stack, outermost first.
    pub server: Vec<String>,
    /// The client stack, outermost first.
    pub client: Vec<String>,
    /// Whether the plugin reaches what it depends on.
    pub reachable: Result<(), PluginError>,
}

impl App {
    /// A host with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let identity = Identity::new(&settings.config().service);
        let (settings, metrics) = (Arc::new(settings), Arc::new(Metrics::new()));
        Self { settings, identity, client: Client::default(), metrics }
    }

    /// The settings in force.
    #[must_use]
    pub fn config(&self) -> &Config {
        self.settings.config()
    }

    /// The handle that a handler calls other services with.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Starts, serves until a signal, and stops. Logs each step.
    ///
    /// # Errors
    /// Whatever keeps the host from serving; see [`Error`].
    pub async fn run<H, B>(self, handler: H) -> Result<Stopped, Error>
    where
        H: Handler<B>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let began = Instant::now();
        let internal = |source| Error::Internal { what: "cannot listen for signals", source };
        let mut signals = Signals::listen().map_err(internal)?;
        let config = self.settings.config();
        let fleet = self.open_fleet()?;
        let metrics = Arc::clone(&self.metrics);
        let admin = Arc::new(Admin::new(self.identity.clone(), metrics, fleet.health()));
        // A start that waits for a store tells operators so. Any other binds nothing before all that
        // may be wrong was looked at.
        let early = match config.discovery.backend {
            Backend::Static => None,
            _ => Some(serve_admin(&admin, config.admin.listen).await?),
        };
        let ready = tokio::select! {
            ready = self.prepare(handler, &fleet) => ready?,
            signal = signals.next() => {
                tracing::info!(signal, "stopped while starting");
                return Ok(Stopped::Drained);
            }
        };

        let (_admin, admin_address) = match early {
            Some(serving) => serving,
            None => serve_admin(&admin, config.admin.listen).await?,
        };
        let (public, address) = listen("server.listen", config.server.listen).await?;
        admin.started(ready.tell(address));
        let live = tokio::spawn(ready.live.follow(ready.plugin.clone()));
        let live = AbortOnDropHandle::new(live);
        let own = self.instance(address)?;
        let early_end = tokio::select! {
            registered = fleet.register(&own) => registered.map(|()| None)?,
            signal = signals.next() => Some(signal),
        };

        let tls = ready.tls.map(ServerFiles::follow);
        let server = Server::new(public, tls, ready.server.into_service());
        let mut server = server.counted_by(&self.metrics.traffic);
        let signal = match early_end {
            // The store may have the entry by now: this is left as if it had served.
            Some(signal) => signal,
            None => {
                admin.enters(Phase::Serving);
                let took = began.elapsed();
                tracing::info!(server = %address, admin = %admin_address, ?took, "ready");
                server.accept_until(signals.next()).await
            }
        };

        tracing::info!(signal, "stopping: finishing what is open");
        admin.enters(Phase::Draining);
        // The plugin is about to be stopped.
        drop(live);
        let deadline = Instant::now() + config.server.drain_timeout;
        let stopped = tokio::select! {
            stopped = stop(&fleet, server, ready.plugin, &ready.hooks, deadline) => {
                stopped
            }
            signal = signals.next() => {
                tracing::warn!(signal, "a second signal: ending at once");
                Stopped::AtOnce
            }
        };
        tracing::info!("stopped");
        Ok(stopped)
    }

    /// Starts as far as the sealed stack, tries what the plugin depends on, and stops.
    ///
    /// # Errors
    /// Whatever would keep the host from being sealed.
    pub async fn check<H, B>(self, handler: H) -> Result<Checked, Error>
    where
        H: Handler<B>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let config = self.settings.config();
        let fleet = self.open_fleet()?;
        let ready = self.prepare(handler, &fleet).await?;
        let plugin = ready.plugin.clone();
        let timeout = config.client.connect_timeout;
        let reachable = match plugin.clone() {
            Some(plugin) => check_plugin(plugin, timeout).await,
            None => Ok(()),
        };
        let known = plugin.as_ref().map_or(&[][..], |plugin| plugin.settings());
        let settings = ready.live.started().effective(known);
        stop_plugin(plugin, Instant::now()).await;
        let server = ready.server.layers().to_vec();
        Ok(Checked { settings, server, client: ready.client_layers, reachable })
    }

    /// Open stacks, discovery, plugin, splice, seal.
    async fn prepare<H, B>(&self, handler: H, fleet: &Fleet) -> Result<Ready<impl Sealed>, Error>
    where
        H: Handler<B>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let config = self.settings.config();
        let mut server = ServerStack::new(handler, &config.server);
        let tls = config.server.tls.as_ref().map(ServerFiles::read).transpose();
        let tls = tls.map_err(|error| self.wrong_file("server", &error))?;
        let client = ClientStack::new(&config.client);
        let mut client = client.map_err(|error| self.wrong_file("client", &error))?;
        server.measure(&self.metrics.requests);
        client.measure(&self.metrics.calls);
        if config.log.access {
            server.log_access();
        }

        fleet.join().await?;
        let directory = Directory::new(fleet.groups(), &config.client);
        self.metrics.observe(directory.clone(), fleet.health());

        let mut live = LiveSettings::start(&self.settings, fleet);
        let Loaded { plugin, refused } = self.load_plugin(&mut live).await?;
        if let Some(plugin) = &plugin {
            if let Some(layer) = plugin.server_layer() {
                server.splice(plugin.name(), layer);
            }
            if let Some(layer) = plugin.client_layer() {
                client.splice(plugin.name(), layer);
            }
            if let Some(telemetry) = plugin.telemetry() {
                BRIDGE.splice(telemetry);
            }
        }

        let server = server.seal();
        let client = client.seal(directory.clone());
        let client_layers = client.layers().to_vec();
        let hooks = StackHooks { server: server.hooks(), client: client.hooks() };
        self.client.seal(client);
        let refused = refused.map(|error| error.report());
        Ok(Ready { directory, plugin, refused, tls, live, server, client_layers, hooks })
    }

    fn open_fleet(&self) -> Result<Fleet, ConfigError> {
        let fleet = Fleet::open(&self.settings.config().discovery, &self.identity.group);
        fleet.map_err(|(section, error)| self.wrong_file(section, &error))
    }

    /// This process as others are to find it, where the listener got `address`.
    fn instance(&self, address: SocketAddr) -> Result<Instance, ConfigError> {
        let config = self.settings.config();
        let url = config.discovery.advertise.clone();
        let scheme = if config.server.tls.is_some() { "https" } else { "http" };
        let url = url.map_or_else(|| BaseUrl::try_from(format!("{scheme}://{address}")), Ok);
        let url = url.map_err(|message| self.settings.error("discovery.advertise", message))?;
        Ok(Instance::own(&self.identity, url, config.service.labels.clone()))
    }

    fn wrong_file(&self, section: &str, error: &TlsError) -> ConfigError {
        self.settings.error(&format!("{section}.tls.{}", error.key), error)
    }
}

/// Serves the operators' endpoints until the handle is dropped, during the drain too. Answers the
/// address, too.
async fn serve_admin(
    admin: &Arc<Admin>,
    address: SocketAddr,
) -> Result<(AbortOnDropHandle<()>, SocketAddr), Error> {
    let (listener, address) = listen("admin.listen", address).await?;
    let admin = Arc::clone(admin);
    let service = service_fn(move |request: Request<Body>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(admin.answer(&request.into_parts().0).await) }
    });
    let serving = tokio::spawn(async move {
        let mut server = Server::new(listener, None, service);
        server.accept_until(std::future::pending::<()>()).await;
    });
    Ok((AbortOnDropHandle::new(serving), address))
}

/// Whether the plugin reaches what it depends on. It keeps the timeout itself; the grace is for the
/// one that does not.
async fn check_plugin(plugin: Arc<Plugin>, timeout: Duration) -> Result<(), PluginError> {
    let checked = blocking(move || plugin.check(timeout));
    match tokio::time::timeout(timeout + PLUGIN_GRACE, checked).await {
        Ok(Some(checked)) => checked,
        Ok(None) => Err(PluginError::new(ErrorKind::PANIC, "its check could not be made")),
        Err(_) => {
            let message = format_args!("its check did not end within {timeout:?}");
            Err(PluginError::new(ErrorKind::TIMEOUT, message))
        }
    }
}

/// Runs what blocks off the threads that serve; `None` when it panicked, which is logged by then.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
