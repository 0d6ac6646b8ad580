//! What discovery knows just now, and whose turn it is.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::watch;

use super::{Groups, Instance};

/// The instances of every group, always the newest; clones share the turn.
#[derive(Debug, Clone)]
pub struct Directory {
    groups: watch::Receiver<Arc<Groups>>,
    turn: Arc<AtomicUsize>,
}

/// Why no instance could be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nobody {
    /// Nobody has registered under this name.
    UnknownGroup,
    /// The group is known and has no instance now.
    EmptyGroup,
}

impl Directory {
    pub(crate) fn new(groups: watch::Receiver<Arc<Groups>>) -> Self {
        Self { groups, turn: Arc::default() }
    }

    /// Everything that is known now.
    pub(crate) fn groups(&self) -> Arc<Groups> {
        Arc::clone(&self.groups.borrow())
    }

    /// The instance whose turn it is, round robin; `choose` sees it while the table is held.
    pub(crate) fn choose<R>(
        &self,
        group: &str,
        choose: impl FnOnce(&Instance) -> R,
    ) -> Result<R, Nobody> {
        let groups = self.groups.borrow();
        let instances = groups.get(group).ok_or(Nobody::UnknownGroup)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let index = turn.checked_rem(instances.len()).ok_or(Nobody::EmptyGroup)?;
        instances.get(index).map(|instance| choose(instance)).ok_or(Nobody::EmptyGroup)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::BaseUrl;

    fn directory(urls: &[&str]) -> Directory {
        let instance = |url: &&str| {
            Arc::new(Instance::configured(BaseUrl::try_from((*url).to_owned()).unwrap()))
        };
        let groups = Groups::from([("a".to_owned(), urls.iter().map(instance).collect())]);
        Directory::new(watch::channel(Arc::new(groups)).1)
    }

    #[test]
    fn every_instance_has_its_turn() {
        let directory = directory(&["http://a:1", "http://b:1", "http://c:1"]);
        let mut chosen: Vec<String> =
            (0..6).map(|_| directory.choose("a", |i| i.url.uri().to_string()).unwrap()).collect();
        chosen.sort();
        assert_eq!(chosen.iter().filter(|url| url.contains("//b:")).count(), 2);
        assert_eq!(chosen.len(), 6);
    }

    #[test]
    fn an_unknown_group_is_told_from_an_empty_one() {
        assert_eq!(directory(&[]).choose("a", |_| ()), Err(Nobody::EmptyGroup));
        assert_eq!(directory(&[]).choose("b", |_| ()), Err(Nobody::UnknownGroup));
    }
}
