//! Whether the store answers: told to operators, and logged once for each change.

use std::time::SystemTime;

use serde_json::{Value as Json, json};
use tokio::sync::watch;

use super::DiscoveryError;

/// What the host wants of a store; each fails by itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part {
    /// To follow what others register.
    Following,
    /// To keep its own entry.
    Registering,
}

/// How the store is.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    backend: &'static str,
    following: Option<Failing>,
    registering: Option<Failing>,
}

#[derive(Debug, Clone)]
struct Failing {
    since: SystemTime,
    last_error: String,
}

impl Health {
    pub(super) const fn new(backend: &'static str) -> Self {
        Self { backend, following: None, registering: None }
    }

    /// The last error, while there is one.
    pub(super) fn last_error(&self) -> Option<&str> {
        self.failing().map(|failing| failing.last_error.as_str())
    }

    /// Whether the store answers.
    pub(crate) const fn is_reachable(&self) -> bool {
        self.following.is_none() && self.registering.is_none()
    }

    fn failing(&self) -> Option<&Failing> {
        self.following.as_ref().or(self.registering.as_ref())
    }

    /// What `GET /readyz` says of it.
    pub(crate) fn report(&self) -> Json {
        match self.failing() {
            None => json!({"backend": self.backend, "state": "reachable"}),
            Some(Failing { since, last_error }) => {
                json!({
                    "backend": self.backend,
                    "state": "unreachable",
                    "since": humantime::format_rfc3339_millis(*since).to_string(),
                    "last-error": last_error,
                })
            }
        }
    }
}

/// Notes how `part` went, and logs when the store has come or gone by it.
pub(super) fn note(
    health: &watch::Sender<Health>,
    part: Part,
    outcome: Result<(), &DiscoveryError>,
) {
    health.send_if_modified(|health| {
        let before = health.failing().cloned();
        let place = match part {
            Part::Following => &mut health.following,
            Part::Registering => &mut health.registering,
        };
        let changes = place.is_some() || outcome.is_err();
        *place = outcome.err().map(|error| Failing {
            since: before.as_ref().map_or_else(SystemTime::now, |failing| failing.since),
            last_error: error.message.clone(),
        });
        match (before, outcome, health.failing()) {
            (None, Err(error), _) => {
                tracing::warn!("{error}; going on with what is known until it answers");
            }
            (Some(failing), Ok(()), None) => {
                let away = failing.since.elapsed().unwrap_or_default();
                tracing::info!("discovery: {}: answers again after {away:.1?}", health.backend);
            }
            _ => {}
        }
        changes
    });
}
