//! A service of its own around an axum router: its handlers call another service, and each call is
//! a child of the request it is made for, with no tracing code in any handler.
//!
//! ```sh
//! cargo build --release
//! cargo run --release --example service -- --config host/config/quickstart.toml
//! ```
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
    telemetry::context::{self, FutureExt as _},
};
use http::StatusCode;

fn main() -> ExitCode {
    host::main(|_config, client| {
        Router::new()
            .route("/fan/{n}", get(fan))
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
