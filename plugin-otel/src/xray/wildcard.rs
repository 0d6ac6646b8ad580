//! The patterns of X-Ray's rules.

/// A pattern in which `*` stands for any characters, none among them, and `?` for exactly one. Letters
/// are compared without their case, those of ASCII alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wildcard(String);

impl Wildcard {
    pub(crate) fn of(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the pattern stands for all of `text`. Allocates nothing.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let (mut pattern, mut text) = (self.0.chars(), text.chars());
        // What is behind the last star, and the text that the star does not stand for yet.
        let mut star = None;
        loop {
            let (mut next_pattern, mut next_text) = (pattern.clone(), text.clone());
            match (next_pattern.next(), next_text.next()) {
                (None, None) => return true,
                (Some('*'), _) => {
                    pattern = next_pattern;
                    star = Some((pattern.clone(), text.clone()));
                }
                (Some(wanted), Some(found))
                    if wanted == '?' || wanted.eq_ignore_ascii_case(&found) =>
                {
                    (pattern, text) = (next_pattern, next_text);
                }
                _ => {
                    // One character more for the last star. An earlier one need not be tried again.
                    let Some((behind, rest)) = &mut star else { return false };
                    if rest.next().is_none() {
                        return false;
                    }
                    (pattern, text) = (behind.clone(), rest.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_a_question_mark_for_one_character() {
        for (pattern, good, bad) in [
            ("*", &["", "a", "/a/b"][..], &[][..]),
            ("", &[""], &["a"]),
            ("GET", &["GET", "get"], &["GETS", "GE", ""]),
            ("/api/*", &["/api/", "/api/a/b", "/API/x"], &["/api", "/apis/", "x/api/"]),
            ("*.example.com", &["a.example.com", ".example.com"], &["example.com", "a.example.co"]),
            ("/a?c", &["/abc", "/aéc", "/a?c"], &["/ac", "/abbc"]),
            ("a*b*c", &["abc", "a-b-c", "abbbc", "abcbc"], &["ab", "acb", "abcd"]),
            ("*a?", &["aab", "ab", "xaé"], &["a", "ba"]),
            ("**", &["", "ab"], &[]),
        ] {
            let wildcard = Wildcard::of(pattern);
            for text in good {
                assert!(wildcard.matches(text), "{pattern} {text}");
            }
            for text in bad {
                assert!(!wildcard.matches(text), "{pattern} {text}");
            }
        }
    }

    /// The same in the plainest way.
    fn is_match(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            (['*', behind @ ..], _) => {
                is_match(behind, text) || !text.is_empty() && is_match(pattern, &text[1..])
            }
            ([wanted, behind @ ..], [found, rest @ ..]) => {
                (*wanted == '?' || wanted == found) && is_match(behind, rest)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn every_pattern_is_compared_as_it_is_meant(pattern in "[ab*?]{0,8}", text in "[abé]{0,10}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            let wanted = is_match(&chars(&pattern), &chars(&text));
            prop_assert_eq!(Wildcard::of(&pattern).matches(&text), wanted);
        }
    }
}
