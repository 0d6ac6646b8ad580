//! The tracing plugin: from a name in the configuration to a running library, and to its end.

mod elf;
mod error;
mod loader;
mod services;
mod verify;

use std::{
    fmt::Write as _,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use plugin_api::{
    ErrorKind, PluginError, PluginInfo, Setting, State,
    abi::{ClientLayerObject, PluginObject, ServerLayerObject, TelemetryObject},
    adapter::{LentVisitor, lend_visitor},
    metrics::Visit,
};
use serde_json::{Value as Json, json};

pub use error::LoadError;
pub(crate) use loader::{Library, load};

/// How long a plugin may take to look at new settings.
const MOST_RECONFIGURING: Duration = Duration::from_secs(5);

/// A plugin that was created. It stays loaded until the process ends.
pub struct Plugin {
    library: Library,
    object: PluginObject,
    stopped: AtomicBool,
}

impl Plugin {
    /// Opens a library and reads what it says of itself; nothing in it is started.
    ///
    /// # Errors
    /// Why it is no plugin for this host.
    pub fn inspect(file: &std::path::Path) -> Result<Library, LoadError> {
        loader::open(file, None)
    }

    /// The plugin's name: the name of its layers.
    #[must_use]
    pub fn name(&self) -> &str {
        self.library.info.name()
    }

    /// The settings that it knows.
    #[must_use]
    pub fn settings(&self) -> &'static [Setting] {
        self.library.info.settings()
    }

    /// Those of them that [`Plugin::reconfigure`] applies.
    pub(crate) fn live_settings(&self) -> Vec<&'static str> {
        self.object.live_settings().iter().map(|key| key.as_str()).collect()
    }

    /// Hands the plugin new settings, on a thread that may block; one that hangs is left behind.
    pub(crate) async fn reconfigure(self: &Arc<Self>, settings: String) -> Result<(), PluginError> {
        let plugin = Arc::clone(self);
        let asked = tokio::task::spawn_blocking(move || {
            plugin.object.reconfigure(settings.as_str().into()).into_result()
        });
        match tokio::time::timeout(MOST_RECONFIGURING, asked).await {
            Ok(Ok(taken)) => taken,
            Ok(Err(_)) => Err(PluginError::new(ErrorKind::OTHER, "it could not be asked")),
            Err(_) => {
                let message = format_args!("no answer within {MOST_RECONFIGURING:?}");
                Err(PluginError::new(ErrorKind::TIMEOUT, message))
            }
        }
    }

    pub(crate) fn server_layer(&self) -> Option<ServerLayerObject> {
        self.object.server_layer().into_option()
    }

    pub(crate) fn client_layer(&self) -> Option<ClientLayerObject> {
        self.object.client_layer().into_option()
    }

    pub(crate) fn telemetry(&self) -> Option<TelemetryObject> {
        self.object.telemetry().into_option()
    }

    /// Shows what the plugin counts of itself; nothing once it is stopped. Asks the plugin, which
    /// may block.
    pub(crate) fn metrics(&self, visit: Visit<'_>) {
        if !self.stopped.load(Ordering::Relaxed) {
            self.object.metrics(lend_visitor(&mut LentVisitor(visit)));
        }
    }

    /// One entry of `GET /plugins`. Asks the plugin, which may block.
    pub(crate) fn report(&self) -> Json {
        let (panics, status) = self.status();
        self.entry(self.state(), panics, &status)
    }

    /// The entry of a plugin that does not answer.
    pub(crate) fn silent_report(&self, reason: &str) -> Json {
        self.entry("failed", None, &json!({"error": reason}))
    }

    fn entry(&self, state: &str, panics: Option<u64>, status: &Json) -> Json {
        let info = self.library.info;
        json!({
            "name": info.name(),
            "version": info.version(),
            "abi": info.api_version(),
            "path": self.library.path,
            "sha256": self.library.sha256,
            "state": state,
            "panics": panics,
            "status": status,
        })
    }

    /// What the plugin says of itself; nothing once it is stopped, for then it is not called.
    fn status(&self) -> (Option<u64>, Json) {
        if self.stopped.load(Ordering::Relaxed) {
            return (None, Json::Null);
        }
        let status = serde_json::from_str(&self.object.status()).unwrap_or_else(
            |error| json!({"error": format!("the plugin's status is not JSON: {error}")}),
        );
        (Some(self.object.panics()), status)
    }

    fn state(&self) -> &'static str {
        if self.stopped.load(Ordering::Relaxed) {
            return "stopped";
        }
        match self.object.state() {
            State::RUNNING => "running",
            State::DEGRADED => "degraded",
            _ => "failed",
        }
    }

    /// Tries what the plugin depends on. Blocks.
    pub(crate) fn check(&self, timeout: Duration) -> Result<(), PluginError> {
        self.object.check(millis(timeout)).into_result()
    }

    /// Flushes and stops the plugin, and comes back by the deadline whatever the plugin does: one
    /// that hangs is left behind with its thread. Blocks.
    pub(crate) fn stop(self: &Arc<Self>, timeout: Duration) {
        self.stopped.store(true, Ordering::Relaxed);
        let (done, stopped) = mpsc::channel();
        let plugin = Arc::clone(self);
        let thread = thread::Builder::new().name("plugin-stop".to_owned()).spawn(move || {
            // Nobody listens any more when the deadline has passed.
            let _ = done.send(plugin.object.shutdown(millis(timeout)).into_result());
        });
        if let Err(error) = thread {
            tracing::warn!("otel plugin: not flushed, no thread could be started: {error}");
            return;
        }
        // The plugin keeps its own deadline; the grace is for the one that does not.
        match stopped.recv_timeout(timeout + Duration::from_millis(500)) {
            Ok(Ok(())) => tracing::info!("otel plugin: flushed and stopped"),
            Ok(Err(error)) => tracing::warn!("otel plugin: stopped with a loss: {error}"),
            Err(_) => tracing::warn!("otel plugin: did not stop within {timeout:?}, left behind"),
        }
    }
}

impl std::fmt::Display for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let PluginFacts { info, path, sha256 } = self.library.facts();
        let (name, version, abi) = (info.name(), info.version(), info.api_version());
        write!(f, "{name} {version} (abi {abi}) from {}, sha256 {sha256}", path.display())
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plugin").field("library", &self.library).finish_non_exhaustive()
    }
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}

/// What `host plugin FILE` prints.
pub(crate) fn describe(library: &Library) -> String {
    let PluginFacts { info, path, sha256 } = library.facts();
    let offers = [
        (info.offers_server_layer(), "server layer"),
        (info.offers_client_layer(), "client layer"),
    ];
    let offers: Vec<&str> =
        offers.iter().filter(|(offered, _)| *offered).map(|(_, name)| *name).collect();
    let offers = if offers.is_empty() { "nothing".to_owned() } else { offers.join(", ") };
    let panics = if info.unwinds() { "unwind" } else { "abort" };
    let mut text = format!(
        "name      {}\nversion   {}\nabi       {}\nfile      {}\nsha256    {sha256}\n\
         built by  {}\nbuilt for {}\npanics    {panics}\noffers    {offers}\n",
        info.name(),
        info.version(),
        info.api_version(),
        path.display(),
        info.rustc(),
        info.target(),
    );
    if !info.settings().is_empty() {
        text.push_str("settings of [otel], with their defaults:\n");
    }
    for setting in info.settings() {
        let variables: Vec<String> = setting.variables().map(|name| format!("${name}")).collect();
        let variables = if variables.is_empty() {
            String::new()
        } else {
            format!(" (else {})", variables.join(", "))
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {} = {}\n      {}{variables}",
            setting.key(),
            setting.default_value(),
            setting.meaning(),
        );
    }
    text
}

/// What is known of a library without starting it.
pub(crate) struct PluginFacts<'a> {
    pub(crate) info: PluginInfo,
    pub(crate) path: &'a PathBuf,
    pub(crate) sha256: &'a str,
}
