//! The layers of both stacks, one file each; [`stack`](crate::stack) puts them in order.
//!
//! Load shedding and the in-flight limit of the server stack are tower's own.

mod access_log;
mod catch_panic;
mod client_exchange;
pub(crate) mod cut;
mod error_status;
mod exchange;
mod head;
mod hooks;
mod meter;
mod recorder;
mod request_id;
mod retry;
mod server_exchange;
mod slow_hooks;
#[cfg(test)]
pub(crate) mod testing;
mod timeout;
mod tunnel;

pub(crate) use access_log::AccessLog;
pub(crate) use catch_panic::CatchPanicLayer;
pub(crate) use client_exchange::{Attempts, ClientExchange, Failed};
pub(crate) use error_status::ErrorStatusLayer;
pub(crate) use hooks::{Hooks, StackHooks};
pub(crate) use request_id::RequestIdLayer;
pub(crate) use retry::Retries;
pub(crate) use server_exchange::ServerExchange;
use slow_hooks::SlowHooks;
pub(crate) use timeout::{TimeoutLayer, within};
pub use tunnel::Tunnel;
pub(crate) use tunnel::Tunnels;
