//! The smallest plugin: it is asked about every request and records none.
//!
//! Copy this file to start a new one. Build it with `cargo build --example noop -p plugin-api` and
//! point `otel.library` at `target/debug/examples/libnoop.so`.

use plugin_api::{
    Accepted, ClientLayer, Context, Headers, Host, Level, Plugin, PluginError, RequestHead,
    ServerLayer,
};

#[derive(Clone, Copy)]
struct Noop;

impl Plugin for Noop {
    const NAME: &'static str = "noop";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    type ServerLayer = Self;
    type ClientLayer = Self;

    fn create(_settings: &str, host: Host) -> Result<Self, PluginError> {
        host.log(Level::INFO, "noop", "hello from the smallest plugin");
        Ok(Self)
    }

    fn server_layer(&self) -> Option<Self> {
        Some(Self)
    }

    fn client_layer(&self) -> Option<Self> {
        Some(Self)
    }
}

impl ServerLayer for Noop {
    type Exchange = ();

    fn on_request(&self, _head: &RequestHead<'_>) -> Accepted<()> {
        Accepted { context: Context::default(), exchange: None }
    }
}

impl ClientLayer for Noop {
    type Exchange = ();

    fn on_request(&self, _: &RequestHead<'_>, _: &Context, _: &mut Headers<'_>) -> Option<()> {
        None
    }
}

plugin_api::export_plugin!(Noop);
