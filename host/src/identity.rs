//! Who this process is among its like.

use plugin_api::Service;
use serde::Serialize;
use uuid::Uuid;

use crate::config;

/// This instance, as service discovery and the plugin know it.
#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// A fresh UUID for each process.
    pub id: String,
    /// The service group.
    pub group: String,
    /// The instance's name.
    pub name: String,
    /// The host's version.
    pub version: String,
}

impl Identity {
    /// A new identity under the configured names.
    pub(crate) fn new(service: &config::Service) -> Self {
        Self {
            id: Uuid::new_v4().to_string(),
            group: service.group.clone(),
            name: service.name.clone(),
            version: crate::VERSION.to_owned(),
        }
    }
}

impl From<&Identity> for Service {
    fn from(identity: &Identity) -> Self {
        Self {
            group: identity.group.as_str().into(),
            name: identity.name.as_str().into(),
            id: identity.id.as_str().into(),
            version: identity.version.as_str().into(),
        }
    }
}
