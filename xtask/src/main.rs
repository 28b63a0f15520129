//! The project's own chores: `cargo xtask CHORE`. Nothing that users of kvx need.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to a person")]

mod c_library;
mod cargo_test;
mod fuzz;
mod install;
mod instructions;
mod mutations;
mod python;
mod report;
mod serving;
mod simulate;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

/// A chore, with the arguments that follow its name.
type Chore = fn(&[OsString]) -> ExitCode;

/// The chores by name, each with its help.
const CHORES: &[(&str, Chore, &str)] = &[
    ("test", test::run, test::HELP),
    ("python", python::run_alone, python::HELP),
    ("wheel", python::release::run, python::release::HELP),
    ("install-c", c_library::run, c_library::HELP),
    ("simulate", simulate::run, simulate::HELP),
    ("mutations", mutations::run, mutations::HELP),
    ("fuzz", fuzz::run, fuzz::HELP),
    ("instructions", instructions::run, instructions::HELP),
    ("serving", serving::run, serving::HELP),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", help());
        return ExitCode::from(2);
    };
    if name == "--help" || name == "-h" || name == "help" {
        print!("{}", help());
        return ExitCode::SUCCESS;
    }
    match CHORES.iter().find(|(chore, ..)| name == chore) {
        Some((_, chore, _)) => chore(rest),
        None => {
            eprint!("{}", help());
            ExitCode::from(2)
        }
    }
}

fn help() -> String {
    let chores = CHORES.iter().map(|(.., help)| *help);
    let chores: Vec<_> = chores.collect();
    format!("usage: cargo xtask CHORE\n\n{}", chores.join("\n"))
}
