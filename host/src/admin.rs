//! What an operator asks a running host; on a listener of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderValue, Method, Response, StatusCode, header, request};
use plugin_api::metrics::Attribute;
use serde_json::{Value as Json, json};
use tokio::sync::{Semaphore, watch};

use crate::{
    Body, Identity, Plugin,
    config::Settings,
    discovery::Health,
    layers::StackHooks,
    metrics::{Exposition, Format, Metrics},
    stack::Directory,
};

/// How long an answer waits for the plugin's own words.
const PLUGIN_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the host is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not listening yet.
    Starting,
    /// Accepting requests.
    Serving,
    /// Finishing the open ones.
    Draining,
}

/// What the endpoints tell. It answers from the moment that the host begins to start.
pub(crate) struct Admin {
    identity: Identity,
    metrics: Arc<Metrics>,
    phase: watch::Sender<Phase>,
    discovery: watch::Receiver<Health>,
    started: OnceLock<Started>,
    /// Whoever holds its one permit asks the plugin.
    asking: Arc<Semaphore>,
}

/// What there is to tell once the stacks are sealed.
pub(crate) struct Started {
    pub(crate) address: SocketAddr,
    pub(crate) server_layers: Vec<String>,
    pub(crate) client_layers: Vec<String>,
    pub(crate) directory: Directory,
    pub(crate) plugin: Option<Arc<Plugin>>,
    /// The entry of the one that is wanted and was not loaded.
    pub(crate) refused: Option<Json>,
    pub(crate) settings: watch::Receiver<Arc<Settings>>,
    pub(crate) hooks: StackHooks,
}

impl Admin {
    pub(crate) fn new(
        identity: Identity,
        metrics: Arc<Metrics>,
        discovery: watch::Receiver<Health>,
    ) -> Self {
        Self {
            identity,
            metrics,
            phase: watch::Sender::new(Phase::Starting),
            discovery,
            started: OnceLock::new(),
            asking: Arc::new(Semaphore::new(1)),
        }
    }

    /// The stacks are sealed. Called once.
    pub(crate) fn started(&self, started: Started) {
        // A second start-up is nothing that can come about.
        let _ = self.started.set(started);
    }

    /// The host is in another phase of its life.
    pub(crate) fn enters(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

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
            "/metrics" => return self.metrics(Format::accepted_by(&request.headers)).await,
            path @ ("/stack" | "/services" | "/plugins") => match self.started.get() {
                None => (StatusCode::SERVICE_UNAVAILABLE, json!({"error": "still starting"})),
                Some(started) => (StatusCode::OK, self.inventory(path, started).await),
            },
            _ => (
                StatusCode::NOT_FOUND,
                json!({"error": "try /healthz, /readyz, /stack, /services, /plugins or /metrics"}),
            ),
        };
        json_response(status, &body)
    }

    async fn inventory(&self, path: &str, started: &Started) -> Json {
        match path {
            "/stack" => started.stack(),
            "/services" => self.services(started),
            _ => self.plugins(started).await,
        }
    }

    fn ready(&self) -> (StatusCode, Json) {
        let (status, word) = match *self.phase.borrow() {
            Phase::Serving => (StatusCode::OK, "serving"),
            Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting"),
            Phase::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        };
        (status, json!({"status": word, "discovery": self.discovery.borrow().report()}))
    }

    fn services(&self, started: &Started) -> Json {
        json!({
            "self": {
                "id": self.identity.id,
                "group": self.identity.group,
                "name": self.identity.name,
                "version": self.identity.version,
                "address": started.address,
            },
            "groups": started.directory.table().report(),
        })
    }

    async fn plugins(&self, started: &Started) -> Json {
        let Some(plugin) = &started.plugin else {
            return started.refused.iter().cloned().collect();
        };
        let mut report = match self.ask(plugin, |plugin| plugin.report()).await {
            Some(report) => report,
            None => plugin.silent_report(&format!("no answer within {PLUGIN_TIMEOUT:?}")),
        };
        report["slow-hooks"] = started.hooks.report();
        report["settings"] = started.plugin_settings(plugin);
        json!([report])
    }

    /// What the host measures, and what the plugin counts of itself where that comes in time.
    async fn metrics(&self, format: Format) -> Response<Body> {
        let mut exposition = Exposition::new(format);
        exposition.add_target(&[
            Attribute::text("service.name", &self.identity.group),
            Attribute::text("service.instance.id", &self.identity.id),
            Attribute::text("service.instance.name", &self.identity.name),
            Attribute::text("service.version", &self.identity.version),
        ]);
        self.metrics.visit(&mut |metric| exposition.add(metric));
        let mut text = exposition.text();
        if let Some(plugin) = self.started.get().and_then(|started| started.plugin.as_ref()) {
            let shown = self.ask(plugin, move |plugin| {
                let mut exposition = Exposition::new(format);
                plugin.metrics(&mut |metric| exposition.add(metric));
                exposition.text()
            });
            text.extend(shown.await);
        }
        text.push_str(format.end());
        let mut response = Response::new(Body::from(text));
        let media_type = HeaderValue::from_static(format.content_type());
        response.headers_mut().insert(header::CONTENT_TYPE, media_type);
        response
    }

    /// Asks the plugin, off the threads that serve and one question at a time: a plugin that does
    /// not answer in time holds one thread and no request.
    async fn ask<R: Send + 'static>(
        &self,
        plugin: &Arc<Plugin>,
        question: impl FnOnce(&Plugin) -> R + Send + 'static,
    ) -> Option<R> {
        let asked = async {
            let turn = Arc::clone(&self.asking).acquire_owned().await.ok()?;
            let plugin = Arc::clone(plugin);
            let asked = tokio::task::spawn_blocking(move || {
                let answer = question(&plugin);
                drop(turn);
                answer
            });
            asked.await.ok()
        };
        tokio::time::timeout(PLUGIN_TIMEOUT, asked).await.ok().flatten()
    }
}

impl Started {
    /// The table of the plugin as it is in force, with the place that each value comes from.
    fn plugin_settings(&self, plugin: &Plugin) -> Json {
        let all = self.settings.borrow().effective(plugin.settings());
        let own = all.into_iter().filter(|line| line.key.starts_with("otel."));
        own.map(|line| (line.key, json!({"value": line.value, "source": line.source}))).collect()
    }

    fn stack(&self) -> Json {
        // Nothing that serves is ever open; operators look for the word all the same.
        json!({"sealed": true, "server": self.server_layers, "client": self.client_layers})
    }
}

fn json_response(status: StatusCode, body: &Json) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{body}\n")));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
