//! What follows a span of the code in the plugin.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use plugin_api::abi::SpanObject;

/// A span that the plugin records. Shared, because the plugin is not called while the registry of
/// spans or the current context is locked: it may log.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<Followed>);

struct Followed {
    span: Mutex<SpanObject>,
    /// Kept until this one has ended: a span does not end before those inside of it.
    _around: Option<Recorder>,
}

impl Recorder {
    /// For a span inside of that which `around` records.
    pub(super) fn new(span: SpanObject, around: Option<Self>) -> Self {
        Self(Arc::new(Followed { span: Mutex::new(span), _around: around }))
    }

    /// Tells it something; one thread at a time does.
    pub(super) fn tell(&self, tell: impl FnOnce(&mut SpanObject)) {
        // The plugin's panics stay on its side, so none has poisoned it.
        tell(&mut self.0.span.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Recorder")
    }
}
