//! Request methods as metrics tell them apart.

use std::hash::Hasher;

use http::StatusCode;

/// Those of RFC 9110, and PATCH; last what stands for all others, of which there may be any number.
const NAMES: [&str; Method::COUNT] =
    ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE", "_OTHER"];

/// `http.request.method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Method(u8);

impl Method {
    /// How many there are.
    pub(super) const COUNT: usize = 10;

    pub(super) fn of(method: &http::Method) -> Self {
        let known = NAMES.iter().position(|name| *name == method.as_str());
        // The last one's place fits.
        Self(known.unwrap_or(Self::COUNT - 1) as u8)
    }

    pub(super) const fn place(self) -> usize {
        self.0 as usize
    }

    /// Adds this and the status of the answer to a hash, in one step.
    pub(super) fn hash_with(self, status: Option<StatusCode>, state: &mut impl Hasher) {
        let status = status.map_or(0, |status| status.as_u16());
        state.write_u32(u32::from(status) << 8 | u32::from(self.0));
    }

    pub(super) const fn name(self) -> &'static str {
        NAMES[self.place()]
    }

    /// All of them, in order.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..).map(Self).take(Self::COUNT)
    }
}

/// `network.protocol.version`.
pub(super) fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_3 => "3",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_one() {
        for (method, name) in
            [("GET", "GET"), ("TRACE", "TRACE"), ("get", "_OTHER"), ("BREW", "_OTHER")]
        {
            let method = http::Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(Method::of(&method).name(), name);
        }
        assert_eq!(Method::all().map(Method::name).collect::<Vec<_>>(), NAMES);
    }
}
