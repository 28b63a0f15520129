//! `cargo xtask instructions`: the instruction counts.

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) const HELP: &str = "\
  instructions
";

pub(crate) fn run(_arguments: &[OsString]) -> ExitCode {
    ExitCode::from(2)
}

/// The short form, for `cargo xtask test`.
pub(crate) fn short() -> crate::report::Suite {
    crate::report::Suite::new("instructions")
}
