//! The layers of both stacks, one file each; [`stack`](crate::stack) puts them in order.
//!
//! Load shedding, the in-flight limit and the timeout of the server stack are tower's own.

mod catch_panic;
mod client_exchange;
mod error_status;
mod exchange;
mod head;
mod request_id;
mod server_exchange;
mod slow_hooks;
#[cfg(test)]
mod testing;

pub(crate) use catch_panic::CatchPanicLayer;
pub(crate) use client_exchange::{ClientExchange, ClientFuture, HttpClient, is_request_body};
pub(crate) use error_status::ErrorStatusLayer;
pub(crate) use request_id::RequestIdLayer;
pub(crate) use server_exchange::ServerExchange;
pub(crate) use slow_hooks::SlowHooks;
