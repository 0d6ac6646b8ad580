//! The store that is the configuration itself: nothing changes, nobody registers.

use std::future;

use futures_util::{FutureExt, future::BoxFuture};

use super::{Discovery, DiscoveryError, Registration, view::View};

/// Holds nothing: a [`View`] has what is configured.
pub(super) struct Static;

impl Discovery for Static {
    fn follow<'a>(&'a self, view: &'a View) -> BoxFuture<'a, DiscoveryError> {
        view.snapshot(Vec::new());
        future::pending().boxed()
    }

    fn keep<'a>(&'a self, own: &'a Registration, view: &'a View) -> BoxFuture<'a, DiscoveryError> {
        view.held(&own.key);
        future::pending().boxed()
    }

    fn withdraw<'a>(&'a self, _: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        future::ready(Ok(())).boxed()
    }
}
