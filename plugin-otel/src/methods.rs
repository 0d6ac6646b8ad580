//! The request methods that are told apart.

/// What stands for a method that is not known in a span's name.
const OTHER: &str = "HTTP";

/// Methods that may be named: any other may be anything, and there are too many of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KnownMethods(&'static [&'static str]);

impl Default for KnownMethods {
    /// Those of RFC 9110, and PATCH.
    fn default() -> Self {
        Self(&["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"])
    }
}

impl KnownMethods {
    /// These methods and no others, with their case.
    ///
    /// They are never given back: a plugin reads its settings once, and stays as long as the process.
    pub(crate) fn of(methods: Vec<String>) -> Self {
        let methods = methods.into_iter().map(|method| &*method.leak()).collect::<Vec<_>>();
        Self(methods.leak())
    }

    /// The method, if it is a known one.
    pub(crate) fn known(self, method: &str) -> Option<&'static str> {
        self.0.iter().copied().find(|known| *known == method)
    }

    /// What stands for the method in a span's name.
    pub(crate) fn name_of(self, method: &str) -> &'static str {
        self.known(method).unwrap_or(OTHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_methods_are_one() {
        let methods = KnownMethods::default();
        for method in ["GET", "PATCH", "TRACE"] {
            assert_eq!((methods.known(method), methods.name_of(method)), (Some(method), method));
        }
        for odd in ["get", "BREW", "", "GETS", "PROPFIND"] {
            assert_eq!((methods.known(odd), methods.name_of(odd)), (None, "HTTP"), "{odd}");
        }
    }

    #[test]
    fn a_list_stands_in_place_of_the_default_in_full() {
        let methods = KnownMethods::of(vec!["BREW".to_owned(), "get".to_owned()]);
        assert_eq!(methods.name_of("BREW"), "BREW");
        assert_eq!(methods.name_of("get"), "get");
        assert_eq!(methods.known("GET"), None);
        assert_eq!(KnownMethods::of(Vec::new()).name_of("GET"), "HTTP");
    }
}
