//! The order of a stop.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::blocking;
use crate::{
    Plugin,
    discovery::Fleet,
    layers::StackHooks,
    server::{Draining, Server},
    shutdown::Stopped,
    stack::Sealed,
    telemetry::bridge::BRIDGE,
};

/// How long what is cut may take to be gone; a handler that never yields would take for ever.
const CUT_GRACE: Duration = Duration::from_secs(1);

/// The least time that a plugin has to flush, also when the drain took all of its own.
const LEAST_FLUSH: Duration = Duration::from_secs(2);

/// No new request, then no open one, then no span that waits; all before one deadline.
pub(super) async fn stop(
    fleet: &Fleet,
    mut server: Server<impl Sealed>,
    plugin: Option<Arc<Plugin>>,
    hooks: &StackHooks,
    deadline: Instant,
) -> Stopped {
    server.leave();
    server.accept_until(leave(fleet, deadline)).await;
    let stopped = drain(server.close().await, deadline).await;
    hooks.close();
    stop_plugin(plugin, deadline).await;
    stopped
}

/// Takes this instance out of the store, and gives others the time to see it.
async fn leave(fleet: &Fleet, deadline: Instant) {
    match tokio::time::timeout_at(deadline.into(), fleet.deregister()).await {
        Ok(Ok(())) => {
            let left = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(fleet.time_to_see().min(left / 2)).await;
        }
        Ok(Err(error)) => tracing::warn!("{error}"),
        Err(_) => tracing::warn!("discovery: not deregistered before the drain deadline"),
    }
}

/// Waits for the open requests, but not past the deadline.
async fn drain(mut draining: Draining<impl Sealed>, deadline: Instant) -> Stopped {
    let left = deadline.saturating_duration_since(Instant::now());
    let drained = tokio::time::timeout(left, draining.drain(left)).await;
    if drained.is_err() {
        tracing::warn!("the drain deadline passed; cutting what is still open");
    }
    // Tunnels have their time too. As they have no end of their own, one that is cut is no loss.
    let tunnels = draining.tunnels();
    if tokio::time::timeout_at(deadline.into(), tunnels.ended()).await.is_err() {
        tracing::info!(tunnels = tunnels.open(), "cutting tunnels at the drain deadline");
    }
    if tokio::time::timeout(CUT_GRACE, draining.cut()).await.is_err() {
        tracing::warn!("a handler that blocks its thread is left behind");
    }
    if drained.is_ok() { Stopped::Drained } else { Stopped::DeadlinePassed }
}

/// Flushes and stops the plugin, within what is left until the deadline.
pub(super) async fn stop_plugin(plugin: Option<Arc<Plugin>>, deadline: Instant) {
    let Some(plugin) = plugin else { return };
    BRIDGE.close();
    let left = deadline.saturating_duration_since(Instant::now()).max(LEAST_FLUSH);
    blocking(move || plugin.stop(left)).await;
}
