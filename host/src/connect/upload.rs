//! The body of a request over TLS, which notes that it broke off.
//!
//! Over HTTP/2 hyper resets the stream then, and says that of the response, as if its peer had done it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use http_body::Body as _;
use http_body_util::BodyExt;

use crate::Body;

/// Whether a body broke off; false of one that there is not.
pub(super) struct Broken(Option<Arc<AtomicBool>>);

impl Broken {
    /// Watches `body`, unless it is empty: most are, and nothing is allocated for those.
    pub(super) fn watch(body: &mut Body) -> Self {
        if body.is_end_stream() {
            return Self(None);
        }
        let is_broken = Arc::new(AtomicBool::new(false));
        let tells = Arc::clone(&is_broken);
        let watched = std::mem::take(body).map_err(move |error| {
            tells.store(true, Ordering::Release);
            error
        });
        *body = Body::boxed(Box::new(watched));
        Self(Some(is_broken))
    }

    pub(super) fn is_true(&self) -> bool {
        self.0.as_ref().is_some_and(|is_broken| is_broken.load(Ordering::Acquire))
    }
}
