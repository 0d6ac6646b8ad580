//! Why the program ends other than by a clean stop, and with which exit code.

use std::{io, net::SocketAddr};

use plugin_api::PluginError;

use crate::{config::ConfigError, discovery::DiscoveryError, plugin::LoadError};

/// Whatever ends the program early. Its text is one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A plugin that must be loaded cannot be.
    #[error(transparent)]
    Plugin(#[from] LoadError),
    /// What the plugin depends on does not answer. Only `host check` asks.
    #[error("otel plugin: {0}")]
    PluginCheck(PluginError),
    /// Service discovery does not answer.
    #[error(transparent)]
    Discovery(#[from] DiscoveryError),
    /// An address cannot be listened on.
    #[error("{key}: cannot listen on {address}: {source}")]
    Listen {
        /// The configuration key that names the address.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The operating system refuses what every program may ask for.
    #[error("{what}: {source}")]
    Internal {
        /// What was asked for.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

impl Error {
    /// The exit code, after `sysexits.h`.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Plugin(LoadError::Setting(_)) => 78,
            Self::Plugin(_) => 65,
            Self::Discovery(_) | Self::Listen { .. } | Self::PluginCheck(_) => 69,
            Self::Internal { .. } => 70,
        }
    }
}
