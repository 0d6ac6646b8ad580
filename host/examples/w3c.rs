//! The service that the W3C trace-context test suite examines: `POST /test` takes a list of
//! `{"url", "arguments"}` and posts each `arguments` to its `url`, in order.
//!
//! The suite's harness listens on 127.0.0.1:7777; this configuration file is all it takes:
//!
//! ```toml
//! [server]
//! listen = "127.0.0.1:5000"
//! [discovery.static]
//! harness = ["http://127.0.0.1:7777"]
//! [otel]
//! enabled = true
//! library = "/path/to/target/release/libplugin_otel.so"
//! exporter = "none"
//! ```
//!
//! ```sh
//! cargo run --release --example w3c -- --config w3c.toml
//! STRICT_LEVEL=2 SPEC_LEVEL=2 python test.py http://127.0.0.1:5000/test
//! ```
#![forbid(unsafe_code)]

use std::process::ExitCode;

use axum::{Router, body::Bytes, extract::State, routing::post};
use host::{Body, Client};
use http::{Request, StatusCode, Uri, header};
use serde::Deserialize;

/// One call that the suite asks for.
#[derive(Deserialize)]
struct Order {
    url: String,
    arguments: serde_json::Value,
}

fn main() -> ExitCode {
    host::main(|_config, client| Router::new().route("/test", post(test)).with_state(client))
}

async fn test(State(client): State<Client>, body: Bytes) -> StatusCode {
    let Ok(orders) = serde_json::from_slice::<Vec<Order>>(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    for order in orders {
        if let Err(reason) = call(&client, order).await {
            tracing::warn!("{reason}");
            return StatusCode::BAD_GATEWAY;
        }
    }
    StatusCode::OK
}

async fn call(client: &Client, order: Order) -> Result<(), Box<dyn std::error::Error>> {
    let url: Uri = order.url.parse()?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(order.arguments.to_string()))?;
    client.call("harness", request).await?;
    Ok(())
}
