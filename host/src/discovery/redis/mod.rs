//! Redis: entries that expire, keyspace notifications where the server sends them, and a scan from
//! time to time in any case, for notifications may be lost and expiry is not punctual.

mod primary;

use std::{collections::BTreeSet, convert::Infallible, future, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either},
};
use redis::{
    Client, RedisError, RedisResult,
    aio::{MultiplexedConnection, PubSubStream},
};
use tokio::time::{Instant, sleep, timeout_at};

use self::primary::{Primary, other};
use super::{
    Discovery, DiscoveryError, Registration,
    view::{Change, View},
};
use crate::{config, tls::TlsError};

/// How long an answer may take to come.
const TIMEOUT: Duration = Duration::from_secs(3);

/// How often the server is scanned where it sends no notifications: well within the time that a host
/// that stops gives others to see it.
const SCAN_INTERVAL: Duration = Duration::from_millis(500);

/// The least pause between two scans, in times of what the first of them took: each walks over all
/// keys of the database, whoever they belong to.
const PAUSE_SHARE: u32 = 20;

/// How many keys one command is about, at most.
const BATCH: usize = 1000;

/// `[discovery.redis]`.
pub(super) struct Redis {
    primary: Primary,
    /// Where it is, for messages: without what is secret.
    server: String,
    heartbeat: Duration,
}

impl Redis {
    /// A client that has asked nothing yet.
    ///
    /// # Errors
    /// A file of `discovery.redis.tls` that cannot be used.
    pub(super) fn new(config: &config::Discovery) -> Result<Self, TlsError> {
        let primary = Primary::new(&config.redis)?;
        let server = config.redis.url.places();
        Ok(Self { primary, server, heartbeat: config.heartbeat })
    }

    async fn try_follow(&self, view: &View) -> RedisResult<Infallible> {
        let (server, mut connection) = self.primary.connect(view.keys().settings()).await?;
        // Before the scan, so that nothing falls between the two.
        let mut notified = match self.is_notifying(&mut connection).await? {
            true => Some(subscribe(&server, view).await?),
            false => None,
        };
        let every =
            if notified.is_some() { self.heartbeat } else { SCAN_INTERVAL.min(self.heartbeat) };
        loop {
            let began = Instant::now();
            view.snapshot(scan(&mut connection, view).await?);
            let again = Instant::now() + self.pause(every, began.elapsed());
            while let Ok(keys) = timeout_at(again, next_keys(&mut notified)).await {
                let keys: Vec<String> = keys?.into_iter().collect();
                let values = get(&mut connection, &keys).await?;
                let changes = keys.into_iter().zip(values).map(|(key, value)| match value {
                    Some(value) => Change::Put(key, value),
                    None => Change::Removed(key),
                });
                view.apply(changes.collect());
            }
        }
    }

    /// How long to wait after a scan that `took` so long, where there is one `every` so often. Past
    /// the time that the entry of a dead host stays, waiting would cost more than it saves.
    fn pause(&self, every: Duration, took: Duration) -> Duration {
        every.max(took * PAUSE_SHARE).min(self.heartbeat * 3)
    }

    /// Whether the server tells of keys that are set, deleted and expire. One that refuses to say is
    /// taken for one that does not.
    async fn is_notifying(&self, connection: &mut MultiplexedConnection) -> RedisResult<bool> {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("notify-keyspace-events");
        let told: Vec<String> = match command.query_async(connection).await {
            Err(refusal) if refusal.code().is_some() => Vec::new(),
            told => told?,
        };
        let events = told.into_iter().nth(1).unwrap_or_default();
        let all = events.contains('A') || ['g', '$', 'x'].iter().all(|kind| events.contains(*kind));
        let is_notifying = events.contains('K') && all;
        if !is_notifying {
            tracing::info!(
                "discovery: redis: {}: notify-keyspace-events is {events:?}, wanted \"Kg$x\" to see \
                 changes at once; looking every {SCAN_INTERVAL:?}",
                self.server,
            );
        }
        Ok(is_notifying)
    }

    async fn try_keep(&self, own: &Registration, view: &View) -> RedisResult<Infallible> {
        let time_to_live = u64::try_from(own.time_to_live().as_millis()).unwrap_or(u64::MAX);
        let (_, mut connection) = self.primary.connect(&own.key).await?;
        loop {
            let mut set = redis::cmd("SET");
            set.arg(&own.key).arg(&own.value).arg("PX").arg(time_to_live);
            set.exec_async(&mut connection).await?;
            view.held(&own.key);
            let mut expire = redis::cmd("PEXPIRE");
            expire.arg(&own.key).arg(time_to_live);
            loop {
                sleep(own.heartbeat).await;
                // Setting it anew each time would have everybody read it anew each time.
                if !expire.query_async::<bool>(&mut connection).await? {
                    tracing::info!("discovery: redis: the entry has expired; registering anew");
                    break;
                }
                view.held(&own.key);
            }
        }
    }

    async fn try_withdraw(&self, own: &Registration) -> RedisResult<()> {
        let (_, mut connection) = self.primary.connect(&own.key).await?;
        redis::cmd("DEL").arg(&own.key).exec_async(&mut connection).await
    }

    fn error(&self, source: &RedisError) -> DiscoveryError {
        let reason = match source.code() {
            Some("MOVED" | "ASK" | "CROSSSLOT") => {
                "is part of a Redis Cluster, wanted a single server, or redis+cluster:// in \
                 discovery.redis.url"
                    .to_owned()
            }
            _ => source.to_string(),
        };
        DiscoveryError { backend: "redis", message: format!("{}: {reason}", self.server) }
    }
}

/// What the server tells of keys that change.
async fn subscribe(server: &Client, view: &View) -> RedisResult<PubSubStream> {
    let subscribe = async {
        let mut channel = server.get_async_pubsub().await?;
        let database = server.get_connection_info().redis_settings().db();
        let keys = view.keys();
        let channel_of = |key: &str| format!("__keyspace@{database}__:{}", literal(key));
        channel.psubscribe(channel_of(keys.services()) + "*").await?;
        channel.psubscribe(channel_of(keys.settings())).await?;
        Ok(channel.into_on_message())
    };
    let late = || other(format!("no answer within {TIMEOUT:?}"));
    tokio::time::timeout(TIMEOUT, subscribe).await.unwrap_or_else(|_| Err(late()))
}

/// All that the store holds for `view`.
async fn scan(
    connection: &mut MultiplexedConnection,
    view: &View,
) -> RedisResult<Vec<(String, Vec<u8>)>> {
    // A scan may show a key twice.
    let mut keys = BTreeSet::from([view.keys().settings().to_owned()]);
    let pattern = literal(view.keys().services()) + "*";
    let mut cursor = 0_u64;
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(&pattern).arg("COUNT").arg(BATCH);
        let (next, found): (u64, Vec<Vec<u8>>) = command.query_async(connection).await?;
        // A key that is not UTF-8 has no value under what is read here, and so is left out.
        keys.extend(found.iter().map(|key| String::from_utf8_lossy(key).into_owned()));
        cursor = next;
        if cursor == 0 {
            break;
        }
    }
    let keys: Vec<String> = keys.into_iter().collect();
    let values = get(connection, &keys).await?;
    Ok(keys.into_iter().zip(values).filter_map(|(key, value)| Some((key, value?))).collect())
}

/// The value of each key; none of one that is gone, or that holds something else than text.
async fn get(
    connection: &mut MultiplexedConnection,
    keys: &[String],
) -> RedisResult<Vec<Option<Vec<u8>>>> {
    let mut values = Vec::with_capacity(keys.len());
    for batch in keys.chunks(BATCH) {
        let found: Vec<Option<Vec<u8>>> =
            redis::cmd("MGET").arg(batch).query_async(connection).await?;
        values.extend(found);
    }
    Ok(values)
}

/// Waits for notifications, and takes those that are there: the keys that have changed. Waits for
/// ever where there are none.
async fn next_keys(notified: &mut Option<PubSubStream>) -> RedisResult<BTreeSet<String>> {
    let Some(messages) = notified else { return future::pending().await };
    let mut keys = BTreeSet::new();
    while keys.len() < BATCH {
        let next = match keys.is_empty() {
            true => Either::Left(messages.next().map(Some)),
            false => Either::Right(future::ready(messages.next().now_or_never())),
        };
        let Some(message) = next.await else { break };
        let Some(message) = message else {
            return Err(other("the connection for notifications ended".to_owned()));
        };
        // Renewed entries are as they were.
        if message.get_payload_bytes() != b"expire" {
            let channel = message.get_channel_name();
            keys.extend(channel.split_once(':').map(|(_, key)| key.to_owned()));
        }
    }
    Ok(keys)
}

/// A pattern that matches this text alone.
fn literal(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\') {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

impl Discovery for Redis {
    fn follow<'a>(&'a self, view: &'a View) -> BoxFuture<'a, DiscoveryError> {
        self.try_follow(view)
            .map(|ended| match ended {
                Err(error) => self.error(&error),
            })
            .boxed()
    }

    fn keep<'a>(&'a self, own: &'a Registration, view: &'a View) -> BoxFuture<'a, DiscoveryError> {
        let kept = self.try_keep(own, view);
        kept.map(|ended| match ended {
            Err(error) => self.error(&error),
        })
        .boxed()
    }

    fn withdraw<'a>(&'a self, own: &'a Registration) -> BoxFuture<'a, Result<(), DiscoveryError>> {
        self.try_withdraw(own).map(|done| done.map_err(|error| self.error(&error))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scan_that_takes_long_is_a_small_part_of_the_time() {
        let redis = Redis::new(&config::Discovery::default()).unwrap();
        let pauses = [1, 100, 1000, 2000].map(|took| {
            let took = Duration::from_millis(took);
            redis.pause(SCAN_INTERVAL, took).as_millis()
        });
        assert_eq!(pauses, [500, 2000, 20_000, 30_000]);
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("host:*[a]?\\^:"), "host:\\*\\[a\\]\\?\\\\\\^:");
    }
}
