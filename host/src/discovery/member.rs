//! One instance as those who call it see it: how many requests it has, and whether it can be
//! reached.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::Serialize;

use super::Instance;

/// A member of a service group. Clones share its state, and so do all tables that hold it.
#[derive(Clone)]
pub struct Member {
    instance: Arc<Instance>,
    state: Arc<State>,
}

// The state has nothing that has to be seen together with anything else, so every access to it is
// relaxed.
#[derive(Default)]
pub(super) struct State {
    in_flight: AtomicU32,
    /// Connections that could not be made, since the last answer.
    failures: AtomicU32,
    /// Ejections since the last answer.
    ejections: AtomicU32,
    /// In milliseconds since the Unix epoch; 0 while it is not ejected.
    ejected_until: AtomicU64,
}

impl Member {
    pub(super) fn new(instance: Arc<Instance>) -> Self {
        Self { instance, state: Arc::default() }
    }

    /// The same member, of which the registry says this now.
    pub(super) fn described_by(&self, instance: Arc<Instance>) -> Self {
        Self { instance, state: Arc::clone(&self.state) }
    }

    /// What the registry says of it.
    #[must_use]
    pub fn instance(&self) -> &Instance {
        &self.instance
    }

    /// How many requests have been sent to it whose response has not ended.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    /// Whether it is left alone for now, because no connection to it could be made.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.state.ejected_until.load(Ordering::Relaxed) != 0
    }

    /// Whether both are the same member.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    pub(super) fn state(&self) -> Weak<State> {
        Arc::downgrade(&self.state)
    }

    /// A connection could not be made; how many that are in a row.
    pub(super) fn fail(&self) -> u32 {
        self.state.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1)
    }

    /// How often it was ejected since the last answer.
    pub(super) fn ejections(&self) -> u32 {
        self.state.ejections.load(Ordering::Relaxed)
    }

    /// Leaves it alone until it is returned; gives what [`State::readmit`] wants to be told.
    pub(super) fn eject(&self, time: Duration) -> u64 {
        let until = SystemTime::now() + time;
        let until = until.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let until = u64::try_from(until).unwrap_or(u64::MAX);
        self.state.ejections.fetch_add(1, Ordering::Relaxed);
        self.state.ejected_until.store(until, Ordering::Relaxed);
        until
    }

    /// Ends an ejection before its time.
    pub(super) fn readmit(&self, failures: u32) {
        self.state.readmit(self.state.ejected_until.load(Ordering::Relaxed), failures);
    }

    /// What operators are told of it.
    pub(crate) fn report(&self) -> Report<'_> {
        let until = self.state.ejected_until.load(Ordering::Relaxed);
        let until = (until != 0).then(|| UNIX_EPOCH + Duration::from_millis(until));
        Report {
            instance: &self.instance,
            in_flight: self.in_flight(),
            failures: self.state.failures.load(Ordering::Relaxed),
            ejected_until: until.map(|until| humantime::format_rfc3339_millis(until).to_string()),
        }
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.instance.url.fmt(f)
    }
}

impl State {
    /// Ends the ejection that lasts `until` then, with as many `failures` as it is to have. Whether
    /// there was still something to end.
    pub(super) fn readmit(&self, until: u64, failures: u32) -> bool {
        self.failures.store(failures, Ordering::Relaxed);
        let place = &self.ejected_until;
        place.compare_exchange(until, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// A member and how it is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct Report<'a> {
    #[serde(flatten)]
    instance: &'a Instance,
    in_flight: u32,
    failures: u32,
    ejected_until: Option<String>,
}

/// The member that was chosen for one request, which is in flight on it until this is dropped.
#[derive(Debug)]
pub struct Chosen(Member);

impl Chosen {
    pub(super) fn new(member: &Member) -> Self {
        member.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self(member.clone())
    }

    /// Who was chosen.
    #[must_use]
    pub const fn member(&self) -> &Member {
        &self.0
    }

    /// A response has come: it can be reached.
    pub(crate) fn answered(&self) {
        let State { failures, ejections, .. } = &*self.0.state;
        let has_failed = failures.load(Ordering::Relaxed) | ejections.load(Ordering::Relaxed) != 0;
        // What was sent before the ejection says nothing about connections that are made now.
        if has_failed && !self.0.is_ejected() {
            failures.store(0, Ordering::Relaxed);
            ejections.store(0, Ordering::Relaxed);
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        self.0.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
