//! Sampling ratios of their own, for some of the requests.

use std::sync::Arc;

use plugin_api::{Header, RequestHead};

use crate::{rate::Rate, ratio, template::Template};

/// Ratios by request; the first rule that matches decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rules(pub(crate) Vec<Rule>);

/// One rule: it matches where all of its conditions hold, and everything where it has none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rule {
    /// The path is one of these.
    pub(crate) route: Option<Template>,
    /// The method is this one, with its case.
    pub(crate) method: Option<String>,
    /// A header of this lower-case name is there and, where a value is given, has it.
    pub(crate) header: Option<(String, Option<String>)>,
    /// The share of traces that is sampled, from 0 to 1.
    pub(crate) ratio: f64,
    /// So many a second are sampled whatever the ratio says. Clones count together.
    pub(crate) at_least: Option<Arc<Rate>>,
}

impl Rules {
    /// Whether a trace that begins with this request is sampled; `None` leaves it to the sampler.
    /// Takes no lock and allocates nothing.
    pub(crate) fn samples(&self, trace_id: &[u8; 16], head: &RequestHead<'_>) -> Option<bool> {
        self.first(head).map(|rule| rule.samples(trace_id))
    }

    /// The rule that decides on this request.
    pub(crate) fn first(&self, head: &RequestHead<'_>) -> Option<&Rule> {
        self.0.iter().find(|rule| rule.matches(head))
    }
}

impl Rule {
    fn samples(&self, trace_id: &[u8; 16]) -> bool {
        // Those that the ratio takes count for the bound, too: it is a minimum, and no addition.
        let in_bound = self.at_least.as_ref().is_some_and(|rate| rate.takes());
        in_bound || ratio::takes(self.ratio, trace_id)
    }

    fn matches(&self, head: &RequestHead<'_>) -> bool {
        self.method.as_ref().is_none_or(|method| method == head.method())
            && self.route.as_ref().is_none_or(|route| route.matches(head.path()))
            && self.header.as_ref().is_none_or(|(name, value)| {
                head.headers().iter().any(|header| has(header, name, value.as_deref()))
            })
    }
}

fn has(header: &Header<'_>, name: &str, value: Option<&str>) -> bool {
    header.name() == name
        && value.is_none_or(|value| header.value().trim_ascii() == value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(route: &str, method: &str, header: &str, ratio: f64) -> Rule {
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Rule {
            route: given(route).map(|route| Template::compile(&route).unwrap()),
            method: given(method),
            header: given(header).map(|header| match header.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (header, None),
            }),
            ratio,
            at_least: None,
        }
    }

    #[test]
    fn the_first_rule_whose_conditions_all_hold_decides() {
        let rules = Rules(vec![
            rule("/health", "", "", 0.0),
            rule("/pay/{id}", "POST", "", 1.0),
            rule("", "", "x-debug=1", 0.9),
            rule("", "", "x-trace", 0.8),
            rule("/pay/{id}", "", "", 0.5),
        ]);
        let debug = Header::new("x-debug", b"1");
        let other = Header::new("x-debug", b"11");
        let traced = Header::new("x-trace", b"");
        for (method, path, headers, wanted) in [
            ("GET", "/health/live", &[debug][..], Some(0.0)),
            ("POST", "/pay/1", &[], Some(1.0)),
            ("post", "/pay/1", &[], Some(0.5)),
            ("GET", "/pay/1", &[], Some(0.5)),
            ("GET", "/pay/1", &[debug], Some(0.9)),
            ("GET", "/x", &[other, debug], Some(0.9)),
            ("GET", "/x", &[Header::new("x-debug", b" 1\t")], Some(0.9)),
            ("GET", "/x", &[other], None),
            ("GET", "/x", &[traced], Some(0.8)),
            ("GET", "/x", &[Header::new("x-tracer", b"1")], None),
            ("GET", "/x", &[], None),
        ] {
            let head = RequestHead::new(method, path, headers);
            let ratio = rules.first(&head).map(|rule| rule.ratio);
            assert_eq!(ratio, wanted, "{method} {path} {headers:?}");
        }
    }

    #[test]
    fn a_rule_without_conditions_is_for_everything() {
        let rules = Rules(vec![rule("", "", "", 0.25)]);
        let head = RequestHead::new("ODD", "*", &[]);
        assert_eq!(rules.samples(&[0; 16], &head), Some(true));
        assert_eq!(rules.samples(&[0xff; 16], &head), Some(false));
        assert_eq!(Rules::default().samples(&[0; 16], &head), None);
    }

    #[test]
    fn so_many_a_second_are_sampled_whatever_the_ratio_says_and_all_that_are_sampled_count() {
        let head = RequestHead::new("GET", "/", &[]);
        let (within, beyond) = ([0; 16], [0xff; 16]);
        let decided = |at_least, traces: [[u8; 16]; 4]| {
            // So seldom that no time passes for it in a test.
            let at_least = Some(Arc::new(Rate::of(at_least)));
            let rules = Rules(vec![Rule { at_least, ..rule("", "", "", 0.5) }]);
            traces.map(|trace_id| rules.samples(&trace_id, &head).unwrap())
        };
        assert_eq!(decided(1e-3, [beyond; 4]), [true, false, false, false]);
        let mixed = [within, beyond, within, beyond];
        assert_eq!(decided(1e-3, mixed), [true, false, true, false], "the first one counts");
    }

    #[test]
    fn a_decision_with_a_bound_allocates_nothing() {
        let at_least = Some(Arc::new(Rate::of(2.0)));
        let rules = Rules(vec![Rule { at_least, ..rule("/pay/{id}", "GET", "", 0.5) }]);
        let head = RequestHead::new("GET", "/pay/1", &[]);
        let count = allocation_counter::measure(|| {
            for id in 0..10 {
                std::hint::black_box(rules.samples(&[id; 16], &head));
            }
        });
        assert_eq!(count.count_total, 0);
    }
}
