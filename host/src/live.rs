//! Settings of the whole service group, which arrive from the store when a host starts and while it
//! runs.
//!
//! A fragment is taken whole or not at all: the host checks its part, the plugin its own, and only
//! then does anything change. What cannot change in a running host waits for its next start.

use std::sync::Arc;

use plugin_api::{ErrorKind, PluginError};
use tokio::sync::watch;

use crate::{
    Plugin,
    config::{ConfigError, Fragment, Settings},
    discovery::Fleet,
    telemetry::{bridge::BRIDGE, log},
};

/// The settings in force, and those that they come from.
pub(crate) struct LiveSettings {
    /// The file and the environment.
    own: Arc<Settings>,
    /// What the host has started with.
    started: Arc<Settings>,
    current: watch::Sender<Arc<Settings>>,
    /// What the store holds, and under which key.
    texts: watch::Receiver<Option<Arc<str>>>,
    key: Arc<str>,
}

impl LiveSettings {
    /// The settings to start with: `own`, and what the store holds where that can be taken. Called
    /// once it is known what the store holds.
    pub(crate) fn start(own: &Arc<Settings>, fleet: &Fleet) -> Self {
        let mut live = Self {
            own: Arc::clone(own),
            started: Arc::clone(own),
            current: watch::Sender::new(Arc::clone(own)),
            texts: fleet.settings(),
            key: fleet.settings_key().into(),
        };
        match live.fragment().map(|fragment| own.with(&fragment)) {
            None => {}
            Some(Ok(merged)) => live.start_with(Arc::new(merged)),
            Some(Err(error)) => live.refuse(&error),
        }
        live
    }

    /// What the store holds now.
    fn fragment(&mut self) -> Option<Fragment> {
        let text = self.texts.borrow_and_update().clone();
        text.map(|text| Fragment::new(Arc::clone(&self.key), text))
    }

    fn start_with(&mut self, settings: Arc<Settings>) {
        log::set_level(&settings.config().log.level);
        self.current.send_replace(Arc::clone(&settings));
        self.started = settings;
    }

    /// There is a fault in what the store holds: starts with this host's own settings.
    pub(crate) fn refuse(&mut self, error: &ConfigError) {
        tracing::warn!("fleet settings refused, starting with this host's own: {error}");
        self.start_with(Arc::clone(&self.own));
    }

    /// What the host has started with.
    pub(crate) const fn started(&self) -> &Arc<Settings> {
        &self.started
    }

    /// The settings in force, always the newest.
    pub(crate) fn current(&self) -> watch::Receiver<Arc<Settings>> {
        self.current.subscribe()
    }

    /// Takes each new fragment, for ever.
    pub(crate) async fn follow(mut self, plugin: Option<Arc<Plugin>>) {
        while self.texts.changed().await.is_ok() {
            let fragment = self.fragment();
            if let Err(error) = self.take(fragment, plugin.as_ref()).await {
                tracing::warn!("fleet settings refused, nothing changes: {error}");
            }
        }
    }

    async fn take(
        &self,
        fragment: Option<Fragment>,
        plugin: Option<&Arc<Plugin>>,
    ) -> Result<(), Refused> {
        let merged = match fragment {
            Some(fragment) => self.own.with(&fragment)?,
            None => Settings::clone(&self.own),
        };
        let live = match plugin {
            Some(plugin) => {
                merged.check_plugin_keys(plugin.settings())?;
                let taken = plugin.reconfigure(merged.plugin_json()).await;
                taken.map_err(|error| refused(&merged, error))?;
                plugin.live_settings()
            }
            None => Vec::new(),
        };
        BRIDGE.refresh();
        let (taken, waiting) = merged.taken_by(&self.started, &live);
        log::set_level(&taken.config().log.level);
        self.current.send_replace(Arc::new(taken));
        if waiting.is_empty() {
            tracing::info!("fleet settings taken");
        } else {
            tracing::info!("fleet settings taken; for the next start: {}", waiting.join(", "));
        }
        Ok(())
    }
}

/// Why a fragment is not taken.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error(transparent)]
    Setting(#[from] ConfigError),
    #[error("otel plugin: {0}")]
    Plugin(PluginError),
}

fn refused(settings: &Settings, error: PluginError) -> Refused {
    match error.kind() {
        ErrorKind::SETTING => Refused::Setting(settings.plugin_error(&error)),
        _ => Refused::Plugin(error),
    }
}
