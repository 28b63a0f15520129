//! `cargo xtask simulate`: the simulation for as long as one likes, optimized, on all cores.
//!
//! It is the same test that CI runs, told more by its environment.

use std::ffi::OsString;
use std::process::ExitCode;

use crate::cargo_test::{self, run_lines};
use crate::test;

pub(crate) const HELP: &str = "\
  simulate [--seconds N | --runs N] [--seed N] [--engines N] [--jobs N]
          Run the simulation by seed: as many runs as fit in N seconds (600 where nothing is said),
          or N runs; from seed N on (0); with N engines in every run (a few, and one run of 250);
          N runs at once (one a core). Prints a line every 10 s and at the end how often each kind
          of fault fired. Exit status 1 if a promise was broken, with the command that repeats it.
";

/// The test that is run.
const TEST: &str = "promises_hold_whatever_fails";

/// Options, and the variables of the test that they stand for.
const OPTIONS: [(&str, &str); 5] = [
    ("--seconds", "KVX_SIM_SECONDS"),
    ("--runs", "KVX_SIM_RUNS"),
    ("--seed", "KVX_SIM_SEED"),
    ("--engines", "KVX_SIM_ENGINES"),
    ("--jobs", "KVX_SIM_JOBS"),
];

pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let Some(mut variables) = parse(arguments) else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    let is_set = |name| variables.iter().any(|(variable, _)| *variable == name);
    if !is_set("KVX_SIM_SECONDS") && !is_set("KVX_SIM_RUNS") {
        variables.push(("KVX_SIM_SECONDS", 600));
    }
    let arguments = ["test", "--profile", "simulation", "-p", "kvx-core", "--test", "simulation"];
    let mut command = test::cargo(&arguments);
    command.args(["--", "--nocapture", TEST]);
    for (_, variable) in OPTIONS {
        command.env_remove(variable);
    }
    command.envs(variables.into_iter().map(|(variable, value)| (variable, value.to_string())));
    let mut passed = 0;
    match run_lines(command, |line| passed += cargo_test::passed(line)) {
        Ok(status) if status.success() && passed > 0 => ExitCode::SUCCESS,
        Ok(status) if status.success() => {
            eprintln!("there is no test {TEST}");
            ExitCode::FAILURE
        }
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo does not start: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The variables that the arguments stand for; `None` where they make no sense.
fn parse(arguments: &[OsString]) -> Option<Vec<(&'static str, u64)>> {
    let mut variables: Vec<(&'static str, u64)> = Vec::new();
    for pair in arguments.chunks(2) {
        let [option, value] = pair else { return None };
        let (_, variable) = OPTIONS.iter().find(|(name, _)| option == name)?;
        let value: u64 = value.to_str()?.parse().ok()?;
        let twice = variables.iter().any(|(known, _)| known == variable);
        if twice || (value == 0 && *variable != "KVX_SIM_SEED") {
            return None;
        }
        variables.push((*variable, value));
    }
    let both = ["KVX_SIM_SECONDS", "KVX_SIM_RUNS"];
    let count = variables.iter().filter(|(variable, _)| both.contains(variable)).count();
    (count < 2).then_some(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &str) -> Option<Vec<(&'static str, u64)>> {
        let arguments: Vec<OsString> = arguments.split_whitespace().map(OsString::from).collect();
        parse(&arguments)
    }

    #[test]
    fn options_become_the_variables_of_the_test() {
        let expected = vec![("KVX_SIM_RUNS", 5), ("KVX_SIM_SEED", 0)];
        assert_eq!(parsed("--runs 5 --seed 0"), Some(expected));
        assert_eq!(parsed(""), Some(Vec::new()));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for arguments in ["--runs", "--runs x", "--runs 0", "--runs 1 --runs 2", "--speed 1", "5"] {
            assert_eq!(parsed(arguments), None, "{arguments}");
        }
        assert_eq!(parsed("--runs 1 --seconds 2"), None);
    }
}
