//! `cargo xtask simulate`: the simulation.

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) const HELP: &str = "\
  simulate
";

pub(crate) fn run(_arguments: &[OsString]) -> ExitCode {
    ExitCode::from(2)
}
