//! The contract between the host and its plugins.
#![deny(unsafe_code)]
#![allow(non_local_definitions, reason = "abi_stable's derive macros define items this way")]

#[allow(unsafe_code, reason = "written by sabi_trait; this file has none of its own")]
pub mod abi;
pub mod adapter;
mod context;
pub mod entry;
mod error;
pub mod guard;
mod host;
mod http;
mod plugin;

#[doc(hidden)]
pub use abi_stable;
pub use context::{Context, SpanContext};
pub use error::{ErrorKind, PluginError};
pub use host::{Host, Level, Service};
pub use http::{
    Accepted, ClientLayer, End, Exchange, Header, Headers, NoLayer, Outcome, Peer, RequestHead,
    ResponseHead, ServerLayer, Version,
};
pub use plugin::{Plugin, PluginInfo, PluginRoot, PluginRootRef, Setting, State, VERSION};
