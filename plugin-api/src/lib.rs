//! The contract between the host and its plugins.
//!
//! A plugin is a shared library that the host opens at start-up. It is asked about every incoming
//! and every outgoing HTTP request, and may follow each to its end. It is written in plain Rust
//! against the traits here; [`export_plugin!`] makes it a library that any host of the same major
//! version loads, whatever compiler either was built with.
//!
//! # Writing a plugin
//!
//! A crate of `crate-type = ["cdylib"]` that depends on `plugin-api` alone. This one logs every
//! request that failed; `examples/noop.rs` is the smallest, to be copied.
//!
//! ```
//! use plugin_api::{
//!     Accepted, Context, End, Exchange, Host, Level, NoLayer, Plugin, PluginError, RequestHead,
//!     ResponseHead, ServerLayer,
//! };
//!
//! struct Failures(Host);
//!
//! impl Plugin for Failures {
//!     const NAME: &'static str = "failures";
//!     const VERSION: &'static str = env!("CARGO_PKG_VERSION");
//!     type ServerLayer = Watch;
//!     type ClientLayer = NoLayer;
//!
//!     fn create(_settings: &str, host: Host) -> Result<Self, PluginError> {
//!         Ok(Self(host))
//!     }
//!
//!     fn server_layer(&self) -> Option<Watch> {
//!         Some(Watch(self.0.clone()))
//!     }
//! }
//!
//! struct Watch(Host);
//!
//! impl ServerLayer for Watch {
//!     type Exchange = Request;
//!
//!     fn on_request(&self, head: &RequestHead<'_>) -> Accepted<Request> {
//!         // What is borrowed lives for this call only: copy what is kept.
//!         let exchange = Request { path: head.path().to_owned(), host: self.0.clone() };
//!         Accepted { context: Context::default(), exchange: Some(exchange) }
//!     }
//! }
//!
//! struct Request {
//!     path: String,
//!     host: Host,
//! }
//!
//! impl Exchange for Request {
//!     fn on_response(&mut self, head: &ResponseHead<'_>) {
//!         if head.status() >= 500 {
//!             let line = format!("{} failed with {}", self.path, head.status());
//!             self.host.log(Level::WARN, "failures", &line);
//!         }
//!     }
//! }
//!
//! plugin_api::export_plugin!(Failures);
//! # fn main() {}
//! ```
//!
//! Put the library next to the host's binary, name it in `otel.library`, and look at it with
//! `host plugin FILE`.
//!
//! # A plugin's life
//!
//! ```text
//! opened ─► info ─► create ─► server_layer, client_layer ─► hooks … ─► shutdown ─► process ends
//! ```
//!
//! 1. The host opens the library, compares versions and the layout of every type, and reads
//!    [`PluginInfo`]. Nothing of the plugin's own code has run but constructors: have none.
//! 2. [`Plugin::create`] gets the plugin's table of the configuration and the [`Host`]. Threads and
//!    runtimes start here.
//! 3. Its layers are put into the open stacks, which are then sealed: the plugin's is the outermost
//!    server layer and the innermost client layer.
//! 4. Requests: see [`ServerLayer`], [`ClientLayer`] and [`Exchange`].
//! 5. [`Plugin::shutdown`], once, after the last request. The library is never unloaded.
//!
//! # Rules of the boundary
//!
//! - **Synchronous hooks and plain data.** No future, waker, runtime, and no type of `http`,
//!   `tower`, `tracing` or `opentelemetry` crosses: each crate that both sides link exists twice,
//!   with its own statics. A plugin sees neither the host's runtime nor its log subscriber.
//! - **Threads.** Hooks run on any host thread, many at once; one exchange is told by one thread at
//!   a time. A hook delays the request by what it takes: no I/O and no waiting for a lock.
//! - **Borrowed for the call.** Text and bytes that a hook is given are gone when it returns.
//! - **Panics stay inside.** Every entry point and every drop is guarded; a request goes on as if
//!   the hook had not been. See [`guard`] for what many panics lead to. A plugin that is built with
//!   `panic = "abort"` is refused.
//! - **The request goes on.** A hook has no way to refuse or change a request but through
//!   [`Headers`]; of a response only headers that tell of the trace may be set.
//! - **Secrets.** Settings and headers may hold secrets: do not log them.
//! - **Environment.** Do not set variables, signal handlers, or the working directory: they belong
//!   to the host's process. The panic hook of the library's own copy of `std` is taken by
//!   [`guard`], which sends message and place to the host's log.
//!
//! # Versions
//!
//! A host loads every plugin of its own major version, built against an older or newer minor alike.
//! A minor version may only:
//!
//! - append a method with a default body to an object in [`abi`], after the last one there is;
//! - append a function to [`PluginRoot`], after the last one there is;
//! - give a meaning to a reserved word that was zero, where zero means what it meant before;
//! - add a constant to one of the open sets ([`Outcome`], [`Level`], [`ErrorKind`], [`State`],
//!   [`Version`]): whoever receives a value must bear one that it does not know.
//!
//! What has come since 1.0.0 says since when it is. Anything else, a change of what something means included, is a new major version.
//! `tests/layout.golden` is the layout of every type that crosses; a test compares it.
#![deny(unsafe_code)]
#![allow(non_local_definitions, reason = "abi_stable's derive macros define items this way")]

#[allow(unsafe_code, reason = "written by sabi_trait; this file has none of its own")]
pub mod abi;
pub mod adapter;
mod context;
pub mod entry;
mod error;
mod fields;
pub mod guard;
mod host;
mod http;
mod layer;
pub mod metrics;
mod plugin;
pub mod telemetry;

#[doc(hidden)]
pub use abi_stable;
pub use context::{Context, SpanContext};
pub use error::{ErrorKind, PluginError};
pub use host::{Host, Level, Service};
pub use http::{End, Header, Outcome, Peer, RequestHead, ResponseHead, Version};
pub use layer::{Accepted, ClientLayer, Exchange, Headers, NoLayer, ServerLayer};
pub use plugin::{Plugin, PluginInfo, PluginRoot, PluginRootRef, Setting, State, VERSION};
