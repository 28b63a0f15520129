//! The project's own chores: `cargo xtask CHORE`. Nothing that users of kvx need.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to a person")]

mod cargo_test;
mod install;
mod report;
mod test;

use std::process::ExitCode;

const HELP: &str = "\
usage: cargo xtask CHORE

  test    Run everything that this machine can: formatting, lints, documentation, all tests, and
          the demo. Ends with a table by suite; its last line is `N passed, N failed, N skipped`.
          Exit status 1 if anything failed.
";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.as_slice() {
        [chore] if chore == "test" => test::run(),
        [help] if help == "--help" || help == "-h" || help == "help" => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}");
            ExitCode::from(2)
        }
    }
}
