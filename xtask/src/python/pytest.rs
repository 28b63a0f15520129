//! A run of pytest, counted by the lines that the tests' `conftest.py` writes, one a test:
//! outcome, name and reason, with tabs between them.

use std::path::PathBuf;

use super::interpreter::Environment;
use super::{folder, package};
use crate::report::Suite;

/// Folders of tests that are run apart: what they import would stand in each other's way.
const APART: [&str; 3] = ["dropin", "mooncake", "nixl"];

/// Runs all tests of the package in an environment that has it installed.
pub(super) fn run(suite: &mut Suite, environment: &Environment, variables: &[(&str, PathBuf)]) {
    let others = APART.map(|folder| format!("--ignore={folder}"));
    run_some(suite, environment, variables, &others.each_ref().map(String::as_str));
    for folder in APART {
        run_some(suite, environment, variables, &[folder]);
    }
}

fn run_some(
    suite: &mut Suite,
    environment: &Environment,
    variables: &[(&str, PathBuf)],
    which: &[&str],
) {
    println!("\n== {}: {}", suite.name, which.join(" "));
    let before = suite.failures();
    let log = folder().join("tests.log");
    let _ = std::fs::remove_file(&log);
    let mut command = environment.module("pytest");
    command.args(["--quiet", "--color=no"]).args(which).env("KVX_TEST_LOG", &log);
    // Elsewhere than in the package's folder, lest Python imports the sources.
    command.envs(variables.iter().cloned()).current_dir(package().join("tests"));
    let status = command.status();
    count(suite, &std::fs::read_to_string(&log).unwrap_or_default());
    match status {
        Ok(status) if status.success() => {}
        // Said by test already.
        Ok(_) if suite.failures() > before => {}
        Ok(status) => suite.fail("pytest", &status.to_string()),
        Err(error) => suite.fail("pytest", &format!("does not start: {error}")),
    }
}

fn count(suite: &mut Suite, log: &str) {
    for line in log.lines() {
        let mut parts = line.splitn(3, '\t');
        let (outcome, test) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let reason = parts.next().unwrap_or("");
        match outcome {
            "passed" => suite.passed += 1,
            "skipped" => suite.skip(test, reason),
            _ => suite.fail(test, "see above"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_counted_by_line() {
        let mut suite = Suite::new("python");
        count(&mut suite, "passed\ta\t\nskipped\tb\tno GPU\nfailed\tc\t\npassed\td\t\n");
        assert_eq!((suite.passed, suite.failures()), (2, 1));
        assert!(suite.has_skipped("b") && suite.has_failed("c"));
    }
}
