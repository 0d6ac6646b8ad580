//! The order of a start and of a stop, one screen.

use std::{
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use plugin_api::PluginError;
use tokio::{net::TcpListener, sync::watch};
use tower::{BoxError, service_fn};

use crate::{
    Body, Client, Error, Identity, Plugin,
    admin::{Admin, Phase, SlowHookCounts},
    config::{Config, Effective, Settings},
    discovery::{self, Discovery},
    plugin::{self, LoadError},
    server::{Draining, Server},
    shutdown::{Signals, Stopped},
    stack::{ClientStack, Directory, Handler, Sealed, SealedServerStack, ServerStack},
};

/// The least time that a plugin has to flush, also when the drain took all of its own.
const LEAST_FLUSH: Duration = Duration::from_secs(2);

/// A host that is not started yet.
#[derive(Debug)]
pub struct App {
    settings: Settings,
    identity: Identity,
    client: Client,
}

/// Everything between the configuration and the listeners.
struct Ready<S> {
    discovery: Box<dyn Discovery>,
    directory: Directory,
    plugin: Option<Arc<Plugin>>,
    server: SealedServerStack<S>,
    client_layers: Vec<String>,
    slow_hooks: SlowHookCounts,
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
        Self { settings, identity, client: Client::default() }
    }

    /// The settings in force.
    #[must_use]
    pub const fn config(&self) -> &Config {
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
        let ready = self.prepare(handler).await?;

        let config = self.settings.config();
        let admin_listener = listen("admin.listen", config.admin.listen).await?;
        let listener = listen("server.listen", config.server.listen).await?;
        let (phase, phases) = watch::channel(Phase::Starting);
        let admin =
            serve_admin(&self.identity, &ready, config.server.listen, admin_listener, phases);
        ready.discovery.register(&self.identity, config.server.listen).await?;
        phase.send_replace(Phase::Serving);
        tracing::info!(
            server = %config.server.listen,
            admin = %config.admin.listen,
            took = ?began.elapsed(),
            "ready"
        );

        let server = Server::new(listener, ready.server.into_service());
        let (signal, draining) = server.accept_until(signals.next()).await;

        tracing::info!(signal, "stopping: finishing what is open");
        phase.send_replace(Phase::Draining);
        if let Err(error) = ready.discovery.deregister().await {
            tracing::warn!("{error}");
        }
        let deadline = Instant::now() + config.server.drain_timeout;
        let stopped = drain(draining, deadline, signals.next()).await;
        if stopped != Stopped::AtOnce {
            stop_plugin(ready.plugin, deadline).await;
        }
        admin.abort();
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
        let ready = self.prepare(handler).await?;
        let plugin = ready.plugin.clone();
        let timeout = self.settings.config().client.connect_timeout;
        let reachable = match plugin.clone() {
            Some(plugin) => blocking(move || plugin.check(timeout)).await.unwrap_or(Ok(())),
            None => Ok(()),
        };
        let known = plugin.as_ref().map_or(&[][..], |plugin| plugin.settings());
        let settings = self.settings.effective(known);
        stop_plugin(plugin, Instant::now()).await;
        let server = ready.server.layers().to_vec();
        Ok(Checked { settings, server, client: ready.client_layers, reachable })
    }

    /// Open stacks, discovery, plugin, splice, seal.
    async fn prepare<H, B>(&self, handler: H) -> Result<Ready<impl Sealed>, Error>
    where
        H: Handler<B>,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let config = self.settings.config();
        let mut server = ServerStack::new(handler, &config.server);
        let mut client = ClientStack::new(&config.client);

        let discovery = discovery::connect(&config.discovery);
        let directory = Directory::new(discovery.watch().await?);

        let plugin = self.load_plugin()?;
        if let Some(plugin) = &plugin {
            if let Some(layer) = plugin.server_layer() {
                server.splice(plugin.name(), layer);
            }
            if let Some(layer) = plugin.client_layer() {
                client.splice(plugin.name(), layer);
            }
        }

        let server = server.seal();
        let client = client.seal(directory.clone());
        let client_layers = client.layers().to_vec();
        let slow_hooks =
            SlowHookCounts { server: server.slow_hooks(), client: client.slow_hooks() };
        self.client.seal(client);
        Ok(Ready { discovery, directory, plugin, server, client_layers, slow_hooks })
    }

    /// The plugin where one is wanted and can be had.
    fn load_plugin(&self) -> Result<Option<Arc<Plugin>>, LoadError> {
        let otel = &self.settings.config().otel;
        if !otel.enabled {
            return Ok(None);
        }
        let began = Instant::now();
        match plugin::load(&self.settings, &self.identity) {
            Ok(plugin) => {
                tracing::info!(took = ?began.elapsed(), "otel plugin: loaded {plugin}");
                Ok(Some(Arc::new(plugin)))
            }
            Err(error @ LoadError::Setting(_)) => Err(error),
            Err(error) if otel.required => Err(error),
            Err(error) => {
                tracing::warn!("{error}; going on without tracing");
                Ok(None)
            }
        }
    }
}

async fn listen(key: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|source| Error::Listen { key, address, source })
}

/// Serves the operators' endpoints until it is aborted, during the drain too.
fn serve_admin<S: Sealed>(
    identity: &Identity,
    ready: &Ready<S>,
    address: SocketAddr,
    listener: TcpListener,
    phase: watch::Receiver<Phase>,
) -> tokio::task::JoinHandle<()> {
    let admin = Arc::new(Admin {
        identity: identity.clone(),
        address,
        server_layers: ready.server.layers().to_vec(),
        client_layers: ready.client_layers.clone(),
        directory: ready.directory.clone(),
        plugin: ready.plugin.clone(),
        slow_hooks: ready.slow_hooks.clone(),
        phase,
    });
    let service = service_fn(move |request: Request<Body>| {
        let admin = Arc::clone(&admin);
        async move { admin.answer(&request) }
    });
    tokio::spawn(async move {
        Server::new(listener, service).accept_until(std::future::pending::<()>()).await;
    })
}

/// Waits for the open requests, but not past the deadline nor past a second signal.
async fn drain(
    mut draining: Draining,
    deadline: Instant,
    second_signal: impl Future<Output = &'static str>,
) -> Stopped {
    let stopped = tokio::select! {
        () = draining.drain() => Stopped::Drained,
        () = tokio::time::sleep_until(deadline.into()) => {
            tracing::warn!("the drain deadline passed; cutting what is still open");
            Stopped::DeadlinePassed
        }
        signal = second_signal => {
            tracing::warn!(signal, "a second signal: ending at once");
            return Stopped::AtOnce;
        }
    };
    draining.cut().await;
    stopped
}

/// Flushes and stops the plugin, within what is left until the deadline.
async fn stop_plugin(plugin: Option<Arc<Plugin>>, deadline: Instant) {
    let Some(plugin) = plugin else { return };
    let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_FLUSH);
    blocking(move || plugin.stop(left)).await;
}

/// Runs what blocks off the threads that serve; `None` when it panicked, which is logged by then.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
