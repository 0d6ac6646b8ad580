//! The answer to a request, on its way to the connection.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use http::{HeaderValue, Response, StatusCode, header};
use pin_project_lite::pin_project;

use crate::{Body, metrics::Ticket};

pin_project! {
    /// The answer to a request that is counted by its status, and that may be the last of its
    /// connection: RFC 9112, section 9.6. An `async` function would hold the answer twice.
    pub(super) struct Answered<F> {
        #[pin]
        pub(super) inner: F,
        pub(super) ticket: Option<Ticket>,
        pub(super) is_last: bool,
    }
}

impl<F: Future<Output = Result<Response<Body>, Infallible>>> Future for Answered<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut polled = this.inner.poll(cx);
        let Poll::Ready(Ok(response)) = &mut polled else { return polled };
        if let Some(ticket) = this.ticket.take() {
            ticket.answered(response.status());
        }
        if *this.is_last && response.status() != StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        polled
    }
}
