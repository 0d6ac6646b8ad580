//! One of X-Ray's rules: whom it is for, and how many of them it samples.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use plugin_api::RequestHead;

use super::wildcard::Wildcard;
use crate::{exchange::host_and_port, rate::Rate, ratio};

/// What is borrowed from a reservoir as long as there is no quota.
const BORROWED_PER_SECOND: f64 = 1.0;

/// A rule as X-Ray gives it, without what never changes for one service.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terms {
    pub(crate) name: String,
    /// The lowest decides first.
    pub(crate) priority: i64,
    pub(crate) host: Wildcard,
    pub(crate) method: Wildcard,
    pub(crate) path: Wildcard,
    /// By the names of the HTTP conventions; all of them must be there.
    pub(crate) attributes: Vec<(String, Wildcard)>,
    /// Whether so many a second are sampled before the fixed rate counts.
    pub(crate) has_reservoir: bool,
    /// The share of what the reservoir does not take.
    pub(crate) fixed_rate: f64,
}

/// What X-Ray allots to this process from one rule, for a time.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) fixed_rate: Option<f64>,
    pub(crate) quota: Option<Quota>,
}

/// A part of a reservoir.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Quota {
    /// So many a second; `None`: none.
    pub(crate) rate: Option<Arc<Rate>>,
    pub(crate) until: Instant,
}

/// A rule in force. Clones count together.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) terms: Terms,
    fixed_rate: f64,
    quota: Option<Quota>,
    /// Where there is no quota; `None` for a rule without a reservoir.
    borrowed: Option<Arc<Rate>>,
    counted: Arc<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    requests: AtomicU64,
    sampled: AtomicU64,
    borrowed: AtomicU64,
}

/// What a rule did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The requests that it was for.
    pub(crate) requests: u64,
    /// Those that were sampled.
    pub(crate) sampled: u64,
    /// Those of them that were sampled without a quota, from the reservoir.
    pub(crate) borrowed: u64,
}

impl Rule {
    pub(super) fn new(terms: Terms) -> Self {
        let borrowed = terms.has_reservoir.then(|| Arc::new(Rate::of(BORROWED_PER_SECOND)));
        let fixed_rate = terms.fixed_rate;
        Self { terms, fixed_rate, quota: None, borrowed, counted: Arc::default() }
    }

    /// The rule with the same name as it is now; what is counted goes on.
    pub(super) fn renewed(&self, terms: Terms) -> Self {
        if terms == self.terms {
            return self.clone();
        }
        Self { counted: Arc::clone(&self.counted), ..Self::new(terms) }
    }

    pub(super) fn aimed(&self, target: &Target) -> Self {
        let quota = target.quota.clone().map(|quota| self.filled(quota));
        let fixed_rate = target.fixed_rate.unwrap_or(self.fixed_rate);
        Self { fixed_rate, quota: quota.or(self.quota.clone()), ..self.clone() }
    }

    /// The quota with what is left of the last one of that size: it does not begin full each time.
    fn filled(&self, quota: Quota) -> Quota {
        match &self.quota {
            Some(last) if last.rate == quota.rate => Quota { rate: last.rate.clone(), ..quota },
            _ => quota,
        }
    }

    /// Whether the rule is for this request. Allocates nothing.
    pub(super) fn is_for(&self, head: &RequestHead<'_>) -> bool {
        let terms = &self.terms;
        terms.method.matches(head.method())
            && terms.path.matches(head.path())
            && terms.host.matches(host(head))
            && terms.attributes.iter().all(|(name, wanted)| {
                attribute(head, name).is_some_and(|value| wanted.matches(value))
            })
    }

    /// Decides on a trace, and counts it.
    pub(super) fn samples(&self, trace_id: &[u8; 16], now: Instant) -> bool {
        let (reservoir, is_quota) = match &self.quota {
            Some(quota) if now < quota.until => (&quota.rate, true),
            _ => (&self.borrowed, false),
        };
        let is_taken = reservoir.as_ref().is_some_and(|rate| rate.takes_at(now));
        let is_sampled = is_taken || ratio::takes(self.fixed_rate, trace_id);
        self.counted.add(Counts {
            requests: 1,
            sampled: is_sampled.into(),
            borrowed: (is_taken && !is_quota).into(),
        });
        is_sampled
    }

    pub(super) fn counts(&self) -> Counts {
        self.counted.read()
    }

    /// Forgets what has been reported.
    pub(super) fn reported(&self, counts: &Counts) {
        self.counted.subtract(counts);
    }
}

/// Each is added to before those that it contains, and read after them: of what is read, no part is
/// larger than the whole.
impl Counted {
    fn add(&self, counts: Counts) {
        self.requests.fetch_add(counts.requests, Ordering::Release);
        self.sampled.fetch_add(counts.sampled, Ordering::Release);
        self.borrowed.fetch_add(counts.borrowed, Ordering::Release);
    }

    fn read(&self) -> Counts {
        let borrowed = self.borrowed.load(Ordering::Acquire);
        let sampled = self.sampled.load(Ordering::Acquire);
        Counts { requests: self.requests.load(Ordering::Acquire), sampled, borrowed }
    }

    fn subtract(&self, counts: &Counts) {
        self.requests.fetch_sub(counts.requests, Ordering::Relaxed);
        self.sampled.fetch_sub(counts.sampled, Ordering::Relaxed);
        self.borrowed.fetch_sub(counts.borrowed, Ordering::Relaxed);
    }
}

fn host<'a>(head: &RequestHead<'a>) -> &'a str {
    host_and_port(head.authority(), head.scheme()).0
}

/// What the HTTP conventions want known when a span is sampled, as far as it is text.
fn attribute<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a str> {
    let value = match name {
        "http.request.method" => head.method(),
        "server.address" => host(head),
        "url.path" => head.path(),
        "url.query" => head.query(),
        "url.scheme" => head.scheme(),
        "user_agent.original" => header(head, "user-agent")?,
        _ => header(head, name.strip_prefix("http.request.header.")?)?,
    };
    (!value.is_empty()).then_some(value)
}

fn header<'a>(head: &RequestHead<'a>, name: &str) -> Option<&'a str> {
    let header = head.headers().iter().find(|header| header.name() == name)?;
    std::str::from_utf8(header.value()).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plugin_api::Header;

    use super::*;

    fn terms(fixed_rate: f64, has_reservoir: bool) -> Terms {
        let any = || Wildcard::of("*");
        let (host, method, path) = (any(), any(), any());
        let (name, attributes) = ("base".to_owned(), Vec::new());
        Terms { name, priority: 1, host, method, path, attributes, has_reservoir, fixed_rate }
    }

    #[test]
    fn a_rule_is_for_the_requests_of_which_every_part_matches() {
        let of = |host: &str, method: &str, path: &str, attributes: &[(&str, &str)]| {
            let [host, method, path] = [host, method, path].map(Wildcard::of);
            let attributes = attributes
                .iter()
                .map(|(name, wanted)| ((*name).to_owned(), Wildcard::of(wanted)))
                .collect();
            Rule::new(Terms { host, method, path, attributes, ..terms(0.0, false) })
        };
        let headers = [Header::new("user-agent", b"curl/8"), Header::new("x-tier", b"Gold")];
        let head = RequestHead::new("POST", "/api/pay", &headers)
            .to("http", "shop.example:8080")
            .with_query("a=1");
        for (rule, wanted) in [
            (of("*", "*", "*", &[]), true),
            (of("shop.example", "post", "/api/*", &[]), true),
            (of("shop.example:8080", "*", "*", &[]), false),
            (of("*", "GET", "*", &[]), false),
            (of("*", "*", "/api", &[]), false),
            (of("*", "*", "*", &[("http.request.method", "POST")]), true),
            (of("*", "*", "*", &[("server.address", "shop.*"), ("url.scheme", "http")]), true),
            (of("*", "*", "*", &[("url.path", "/api/*"), ("url.query", "a=?")]), true),
            (of("*", "*", "*", &[("user_agent.original", "curl*")]), true),
            (of("*", "*", "*", &[("http.request.header.x-tier", "gold")]), true),
            (of("*", "*", "*", &[("user_agent.original", "curl*"), ("url.query", "b")]), false),
            (of("*", "*", "*", &[("http.request.header.x-other", "*")]), false),
            (of("*", "*", "*", &[("account", "*")]), false),
        ] {
            assert_eq!(rule.is_for(&head), wanted, "{rule:?}");
        }
        let nothing = RequestHead::new("", "", &[]);
        assert!(of("*", "*", "*", &[]).is_for(&nothing));
        assert!(!of("*", "*", "*", &[("url.path", "*")]).is_for(&nothing));
    }

    /// Of five at once, how many are sampled; none is by a fixed rate of 0.
    fn sampled(rule: &Rule, now: Instant) -> usize {
        (0..5).filter(|_| rule.samples(&[1; 16], now)).count()
    }

    fn quota(per_second: f64, until: Instant) -> Target {
        let rate = (per_second > 0.0).then(|| Arc::new(Rate::of(per_second)));
        Target { fixed_rate: None, quota: Some(Quota { rate, until }) }
    }

    #[test]
    fn one_a_second_is_borrowed_until_there_is_a_quota_and_when_it_has_passed() {
        let rule = Rule::new(terms(0.0, true));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!((sampled(&rule, at(0)), sampled(&rule, at(1))), (1, 1));
        assert_eq!(rule.counts(), Counts { requests: 10, sampled: 2, borrowed: 2 });

        let rule = rule.aimed(&quota(3.0, at(20)));
        assert_eq!((sampled(&rule, at(2)), sampled(&rule, at(3))), (3, 3));
        let rule = rule.aimed(&quota(3.0, at(30)));
        assert_eq!(sampled(&rule, at(3)), 0, "the same quota does not begin anew");
        assert_eq!((sampled(&rule, at(29)), sampled(&rule, at(30))), (3, 1));
        assert_eq!(rule.counts(), Counts { requests: 35, sampled: 12, borrowed: 3 });
        assert_eq!(sampled(&rule.aimed(&quota(0.0, at(60))), at(31)), 0, "nothing is allotted");
        assert_eq!(sampled(&Rule::new(terms(0.0, false)), at(0)), 0, "no reservoir");
    }

    #[test]
    fn the_fixed_rate_counts_for_what_the_reservoir_does_not_take() {
        let now = Instant::now();
        let rule = Rule::new(terms(1.0, true));
        assert_eq!(sampled(&rule, now), 5);
        assert_eq!(rule.counts(), Counts { requests: 5, sampled: 5, borrowed: 1 });
        let rule = rule.aimed(&Target { fixed_rate: Some(0.0), quota: None });
        assert_eq!(sampled(&rule, now), 0);
        assert_eq!(rule.counts(), Counts { requests: 10, sampled: 5, borrowed: 1 });
        rule.reported(&Counts { requests: 5, sampled: 5, borrowed: 1 });
        assert_eq!(rule.counts(), Counts { requests: 5, ..Counts::default() });
    }

    #[test]
    fn a_rule_that_has_not_changed_keeps_its_target_and_each_its_counts() {
        let now = Instant::now();
        let target = Target { fixed_rate: Some(1.0), quota: None };
        let rule = Rule::new(terms(0.0, false)).aimed(&target);
        assert_eq!(sampled(&rule, now), 5);
        assert_eq!(sampled(&rule.renewed(terms(0.0, false)), now), 5, "the target stays");
        assert_eq!(sampled(&rule.renewed(terms(0.0, true)), now), 1, "another rule of that name");
        assert_eq!(rule.counts().requests, 15);
    }
}
