//! Service discovery: which instances each service group has, and what the fleet wants of a group.
//!
//! A backend is one file here, one variant of [`Backend`] and one arm of `connect`. It only speaks
//! with its store; `Fleet` calls it again when it fails, and `View` keeps what it has said.
mod balance;
mod directory;
mod etcd;
mod fleet;
mod health;
mod instance;
mod keys;
mod member;
mod redis;
mod r#static;
mod view;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;

pub use directory::{Directory, Nobody};
pub(crate) use fleet::Fleet;
pub(crate) use health::Health;
pub use instance::Instance;
pub use member::{Chosen, Member};

use self::{keys::Keys, view::View};
use crate::{
    config::{self, Backend},
    tls::TlsError,
};

/// The instances of every group that is known. An instance that stays the same stays the same
/// `Arc`.
pub type Groups = BTreeMap<String, Vec<Arc<Instance>>>;

/// A store of instances and settings.
trait Discovery: Send + Sync {
    /// Tells `view` all that the store holds, and then each change. Comes back only with the error
    /// that ended it, and is then called again.
    fn follow<'a>(&'a self, view: &'a View) -> BoxFuture<'a, DiscoveryError>;

    /// Puts this process' entry in the store and renews it, and tells `view` each time that it is
    /// held. Comes back only with the error that ended it, and is then called again. It is dropped
    /// and called anew when the entry was lost.
    fn keep<'a>(&'a self, own: &'a Registration, view: &'a View) -> BoxFuture<'a, DiscoveryError>;

    /// Takes this process' entry out of the store.
    fn withdraw<'a>(&'a self, own: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>>;
}

/// What this process has in the store.
#[derive(Debug)]
struct Registration {
    key: String,
    value: String,
    /// How often it is renewed, at least.
    heartbeat: Duration,
}

impl Registration {
    /// How long the entry outlives its last renewal: two renewals may be late.
    fn time_to_live(&self) -> Duration {
        self.heartbeat * 3
    }
}

/// A store that does not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("discovery: {backend}: {message}")]
pub struct DiscoveryError {
    /// The backend's name in the configuration.
    pub backend: &'static str,
    /// What was asked, and what came back.
    pub message: String,
}

/// A backend's name, its keys and itself.
type Store = (&'static str, Keys, Arc<dyn Discovery>);

/// The configured store, its name, and where it holds what for the service group `group`.
///
/// # Errors
/// The table of the store's settings, and a file of its `tls` that cannot be used.
fn connect(config: &config::Discovery, group: &str) -> Result<Store, (&'static str, TlsError)> {
    Ok(match config.backend {
        Backend::Static => ("static", Keys::new("", '/', group), Arc::new(r#static::Static)),
        Backend::Etcd => {
            let etcd = etcd::Etcd::new(config).map_err(|error| ("discovery.etcd", error))?;
            ("etcd", Keys::new(&config.etcd.prefix, '/', group), Arc::new(etcd))
        }
        Backend::Redis => {
            let redis = redis::Redis::new(config).map_err(|error| ("discovery.redis", error))?;
            ("redis", Keys::new(&config.redis.prefix, ':', group), Arc::new(redis))
        }
    })
}
