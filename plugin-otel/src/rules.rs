//! The operator's own sampling ratios, for some of the requests.

use plugin_api::{Header, RequestHead};

use crate::template::Template;

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
}

impl Rules {
    /// The ratio for this request; `None` leaves it to the sampler. Allocates nothing.
    pub(crate) fn ratio(&self, head: &RequestHead<'_>) -> Option<f64> {
        self.0.iter().find(|rule| rule.matches(head)).map(|rule| rule.ratio)
    }
}

impl Rule {
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
            assert_eq!(rules.ratio(&head), wanted, "{method} {path} {headers:?}");
        }
    }

    #[test]
    fn a_rule_without_conditions_is_for_everything() {
        let rules = Rules(vec![rule("", "", "", 0.25)]);
        assert_eq!(rules.ratio(&RequestHead::new("ODD", "*", &[])), Some(0.25));
        assert_eq!(Rules::default().ratio(&RequestHead::new("GET", "/", &[])), None);
    }
}
