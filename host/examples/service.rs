//! A service of its own around an axum router: its handlers call another service, and each call is
//! a child of the request it is made for, with no tracing code in any handler. Where functions are
//! marked with `#[instrument]`, they are spans between the two, and lines of the log have their ids.
//!
//! ```sh
//! cargo build --release
//! export HOST_OTEL__LIBRARY=$PWD/target/release/libplugin_otel.so
//! export HOST_DISCOVERY__STATIC__UPSTREAM='["http://127.0.0.1:8080"]'
//! cargo run --release --example service -- --config host/config/quickstart.toml
//! curl http://127.0.0.1:8080/order/3
//! ```
//!
//! Here it calls itself: what it calls `upstream` may be any service that answers `/leaf/{n}/{from}`.
#![forbid(unsafe_code)]

use std::{process::ExitCode, sync::Arc};

use axum::{
    Router,
    extract::{MatchedPath, Path, Request, State},
    middleware::{self, Next},
    response::Response,
    routing::get,
};
use host::{
    Body, CallError, Client,
    telemetry::context::{self, FnOnceExt as _, FutureExt as _},
};
use http::StatusCode;
use tracing::{info, instrument};

fn main() -> ExitCode {
    host::main(|_config, client| {
        Router::new()
            .route("/fan/{n}", get(fan))
            .route("/order/{n}", get(order))
            .route("/lines/{n}", get(lines))
            .route("/leaf/{n}/{from}", get(async || "a leaf\n"))
            .route_layer(middleware::from_fn(name_route))
            .with_state(client)
    })
}

/// Tells the host which route matched: the span is then named after the template.
async fn name_route(matched: MatchedPath, request: Request, next: Next) -> Response {
    context::set_route(&Arc::from(matched.as_str()));
    next.run(request).await
}

/// Calls the service `upstream` three times: at once, after the task may have moved to another
/// thread, and from a task of its own.
async fn fan(State(client): State<Client>, Path(n): Path<u32>) -> Result<String, StatusCode> {
    leaf(&client, n, "direct").await?;

    tokio::task::yield_now().await;
    leaf(&client, n, "awaited").await?;

    // A spawned task has no context but the one that it is given.
    let spawned = async move { leaf(&client, n, "spawned").await };
    tokio::spawn(spawned.with_current_context())
        .await
        .map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)??;

    Ok(format!("{n}\n"))
}

/// Takes an order: asks for the goods, computes the price on a thread that may block, and lets a task
/// of its own tell someone.
#[instrument(skip(client))]
async fn order(State(client): State<Client>, Path(n): Path<u32>) -> Result<String, StatusCode> {
    info!("an order has come in");
    reserve(&client, n).await?;
    let price = tokio::task::spawn_blocking((move || price(n)).with_current_context());
    let price = price.await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    tokio::spawn(notify(client, n).with_current_context());
    Ok(format!("{price}\n"))
}

#[instrument(skip(client))]
async fn reserve(client: &Client, n: u32) -> Result<(), StatusCode> {
    info!(goods = n, "reserving");
    ask(client, n).await
}

#[instrument(skip_all, err)]
async fn ask(client: &Client, n: u32) -> Result<(), StatusCode> {
    leaf(client, n, "reserved").await
}

#[instrument]
fn price(n: u32) -> u32 {
    info!("computing");
    (1..=n).sum()
}

/// Goes on when the request is answered.
#[instrument(skip_all)]
async fn notify(client: Client, n: u32) {
    if leaf(&client, n, "notified").await.is_ok() {
        info!("told");
    }
}

/// Writes lines to the log, and lets others have their turn.
async fn lines(Path(n): Path<u32>) -> String {
    for line in 0..n {
        info!(line, "one of many");
        if line % 1000 == 0 {
            tokio::task::yield_now().await;
        }
    }
    format!("{n}\n")
}

async fn leaf(client: &Client, n: u32, from: &str) -> Result<(), StatusCode> {
    let request = http::Request::get(format!("/leaf/{n}/{from}")).body(Body::empty());
    let request = request.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    let answer = client.call("upstream", request).await.map_err(|error| status(&error))?;
    if answer.status().is_success() { Ok(()) } else { Err(StatusCode::BAD_GATEWAY) }
}

fn status(error: &CallError) -> StatusCode {
    tracing::warn!("{error}");
    StatusCode::BAD_GATEWAY
}
