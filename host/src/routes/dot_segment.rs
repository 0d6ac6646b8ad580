//! Segments that lead elsewhere than they stand: RFC 3986, section 3.3.

/// Whether `path` has a segment that is `.` or `..`, encoded or not. Whoever resolves it at the other
/// end is at a place that the route has not matched.
pub(super) fn is_in(path: &str) -> bool {
    path.split('/').any(|segment| {
        after_dot(segment)
            .is_some_and(|rest| rest.is_empty() || after_dot(rest).is_some_and(str::is_empty))
    })
}

fn after_dot(text: &str) -> Option<&str> {
    text.strip_prefix('.').or_else(|| text.strip_prefix("%2e")).or_else(|| text.strip_prefix("%2E"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_found_however_they_are_written() {
        for (path, wanted) in [
            ("/", false),
            ("/a/b.c/", false),
            ("/.well-known/...", false),
            ("/..a/.%2ea/%2e%2e%2e", false),
            ("/a%2e", false),
            ("/.", true),
            ("/a/../b", true),
            ("/a/./b", true),
            ("/a/%2e", true),
            ("/%2E%2e/a", true),
            ("/a/.%2e", true),
            ("..", true),
        ] {
            assert_eq!(is_in(path), wanted, "{path}");
        }
    }
}
