//! `cargo xtask mutations`: the list of mutations.

use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) const HELP: &str = "\
  mutations
";

pub(crate) fn run(_arguments: &[OsString]) -> ExitCode {
    ExitCode::from(2)
}

/// The short form, for `cargo xtask test`.
pub(crate) fn short() -> crate::report::Suite {
    crate::report::Suite::new("mutations")
}
