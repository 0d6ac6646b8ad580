//! The command line, and how the program ends.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::{
    App, Client, Error, Plugin, config::Config, config::Settings, plugin::describe,
    shutdown::Stopped, stack::Handler, telemetry::log,
};

/// Serves HTTP until SIGTERM or SIGINT; a second signal ends at once.
#[derive(Debug, Parser)]
#[command(version, about, disable_help_subcommand = true)]
struct Arguments {
    /// The configuration; else $HOST_CONFIG, else ./host.toml, else /etc/host/host.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start up without listening, and print every setting and where it comes from
    Check,
    /// Open a plugin and print what it is and which settings it knows
    Plugin {
        /// The shared library
        file: PathBuf,
    },
}

/// The program: reads the command line, loads the configuration and does what was asked, with the
/// handler that `make` gives. Returns what `main` is to return.
///
/// `make` is called once, before service discovery and the plugin; the client that it is given
/// answers from the moment the stacks are sealed.
pub fn main<H, B>(make: impl FnOnce(&Config, Client) -> H) -> ExitCode
where
    H: Handler<B>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed standard output is no reason to end otherwise.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    let config = arguments.config.as_deref();
    let ended = match &arguments.command {
        None => serve(config, make),
        Some(Command::Check) => check(config, make),
        Some(Command::Plugin { file }) => plugin(file),
    };
    ended.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "host: {error}");
        ExitCode::from(error.exit_code())
    })
}

fn serve<H, B>(
    config: Option<&Path>,
    make: impl FnOnce(&Config, Client) -> H,
) -> Result<ExitCode, Error>
where
    H: Handler<B>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let (app, handler) = prepare(config, make)?;
    let runtime = runtime()?;
    let stopped = runtime.block_on(app.run(handler));
    // What still runs has had its time; a plugin that hangs would otherwise be waited for.
    runtime.shutdown_background();
    Ok(ExitCode::from(match stopped? {
        Stopped::Drained => 0,
        Stopped::DeadlinePassed | Stopped::AtOnce => 75,
    }))
}

fn check<H, B>(
    config: Option<&Path>,
    make: impl FnOnce(&Config, Client) -> H,
) -> Result<ExitCode, Error>
where
    H: Handler<B>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<tower::BoxError>,
{
    let (app, handler) = prepare(config, make)?;
    let runtime = runtime()?;
    let checked = runtime.block_on(app.check(handler));
    runtime.shutdown_background();
    let checked = checked?;
    let mut out = io::stdout().lock();
    for line in &checked.settings {
        let _ = writeln!(out, "{} = {}  # {}", line.key, line.value, line.source);
    }
    let _ = writeln!(out, "# server stack: {}", checked.server.join(" > "));
    let _ = writeln!(out, "# client stack: {}", checked.client.join(" > "));
    checked.reachable.map_err(Error::PluginCheck)?;
    Ok(ExitCode::SUCCESS)
}

fn plugin(file: &Path) -> Result<ExitCode, Error> {
    let library = Plugin::inspect(file)?;
    // A closed standard output is no reason to end otherwise.
    let _ = io::stdout().lock().write_all(describe(&library).as_bytes());
    Ok(ExitCode::SUCCESS)
}

fn prepare<H, B>(
    config: Option<&Path>,
    make: impl FnOnce(&Config, Client) -> H,
) -> Result<(App, H), Error>
where
    H: Handler<B>,
{
    let settings = Settings::load(config)?;
    log::start(&settings.config().log);
    let app = App::new(settings);
    let handler = make(app.config(), app.client());
    Ok((app, handler))
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::Internal { what: "cannot start the runtime", source })
}
