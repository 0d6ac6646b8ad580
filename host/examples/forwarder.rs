//! The yardstick: a forwarder on bare hyper and hyper-util, with nothing that a host needs besides.
//!
//! `forwarder LISTEN UPSTREAM` sends every request on LISTEN to the same path at UPSTREAM, both
//! bodies streamed. `host/benches/README.md` says what it is compared with.
#![forbid(unsafe_code)]

use std::{convert::Infallible, env, error::Error, net::SocketAddr};

use http::{Request, Response, StatusCode, Uri, Version, header, uri::Authority};
use http_body_util::{Either, Empty};
use hyper::{
    body::{Bytes, Incoming},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn Error + Send + Sync>;
type Upstream = Client<HttpConnector, Incoming>;
type Body = Either<Incoming, Empty<Bytes>>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        return Err("usage: forwarder LISTEN UPSTREAM".into());
    };
    let listen: SocketAddr = listen.parse()?;
    let upstream: Authority = upstream.parse()?;
    let listener = TcpListener::bind(listen).await?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Upstream = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(stream, client.clone(), upstream.clone()));
    }
}

async fn connection(stream: TcpStream, client: Upstream, upstream: Authority) {
    let service = service_fn(move |request| answer(client.clone(), upstream.clone(), request));
    // A client that goes away is no failure of the forwarder.
    let _ =
        Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    client: Upstream,
    upstream: Authority,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    Ok(match forward(client, upstream, request).await {
        Ok(response) => response.map(Either::Left),
        Err(_) => {
            let mut response = Response::new(Either::Right(Empty::new()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    })
}

async fn forward(
    client: Upstream,
    upstream: Authority,
    mut request: Request<Incoming>,
) -> Result<Response<Incoming>, Failure> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = Some(upstream);
    *request.uri_mut() = Uri::from_parts(parts)?;
    *request.version_mut() = Version::HTTP_11;
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(header::CONNECTION);
    Ok(client.request(request).await?)
}
