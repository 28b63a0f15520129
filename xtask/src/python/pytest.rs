//! A run of pytest, counted by the lines that the tests' `conftest.py` writes, one a test:
//! outcome, name and reason, with tabs between them.

use std::path::PathBuf;

use super::interpreter::Environment;
use super::{folder, package};
use crate::report::Suite;

/// Folders of tests that are run apart: what they import would stand in each other's way.
const APART: [&str; 3] = ["dropin", "mooncake", "nixl"];

/// Runs the tests of the package in an environment that has it installed. `alternatives` are what
/// the drop-ins are compared with, by the variable that tells the tests; without any, what is asked
/// of them is no part of the tests.
pub(super) fn run(
    suite: &mut Suite,
    environment: &Environment,
    alternatives: Option<&[(&str, PathBuf)]>,
) {
    let others = APART.map(|folder| format!("--ignore={folder}"));
    run_some(suite, environment, alternatives, &others.each_ref().map(String::as_str));
    for folder in APART {
        run_some(suite, environment, alternatives, &[folder]);
    }
}

fn run_some(
    suite: &mut Suite,
    environment: &Environment,
    alternatives: Option<&[(&str, PathBuf)]>,
    which: &[&str],
) {
    let before = suite.failures();
    let log = folder().join(format!("{}.log", suite.name));
    let _ = std::fs::remove_file(&log);
    let mut command = environment.module("pytest");
    command.args(["--quiet", "--color=no"]).args(which).env("KVX_TEST_LOG", &log);
    match alternatives {
        Some(variables) => command.envs(variables.iter().cloned()),
        None => command.args(["-m", "not alternative"]),
    };
    // Elsewhere than in the package's folder, lest Python imports the sources.
    let output = command.current_dir(package().join("tests")).output();
    count(suite, &std::fs::read_to_string(&log).unwrap_or_default());
    if let Ok(output) = &output {
        let [said, complained] =
            [&output.stdout, &output.stderr].map(|o| String::from_utf8_lossy(o));
        // At once: others run beside it.
        println!("\n== {}: {}\n{said}{complained}", suite.name, which.join(" "));
    }
    match output.map(|output| output.status) {
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
