//! Decisions as AWS X-Ray's centralized sampling makes them: rules with a reservoir and a fixed rate.
//!
//! Nothing here asks anyone: `remote_sampler` brings rules and targets, and reports what was counted.

mod rule;
mod wildcard;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use plugin_api::RequestHead;

use self::rule::Rule;
pub(crate) use self::{
    rule::{Counts, Quota, Target, Terms},
    wildcard::Wildcard,
};
use crate::{rate::Rate, ratio};

/// How long rules hold that are not renewed.
const RULES_HOLD: Duration = Duration::from_secs(3600);

/// Without rules, so many a second are sampled, and this share of the others.
const FALLBACK_PER_SECOND: f64 = 1.0;
const FALLBACK_RATIO: f64 = 0.05;

/// The rules in force. One that is made of another counts with it.
#[derive(Debug)]
pub(crate) struct Manifest {
    /// The first that is for a request decides.
    rules: Vec<Rule>,
    /// When the rules were asked for; `None`: there have been none.
    since: Option<Instant>,
    fallback: Arc<Rate>,
}

impl Default for Manifest {
    fn default() -> Self {
        let fallback = Arc::new(Rate::of(FALLBACK_PER_SECOND));
        Self { rules: Vec::new(), since: None, fallback }
    }
}

impl Manifest {
    /// Whether a trace that begins with this request is sampled. Takes no lock and allocates nothing.
    pub(crate) fn samples(
        &self,
        trace_id: &[u8; 16],
        head: &RequestHead<'_>,
        now: Instant,
    ) -> bool {
        let is_old = |since: Instant| now.saturating_duration_since(since) > RULES_HOLD;
        let hold = self.since.is_some_and(|since| !is_old(since));
        match self.rules.iter().find(|rule| hold && rule.is_for(head)) {
            Some(rule) => rule.samples(trace_id, now),
            None => self.fallback.takes_at(now) || ratio::takes(FALLBACK_RATIO, trace_id),
        }
    }

    /// These rules in place of its own. They were asked for at `since`.
    pub(crate) fn renewed(&self, mut all: Vec<Terms>, since: Instant) -> Self {
        all.sort_by(|a, b| a.priority.cmp(&b.priority).then_with(|| a.name.cmp(&b.name)));
        let renew = |terms: Terms| match self.rules.iter().find(|old| old.terms.name == terms.name)
        {
            Some(old) => old.renewed(terms),
            None => Rule::new(terms),
        };
        let rules = all.into_iter().map(renew).collect();
        Self { rules, since: Some(since), fallback: Arc::clone(&self.fallback) }
    }

    /// The same rules with these targets, each with the name of its rule.
    pub(crate) fn aimed(&self, targets: &[(String, Target)]) -> Self {
        let aim = |rule: &Rule| match targets.iter().find(|(name, _)| *name == rule.terms.name) {
            Some((_, target)) => rule.aimed(target),
            None => rule.clone(),
        };
        let rules = self.rules.iter().map(aim).collect();
        Self { rules, since: self.since, fallback: Arc::clone(&self.fallback) }
    }

    /// What the rules did since it was last reported, without those that had nothing to do.
    pub(crate) fn counts(&self) -> Vec<(String, Counts)> {
        let counts = self.rules.iter().map(|rule| (rule.terms.name.clone(), rule.counts()));
        counts.filter(|(_, counts)| counts.requests > 0).collect()
    }

    /// Forgets what has been reported.
    pub(crate) fn reported(&self, all: &[(String, Counts)]) {
        for (name, counts) in all {
            if let Some(rule) = self.rules.iter().find(|rule| rule.terms.name == *name) {
                rule.reported(counts);
            }
        }
    }

    /// How many rules there are.
    pub(crate) const fn len(&self) -> usize {
        self.rules.len()
    }
}

/// Manifests are equal where their rules are, as X-Ray gives them.
impl PartialEq for Manifest {
    fn eq(&self, other: &Self) -> bool {
        let (own, others) = (self.rules.iter(), other.rules.iter());
        own.map(|rule| &rule.terms).eq(others.map(|rule| &rule.terms))
    }
}

#[cfg(test)]
mod tests {
    use plugin_api::Header;

    use super::*;

    /// A rule for the paths that match, with a fixed rate alone.
    fn terms(name: &str, priority: i64, path: &str, fixed_rate: f64) -> Terms {
        let any = || Wildcard::of("*");
        let (host, method, path) = (any(), any(), Wildcard::of(path));
        let (name, attributes, has_reservoir) = (name.to_owned(), Vec::new(), false);
        Terms { name, priority, host, method, path, attributes, has_reservoir, fixed_rate }
    }

    /// Of five requests at once, how many are sampled. The fallback's ratio does not take the trace.
    fn sampled(manifest: &Manifest, path: &str, now: Instant) -> usize {
        let head = RequestHead::new("GET", path, &[]);
        (0..5).filter(|_| manifest.samples(&[0xff; 16], &head, now)).count()
    }

    #[test]
    fn the_first_rule_by_priority_and_then_by_name_decides() {
        let now = Instant::now();
        let manifest = Manifest::default().renewed(
            vec![
                terms("default", 10_000, "*", 0.0),
                terms("b", 1, "/a", 0.0),
                terms("a", 1, "/a", 1.0),
                terms("c", 2, "/*", 1.0),
            ],
            now,
        );
        for (path, wanted) in [("/a", 5), ("/x", 5), ("*", 0)] {
            assert_eq!(sampled(&manifest, path, now), wanted, "{path}");
        }
        let counts = |requests, sampled| Counts { requests, sampled, borrowed: 0 };
        let wanted = [("a", counts(5, 5)), ("c", counts(5, 5)), ("default", counts(5, 0))];
        assert_eq!(manifest.counts(), wanted.map(|(name, counts)| (name.to_owned(), counts)));
    }

    #[test]
    fn a_decision_allocates_nothing() {
        let now = Instant::now();
        let attributes = vec![("http.request.header.x-tier".to_owned(), Wildcard::of("g*d"))];
        let gold = Terms { attributes, has_reservoir: true, ..terms("gold", 1, "/a/*/c", 0.5) };
        let manifest = Manifest::default().renewed(vec![gold, terms("all", 2, "/*", 0.5)], now);
        let headers = [Header::new("x-tier", b"GOLD")];
        let head = RequestHead::new("GET", "/a/b/c", &headers).to("http", "here:8080");
        let count = allocation_counter::measure(|| {
            for at in 0..10 {
                let now = now + Duration::from_secs(at * 500);
                std::hint::black_box(manifest.samples(&[0xff; 16], &head, now));
            }
        });
        assert_eq!(count.count_total, 0);
        assert!(manifest.counts()[0].1.requests > 5, "{manifest:?}");
    }

    #[test]
    fn without_rules_or_with_old_ones_one_a_second_is_sampled_and_a_twentieth() {
        let now = Instant::now();
        let hour = now + RULES_HOLD;
        let later = hour + Duration::from_secs(1);
        let none = Manifest::default();
        assert_eq!(sampled(&none, "/", now), 1);
        let head = RequestHead::new("GET", "/", &[]);
        let is_sampled = |id: u64| {
            let [a, b, c, d, e, f, g, h] = id.to_be_bytes();
            none.samples(&[0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d, e, f, g, h], &head, now)
        };
        let thousandth = u64::MAX / 1000;
        let taken = (0..1000).filter(|index| is_sampled(index * thousandth + 1_000_000)).count();
        assert_eq!(taken, 50);

        let all = none.renewed(vec![terms("all", 1, "*", 1.0)], now);
        assert_eq!((sampled(&all, "/", now), sampled(&all, "/", hour)), (5, 5));
        assert_eq!(sampled(&all, "/", later), 1);
        let other = all.renewed(vec![terms("other", 1, "/other", 1.0)], later);
        assert_eq!((sampled(&other, "/other", later), sampled(&other, "/", later)), (5, 0));
    }

    #[test]
    fn counts_go_on_under_new_rules_and_targets_until_they_are_reported() {
        let now = Instant::now();
        let old = Manifest::default().renewed(vec![terms("a", 1, "*", 0.0)], now);
        let target = Target { fixed_rate: Some(1.0), quota: None };
        let aimed = old.aimed(&[("a".to_owned(), target.clone()), ("gone".to_owned(), target)]);
        let new = aimed.renewed(vec![terms("a", 1, "*", 0.0), terms("b", 2, "*", 0.0)], now);
        let all = [&old, &aimed, &new].map(|manifest| sampled(manifest, "/", now));
        assert_eq!(all, [0, 5, 5]);
        let counts = new.counts();
        assert_eq!(counts, [("a".to_owned(), Counts { requests: 15, sampled: 10, borrowed: 0 })]);
        assert_eq!(sampled(&old, "/", now), 0);
        new.reported(&counts);
        assert_eq!(new.counts(), [("a".to_owned(), Counts { requests: 5, ..Counts::default() })]);
    }
}
