//! A caller of the host.

use std::fmt::Display;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version};
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use crate::{upstream::text, wait::within};

/// A body of any kind.
pub type Body = BoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// An HTTP client that speaks one version.
#[derive(Clone, Debug)]
pub struct Client(legacy::Client<HttpConnector, Body>);

/// A request that is being put together.
#[derive(Debug)]
pub struct Call<'a> {
    client: &'a Client,
    head: http::request::Builder,
    body: Body,
}

/// A response, read to its end.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The version that it came with.
    pub version: Version,
    /// The header lines.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Client {
    /// Speaks HTTP/1.1 and keeps connections open.
    #[must_use]
    pub fn http1() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).build_http())
    }

    /// Speaks HTTP/2 from the first byte, without TLS.
    #[must_use]
    pub fn http2() -> Self {
        Self(legacy::Client::builder(TokioExecutor::new()).http2_only(true).build_http())
    }

    /// A request with an empty body.
    #[must_use]
    pub fn call(&self, method: Method, url: &str) -> Call<'_> {
        let head = Request::builder().method(method).uri(url);
        Call { client: self, head, body: text("") }
    }

    /// A `GET` of `url`.
    #[must_use]
    pub fn get(&self, url: &str) -> Call<'_> {
        self.call(Method::GET, url)
    }
}

impl Call<'_> {
    /// Adds a header line.
    #[must_use]
    pub fn header(mut self, name: &str, value: &(impl Display + ?Sized)) -> Self {
        self.head = self.head.header(name, value.to_string());
        self
    }

    /// Sets the body.
    #[must_use]
    pub fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    /// Sends the request and returns the response as soon as its head is there.
    ///
    /// # Errors
    /// When no response comes.
    pub async fn open(self) -> Result<Response<Incoming>, legacy::Error> {
        let request = self.head.body(self.body).expect("a valid request");
        let what = format!("a response to {} {}", request.method(), request.uri());
        within(&what, self.client.0.request(request)).await
    }

    /// Sends the request and reads the response to its end.
    ///
    /// # Panics
    /// When no response comes, or not all of it.
    pub async fn send(self) -> Answer {
        let response = self.open().await.unwrap_or_else(|error| panic!("no response: {error:?}"));
        Answer::read(response).await
    }
}

impl Answer {
    /// Reads `response` to its end.
    ///
    /// # Panics
    /// When it is cut off.
    pub async fn read(response: Response<Incoming>) -> Self {
        let (head, incoming) = response.into_parts();
        let body = within("the end of a response", incoming.collect()).await;
        let body = body.expect("the whole body").to_bytes();
        Self { status: head.status.as_u16(), version: head.version, headers: head.headers, body }
    }

    /// The body as text.
    ///
    /// # Panics
    /// When it is not UTF-8.
    #[must_use]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a body of text")
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is not.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The value of the header `name`, if there is one.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}
