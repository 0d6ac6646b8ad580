//! What discovery knows just now, and who is chosen of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use fastrand::Rng;
use tokio::sync::watch;

use super::{
    Chosen, Groups, Instance, Member, balance,
    member::{Report, State},
};
use crate::config;

/// The longest ejection, where `client.eject-for` is not longer.
const MOST_EJECTED: Duration = Duration::from_secs(60);

/// The instances of every group, always the newest, and how each is doing; clones share it.
#[derive(Debug, Clone)]
pub struct Directory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    table: ArcSwap<Table>,
    eject_after: u32,
    eject_for: Duration,
    /// Held by whoever ejects or changes the table, so that a group is never left without a member
    /// that is not ejected.
    changing: Mutex<()>,
}

/// The members of every group at one moment.
#[derive(Debug, Default)]
pub(crate) struct Table(BTreeMap<String, Box<[Member]>>);

/// Why no instance could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nobody {
    /// Nobody has registered under this name.
    UnknownGroup,
    /// The group is known and has no instance now.
    EmptyGroup,
}

impl Directory {
    /// Follows `groups` from now on, on the runtime that it is called on.
    #[must_use]
    pub fn new(groups: watch::Receiver<Arc<Groups>>, config: &config::Client) -> Self {
        let table = Table::of(&groups.borrow(), &Table::default());
        let shared = Arc::new(Shared {
            table: ArcSwap::from_pointee(table),
            eject_after: config.eject_after,
            eject_for: config.eject_for,
            changing: Mutex::default(),
        });
        tokio::spawn(follow(groups, Arc::downgrade(&shared)));
        Self(shared)
    }

    /// Everything that is known now.
    pub(crate) fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }

    /// Chooses an instance of `group`: of two drawn at random the one with fewer requests in flight.
    /// None of those that were `tried`, and none that is ejected, where there is another.
    ///
    /// # Errors
    /// Where the group has no instance.
    pub fn choose(&self, group: &str, tried: &[Member]) -> Result<Chosen, Nobody> {
        let table = self.0.table.load();
        let members = table.0.get(group).ok_or(Nobody::UnknownGroup)?;
        let chosen = balance::choose(members, tried, &mut Rng::new());
        chosen.map(Chosen::new).ok_or(Nobody::EmptyGroup)
    }

    /// No connection to `member` of `group` could be made. After `client.eject-after` of these in a
    /// row it is ejected for a time, unless it is the last one that is not.
    pub(crate) fn unreachable(&self, group: &str, member: &Member) {
        let failures = member.fail();
        if self.0.eject_after == 0 || failures < self.0.eject_after {
            return;
        }
        let Some((time, until)) = self.0.eject(group, member) else { return };
        let url = &member.instance().url;
        tracing::warn!(
            "service {group}: {url:?} ejected for {time:?}: no connection in {failures} attempts"
        );
        let line = format!("service {group}: {url:?} is back after {time:?}");
        tokio::spawn(readmit(member.state(), time, until, self.0.eject_after - 1, line));
    }
}

/// Ends an ejection in time; nothing where the member is gone by then.
async fn readmit(member: Weak<State>, time: Duration, until: u64, failures: u32, line: String) {
    tokio::time::sleep(time).await;
    if member.upgrade().is_some_and(|member| member.readmit(until, failures)) {
        tracing::info!("{line}");
    }
}

impl Shared {
    fn eject(&self, group: &str, member: &Member) -> Option<(Duration, u64)> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = self.table.load();
        let mut others = table.0.get(group)?.iter().filter(|other| !other.is(member));
        if member.is_ejected() || others.all(Member::is_ejected) {
            return None;
        }
        let longest = MOST_EJECTED.max(self.eject_for);
        let doubled = 2_u32.saturating_pow(member.ejections());
        let time = self.eject_for.saturating_mul(doubled).min(longest);
        Some((time, member.eject(time)))
    }

    /// Puts the table of `groups` in place of the one before, which is given back.
    fn update(&self, groups: &Groups) -> Arc<Table> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let table = Table::of(groups, &self.table.load());
        for members in table.0.values().filter(|members| members.iter().all(Member::is_ejected)) {
            members.iter().for_each(|member| member.readmit(self.eject_after.saturating_sub(1)));
        }
        self.table.swap(Arc::new(table))
    }
}

async fn follow(mut groups: watch::Receiver<Arc<Groups>>, shared: Weak<Shared>) {
    // A table is kept until the one after the next is there: to free it is no request's work.
    let mut _before = None;
    while groups.changed().await.is_ok() {
        let newest = Arc::clone(&groups.borrow_and_update());
        let Some(shared) = shared.upgrade() else { return };
        // Ten thousand instances take milliseconds, in which this thread has requests to serve.
        let updated = tokio::task::spawn_blocking(move || shared.update(&newest));
        _before = updated.await.ok();
    }
}

impl Table {
    /// The members of `groups`; those that were there `before` keep their state.
    fn of(groups: &Groups, before: &Self) -> Self {
        let members = |(group, instances): (&String, &Vec<Arc<Instance>>)| {
            let before = before.0.get(group).into_iter().flatten();
            let mut known: HashMap<_, _> =
                before.map(|member| (&member.instance().id, member.clone())).collect();
            let members = instances.iter().map(|instance| {
                let known = known.entry(&instance.id);
                let known = known.or_insert_with(|| Member::new(Arc::clone(instance)));
                known.described_by(Arc::clone(instance))
            });
            (group.clone(), members.collect())
        };
        Self(groups.iter().map(members).collect())
    }

    /// Every group and its members.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &[Member])> {
        self.0.iter().map(|(group, members)| (group.as_str(), &**members))
    }

    /// What operators are told of it.
    pub(crate) fn report(&self) -> BTreeMap<&str, Vec<Report<'_>>> {
        let groups = self.groups();
        groups.map(|(name, members)| (name, members.iter().map(Member::report).collect())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::testing::allocations;

    const FIRST: &str = "http://a:1";
    const SECOND: &str = "http://b:1";
    const THIRD: &str = "http://c:1";

    fn groups(urls: &[&str]) -> Arc<Groups> {
        let url = |url: &&str| (*url).to_owned().try_into().unwrap();
        let instances = urls.iter().map(|text| Arc::new(Instance::configured(url(text)))).collect();
        Arc::new(Groups::from([("a".to_owned(), instances)]))
    }

    fn directory(urls: &[&str]) -> (watch::Sender<Arc<Groups>>, Directory) {
        let (sender, receiver) = watch::channel(groups(urls));
        let directory = Directory::new(receiver, &config::Client::default());
        (sender, directory)
    }

    impl Directory {
        fn member(&self, url: &str) -> Member {
            let table = self.table();
            let mut members = table.groups().flat_map(|(_, members)| members);
            members.find(|member| *member.instance().url.uri() == *url).unwrap().clone()
        }

        fn fail(&self, url: &str, times: usize) -> bool {
            let member = self.member(url);
            (0..times).for_each(|_| self.unreachable("a", &member));
            member.is_ejected()
        }

        /// Which of these are chosen in a hundred times.
        fn chosen<'a>(&self, urls: &[&'a str]) -> Vec<&'a str> {
            let choices: Vec<_> = (0..100).map(|_| self.choose("a", &[]).unwrap()).collect();
            let is_chosen = |url: &str| choices.iter().any(|c| c.member().is(&self.member(url)));
            urls.iter().filter(|url| is_chosen(url)).copied().collect()
        }
    }

    /// Waits until the table has as many members of the group.
    async fn has_members(directory: &Directory, count: usize) {
        while directory.table().groups().next().unwrap().1.len() != count {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_unknown_group_is_told_from_an_empty_one() {
        let (_sender, directory) = directory(&[]);
        assert_eq!(directory.choose("a", &[]).err(), Some(Nobody::EmptyGroup));
        assert_eq!(directory.choose("b", &[]).err(), Some(Nobody::UnknownGroup));
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_cannot_be_reached_is_left_alone_for_a_time() {
        let (_sender, directory) = directory(&[FIRST, SECOND]);
        assert!(!directory.fail(FIRST, 2));
        assert_eq!(directory.chosen(&[FIRST, SECOND]), [FIRST, SECOND]);
        assert!(directory.fail(FIRST, 1));
        assert_eq!(directory.chosen(&[FIRST, SECOND]), [SECOND]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            tokio::time::sleep(Duration::from_millis(seconds * 1000 - 1)).await;
            assert!(directory.member(FIRST).is_ejected(), "before {seconds} s");
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(!directory.member(FIRST).is_ejected(), "after {seconds} s");
            assert!(directory.fail(FIRST, 1), "one failure more is enough");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_makes_up_for_all_failures() {
        let (_sender, directory) = directory(&[FIRST, SECOND]);
        let first = Chosen::new(&directory.member(FIRST));
        assert!(directory.fail(FIRST, 3));
        first.answered();
        tokio::time::sleep(Duration::from_millis(1001)).await;
        assert!(directory.fail(FIRST, 1), "an answer while it was ejected is none");
        tokio::time::sleep(Duration::from_millis(2001)).await;
        first.answered();
        assert!(!directory.fail(FIRST, 2));
        assert!(directory.fail(FIRST, 1));
        tokio::time::sleep(Duration::from_millis(1001)).await;
        assert!(!directory.member(FIRST).is_ejected(), "as long as the first time");
    }

    #[tokio::test]
    async fn the_last_instance_is_never_ejected() {
        let (_sender, directory) = directory(&[FIRST, SECOND, THIRD]);
        assert!(directory.fail(FIRST, 3) && directory.fail(SECOND, 3));
        assert!(!directory.fail(THIRD, 100));
        assert_eq!(directory.chosen(&[FIRST, SECOND, THIRD]), [THIRD]);
    }

    #[tokio::test]
    async fn to_choose_allocates_nothing() {
        let urls: Vec<_> = (0..100).map(|i| format!("http://a:{i}")).collect();
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        let (_sender, directory) = directory(&urls);
        // The first choice of a thread makes its random numbers.
        drop(directory.choose("a", &[]));
        assert!(directory.fail("http://a:0", 3));
        let choose = || (0..1000).for_each(|_| drop(directory.choose("a", &[]).unwrap()));
        assert_eq!(allocations(choose), 0);
    }

    #[tokio::test]
    async fn none_is_ejected_where_that_is_switched_off() {
        let config = config::Client { eject_after: 0, ..config::Client::default() };
        let (_sender, receiver) = watch::channel(groups(&[FIRST, SECOND]));
        assert!(!Directory::new(receiver, &config).fail(FIRST, 100));
    }

    #[tokio::test]
    async fn an_instance_that_stays_keeps_its_state() {
        let (sender, directory) = directory(&[FIRST, SECOND]);
        assert!(directory.fail(FIRST, 3));
        let chosen = directory.choose("a", &[]).unwrap();
        sender.send_replace(groups(&[SECOND, THIRD, FIRST]));
        has_members(&directory, 3).await;
        assert!(directory.member(FIRST).is_ejected());
        assert_eq!([FIRST, SECOND, THIRD].map(|url| directory.member(url).in_flight()), [0, 1, 0]);
        drop(chosen);
        assert_eq!(directory.member(SECOND).in_flight(), 0);
    }

    #[tokio::test]
    async fn whoever_is_left_is_ejected_no_more() {
        let (sender, directory) = directory(&[FIRST, SECOND]);
        assert!(directory.fail(FIRST, 3));
        sender.send_replace(groups(&[FIRST]));
        has_members(&directory, 1).await;
        assert!(!directory.member(FIRST).is_ejected());
    }

    #[tokio::test]
    async fn an_instance_that_comes_back_starts_anew() {
        let (sender, directory) = directory(&[FIRST, SECOND]);
        assert!(directory.fail(FIRST, 3));
        sender.send_replace(groups(&[SECOND]));
        has_members(&directory, 1).await;
        sender.send_replace(groups(&[SECOND, FIRST]));
        has_members(&directory, 2).await;
        assert!(!directory.member(FIRST).is_ejected());
    }
}
