//! A server that accepts nothing any more.

use std::time::Duration;

use super::connections::Connections;
use crate::{layers::Tunnels, stack::Sealed};

/// How long connections may bring requests after the port is closed. Each is closed by the response
/// to the next one, and only what is idle by then is closed without: that could cross a request on
/// its way, of which the client would not know whether it was served.
const LAST_REQUESTS: Duration = Duration::from_millis(250);

/// Connections that finish what they have begun.
pub(crate) struct Draining<S>(pub(super) Connections<S>);

impl<S: Sealed> Draining<S> {
    /// Waits for every open request, and closes what is idle, for which there is so much `time`.
    /// Cancelling it is fine.
    pub(crate) async fn drain(&mut self, time: Duration) {
        let moment = LAST_REQUESTS.min(time / 4);
        let all = async { while self.0.go_on().await {} };
        // Whoever is not gone by then is closed as soon as it is idle.
        let _ = tokio::time::timeout(moment, all).await;
        self.0.close(moment).await;
    }

    /// The connections that no longer speak HTTP, and are in no request's way.
    pub(crate) const fn tunnels(&self) -> &Tunnels {
        self.0.tunnels()
    }

    /// Cuts what is still open, and returns once the last of it is gone.
    pub(crate) async fn cut(self) {
        self.0.cut().await;
    }
}
