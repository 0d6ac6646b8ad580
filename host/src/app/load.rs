//! Whether a plugin is loaded, and what becomes of a start without it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{App, blocking};
use crate::{
    Plugin,
    config::Settings,
    live::LiveSettings,
    plugin::{self, LoadError},
};

/// The most time that a plugin has to start.
const MOST_LOADING: Duration = Duration::from_secs(10);

/// What came of a plugin: neither where none is wanted.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) plugin: Option<Arc<Plugin>>,
    /// Why the host goes on without the one that is wanted.
    pub(super) refused: Option<LoadError>,
}

impl App {
    /// The plugin where one is wanted and can be had. What it finds wrong with the settings of the
    /// fleet keeps no host from starting.
    pub(super) async fn load_plugin(&self, live: &mut LiveSettings) -> Result<Loaded, LoadError> {
        match self.plugin_of(live.started()).await {
            Err(LoadError::Setting(error)) if error.is_in_store() => {
                live.refuse(&error);
                self.plugin_of(live.started()).await
            }
            loaded => loaded,
        }
    }

    async fn plugin_of(&self, settings: &Arc<Settings>) -> Result<Loaded, LoadError> {
        let otel = &settings.config().otel;
        if !otel.enabled {
            return Ok(Loaded::default());
        }
        let began = Instant::now();
        match self.load(settings).await {
            Ok(plugin) => {
                tracing::info!(took = ?began.elapsed(), "otel plugin: loaded {plugin}");
                Ok(Loaded { plugin: Some(Arc::new(plugin)), refused: None })
            }
            Err(error @ LoadError::Setting(_)) => Err(error),
            Err(error) if otel.required => Err(error),
            Err(error) => {
                tracing::warn!("{error}; going on without tracing");
                Ok(Loaded { plugin: None, refused: Some(error) })
            }
        }
    }

    /// Loads the plugin on a thread of its own: one that hangs must not keep signals from us.
    async fn load(&self, settings: &Arc<Settings>) -> Result<Plugin, LoadError> {
        let (settings, identity) = (Arc::clone(settings), self.identity.clone());
        let metrics = Arc::clone(&self.metrics);
        let loaded = blocking(move || plugin::load(&settings, &identity, metrics));
        match tokio::time::timeout(MOST_LOADING, loaded).await {
            Ok(Some(loaded)) => loaded,
            Ok(None) => Err(self.not_loaded("the host failed while loading it".to_owned())),
            Err(_) => Err(self.not_loaded(format!("did not start within {MOST_LOADING:?}"))),
        }
    }

    fn not_loaded(&self, reason: String) -> LoadError {
        let path = self.settings.config().otel.library.clone().into();
        LoadError::File { path, reason }
    }
}
