//! What follows a span of the code in the plugin.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use plugin_api::abi::SpanObject;

/// A span that the plugin records. Shared, because the plugin is not called while the registry of
/// spans or the current context is locked: it may log.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Mutex<SpanObject>>);

impl Recorder {
    pub(super) fn new(span: SpanObject) -> Self {
        Self(Arc::new(Mutex::new(span)))
    }

    /// Tells it something; one thread at a time does.
    pub(super) fn tell(&self, tell: impl FnOnce(&mut SpanObject)) {
        // The plugin's panics stay on its side, so none has poisoned it.
        tell(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}
