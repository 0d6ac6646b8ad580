//! Service discovery: which instances each service group has.
//!
//! A backend is one file here, one variant of [`Backend`] and one arm of `connect`.

mod directory;
mod r#static;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use serde::Serialize;
use tokio::sync::watch;

pub use directory::Directory;
pub(crate) use directory::Nobody;

use crate::{
    config::{self, Backend, BaseUrl},
    identity::Identity,
};

/// One instance of a service group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// Where it is reached.
    pub url: BaseUrl,
}

/// The instances of every group that is known.
pub type Groups = BTreeMap<String, Vec<Instance>>;

/// A registry of instances.
pub trait Discovery: Send + Sync {
    /// Learns what is registered now and follows every change. Called once, at start-up, before
    /// the plugin is loaded. The receiver holds the first snapshot already.
    ///
    /// # Errors
    /// When the registry does not answer.
    fn watch(&self) -> BoxFuture<'_, Result<watch::Receiver<Arc<Groups>>, DiscoveryError>>;

    /// Makes this instance known to others. Called once it listens.
    ///
    /// # Errors
    /// When the registry does not answer.
    fn register<'a>(
        &'a self,
        own: &'a Identity,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>>;

    /// Takes this instance back, so that no new request is sent to it. Called first of all when
    /// the host stops.
    ///
    /// # Errors
    /// When the registry does not answer.
    fn deregister(&self) -> BoxFuture<'_, Result<(), DiscoveryError>>;
}

/// A registry that does not answer.
#[derive(Debug, thiserror::Error)]
#[error("discovery: {backend}: {message}")]
pub struct DiscoveryError {
    /// The backend's name in the configuration.
    pub backend: &'static str,
    /// What was asked, and what came back.
    pub message: String,
}

/// The configured registry.
pub(crate) fn connect(config: &config::Discovery) -> Box<dyn Discovery> {
    match config.backend {
        Backend::Static => Box::new(r#static::Static::new(&config.r#static)),
    }
}
