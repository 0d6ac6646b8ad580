//! Where a store holds what: `prefix/services/<group>/<id>` and `prefix/config/<group>`, with the
//! separator that is usual there.

/// The keys of one fleet in a store, as one group sees them.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    separator: char,
    services: String,
    settings: String,
}

impl Keys {
    pub(super) fn new(prefix: &str, separator: char, group: &str) -> Self {
        let prefix = prefix.trim_end_matches(separator);
        Self {
            separator,
            services: format!("{prefix}{separator}services{separator}"),
            settings: format!("{prefix}{separator}config{separator}{group}"),
        }
    }

    /// What the key of every instance starts with.
    pub(super) fn services(&self) -> &str {
        &self.services
    }

    /// The key of the group's settings.
    pub(super) fn settings(&self) -> &str {
        &self.settings
    }

    /// The key of an instance.
    pub(super) fn instance(&self, group: &str, id: &str) -> String {
        format!("{}{group}{}{id}", self.services, self.separator)
    }

    /// The group and the id that an instance's key names.
    pub(super) fn parse<'a>(&self, key: &'a str) -> Option<(&'a str, &'a str)> {
        let (group, id) = key.strip_prefix(&self.services)?.split_once(self.separator)?;
        let whole = !group.is_empty() && !id.is_empty() && !id.contains(self.separator);
        whole.then_some((group, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_as_it_was_made() {
        for (prefix, separator) in [("/host", '/'), ("/host/", '/'), ("host", ':'), ("", ':')] {
            let keys = Keys::new(prefix, separator, "front");
            assert_eq!(keys.parse(&keys.instance("a", "1")), Some(("a", "1")), "{prefix}");
        }
        let keys = Keys::new("/host/", '/', "front");
        assert_eq!(keys.instance("a", "1"), "/host/services/a/1");
        assert_eq!(keys.settings(), "/host/config/front");
    }

    #[test]
    fn a_foreign_key_is_none() {
        let keys = Keys::new("/host", '/', "front");
        for key in ["", "/host/services/", "/host/services/a", "/host/services/a/", "/other/a/1"] {
            assert_eq!(keys.parse(key), None, "{key}");
        }
        for key in ["/host/services//1", "/host/services/a/1/2", "/host/config/a/1"] {
            assert_eq!(keys.parse(key), None, "{key}");
        }
    }
}
