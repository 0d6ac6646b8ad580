//! The life of a host in its fleet: it joins, registers, is found, and leaves.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Discovery, DiscoveryError, Groups, Health, Instance, Registration, connect,
    health::Part,
    view::{Done, View},
};
use crate::{config, tls::TlsError};

/// Waits between two attempts: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How long one who lives may take to come back to a store that answers again: an attempt that began
/// too early, and the longest wait after it.
const RETURN: Duration = Duration::from_secs(5);

/// How long a registration is waited for where the store has used up the time of the start.
const LEAST_WAIT: Duration = Duration::from_secs(1);

/// Ten times what a change takes to reach everybody's table, as a rule.
const TIME_TO_SEE: Duration = Duration::from_secs(1);

/// The store, followed from the moment that a host joins. Dropped, it is followed no more.
pub(crate) struct Fleet {
    backend: &'static str,
    group: String,
    store: Arc<dyn Discovery>,
    view: Arc<View>,
    heartbeat: Duration,
    time_to_see: Duration,
    required: bool,
    /// The end of the time that a start may wait.
    deadline: Instant,
    own: Mutex<Option<Own>>,
    _following: AbortOnDropHandle<()>,
}

/// The entry of this process, and the task that keeps it.
struct Own {
    registration: Arc<Registration>,
    keeping: AbortOnDropHandle<()>,
}

impl Fleet {
    /// Follows the store from now on, as a host of the service group `group`.
    ///
    /// # Errors
    /// The table of the store's settings, and a file of its `tls` that cannot be used.
    pub(crate) fn open(
        config: &config::Discovery,
        group: &str,
    ) -> Result<Self, (&'static str, TlsError)> {
        let (backend, keys, store) = connect(config, group)?;
        let nobody_looks = config.backend == config::Backend::Static;
        let instances = |urls: &Vec<config::BaseUrl>| {
            urls.iter().map(|url| Arc::new(Instance::configured(url.clone()))).collect()
        };
        let configured =
            config.r#static.iter().map(|(group, urls)| (group.clone(), instances(urls)));
        // Whoever lives has renewed its entry by then.
        let grace = RETURN.max(config.heartbeat * 3);
        let view = Arc::new(View::new(backend, keys, configured.collect(), grace));
        let following = tokio::spawn(follow(Arc::clone(&store), Arc::clone(&view)));
        Ok(Self {
            backend,
            time_to_see: if nobody_looks { Duration::ZERO } else { TIME_TO_SEE },
            group: group.to_owned(),
            store,
            view,
            heartbeat: config.heartbeat,
            required: config.required,
            deadline: Instant::now() + config.start_timeout,
            own: Mutex::default(),
            _following: AbortOnDropHandle::new(following),
        })
    }

    /// Waits until it is known what the store holds.
    ///
    /// # Errors
    /// When the store did not answer within `discovery.start-timeout` and is required.
    pub(crate) async fn join(&self) -> Result<(), DiscoveryError> {
        self.until(self.deadline, "what is registered", |done| done.following).await
    }

    /// The instances of every group, always the newest.
    pub(crate) fn groups(&self) -> watch::Receiver<Arc<Groups>> {
        self.view.groups()
    }

    /// What the fleet wants of this group, always the newest: the text, TOML or JSON, that the
    /// store holds for it; nothing where it holds none. It stays while the store is away.
    pub(crate) fn settings(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.view.settings()
    }

    /// The key that they stand under.
    pub(crate) fn settings_key(&self) -> &str {
        self.view.keys().settings()
    }

    /// How the store is.
    pub(crate) fn health(&self) -> watch::Receiver<Health> {
        self.view.health()
    }

    /// Makes this process known to others as `instance`, and keeps it known. Called once, when it
    /// listens.
    ///
    /// # Errors
    /// When the store did not take it in time and is required.
    pub(crate) async fn register(&self, instance: &Instance) -> Result<(), DiscoveryError> {
        let registration = Arc::new(Registration {
            key: self.view.keys().instance(&self.group, &instance.id),
            value: instance.to_entry(&self.group),
            heartbeat: self.heartbeat,
        });
        let (store, view) = (Arc::clone(&self.store), Arc::clone(&self.view));
        let keeping = tokio::spawn(keep(store, Arc::clone(&registration), view));
        let keeping = AbortOnDropHandle::new(keeping);
        *self.lock() = Some(Own { registration, keeping });
        let deadline = self.deadline.max(Instant::now() + LEAST_WAIT);
        self.until(deadline, "this instance's entry", |done| done.registering).await
    }

    /// Takes this process back, so that no new request is sent to it. Called first of all when the
    /// host stops.
    ///
    /// # Errors
    /// When the store does not answer.
    pub(crate) async fn deregister(&self) -> Result<(), DiscoveryError> {
        let own = self.lock().take();
        let Some(Own { registration, keeping }) = own else { return Ok(()) };
        self.view.given_back();
        keeping.abort();
        // It must not be renewed after it was taken out.
        let _ = keeping.await;
        self.store.withdraw(&registration).await
    }

    /// How long others may take to see that this process is gone from the store. Nobody looks where
    /// nobody registers.
    pub(crate) const fn time_to_see(&self) -> Duration {
        self.time_to_see
    }

    /// Waits for the store, in vain only where it is not required.
    async fn until(
        &self,
        deadline: Instant,
        what: &str,
        is_done: impl Fn(&Done) -> bool,
    ) -> Result<(), DiscoveryError> {
        let mut done = self.view.done();
        if timeout_at(deadline, done.wait_for(is_done)).await.is_ok() {
            return Ok(());
        }
        let health = self.view.health();
        let reason = health.borrow().last_error().unwrap_or("no answer").to_owned();
        let message = format!("{what}: not had within discovery.start-timeout: {reason}");
        let error = DiscoveryError { backend: self.backend, message };
        if self.required {
            return Err(error);
        }
        tracing::warn!("{error}; starting without, as discovery.required = false says");
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the store for ever.
async fn follow(store: Arc<dyn Discovery>, view: Arc<View>) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        tokio::select! {
            error = store.follow(&view) => view.failed(Part::Following, &error),
            () = view.forget() => {}
        }
        backoff.wait(began).await;
    }
}

/// Keeps the registration for ever.
async fn keep(store: Arc<dyn Discovery>, own: Arc<Registration>, view: Arc<View>) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        tokio::select! {
            error = store.keep(&own, &view) => {
                view.failed(Part::Registering, &error);
                backoff.wait(began).await;
            }
            () = view.lost() => {
                tracing::info!("discovery: {} was taken out of the store; registering anew", own.key);
            }
        }
    }
}

/// How long to wait before the next attempt: longer each time, with chance in it, so that a fleet
/// does not come back all at once.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Waits after an attempt that `began` then; one that lasted was none that failed at once.
    async fn wait(&mut self, began: Instant) {
        let (first, longest) = BACKOFF;
        self.failures = if began.elapsed() > longest { 1 } else { self.failures + 1 };
        let wait = longest.min(first * 2u32.saturating_pow(self.failures - 1));
        // The standard library's only source of chance: the keys of its hash maps.
        let chance = RandomState::new().hash_one(0) % 1024;
        sleep(wait / 2 + wait.mul_f64(chance as f64 / 2048.0)).await;
    }
}
