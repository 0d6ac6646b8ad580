//! Bounds what can be told apart: routes, span names, captured values.
//!
//! Whoever stores spans pays for each distinct one. Past the bound, all others are one.
// An uncontended read lock costs less than the text that it saves, and it is written under only where
// something new has come, which the bound makes rare.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use plugin_api::{Host, Level};
use rustc_hash::FxHashMap;

const TARGET: &str = "plugin_otel";

/// Stands for everything past a bound.
pub(crate) const OVERFLOW: &str = "_OVERFLOW";

/// The name of a span, `{method} {route}`; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpanName {
    text: Arc<str>,
    /// Where the route begins.
    route: usize,
}

impl SpanName {
    fn new(method: &str, route: &str) -> Self {
        Self { text: format!("{method} {route}").into(), route: method.len() + 1 }
    }

    /// The whole name.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// The route in it, or [`OVERFLOW`].
    pub(crate) fn route(&self) -> &str {
        self.text.get(self.route..).unwrap_or_default()
    }
}

/// What has been seen so far.
#[derive(Debug)]
pub(crate) struct Cardinality {
    most: usize,
    host: Host,
    names: RwLock<Names>,
    /// Whether the warning about names has been given.
    is_told: AtomicBool,
    values: RwLock<HashMap<String, Values>>,
    /// Of values only hashes are kept: callers choose how long they are.
    hashes: RandomState,
}

#[derive(Debug, Default)]
struct Names {
    /// Each with its methods, of which there are few: one hash is enough. It is the quick kind: a
    /// route is a template of the host's, which no caller chooses.
    by_route: FxHashMap<String, Vec<(&'static str, SpanName)>>,
    count: usize,
    overflow: HashMap<&'static str, SpanName>,
}

#[derive(Debug, Default)]
struct Values {
    seen: HashSet<u64>,
    is_told: AtomicBool,
}

/// What becomes of a value.
enum Fate {
    Known,
    New,
    TooMany { is_first: bool },
}

impl Values {
    fn fate(&self, hash: u64, most: usize) -> Fate {
        if self.seen.contains(&hash) {
            Fate::Known
        } else if self.seen.len() < most {
            Fate::New
        } else {
            Fate::TooMany { is_first: is_first(&self.is_told) }
        }
    }
}

/// Whether nobody has asked before.
fn is_first(is_told: &AtomicBool) -> bool {
    !is_told.load(Ordering::Relaxed) && !is_told.swap(true, Ordering::Relaxed)
}

impl Cardinality {
    /// At most this many span names, and as many values of each key; says in the host's log, once,
    /// what was too much.
    pub(crate) fn new(most: usize, host: Host) -> Self {
        Self {
            most,
            host,
            names: RwLock::default(),
            is_told: AtomicBool::new(false),
            values: RwLock::default(),
            hashes: RandomState::new(),
        }
    }

    /// The name of a span of this method and route. A known one costs a look-up.
    ///
    /// `method` is one of the known methods or what stands for all others, so there are few.
    pub(crate) fn span_name(&self, method: &'static str, route: &str) -> SpanName {
        let known = self.read_names(|names| names.find(method, route, self.most).cloned());
        let name = known.unwrap_or_else(|| {
            let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            names.add(method, route, self.most)
        });
        if name.route() == OVERFLOW && is_first(&self.is_told) {
            self.tell("span names", &format!("{method} {route}"));
        }
        name
    }

    fn read_names<T>(&self, read: impl FnOnce(&Names) -> T) -> T {
        read(&self.names.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value to record for a captured `key`: itself, or [`OVERFLOW`] where it is one too many.
    pub(crate) fn value<'a>(&self, key: &str, value: Cow<'a, str>) -> Cow<'a, str> {
        let hash = self.hashes.hash_one(&*value);
        let all = self.values.read().unwrap_or_else(PoisonError::into_inner);
        let mut fate = all.get(key).map_or(Fate::New, |values| values.fate(hash, self.most));
        drop(all);
        if let Fate::New = fate {
            let mut all = self.values.write().unwrap_or_else(PoisonError::into_inner);
            let values = all.entry(key.to_owned()).or_default();
            // Others may have come in between.
            fate = values.fate(hash, self.most);
            if let Fate::New = fate {
                values.seen.insert(hash);
            }
        }
        match fate {
            Fate::Known | Fate::New => value,
            Fate::TooMany { is_first } => {
                if is_first {
                    // The value may be what nobody should read in a log.
                    self.tell("values", key);
                }
                Cow::Borrowed(OVERFLOW)
            }
        }
    }

    fn tell(&self, what: &str, offender: &str) {
        let most = self.most;
        let line = format!(
            "more than {most} distinct {what}: {offender:?} and all further ones are {OVERFLOW}, \
             see otel.max-distinct"
        );
        self.host.log(Level::WARN, TARGET, &line);
    }
}

impl Names {
    /// The name that is known, or that stands for all others when no more are taken.
    fn find(&self, method: &str, route: &str, most: usize) -> Option<&SpanName> {
        let known = self.by_route.get(route).and_then(|names| {
            names.iter().find(|(known, _)| *known == method).map(|(_, name)| name)
        });
        if known.is_some() || self.count < most { known } else { self.overflow.get(method) }
    }

    fn add(&mut self, method: &'static str, route: &str, most: usize) -> SpanName {
        if let Some(name) = self.find(method, route, most) {
            return name.clone();
        }
        if self.count >= most {
            return self
                .overflow
                .entry(method)
                .or_insert_with(|| SpanName::new(method, OVERFLOW))
                .clone();
        }
        self.count += 1;
        let name = SpanName::new(method, route);
        self.by_route.entry(route.to_owned()).or_default().push((method, name.clone()));
        name
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Journal;

    fn guard(most: usize) -> (Cardinality, Journal) {
        let journal = Journal::default();
        (Cardinality::new(most, journal.host()), journal)
    }

    #[test]
    fn a_known_name_is_the_same_text_again() {
        let (guard, _) = guard(10);
        let first = guard.span_name("GET", "/a/{x}");
        let second = guard.span_name("GET", "/a/{x}");
        assert_eq!((first.as_str(), first.route()), ("GET /a/{x}", "/a/{x}"));
        assert!(Arc::ptr_eq(&first.text, &second.text));
        assert_eq!(guard.span_name("POST", "/a/{x}").as_str(), "POST /a/{x}");
    }

    #[test]
    fn names_past_the_bound_are_one_and_one_warning_names_the_first() {
        let (guard, journal) = guard(2);
        for route in ["/a", "/b", "/a", "/b"] {
            assert_eq!(guard.span_name("GET", route).route(), route);
        }
        assert!(journal.lines().is_empty());
        for (method, route) in [("GET", "/c"), ("GET", "/d"), ("POST", "/a"), ("GET", "/c")] {
            let name = guard.span_name(method, route);
            assert_eq!(name.as_str(), format!("{method} _OVERFLOW"));
            assert_eq!(name.route(), OVERFLOW);
        }
        assert_eq!(guard.span_name("GET", "/a").route(), "/a", "what is known stays");
        let lines = journal.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0].0, Level::WARN);
        assert!(lines[0].1.contains("2 distinct span names: \"GET /c\""), "{lines:?}");
    }

    #[test]
    fn values_are_bounded_for_each_key_and_the_warning_shows_none() {
        let (guard, journal) = guard(2);
        let value = |key: &str, value: &'static str| guard.value(key, value.into()).into_owned();
        for text in ["one", "two", "one", "two"] {
            assert_eq!(value("x-a", text), text);
        }
        assert_eq!([value("x-a", "three"), value("x-a", "four")], [OVERFLOW, OVERFLOW]);
        assert_eq!([value("x-b", "three"), value("x-a", "two")], ["three", "two"]);
        let lines = journal.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].1.contains("2 distinct values: \"x-a\""), "{lines:?}");
        assert!(!lines[0].1.contains("three"), "{lines:?}");
    }

    #[test]
    fn the_bound_holds_on_many_threads() {
        let (guard, journal) = guard(10);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let guard = &guard;
                scope.spawn(move || {
                    for nth in 0..100 {
                        guard.span_name("GET", &format!("/{thread}/{nth}"));
                        guard.value("x", format!("{thread} {nth}").into());
                    }
                });
            }
        });
        assert_eq!(guard.names.read().unwrap().count, 10);
        assert_eq!(guard.values.read().unwrap()["x"].seen.len(), 10);
        assert_eq!(journal.lines().len(), 2, "{}", journal.text());
    }

    proptest! {
        #[test]
        fn there_are_never_more_than_the_bound_and_one(
            most in 1..5_usize, routes in prop::collection::vec("/[a-f]{0,2}", 0..60),
        ) {
            let (guard, _) = guard(most);
            let mut told = HashSet::new();
            for route in &routes {
                let name = guard.span_name("GET", route).as_str().to_owned();
                let wanted = format!("GET {route}");
                prop_assert!(name == wanted || told.len() >= most);
                told.insert(name);
            }
            prop_assert!(told.len() <= most + 1);
        }
    }
}
