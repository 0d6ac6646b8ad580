//! Patterns of request paths: those of `exclude`, of rules and of the trust table.

/// A pattern of paths, compared with a path as it came: nothing is percent-decoded.
///
/// With braces it is a route template: `{x}` stands for one segment that is not empty, `{*x}` at the
/// end for all that remains, at least one character. Without braces it is a prefix that ends at the
/// border of a segment: `/health` is `/health` and `/health/live`, but not `/healthy`, and `/health/`
/// is what lies below it. `/` is the root alone, for everything else is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template(Form);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Prefix(String),
    Segments {
        /// `None` stands for any segment.
        segments: Vec<Option<String>>,
        /// Whether more follows than these segments.
        has_rest: bool,
    },
}

impl Template {
    /// Makes a pattern of its text.
    ///
    /// # Errors
    /// What was wanted and what was found.
    pub(crate) fn compile(text: &str) -> Result<Self, String> {
        let route = Self::of_route(text)?;
        let is_prefix = !text.contains(['{', '}']);
        Ok(if is_prefix { Self(Form::Prefix(text.to_owned())) } else { route })
    }

    /// The same for a route: without braces, too, it stands for whole paths.
    ///
    /// # Errors
    /// What was wanted and what was found.
    pub(crate) fn of_route(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("wanted a path that starts with /, found {text:?}"));
        };
        if text.contains(['?', '#']) {
            return Err(format!("wanted a path without ? and #, found {text:?}"));
        }
        let mut segments = Vec::new();
        let mut has_rest = false;
        for segment in path.split('/') {
            if has_rest {
                return Err(format!("wanted {{*rest}} at the end only, found {text:?}"));
            }
            match name_of(segment) {
                Some(name) if name.starts_with('*') => has_rest = true,
                Some(_) => segments.push(None),
                None if segment.contains(['{', '}']) => {
                    return Err(format!("wanted braces around a whole segment, found {text:?}"));
                }
                None => segments.push(Some(segment.to_owned())),
            }
        }
        Ok(Self(Form::Segments { segments, has_rest }))
    }

    /// Whether the path is one of those that the pattern stands for.
    pub(crate) fn matches(&self, path: &str) -> bool {
        match &self.0 {
            Form::Prefix(prefix) if prefix == "/" => path == "/",
            Form::Prefix(prefix) => path.strip_prefix(prefix.as_str()).is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || prefix.ends_with('/')
            }),
            Form::Segments { segments, has_rest } => match below(segments, path) {
                None => false,
                Some(rest) if *has_rest => rest.len() > 1 && rest.starts_with('/'),
                Some(rest) => rest.is_empty(),
            },
        }
    }
}

/// What is in the braces of a segment.
fn name_of(segment: &str) -> Option<&str> {
    let name = segment.strip_prefix('{')?.strip_suffix('}')?;
    let is_name = !name.trim_start_matches('*').is_empty() && !name.contains(['{', '}']);
    is_name.then_some(name)
}

/// What remains of the path behind these segments, with the slash in front of it.
fn below<'a>(segments: &[Option<String>], mut path: &'a str) -> Option<&'a str> {
    for wanted in segments {
        let rest = path.strip_prefix('/')?;
        let (segment, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let is_right = match wanted {
            Some(wanted) => segment == wanted,
            None => !segment.is_empty(),
        };
        if !is_right {
            return None;
        }
        path = after;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_stands_for_its_paths_and_no_others() {
        for (pattern, good, bad) in [
            (
                "/health",
                &["/health", "/health/", "/health/live", "/health//"][..],
                &["/healthy", "/healt", "/", "", "/a/health", "/Health", "/%68ealth"][..],
            ),
            ("/health/", &["/health/", "/health/live"], &["/health", "/healthy"]),
            ("/", &["/"], &["", "/a", "//", "*"]),
            ("/a/b", &["/a/b", "/a/b/c"], &["/a", "/a/bc", "/a/", "/a//b"]),
            (
                "/users/{id}",
                &["/users/1", "/users/%2F", "/users/{id}"],
                &[
                    "/users",
                    "/users/",
                    "/users/1/",
                    "/users/1/x",
                    "/user/1",
                    "users/1",
                    "//users/1",
                ],
            ),
            ("/users/{id}/", &["/users/1/"], &["/users/1", "/users//", "/users/1/x"]),
            ("/{a}/x/{b}", &["/1/x/2"], &["/1/y/2", "/1/x/", "/1/x", "/1/x/2/3"]),
            ("/{*rest}", &["/a", "/a/b", "/a/", "//"], &["/", "", "*", "ab"]),
            (
                "/public/{*rest}",
                &["/public/a", "/public/a/b", "/public//"],
                &["/public", "/public/", "/publica/b"],
            ),
            ("/{v}/x/{*rest}", &["/1/x/2/3"], &["/1/x/", "/1/x", "/1/y/2"]),
        ] {
            let pattern = Template::compile(pattern).unwrap();
            for path in good {
                assert!(pattern.matches(path), "{pattern:?} {path}");
            }
            for path in bad {
                assert!(!pattern.matches(path), "{pattern:?} {path}");
            }
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_meant_is_refused() {
        for (pattern, wanted) in [
            ("", "a path that starts with /"),
            ("health", "a path that starts with /"),
            ("*", "a path that starts with /"),
            ("/a?b=1", "a path without ? and #"),
            ("/a#b", "a path without ? and #"),
            ("/a{x}", "braces around a whole segment"),
            ("/{x}.json", "braces around a whole segment"),
            ("/{x", "braces around a whole segment"),
            ("/x}", "braces around a whole segment"),
            ("/{}", "braces around a whole segment"),
            ("/{*}", "braces around a whole segment"),
            ("/{x}{y}", "braces around a whole segment"),
            ("/{*rest}/x", "{*rest} at the end only"),
        ] {
            let error = Template::compile(pattern).unwrap_err();
            assert_eq!(error, format!("wanted {wanted}, found {pattern:?}"));
        }
    }

    proptest! {
        #[test]
        fn no_pattern_and_no_path_is_too_odd(pattern in "/[a{}*x/]{0,12}", path in "[a/{}%x]{0,12}") {
            if let Ok(template) = Template::compile(&pattern) {
                let matches = template.matches(&path);
                prop_assert!(!matches || path.starts_with('/'));
                if !pattern.contains('{') {
                    prop_assert!(template.matches(&pattern));
                    prop_assert!(!matches || path.starts_with(&pattern));
                }
            }
        }
    }
}
