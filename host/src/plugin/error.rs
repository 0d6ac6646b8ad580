//! Why a plugin is not loaded, as one line for the operator.

use std::{io, path::PathBuf};

use serde_json::{Value as Json, json};

use crate::config::ConfigError;

/// A plugin that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file is not one that may be loaded, or not one that can be.
    #[error("otel plugin: {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was wanted and what was found.
        reason: String,
    },
    /// A setting of the plugin is wrong. This ends the start whatever `otel.required` says.
    #[error(transparent)]
    Setting(ConfigError),
    /// The binary's own place is not known, so no bare name can be found beside it.
    #[error("otel plugin: the folder of the binary is not known: {0}")]
    OwnPlace(#[source] io::Error),
}

impl LoadError {
    /// The entry of `GET /plugins` where the host goes on without the plugin.
    pub(crate) fn report(&self) -> Json {
        let path = match self {
            Self::File { path, .. } => Some(path),
            Self::Setting(_) | Self::OwnPlace(_) => None,
        };
        json!({
            "name": null,
            "version": null,
            "abi": null,
            "path": path,
            "sha256": null,
            "state": "failed",
            "panics": null,
            "status": {"error": self.to_string()},
        })
    }
}
