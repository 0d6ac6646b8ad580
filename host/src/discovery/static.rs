//! The registry that is the configuration itself: nothing changes, nobody registers.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use futures_util::{FutureExt, future, future::BoxFuture};
use tokio::sync::watch;

use super::{Discovery, DiscoveryError, Groups, Instance};
use crate::{config::BaseUrl, identity::Identity};

/// `[discovery.static]`.
pub(super) struct Static {
    groups: Arc<Groups>,
}

impl Static {
    pub(super) fn new(config: &BTreeMap<String, Vec<BaseUrl>>) -> Self {
        let instances =
            |urls: &Vec<BaseUrl>| urls.iter().map(|url| Instance { url: url.clone() }).collect();
        let groups = config.iter().map(|(group, urls)| (group.clone(), instances(urls))).collect();
        Self { groups: Arc::new(groups) }
    }
}

impl Discovery for Static {
    fn watch(&self) -> BoxFuture<'_, Result<watch::Receiver<Arc<Groups>>, DiscoveryError>> {
        // The sender may go: a receiver keeps the last value.
        future::ok(watch::channel(Arc::clone(&self.groups)).1).boxed()
    }

    fn register<'a>(
        &'a self,
        _: &'a Identity,
        _: SocketAddr,
    ) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        future::ok(()).boxed()
    }

    fn deregister(&self) -> BoxFuture<'_, Result<(), DiscoveryError>> {
        future::ok(()).boxed()
    }
}
