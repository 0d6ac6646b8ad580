//! What the store says, as the host sees it: a store's keys and values go in, groups and settings
//! come out.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout_at},
};

use super::{DiscoveryError, Groups, Instance, health, health::Health, health::Part, keys::Keys};

/// A change of one key in the store.
#[derive(Debug)]
pub(super) enum Change {
    /// The key has this value now.
    Put(String, Vec<u8>),
    /// The key is gone.
    Removed(String),
}

/// The view that one host has of its store.
///
/// Configured groups are always there; one of the same name in the store stands in its place while
/// it has instances. What cannot be read is named once, in the log, and is otherwise not there.
pub(super) struct View {
    keys: Keys,
    configured: Groups,
    table: Mutex<Table>,
    groups: watch::Sender<Arc<Groups>>,
    settings: watch::Sender<Option<Arc<str>>>,
    health: watch::Sender<Health>,
    done: watch::Sender<Done>,
    lost: Notify,
    /// How long what a store has lost is kept.
    grace: Duration,
    /// When what is kept is forgotten.
    forgets: watch::Sender<Option<Instant>>,
}

/// What has been done at least once.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Done {
    /// A snapshot was taken.
    pub(super) following: bool,
    /// The store has this process' entry.
    pub(super) registering: bool,
}

#[derive(Default)]
struct Table {
    /// By key, so that the instances of a group stand together.
    entries: BTreeMap<String, Entry>,
    /// The key of this process' own entry, once it has one.
    own: Option<String>,
    /// The store was away since the last snapshot.
    broken: bool,
    /// By key, what the store had before it was away, and has not now.
    kept: BTreeMap<String, (String, Arc<Instance>)>,
}

enum Entry {
    Instance(String, Arc<Instance>),
    /// Named in the log already; another value under the same key is named anew.
    Unusable(u64),
}

impl View {
    pub(super) fn new(
        backend: &'static str,
        keys: Keys,
        configured: Groups,
        grace: Duration,
    ) -> Self {
        Self {
            keys,
            table: Mutex::default(),
            groups: watch::Sender::new(Arc::new(configured.clone())),
            configured,
            settings: watch::Sender::new(None),
            health: watch::Sender::new(Health::new(backend)),
            done: watch::Sender::default(),
            lost: Notify::new(),
            grace,
            forgets: watch::Sender::default(),
        }
    }

    pub(super) const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The instances of every group, always the newest.
    pub(super) fn groups(&self) -> watch::Receiver<Arc<Groups>> {
        self.groups.subscribe()
    }

    /// The text under the settings key.
    pub(super) fn settings(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.settings.subscribe()
    }

    /// How the store is.
    pub(super) fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// What has been done.
    pub(super) fn done(&self) -> watch::Receiver<Done> {
        self.done.subscribe()
    }

    /// The store has this process' own entry under `key`, just now.
    pub(super) fn held(&self, key: &str) {
        let mut table = self.lock();
        if table.own.as_deref() != Some(key) {
            table.own = Some(key.to_owned());
        }
        drop(table);
        self.note(Part::Registering, Ok(()));
    }

    /// This process has no entry of its own any more.
    pub(super) fn given_back(&self) {
        self.lock().own = None;
    }

    /// What was tried ended in this error.
    pub(super) fn failed(&self, part: Part, error: &DiscoveryError) {
        if matches!(part, Part::Following) {
            self.lock().broken = true;
        }
        self.note(part, Err(error));
    }

    fn note(&self, part: Part, outcome: Result<(), &DiscoveryError>) {
        health::note(&self.health, part, outcome);
        self.done.send_if_modified(|done| {
            let place = match part {
                Part::Following => &mut done.following,
                Part::Registering => &mut done.registering,
            };
            outcome.is_ok() && !std::mem::replace(place, true)
        });
    }

    /// Waits until somebody takes this process' own entry out of the store.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Everything that the store holds under both keys, in place of what was known.
    pub(super) fn snapshot(&self, all: Vec<(String, Vec<u8>)>) {
        let mut table = self.lock();
        let mut before = std::mem::take(&mut table.entries);
        let mut settings = None;
        for (key, value) in all {
            if key == self.keys.settings() {
                settings = Some(value);
            } else {
                let known = before.remove(&key);
                let entry = self.read(&key, &value, known);
                table.kept.remove(&key);
                table.entries.insert(key, entry);
            }
        }
        if std::mem::take(&mut table.broken) {
            self.keep(&mut table, before);
        }
        if table.own.as_ref().is_some_and(|own| !table.entries.contains_key(own)) {
            self.lost.notify_one();
        }
        self.publish(&table);
        self.set(settings);
        drop(table);
        self.note(Part::Following, Ok(()));
    }

    /// What has changed since, in order.
    pub(super) fn apply(&self, changes: Vec<Change>) {
        let mut table = self.lock();
        for change in changes {
            match change {
                Change::Put(key, value) if key == self.keys.settings() => self.set(Some(value)),
                Change::Removed(key) if key == self.keys.settings() => self.set(None),
                Change::Put(key, value) => {
                    let known = table.entries.remove(&key);
                    let entry = self.read(&key, &value, known);
                    table.kept.remove(&key);
                    table.entries.insert(key, entry);
                }
                Change::Removed(key) => {
                    table.entries.remove(&key);
                    table.kept.remove(&key);
                    if table.own.as_ref() == Some(&key) {
                        self.lost.notify_one();
                    }
                }
            }
        }
        self.publish(&table);
    }

    /// Keeps what is `missing` until it is time to forget it.
    fn keep(&self, table: &mut Table, missing: BTreeMap<String, Entry>) {
        for (key, entry) in missing {
            if let Entry::Instance(group, instance) = entry {
                table.kept.insert(key, (group, instance));
            }
        }
        if !table.kept.is_empty() {
            let kept = table.kept.len();
            tracing::info!(
                "discovery: the store has lost {kept} entries; kept for {:?}",
                self.grace
            );
            self.forgets.send_replace(Some(Instant::now() + self.grace));
        }
    }

    /// Forgets, for ever, what was kept for long enough.
    pub(super) async fn forget(&self) {
        let mut forgets = self.forgets.subscribe();
        loop {
            let at = *forgets.borrow_and_update();
            let Some(at) = at else {
                // The sender is our own.
                let _ = forgets.changed().await;
                continue;
            };
            if timeout_at(at, forgets.changed()).await.is_err() {
                self.forgets.send_replace(None);
                let mut table = self.lock();
                table.kept.clear();
                self.publish(&table);
            }
        }
    }

    /// The entry under `key`; the one that was `known` where it says the same.
    fn read(&self, key: &str, value: &[u8], known: Option<Entry>) -> Entry {
        let parsed = match self.keys.parse(key) {
            Some((group, id)) => {
                Instance::from_entry(group, id, value).map(|read| (group.to_owned(), read))
            }
            None => Err("wanted a key that ends in a group and an id".to_owned()),
        };
        match (parsed, known) {
            (Ok((_, read)), Some(Entry::Instance(group, known))) if *known == read => {
                Entry::Instance(group, known)
            }
            (Ok((group, read)), _) => Entry::Instance(group, Arc::new(read)),
            (Err(reason), known) => {
                let mut hasher = DefaultHasher::new();
                value.hash(&mut hasher);
                let hash = hasher.finish();
                if !matches!(known, Some(Entry::Unusable(known)) if known == hash) {
                    tracing::warn!("discovery: {key:?} is no instance and is left out: {reason}");
                }
                Entry::Unusable(hash)
            }
        }
    }

    fn publish(&self, table: &Table) {
        let held = table.entries.values().filter_map(|entry| match entry {
            Entry::Instance(group, instance) => Some((group, instance)),
            Entry::Unusable(_) => None,
        });
        let kept = table.kept.values().map(|(group, instance)| (group, instance));
        let mut groups = Groups::new();
        for (group, instance) in held.chain(kept) {
            match groups.get_mut(group) {
                Some(instances) => instances.push(Arc::clone(instance)),
                None => drop(groups.insert(group.clone(), vec![Arc::clone(instance)])),
            }
        }
        for (group, instances) in &self.configured {
            groups.entry(group.clone()).or_insert_with(|| instances.clone());
        }
        self.groups.send_if_modified(|now| {
            let changes = **now != groups;
            if changes {
                *now = Arc::new(groups);
            }
            changes
        });
    }

    fn set(&self, settings: Option<Vec<u8>>) {
        let text = settings.map(String::from_utf8).transpose();
        let Ok(text) = text else {
            let key = self.keys.settings();
            tracing::warn!("discovery: {key:?} is not UTF-8; the settings stay as they are");
            return;
        };
        self.settings.send_if_modified(|now| {
            let changes = now.as_deref() != text.as_deref();
            if changes {
                *now = text.map(Arc::from);
            }
            changes
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BaseUrl;

    fn view() -> View {
        let url = BaseUrl::try_from("http://fixed:1".to_owned()).unwrap();
        let configured =
            Groups::from([("a".to_owned(), vec![Arc::new(Instance::configured(url))])]);
        View::new("test", Keys::new("/p", '/', "front"), configured, Duration::from_secs(3))
    }

    fn put(key: &str, value: &str) -> Change {
        Change::Put(format!("/p/{key}"), value.as_bytes().to_vec())
    }

    fn entry(key: &str, value: &str) -> (String, Vec<u8>) {
        (format!("/p/{key}"), value.as_bytes().to_vec())
    }

    fn told(view: &View) -> Vec<String> {
        let groups = view.groups();
        let groups = groups.borrow();
        let all = groups.iter().flat_map(|(group, instances)| {
            instances.iter().map(move |instance| format!("{group} {}", instance.id))
        });
        all.collect()
    }

    const X: &str = r#"{"address": "x:1"}"#;

    #[test]
    fn a_group_in_the_store_stands_in_place_of_the_configured_one() {
        let view = view();
        assert_eq!(told(&view), ["a http://fixed:1/"]);
        view.snapshot(vec![entry("services/a/1", X), entry("services/b/2", X)]);
        assert_eq!(told(&view), ["a 1", "b 2"]);
        view.apply(vec![Change::Removed("/p/services/a/1".to_owned())]);
        assert_eq!(told(&view), ["a http://fixed:1/", "b 2"]);
        view.snapshot(Vec::new());
        assert_eq!(told(&view), ["a http://fixed:1/"]);
    }

    #[test]
    fn whoever_watches_is_woken_by_changes_alone_and_what_stays_is_the_same() {
        let view = view();
        view.apply(vec![put("services/b/1", X)]);
        let mut groups = view.groups();
        let before = Arc::clone(&groups.borrow_and_update()["b"][0]);
        view.apply(vec![
            put("services/b/1", X),
            put("services/b/x/y", X),
            put("services/b/2", "{"),
        ]);
        view.snapshot(vec![entry("services/b/1", X)]);
        assert!(!groups.has_changed().unwrap());
        view.apply(vec![put("services/b/3", X)]);
        assert!(groups.has_changed().unwrap());
        assert!(Arc::ptr_eq(&before, &groups.borrow()["b"][0]));
    }

    #[test]
    fn settings_are_text_or_stay_as_they_are() {
        let view = view();
        let settings = view.settings();
        view.snapshot(vec![entry("config/front", "a = 1"), entry("config/other", "b = 1")]);
        assert_eq!(settings.borrow().as_deref(), Some("a = 1"));
        view.apply(vec![Change::Put("/p/config/front".to_owned(), vec![0xff])]);
        assert_eq!(settings.borrow().as_deref(), Some("a = 1"));
        view.apply(vec![put("config/front", "")]);
        assert_eq!(settings.borrow().as_deref(), Some(""));
        view.apply(vec![Change::Removed("/p/config/front".to_owned())]);
        assert_eq!(settings.borrow().as_deref(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_store_lost_while_it_was_away_is_kept_for_a_while() {
        let view = view();
        let away = DiscoveryError { backend: "test", message: String::new() };
        view.snapshot(vec![entry("services/b/1", X), entry("services/b/2", X)]);
        view.failed(Part::Following, &away);
        view.snapshot(vec![entry("services/b/2", X)]);
        let fixed = "a http://fixed:1/";
        assert_eq!(told(&view), [fixed, "b 2", "b 1"]);
        view.apply(vec![Change::Removed("/p/services/b/1".to_owned())]);
        assert_eq!(told(&view), [fixed, "b 2"]);
        view.failed(Part::Following, &away);
        view.snapshot(Vec::new());
        let forget = |seconds| tokio::time::timeout(Duration::from_secs(seconds), view.forget());
        assert!(forget(2).await.is_err());
        assert_eq!(told(&view), [fixed, "b 2"]);
        assert!(forget(2).await.is_err());
        assert_eq!(told(&view), [fixed]);
        // Nobody was away: what is missing is gone.
        view.snapshot(vec![entry("services/b/1", X)]);
        view.snapshot(Vec::new());
        assert_eq!(told(&view), [fixed]);
    }

    #[tokio::test]
    async fn it_is_told_when_the_own_entry_is_gone() {
        let view = view();
        let is_lost =
            async || tokio::time::timeout(std::time::Duration::ZERO, view.lost()).await.is_ok();
        view.snapshot(Vec::new());
        view.held("/p/services/front/1");
        assert!(!is_lost().await);
        view.snapshot(vec![entry("services/front/1", X)]);
        assert!(!is_lost().await);
        view.apply(vec![Change::Removed("/p/services/front/1".to_owned())]);
        assert!(is_lost().await);
        view.snapshot(Vec::new());
        assert!(is_lost().await);
        view.given_back();
        view.snapshot(Vec::new());
        assert!(!is_lost().await);
    }
}
