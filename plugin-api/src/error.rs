//! Why a plugin could not do what the host asked.

use std::fmt;

use abi_stable::{StableAbi, std_types::RString};

/// What kind of failure a [`PluginError`] is; an open set, newer plugins may send newer values.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorKind(u32);

impl ErrorKind {
    /// Something other than the kinds below.
    pub const OTHER: Self = Self(0);
    /// A setting is wrong: the host names its file and line and ends with exit code 78.
    pub const SETTING: Self = Self(1);
    /// The deadline passed before the work was done.
    pub const TIMEOUT: Self = Self(2);
    /// The plugin panicked; the panic's message is in the host's log.
    pub const PANIC: Self = Self(3);
}

/// A failure, as one line of text for an operator.
///
/// The message is lower-case, without a full stop, and says what was wanted and what was found.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct PluginError {
    kind: ErrorKind,
    setting: RString,
    message: RString,
}

impl PluginError {
    /// A failure that no setting is to blame for.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Self {
        Self { kind, setting: RString::new(), message: message.to_string().into() }
    }

    /// The setting `key` (dotted below the plugin's table: `sampler`, `headers.x-token`) is wrong.
    #[must_use]
    pub fn setting(key: &str, message: impl fmt::Display) -> Self {
        Self { kind: ErrorKind::SETTING, setting: key.into(), message: message.to_string().into() }
    }

    /// What kind of failure this is.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The key to blame, empty unless the kind is [`ErrorKind::SETTING`].
    #[must_use]
    pub fn key(&self) -> &str {
        &self.setting
    }

    /// The text without the key.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.setting.is_empty() {
            write!(f, "{}: ", self.setting)?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for PluginError {}
