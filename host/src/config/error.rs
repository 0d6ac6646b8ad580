//! What can be wrong with a configuration, as one line for the operator.

use std::{fmt, io, path::PathBuf};

use super::tree::Origin;

/// A configuration that cannot be used. The program ends with exit code 78.
#[derive(Debug)]
pub enum ConfigError {
    /// The file is not there or cannot be read.
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    Syntax {
        /// The file.
        path: PathBuf,
        /// Where in it, counted from 1.
        line: usize,
        /// What the parser wanted.
        message: String,
    },
    /// A key or its value is wrong.
    Setting {
        /// Where it was set.
        origin: Origin,
        /// The dotted key.
        key: String,
        /// What was wanted and what was found.
        message: String,
    },
}

impl ConfigError {
    /// A wrong key or value at a known place.
    pub(crate) fn setting(
        origin: Origin,
        key: impl Into<String>,
        message: impl fmt::Display,
    ) -> Self {
        // Parsers of values answer with several lines; the operator gets one.
        let message = message.to_string().split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
        Self::Setting { origin, key: key.into(), message }
    }
}

impl ConfigError {
    /// Whether it was the store that holds what is wrong.
    pub(crate) const fn is_in_store(&self) -> bool {
        matches!(self, Self::Setting { origin: Origin::Store(_), .. })
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => {
                write!(f, "{}: cannot be read: {source}", path.display())
            }
            Self::Syntax { path, line, message } => {
                write!(f, "{}:{line}: {message}", path.display())
            }
            Self::Setting { origin, key, message } => write!(f, "{origin}: {key}: {message}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// How many changes lie between what is written and what is meant where a hand has slipped.
const SLIP: usize = 2;

/// The known key that is most like `key`, if any is like it at all.
pub(crate) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let (distance, nearest) = closest(key, known)?;
    (distance <= nearest.len().max(key.len()) / 2).then_some(nearest)
}

/// Whether `key` is most likely meant to be one that is known.
pub(crate) fn is_slip<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> bool {
    closest(key, known).is_some_and(|(distance, _)| distance <= SLIP)
}

fn closest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<(usize, &'a str)> {
    let distance = |known: &'a str| (strsim::damerau_levenshtein(key, known), known);
    known.map(distance).min_by_key(|(distance, _)| *distance)
}

/// What to say of a key that nobody knows.
pub(crate) fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(nearest) = nearest(key, known.clone()) {
        return format!("unknown key, did you mean \"{nearest}\"?");
    }
    let all: Vec<&str> = known.collect();
    if all.is_empty() {
        return "unknown key, none is known here".to_owned();
    }
    format!("unknown key, known are {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_the_one_with_the_fewest_changes() {
        let known = ["listen", "request-timeout", "max-in-flight", "drain-timeout"];
        for (typed, wanted) in [
            ("lisen", Some("listen")),
            ("request_timeout", Some("request-timeout")),
            ("drain-time", Some("drain-timeout")),
            ("zzz", None),
        ] {
            assert_eq!(nearest(typed, known.into_iter()), wanted, "{typed}");
        }
    }
}
