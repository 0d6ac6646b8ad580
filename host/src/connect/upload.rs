//! The body of a request over TLS, which notes that it broke off.
//!
//! Over HTTP/2 hyper resets the stream then, and says that of the response, as if its peer had done it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tower::BoxError;

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
        let upload = Upload { body: std::mem::take(body), is_broken: Arc::clone(&is_broken) };
        *body = Body::boxed(Box::new(upload));
        Self(Some(is_broken))
    }

    pub(super) fn is_true(&self) -> bool {
        self.0.as_ref().is_some_and(|is_broken| is_broken.load(Ordering::Acquire))
    }
}

struct Upload {
    body: Body,
    is_broken: Arc<AtomicBool>,
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(_))) = &polled {
            this.is_broken.store(true, Ordering::Release);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
