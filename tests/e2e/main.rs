//! The end-to-end suite: the real host process, the real plugin, real sockets.
//!
//! One binary, because each would link the whole harness again, and one file per subject. Every file
//! lists its tests with [`trials!`]; one that is forgotten there is dead code and does not compile
//! without a warning. Run some with `cargo test -p tests -- SUBSTRING`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "an expectation that does not hold fails the test"
)]

/// Makes the function that lists the tests of a file.
macro_rules! trials {
    ($($test:ident),+ $(,)?) => {
        /// The tests of this file.
        pub(crate) fn trials() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().trim_start_matches("e2e::");
            vec![$(harness::trial(&format!("{module}::{}", stringify!($test)), $test)),+]
        }
    };
}

mod admin;
mod balance;
mod boundary;
mod bytes;
mod cancelled;
mod collector_faults;
mod commands;
mod config;
mod context;
mod conventions;
mod curl;
mod dependencies;
mod discovery;
mod edges;
mod ends;
mod export_tls;
mod fleet_settings;
mod forward;
mod inside;
mod log;
mod metrics;
mod policy;
mod python;
mod readme;
mod receivers;
mod reference;
mod remote_sampler;
mod stack;
mod stop;
mod tls;
mod trace;
mod upgrade;
mod w3c;
mod xray;

use std::process::ExitCode;

fn main() -> ExitCode {
    let trials = [
        receivers::trials(),
        dependencies::trials(),
        readme::trials(),
        commands::trials(),
        config::trials(),
        admin::trials(),
        forward::trials(),
        balance::trials(),
        discovery::trials(),
        stack::trials(),
        boundary::trials(),
        bytes::trials(),
        upgrade::trials(),
        tls::trials(),
        export_tls::trials(),
        log::trials(),
        metrics::trials(),
        trace::trials(),
        context::trials(),
        inside::trials(),
        reference::trials(),
        curl::trials(),
        w3c::trials(),
        cancelled::trials(),
        ends::trials(),
        edges::trials(),
        policy::trials(),
        remote_sampler::trials(),
        xray::trials(),
        conventions::trials(),
        python::trials(),
        collector_faults::trials(),
        fleet_settings::trials(),
        stop::trials(),
    ];
    let arguments = libtest_mimic::Arguments::from_args();
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit_code()
}
