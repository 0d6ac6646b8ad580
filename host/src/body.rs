//! The body of every request and response: streamed, never gathered.

use std::{
    any::Any,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tower::BoxError;

use crate::discovery::Chosen;

/// A message body. What comes from a socket is passed on without a box around it.
pub struct Body {
    kind: Kind,
    /// Of a response of an instance: it is in flight until its body has ended.
    chosen: Option<Chosen>,
}

enum Kind {
    Full(Full<Bytes>),
    Incoming(Incoming),
    Boxed(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>),
    Kept(Kept),
}

/// A body of the host's own, whose box is kept for another.
pub(crate) trait Keep:
    http_body::Body<Data = Bytes, Error = BoxError> + Send + Unpin
{
    /// See [`Body::runs_code`].
    fn runs_code(&self) -> bool;
    /// Takes the box of a body that nobody asks for anything any more.
    fn keep(self: Box<Self>);
}

/// There until it is dropped.
struct Kept(Option<Box<dyn Keep>>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(body) = self.0.take() {
            body.keep();
        }
    }
}

impl Body {
    /// A body without a byte.
    #[must_use]
    pub fn empty() -> Self {
        Kind::Full(Full::default()).into()
    }

    /// A body of the host's own around another.
    pub(crate) fn boxed<B>(body: Box<B>) -> Self
    where
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        Kind::Boxed(Box::into_pin(body)).into()
    }

    /// The same, where the box is not freed when the body is dropped.
    pub(crate) fn kept(body: Box<dyn Keep>) -> Self {
        Kind::Kept(Kept(Some(body))).into()
    }

    /// Any body; one that is a `Body` already stays as it is.
    pub fn new<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut body = Some(body);
        if let Some(own) = (&mut body as &mut dyn Any).downcast_mut::<Option<Self>>() {
            return own.take().unwrap_or_default();
        }
        body.map_or_else(Self::empty, |body| Self::boxed(Box::new(body.map_err(Into::into))))
    }

    /// Whether code of a handler's may run when it is polled, which is to find its context. Those who
    /// are told what passes are told outside of any.
    pub(crate) fn runs_code(&self) -> bool {
        match &self.kind {
            Kind::Full(_) | Kind::Incoming(_) => false,
            Kind::Boxed(_) => true,
            Kind::Kept(Kept(body)) => body.as_ref().is_some_and(|body| body.runs_code()),
        }
    }

    /// It is that of a response of the instance that was `chosen`.
    pub(crate) fn be_of(&mut self, chosen: Chosen) {
        self.chosen = Some(chosen);
    }
}

impl From<Kind> for Body {
    fn from(kind: Kind) -> Self {
        Self { kind, chosen: None }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Body")
    }
}

impl Default for Body {
    fn default() -> Self {
        Self::empty()
    }
}

impl From<Incoming> for Body {
    fn from(incoming: Incoming) -> Self {
        Kind::Incoming(incoming).into()
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Kind::Full(Full::new(bytes)).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Bytes::from_static(text.as_bytes()).into()
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let polled = match &mut this.kind {
            Kind::Full(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Incoming(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Kind::Boxed(body) => body.as_mut().poll_frame(cx),
            Kind::Kept(Kept(body)) => match body {
                Some(body) => Pin::new(&mut **body).poll_frame(cx),
                None => Poll::Ready(None),
            },
        };
        if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
            this.chosen = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Full(body) => body.is_end_stream(),
            Kind::Incoming(body) => body.is_end_stream(),
            Kind::Boxed(body) => body.is_end_stream(),
            Kind::Kept(Kept(body)) => body.as_ref().is_none_or(|body| body.is_end_stream()),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Full(body) => body.size_hint(),
            Kind::Incoming(body) => body.size_hint(),
            Kind::Boxed(body) => body.size_hint(),
            Kind::Kept(Kept(body)) => {
                body.as_ref().map_or_else(SizeHint::default, |body| body.size_hint())
            }
        }
    }
}
