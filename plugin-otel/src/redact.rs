//! Takes secrets out of URLs before they reach a span or a log line.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

const REDACTED: &str = "REDACTED";

/// The query keys whose values the HTTP semantic conventions want redacted.
const SECRET_KEYS: [&str; 7] = [
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Goog-Signature",
    "sig",
];

/// The query without the values of secret keys, borrowed when it has none.
///
/// Keys are compared after percent-decoding and, as the conventions want, with their case.
pub(crate) fn query(query: &str) -> Cow<'_, str> {
    if !pairs(query).any(is_secret) {
        return Cow::Borrowed(query);
    }
    let mut clean = String::with_capacity(query.len());
    for (nth, pair) in pairs(query).enumerate() {
        if nth > 0 {
            clean.push('&');
        }
        match pair.split_once('=') {
            Some((key, _)) if is_secret(pair) => {
                clean.push_str(key);
                clean.push('=');
                clean.push_str(REDACTED);
            }
            _ => clean.push_str(pair),
        }
    }
    Cow::Owned(clean)
}

fn pairs(query: &str) -> impl Iterator<Item = &str> {
    query.split('&')
}

fn is_secret(pair: &str) -> bool {
    let Some((key, _)) = pair.split_once('=') else { return false };
    SECRET_KEYS.iter().any(|secret| percent_decode_str(key).eq(secret.bytes()))
}

/// The authority with its user name and password redacted, borrowed when it has none.
pub(crate) fn authority(authority: &str) -> Cow<'_, str> {
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
        ] {
            assert_eq!(query(raw), clean);
        }
    }

    #[test]
    fn everything_else_is_borrowed() {
        for raw in ["", "a=1", "signature=1", "sig", "sign=1", "a=sig", "&&", "a=1&b", "%zz=1"] {
            assert!(matches!(query(raw), Cow::Borrowed(text) if text == raw), "{raw}");
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
                1 => format!("%{byte:02X}"),
                2 => format!("%{byte:02x}"),
                _ => char::from(byte).to_string(),
            })
            .collect()
    }

    proptest! {
        #[test]
        // The letters of the other keys stop before s: none of them is ever "sig".
        fn no_secret_passes_however_its_key_is_encoded(
            key in prop::sample::select(SECRET_KEYS.to_vec()),
            which: u32,
            before in "([a-r]{1,3}=[a-z]{0,3}&){0,3}",
            after in "(&[a-r]{1,3}=[a-z]{0,3}){0,3}",
            secret in "[0-9]{12,20}",
        ) {
            let raw = format!("{before}{}={secret}{after}", encoded(key, which));
            let clean = query(&raw).into_owned();
            prop_assert!(!clean.contains(&secret));
            prop_assert!(clean.starts_with(&before) && clean.ends_with(&after));
        }

        #[test]
        fn redacting_twice_changes_nothing_more(raw in "[a-z%=&0-9]{0,40}") {
            let once = query(&raw).into_owned();
            prop_assert_eq!(query(&once).into_owned(), once);
        }
    }
}
