//! etcd, version 3.4 or later: entries under leases, and a watch from the revision of a snapshot.
//!
//! The gateway is plain HTTP and JSON, so that nothing has to be generated from etcd's `.proto`
//! files when this is built.

mod gateway;
mod wire;

use std::{convert::Infallible, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use self::{
    gateway::{Gateway, error},
    wire::{Lease, Range, Read, Watched},
};
use super::{
    Discovery, DiscoveryError, Registration,
    view::{Change, View},
};
use crate::{
    config,
    tls::{ClientFiles, TlsError},
};

/// A heartbeat of the host, this many times: so often everything is read anew.
const REREAD: u32 = 6;

/// `[discovery.etcd]`.
pub(super) struct Etcd {
    gateway: Gateway,
    /// How long a watch is believed: etcd before 3.4.32 and 3.5.13 may skip changes without a word
    /// when they are compacted while a watch is behind.
    believed: Duration,
}

impl Etcd {
    /// A client that has asked nothing yet.
    ///
    /// # Errors
    /// A file of `discovery.etcd.tls` that cannot be used.
    pub(super) fn new(config: &config::Discovery) -> Result<Self, TlsError> {
        let gateway = Gateway::new(&config.etcd, ClientFiles::read(&config.etcd.tls)?);
        Ok(Self { gateway, believed: config.heartbeat * REREAD })
    }

    async fn try_follow(&self, view: &View) -> Result<Infallible, DiscoveryError> {
        let keys = view.keys();
        let ranges = [Range::prefix(keys.services()), Range::key(keys.settings())];
        loop {
            let read: Read = self.gateway.call("/v3/kv/txn", &wire::read(&ranges)).await?;
            let revision = read.header.revision;
            view.snapshot(read.into_pairs().map(wire::KeyValue::into_pair).collect());
            self.watch(&ranges, revision, view).await?;
        }
    }

    /// Follows what comes after `revision` until that is forgotten, or until it is time to read
    /// everything anew.
    async fn watch(
        &self,
        ranges: &[Range],
        revision: i64,
        view: &View,
    ) -> Result<(), DiscoveryError> {
        let mut stream = self.gateway.stream("/v3/watch", wire::watch(ranges, revision)).await?;
        let until = Instant::now() + self.believed;
        loop {
            let Ok(watched) = timeout_at(until, stream.next()).await else { return Ok(()) };
            let watched: Watched = watched?;
            if watched.compact_revision > 0 {
                tracing::debug!("discovery: etcd: compacted since; reading all anew");
                return Ok(());
            }
            if watched.canceled {
                return Err(error("/v3/watch", watched.cancel_reason));
            }
            let changes = watched.events.into_iter().map(|event| {
                let is_removal = event.is_removal();
                let (key, value) = event.kv.into_pair();
                if is_removal { Change::Removed(key) } else { Change::Put(key, value) }
            });
            view.apply(changes.collect());
        }
    }

    async fn try_keep(
        &self,
        own: &Registration,
        view: &View,
    ) -> Result<Infallible, DiscoveryError> {
        loop {
            // etcd counts in seconds, and may grant more of them than it was asked for.
            let wanted = own.time_to_live().as_secs_f64().ceil();
            let grant = json!({ "TTL": format!("{wanted:.0}") });
            let lease: Lease = self.gateway.call("/v3/lease/grant", &grant).await?;
            let put = wire::put(&own.key, &own.value, &lease.id);
            self.gateway.call::<IgnoredAny>("/v3/kv/put", &put).await?;
            view.held(&own.key);
            let granted = Duration::from_secs(u64::try_from(lease.ttl).unwrap_or(1));
            self.renew(&lease, own.heartbeat.min(granted / 3), || view.held(&own.key)).await?;
            tracing::info!("discovery: etcd: the lease has expired; registering anew");
        }
    }

    /// Keeps the lease alive until etcd knows it no more.
    async fn renew(
        &self,
        lease: &Lease,
        every: Duration,
        held: impl Fn(),
    ) -> Result<(), DiscoveryError> {
        let keep_alive = json!({ "ID": lease.id });
        loop {
            tokio::time::sleep(every).await;
            let renewed: Lease =
                self.gateway.call_streamed("/v3/lease/keepalive", &keep_alive).await?;
            if renewed.ttl == 0 {
                return Ok(());
            }
            held();
        }
    }
}

impl Discovery for Etcd {
    fn follow<'a>(&'a self, view: &'a View) -> BoxFuture<'a, DiscoveryError> {
        self.try_follow(view)
            .map(|ended| match ended {
                Err(error) => error,
            })
            .boxed()
    }

    fn keep<'a>(&'a self, own: &'a Registration, view: &'a View) -> BoxFuture<'a, DiscoveryError> {
        self.try_keep(own, view)
            .map(|ended| match ended {
                Err(error) => error,
            })
            .boxed()
    }

    fn withdraw<'a>(&'a self, own: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        // Its lease expires by itself.
        let range = json!(Range::key(&own.key));
        async move { self.gateway.call::<IgnoredAny>("/v3/kv/deleterange", &range).await.map(drop) }
            .boxed()
    }
}
