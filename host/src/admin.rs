//! What an operator asks a running host; on a listener of its own.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Response, StatusCode, header, request};
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, watch};

use crate::{Body, Identity, Plugin, layers::StackHooks, stack::Directory};

/// How long `GET /plugins` waits for the plugin's own words.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the host is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Sealed, not listening yet.
    Starting,
    /// Accepting requests.
    Serving,
    /// Finishing the open ones.
    Draining,
}

/// Everything that the endpoints tell.
pub(crate) struct Admin {
    pub(crate) identity: Identity,
    pub(crate) address: SocketAddr,
    pub(crate) server_layers: Vec<String>,
    pub(crate) client_layers: Vec<String>,
    pub(crate) directory: Directory,
    pub(crate) plugin: Option<Arc<Plugin>>,
    pub(crate) hooks: StackHooks,
    /// Whoever holds its one permit asks the plugin.
    pub(crate) asking: Arc<Semaphore>,
    pub(crate) phase: watch::Receiver<Phase>,
}

impl Admin {
    /// Answers one request.
    pub(crate) async fn answer(&self, request: &request::Parts) -> Response<Body> {
        if !matches!(request.method, Method::GET | Method::HEAD) {
            let mut refused = json_response(
                StatusCode::METHOD_NOT_ALLOWED,
                &json!({"error": "only GET is answered here"}),
            );
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let (status, body) = match request.uri.path() {
            "/healthz" => (StatusCode::OK, json!({"status": "ok"})),
            "/readyz" => self.ready(),
            "/stack" => (StatusCode::OK, self.stack()),
            "/services" => (StatusCode::OK, self.services()),
            "/plugins" => (StatusCode::OK, self.plugins().await),
            _ => (
                StatusCode::NOT_FOUND,
                json!({"error": "try /healthz, /readyz, /stack, /services or /plugins"}),
            ),
        };
        json_response(status, &body)
    }

    fn ready(&self) -> (StatusCode, Json) {
        match *self.phase.borrow() {
            Phase::Serving => (StatusCode::OK, json!({"status": "serving"})),
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "starting"})),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, json!({"status": "draining"})),
        }
    }

    fn stack(&self) -> Json {
        // Nothing that serves is ever open; operators look for the word all the same.
        json!({"sealed": true, "server": self.server_layers, "client": self.client_layers})
    }

    fn services(&self) -> Json {
        json!({
            "self": {
                "id": self.identity.id,
                "group": self.identity.group,
                "name": self.identity.name,
                "version": self.identity.version,
                "address": self.address,
            },
            "groups": *self.directory.groups(),
        })
    }

    async fn plugins(&self) -> Json {
        let Some(plugin) = &self.plugin else { return json!([]) };
        let mut report = match tokio::time::timeout(PLUGIN_TIMEOUT, self.ask(plugin)).await {
            Ok(Some(report)) => report,
            _ => plugin.silent_report(&format!("no answer within {PLUGIN_TIMEOUT:?}")),
        };
        report["slow-hooks"] = self.hooks.report();
        json!([report])
    }

    /// Asks the plugin how it is, off the threads that serve and one question at a time: a plugin
    /// that does not answer holds one thread and no request.
    async fn ask(&self, plugin: &Arc<Plugin>) -> Option<Json> {
        let turn = Arc::clone(&self.asking).acquire_owned().await.ok()?;
        let plugin = Arc::clone(plugin);
        let asked = tokio::task::spawn_blocking(move || {
            let report = plugin.report();
            drop(turn);
            report
        });
        asked.await.ok()
    }
}

fn json_response(status: StatusCode, body: &Json) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
