//! Takes secrets out of URLs, queries and headers before they reach a span or a log line.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// Stands for everything that is taken out.
pub(crate) const REDACTED: &str = "REDACTED";

/// The query keys whose values the HTTP semantic conventions want redacted.
pub(crate) const SECRET_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];

/// Headers that are nothing but secrets.
const SECRET_HEADERS: [&str; 4] = ["authorization", "cookie", "set-cookie", "proxy-authorization"];

/// How often a value may be percent-encoded and still be looked into.
const MOST_ENCODED: usize = 4;

/// What is secret, and how it is taken out.
///
/// Keys are compared with their case, as the conventions want, after percent-decoding. A secret that
/// hides in the value of another key, as in a URL within a URL, takes that whole value with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redaction {
    keys: Vec<String>,
}

impl Default for Redaction {
    fn default() -> Self {
        Self::and(Vec::new())
    }
}

impl Redaction {
    /// The query keys of the conventions, and these.
    pub(crate) fn and(keys: Vec<String>) -> Self {
        let mut all: Vec<String> = SECRET_KEYS.iter().map(|key| (*key).to_owned()).collect();
        for key in keys {
            if !key.is_empty() && !all.contains(&key) {
                all.push(key);
            }
        }
        Self { keys: all }
    }

    /// The query without the values of secret keys, borrowed when it has none.
    pub(crate) fn query<'a>(&self, query: &'a str) -> Cow<'a, str> {
        if query.is_empty() {
            return Cow::Borrowed(query);
        }
        parts(query, '&', |pair| self.kept(pair))
    }

    /// What is kept of a pair that has a secret: its key, where the secret is in the value.
    fn kept<'a>(&self, pair: &'a str) -> Option<&'a str> {
        let Some((key, value)) = pair.split_once('=') else {
            return self.hides_any(pair).then_some("");
        };
        let is_word = is_word(key);
        if self.is_secret(key) || is_word && self.hides_any(value) {
            return Some(key);
        }
        // The pair may be a URL, with its own `=` before this one or a user name on both sides of it.
        (!is_word && self.hides_any(pair)).then_some("")
    }

    /// The path without user names, passwords and secret values of URLs in it.
    pub(crate) fn path<'a>(&self, path: &'a str) -> Cow<'a, str> {
        if !may_hide(path) {
            return Cow::Borrowed(path);
        }
        let path = user_info(path);
        if !self.hides_any(&path) {
            return path;
        }
        let clean = parts(&path, '/', |segment| self.hides_any(segment).then_some(""));
        // What hides across segments is not found in any of them.
        Cow::Owned(if self.hides_any(&clean) { REDACTED.to_owned() } else { clean.into_owned() })
    }

    /// The whole URL, in parts that need not be joined before.
    pub(crate) fn url<'a>(
        &self,
        scheme: &'a str,
        place: &'a str,
        path: &'a str,
        query: &'a str,
    ) -> [Cow<'a, str>; 6] {
        let query = self.query(query);
        let question_mark = if query.is_empty() { "" } else { "?" };
        let (place, path) = (authority(place), self.path(path));
        [scheme.into(), "://".into(), place, path, question_mark.into(), query]
    }

    /// The value of a header of this lower-case name; borrowed where it has no secret.
    pub(crate) fn header<'a>(&self, name: &str, value: &'a [u8]) -> Cow<'a, str> {
        if SECRET_HEADERS.contains(&name) {
            return Cow::Borrowed(REDACTED);
        }
        match String::from_utf8_lossy(value) {
            Cow::Borrowed(text) => self.text(text),
            Cow::Owned(text) => Cow::Owned(self.text(&text).into_owned()),
        }
    }

    /// Any text, which may be a URL or contain one.
    fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !self.hides_any(text) {
            return Cow::Borrowed(text);
        }
        let clean = user_info(text);
        let clean = match clean.split_once('?') {
            Some((before, query)) => {
                let (query, fragment) = query.split_once('#').unwrap_or((query, ""));
                let mark = if fragment.is_empty() { "" } else { "#" };
                [before, "?", &self.query(query), mark, &self.query(fragment)].concat()
            }
            None => clean.into_owned(),
        };
        // Where the secret is in no place that is known, nothing of the value is safe.
        Cow::Owned(if self.hides_any(&clean) { REDACTED.to_owned() } else { clean })
    }

    fn is_secret(&self, key: &str) -> bool {
        let is = |bytes: &[u8]| self.keys.iter().any(|secret| secret.as_bytes() == bytes);
        if !key.bytes().any(|byte| matches!(byte, b'%' | b'+')) {
            return is(key.as_bytes());
        }
        // A blank may be a plus sign, and either may be encoded.
        let decoded = |key| Cow::from(percent_decode_str(key));
        is(&decoded(key)) || is(&decoded(&key.replace('+', " ")))
    }

    /// Whether a secret is somewhere in this text, encoded or not. Allocates only where it is encoded.
    fn hides_any(&self, text: &str) -> bool {
        if !may_hide(text) {
            return false;
        }
        let mut text = Cow::Borrowed(text);
        for _ in 0..MOST_ENCODED {
            if self.shows_any(&text) {
                return true;
            }
            if !text.contains('%') {
                return false;
            }
            let decoded = percent_decode_str(&text).decode_utf8_lossy().into_owned();
            if decoded == text {
                return false;
            }
            text = Cow::Owned(decoded);
        }
        self.shows_any(&text)
    }

    /// Whether a pair with a secret key or user information is in this text as it is.
    fn shows_any(&self, text: &str) -> bool {
        matches!(user_info(text), Cow::Owned(clean) if clean != text)
            || self.keys.iter().any(|key| {
                shows(text, key) || text.contains('+') && shows(&text.replace('+', " "), key)
            })
    }
}

/// Whether this is a key and nothing else could begin in it: neither a URL nor another pair.
fn is_word(key: &str) -> bool {
    key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

/// The text with those parts replaced for which `kept` says what is kept of them, its key.
fn parts<'a>(
    text: &'a str,
    separator: char,
    kept: impl Fn(&'a str) -> Option<&'a str>,
) -> Cow<'a, str> {
    if !text.split(separator).any(|part| kept(part).is_some()) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len());
    for (nth, part) in text.split(separator).enumerate() {
        if nth > 0 {
            clean.push(separator);
        }
        match kept(part) {
            None => clean.push_str(part),
            Some("") => clean.push_str(REDACTED),
            Some(key) => clean.extend([key, "=", REDACTED]),
        }
    }
    Cow::Owned(clean)
}

/// Whether `key=value` is in the text, where a key can begin, with a value that is not clean.
fn shows(text: &str, key: &str) -> bool {
    text.match_indices(key).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let begins = before.is_none_or(|char| !char.is_alphanumeric() && !"-_.".contains(char));
        let value = text.get(at + key.len()..).and_then(|after| after.strip_prefix('='));
        begins && value.is_some_and(|value| !is_redacted(value))
    })
}

fn is_redacted(value: &str) -> bool {
    let after = value.strip_prefix(REDACTED);
    after.is_some_and(|after| !after.starts_with(|char| !"&#;/?\"<> ,".contains(char)))
}

/// Whether a secret can be in this text: without one of these there is neither a pair, nor user
/// information, nor anything encoded.
fn may_hide(text: &str) -> bool {
    text.bytes().any(|byte| matches!(byte, b'=' | b'@' | b'%'))
}

/// The text with the user names and passwords of all URLs in it redacted.
fn user_info(text: &str) -> Cow<'_, str> {
    const SCHEME_END: &str = "://";
    if !has_at(text) || !text.contains(SCHEME_END) {
        return Cow::Borrowed(text);
    }
    let mut parts = text.split(SCHEME_END);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|char| "/?#\"<> ,".contains(char)).unwrap_or(part.len());
        let (place, rest) = part.split_at(end);
        clean.extend([SCHEME_END, &authority(place), rest]);
    }
    Cow::Owned(clean)
}

/// Texts that are asked are short, and a search by words would only begin.
fn has_at(text: &str) -> bool {
    text.bytes().any(|byte| byte == b'@')
}

/// The authority with its user name and password redacted, borrowed when it has none.
pub(crate) fn authority(authority: &str) -> Cow<'_, str> {
    if !has_at(authority) {
        return Cow::Borrowed(authority);
    }
    match authority.rsplit_once('@') {
        None => Cow::Borrowed(authority),
        Some((user, host)) if user.contains(':') => {
            Cow::Owned(format!("{REDACTED}:{REDACTED}@{host}"))
        }
        Some((_, host)) => Cow::Owned(format!("{REDACTED}@{host}")),
    }
}

/// A URL that may be shown: no user, no query.
pub(crate) fn shown_url(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").map_or(("", text), |(scheme, rest)| (scheme, rest));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{}", authority(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with(key: &str) -> Redaction {
        Redaction::and(vec![key.to_owned()])
    }

    fn query(raw: &str) -> String {
        Redaction::default().query(raw).into_owned()
    }

    #[test]
    fn values_of_secret_keys_are_redacted() {
        for (raw, clean) in [
            ("sig=s3cret", "sig=REDACTED"),
            ("a=1&sig=s3cret&b=2", "a=1&sig=REDACTED&b=2"),
            ("sig=s3=cret", "sig=REDACTED"),
            ("sig=", "sig=REDACTED"),
            ("sig=1&sig=2", "sig=REDACTED&sig=REDACTED"),
            ("%73ig=s3cret", "%73ig=REDACTED"),
            ("%73%69%67=s3cret", "%73%69%67=REDACTED"),
            (
                "X-Amz-Signature=s&X-Amz-Credential=c",
                "X-Amz-Signature=REDACTED&X-Amz-Credential=REDACTED",
            ),
            ("X%2DAmz-Security-Token=t", "X%2DAmz-Security-Token=REDACTED"),
            ("AWSAccessKeyId=k&Signature=s", "AWSAccessKeyId=REDACTED&Signature=REDACTED"),
            ("X-Goog-Signature=s", "X-Goog-Signature=REDACTED"),
            ("next=http://h/?sig=s3cret&b=2", "next=REDACTED&b=2"),
            ("next=http%3A%2F%2Fh%2F%3Fsig%3Ds3cret&b=2", "next=REDACTED&b=2"),
            ("next=http%253A%252F%252Fh%253Fsig%253Ds3cret", "next=REDACTED"),
            ("next=http%3A%2F%2Fuser%3As3cret%40h%2F", "next=REDACTED"),
            ("a=1;sig=s3cret", "a=REDACTED"),
            ("a%3D1%26sig%3Ds3cret", "REDACTED"),
            ("http://user:s3cret@h/?x=1&b=2", "REDACTED&b=2"),
            ("http://user:a=s3cret@h/", "REDACTED"),
            ("http://h/o?X-Amz-Signature=s3cret&b=1", "REDACTED&b=1"),
            ("/x?sig=s3cret", "REDACTED"),
            ("x;sig=s3cret", "REDACTED"),
            ("u%3Fsig=s3cret", "REDACTED"),
            ("http%3A%2F%2Fuser%3As3cret%40h%2F?a=1", "REDACTED"),
            ("a[]=1&a[b]=http://h/?sig=s3cret", "a[]=1&REDACTED"),
            ("http://s3cret:a=b@http://c:d@h/", "REDACTED"),
            ("http://h/?x=1", "http://h/?x=1"),
            ("next=http://h/?b=1", "next=http://h/?b=1"),
            ("Sig=1&SIG=2", "Sig=1&SIG=2"),
        ] {
            assert_eq!(query(raw), clean);
        }
    }

    #[test]
    fn configured_keys_are_redacted_beside_those_of_the_conventions() {
        let redaction =
            Redaction::and(vec!["api key".to_owned(), "sig".to_owned(), "t+".to_owned()]);
        for (raw, clean) in [
            ("api+key=1", "api+key=REDACTED"),
            ("api%20key=1&sig=2", "api%20key=REDACTED&sig=REDACTED"),
            ("x=api+key%3D1", "x=REDACTED"),
            ("t%2B=1", "t%2B=REDACTED"),
            ("api=1&key=2", "api=1&key=2"),
        ] {
            assert_eq!(redaction.query(raw), clean);
        }
        assert_eq!(redaction.keys.len(), 9);
    }

    #[test]
    fn urls_in_paths_are_cleaned() {
        for (raw, clean) in [
            ("/a/b", "/a/b"),
            ("/a@b/c=d", "/a@b/c=d"),
            ("/proxy/http://user:pass@host/x", "/proxy/http://REDACTED:REDACTED@host/x"),
            ("http://user@host/x", "http://REDACTED@host/x"),
            ("/proxy/http%3A%2F%2Fuser%3Apass%40host/x", "/proxy/REDACTED/x"),
            ("/a;sig=s3cret/b", "/REDACTED/b"),
            ("/a/https%3A%2F%2Fh%2F%3Fsig%3Ds3cret", "/a/REDACTED"),
        ] {
            assert_eq!(Redaction::default().path(raw), clean);
        }
    }

    #[test]
    fn a_url_is_put_together_clean() {
        let url =
            |place, path, query| Redaction::default().url("http", place, path, query).concat();
        assert_eq!(
            url("u:p@h:1", "/a", "b=1&sig=2"),
            "http://REDACTED:REDACTED@h:1/a?b=1&sig=REDACTED"
        );
        assert_eq!(url("h", "/", ""), "http://h/");
    }

    #[test]
    fn headers_are_cleaned_by_name_and_by_what_they_hold() {
        for (name, raw, clean) in [
            ("authorization", "Bearer s3cret", "REDACTED"),
            ("proxy-authorization", "x", "REDACTED"),
            ("cookie", "a=1", "REDACTED"),
            ("set-cookie", "a=1; Secure", "REDACTED"),
            ("accept", "text/html;q=0.9", "text/html;q=0.9"),
            ("from", "me@example.org", "me@example.org"),
            (
                "referer",
                "http://u:p@h/x?a=1&sig=s3cret#top",
                "http://REDACTED:REDACTED@h/x?a=1&sig=REDACTED#top",
            ),
            ("location", "/x?sig=s3cret", "/x?sig=REDACTED"),
            ("location", "/x#sig=s3cret", "REDACTED"),
            ("location", "/x?a#sig=s3cret", "/x?a#sig=REDACTED"),
            (
                "link",
                "<http://u:p@h/>; rel=\"next\"",
                "<http://REDACTED:REDACTED@h/>; rel=\"next\"",
            ),
            ("x-query", "a=1&sig=s3cret", "REDACTED"),
        ] {
            assert_eq!(Redaction::default().header(name, raw.as_bytes()), clean, "{name}: {raw}");
        }
        let odd = Redaction::default().header("x", b"\xff?sig=s3cret").into_owned();
        assert!(!odd.contains("s3cret"), "{odd}");
    }

    #[test]
    fn everything_else_is_borrowed() {
        for raw in [
            "",
            "a=1",
            "signature=1",
            "sig",
            "sign=1",
            "a=sig",
            "&&",
            "a=1&b",
            "%zz=1",
            "a=b%3Dc",
            "a=x@y",
        ] {
            let clean = Redaction::default();
            assert!(matches!(clean.query(raw), Cow::Borrowed(text) if text == raw), "{raw}");
        }
        assert!(matches!(authority("host:80"), Cow::Borrowed("host:80")));
    }

    #[test]
    fn user_names_and_passwords_are_redacted() {
        for (raw, clean) in [
            ("user:pass@host:80", "REDACTED:REDACTED@host:80"),
            ("user@host", "REDACTED@host"),
            ("user:p@ss@host", "REDACTED:REDACTED@host"),
            (":@[::1]:80", "REDACTED:REDACTED@[::1]:80"),
        ] {
            assert_eq!(authority(raw), clean);
        }
    }

    /// A key with some of its letters percent-encoded.
    fn encoded(key: &str, which: u32) -> String {
        key.bytes()
            .enumerate()
            .map(|(nth, byte)| match which >> (nth % 32) & 3 {
                // A bare plus sign is a blank, and a bare blank is no part of a URL.
                _ if byte == b'+' => "%2B".to_owned(),
                0 | 3 if byte == b' ' => "+".to_owned(),
                1 => format!("%{byte:02X}"),
                2 => format!("%{byte:02x}"),
                _ => char::from(byte).to_string(),
            })
            .collect()
    }

    /// The text, percent-encoded as a whole this often.
    fn wrapped(text: &str, times: usize) -> String {
        (0..times).fold(text.to_owned(), |text, _| {
            percent_encoding::utf8_percent_encode(&text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        })
    }

    proptest! {
        #[test]
        // The letters of the other keys stop before s: none of them is ever "sig".
        fn no_secret_passes_however_its_key_is_encoded(
            key in prop::sample::select([&SECRET_KEYS[..], &["own_key", "api key", "k+y"]].concat()),
            which: u32,
            before in "([a-r]{1,3}=[a-z]{0,3}&){0,3}",
            place in "((http:/)?/[a-r]{1,3}[?;]|[a-r]{1,3}[;,:@]|[a-r]{1,3}%3F)?",
            after in "(&[a-r]{1,3}=[a-z]{0,3}){0,3}",
            secret in "[0-9]{12,20}",
        ) {
            let raw = format!("{before}{place}{}={secret}{after}", encoded(key, which));
            let redaction = with(key);
            let clean = redaction.query(&raw).into_owned();
            prop_assert!(!clean.contains(&secret));
            prop_assert!(clean.starts_with(&before) && clean.ends_with(&after));
            for text in [format!("http://h/x?{raw}"), format!("/x?{raw}#top"), raw.clone()] {
                let header = redaction.header("referer", text.as_bytes()).into_owned();
                prop_assert!(!header.contains(&secret), "{}", header);
            }
            prop_assert!(!redaction.url("http", "h", "/", &raw).concat().contains(&secret));
        }

        #[test]
        fn no_secret_passes_in_a_url_within_a_url(
            key in prop::sample::select(SECRET_KEYS.to_vec()),
            times in 0..4_usize,
            secret in "[0-9]{12,20}",
            user in "[a-z]{1,4}(:[a-z]{0,4})?",
        ) {
            let redaction = Redaction::default();
            for inner in [format!("http://h/?{key}={secret}"), format!("http://{user}{secret}@h/")] {
                let inner = wrapped(&inner, times);
                let (path, query) = (format!("/p/{inner}/q"), format!("a=1&u={inner}"));
                let url = redaction.url("http", "h", &path, &query).concat();
                prop_assert!(!url.contains(&secret), "{}", url);
                let header = redaction.header("location", inner.as_bytes()).into_owned();
                prop_assert!(!header.contains(&secret), "{}", header);
            }
        }

        #[test]
        fn redacting_twice_changes_nothing_more(raw in "[a-z%=&0-9@:/?]{0,40}|(sig=[a-z]{0,3}[&/;]?){0,3}") {
            let redaction = Redaction::default();
            let once = redaction.query(&raw).into_owned();
            prop_assert_eq!(redaction.query(&once), once.as_str());
            let once = redaction.path(&raw).into_owned();
            prop_assert_eq!(redaction.path(&once), once.as_str());
            let once = redaction.header("x", raw.as_bytes()).into_owned();
            prop_assert_eq!(redaction.header("x", once.as_bytes()), once.as_str());
        }
    }
}
