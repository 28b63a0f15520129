//! The `kvx` command: what a person types to see, to measure and soon to check the engine.
//!
//! It holds no transfer logic; every byte moves through the `kvx` library.
#![forbid(unsafe_code)]

mod arguments;
mod available;
mod bench;
mod clock;
mod demo;
mod numbers;
mod text;

use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kvx::Config;
use kvx::config::Source;
use tracing_subscriber::EnvFilter;

/// Moves the KV cache of a language model between prefill and decode workers.
#[derive(Debug, Parser)]
#[command(name = "kvx", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Bench(bench::Options),
    Demo(demo::Options),
    /// One process of a demo, started by `kvx demo`.
    #[command(hide = true)]
    DemoWorker(demo::WorkerArguments),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    if let Err(why) = log_to_stderr() {
        complain(why);
        return ExitCode::from(2);
    }
    match command {
        Command::Bench(options) => bench::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::DemoWorker(arguments) => demo::work(&arguments),
    }
}

/// Sends the library's events to stderr: those that `KVX_LOG` names, else warnings and errors, for
/// this command's own output shall stay readable.
fn log_to_stderr() -> Result<(), String> {
    let config = Config::from_env().map_err(|error| error.to_string())?;
    let named = config.settings().into_iter().find(|setting| setting.name == "log");
    let filter = match named {
        Some(setting) if setting.source != Source::Default => setting.value,
        _ => "warn".to_owned(),
    };
    let parsed = EnvFilter::try_new(&filter)
        .map_err(|error| format!("KVX_LOG={filter:?}: {error}; expected such as kvx=debug"))?;
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(parsed).with_ansi(colours);
    subscriber.with_writer(std::io::stderr).init();
    Ok(())
}

/// Tells a person what went wrong. There is nobody to tell if that fails.
fn complain(why: impl Display) {
    let _ = writeln!(std::io::stderr(), "error: {why}");
}
