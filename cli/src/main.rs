//! The `kvx` command: what a person types to see, to measure and to check the engine.
//!
//! It holds no transfer logic; every byte moves through the `kvx` library.
#![forbid(unsafe_code)]

mod arguments;
mod available;
mod bench;
mod clock;
mod demo;
mod doctor;
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
    Doctor(doctor::Options),
    /// The process that tries to read another's memory, started by `kvx doctor`.
    #[command(hide = true)]
    DoctorProbe(doctor::ProbeArguments),
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let filter = match environment_log_filter() {
        Ok(filter) => filter,
        // That the environment makes no sense is among its findings.
        Err(_) if matches!(command, Command::Doctor(_)) => EnvFilter::new(QUIET),
        Err(why) => {
            complain(why);
            return ExitCode::from(2);
        }
    };
    log_to_stderr(filter);
    match command {
        Command::Bench(options) => bench::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::DemoWorker(arguments) => demo::work(&arguments),
        Command::Doctor(options) => doctor::run(&options),
        Command::DoctorProbe(arguments) => doctor::probe(&arguments),
    }
}

/// What is logged where nobody says: this command's own output shall stay readable.
const QUIET: &str = "warn";

/// The events that `KVX_LOG` names, else warnings and errors.
fn environment_log_filter() -> Result<EnvFilter, String> {
    let config = Config::from_env().map_err(|error| error.to_string())?;
    let named = config.settings().into_iter().find(|setting| setting.name == "log");
    match named {
        Some(setting) if setting.source != Source::Default => log_filter(&setting.value),
        _ => log_filter(QUIET),
    }
}

/// The events that a text such as `KVX_LOG` names.
fn log_filter(filter: &str) -> Result<EnvFilter, String> {
    let expected = |error| format!("KVX_LOG={filter:?}: {error}; expected such as kvx=debug");
    EnvFilter::try_new(filter).map_err(expected)
}

/// Sends these events of the library to stderr.
fn log_to_stderr(filter: EnvFilter) {
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    subscriber.with_writer(std::io::stderr).init();
}

/// Tells a person what went wrong. There is nobody to tell if that fails.
fn complain(why: impl Display) {
    let _ = writeln!(std::io::stderr(), "error: {why}");
}
