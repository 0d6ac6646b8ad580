//! What is shown to nobody.

/// Whether the value of a key is secret as a whole.
pub(super) fn is_key(key: &str) -> bool {
    key.ends_with("password")
}

/// Hides the user information of URLs, up to the last `@` of each: the slash of a password that should
/// have been encoded does not end it.
pub(super) fn mask(text: &str) -> String {
    let (mut masked, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, url)) = rest.split_once("://") {
        masked.push_str(before);
        masked.push_str("://");
        let end = url.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(url.len());
        let user = url[..end].rfind('@');
        masked.push_str(user.map_or("", |_| "***"));
        rest = &url[user.unwrap_or_default()..];
    }
    masked.push_str(rest);
    masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_each_url_is_hidden() {
        for (text, shown) in [
            ("a@b", "a@b"),
            ("http://a:1/b", "http://a:1/b"),
            ("http://me:pw@a:1/b", "http://***@a:1/b"),
            ("http://me:p/w?@a:1/b", "http://***@a:1/b"),
            (
                r#"["http://me@a","http://b","x://you@c"]"#,
                r#"["http://***@a","http://b","x://***@c"]"#,
            ),
            (
                "http:// or https://, found \"ftp://me:pw@a\"",
                "http:// or https://, found \"ftp://***@a\"",
            ),
        ] {
            assert_eq!(mask(text), shown);
        }
    }
}
