//! The binary `host`: the life cycle of the library around the configured routes.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use host::routes::Routes;

fn main() -> ExitCode {
    host::main(|config, client| Routes::new(&config.route, client))
}
