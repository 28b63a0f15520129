//! `kvx bench`: what the engine delivers between two processes, beside what the machine could
//! deliver without it, measured in the same run.
//!
//! It moves bytes by the library's one-sided API, as a user would, and contains no transfer logic
//! of its own but the bare loops that it compares with (`limit`).

mod beside;
mod client;
mod content;
mod figures;
mod idle;
mod limit;
mod local;
mod measure;
mod memory;
mod messages;
mod neighbours;
mod options;
mod placement;
mod process;
mod progress;
mod report;
mod run;
mod serve;
mod shape;
mod sweep;
mod transport;
mod workload;

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// What ends a benchmark early.
type Problem = Box<dyn Error + Send + Sync>;

/// Measures transfers between two processes, beside the machine's limit
///
/// Every row says what kvx delivers, and what bare system calls deliver for the same blocks in the
/// same run. Every byte is checked.
///
/// Exit status 0: all is well; 1: a byte differs, or something failed; 2: bad options.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Debug, Subcommand)]
enum What {
    Serve(options::Serve),
    Run(options::Run),
    Local(options::Local),
    Idle(idle::Options),
    Neighbours(neighbours::Options),
}

/// Runs the benchmark that is asked for.
pub(crate) fn run(options: &Options) -> ExitCode {
    match &options.what {
        What::Serve(options) => serve::run(options),
        What::Run(options) => run::run(options),
        What::Local(options) => local::run(options),
        What::Idle(options) => idle::run(options),
        What::Neighbours(options) => neighbours::run(options),
    }
}

/// Options that make no sense: says why.
fn refuse(command: &str, why: &str) -> ExitCode {
    let help = format_args!("{why}\n\nFor more information, try 'kvx bench {command} --help'.");
    crate::complain(help);
    ExitCode::from(2)
}
