//! `cargo xtask test`: everything that this machine can run, one suite after the other, in the
//! order in which a developer wants to know. A suite that fails does not keep the next from
//! running.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cargo_test::run_lines;
use crate::report::{Report, Suite};
use crate::{c_library, cargo_test, fuzz, install, instructions, mutations, python};

pub(crate) const HELP: &str = "\
  test    Run everything that this machine can: formatting, lints, documentation, all tests, the
          demo, and short forms of the chores below. Ends with a table by suite; its last line is
          `N passed, N failed, N skipped`. Exit status 1 if anything failed.
";

/// Runs all suites and prints the summary.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    if !arguments.is_empty() {
        eprint!("cargo xtask test takes no arguments\n\n{HELP}");
        return ExitCode::from(2);
    }
    let mut report = Report::default();
    report.add(install::tools());
    report.add(check_with("format", "cargo fmt", "rustfmt", &["fmt", "--all", "--check"]));
    let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
    report.add(check_with("lints", "cargo clippy", "clippy", &clippy));
    report.add(documentation());
    report.extend(cargo_test::run());
    report.add(c_library::examples());
    report.extend(python::run());
    report.add(demo());
    report.add(benchmarks());
    report.add(instructions::short());
    report.add(fuzz::short());
    report.add(mutations::short());
    print!("{}", report.summary());
    if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// `cargo` with these arguments, in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    // Set by the cargo that runs this program, so that the toolchain stays the same.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(workspace_root()).stdin(Stdio::null());
    command
}

/// The directory of the workspace.
pub(crate) fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// The directory that cargo builds in.
pub(crate) fn target_directory() -> PathBuf {
    let chosen = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    workspace_root().join(chosen)
}

/// One check by a cargo component that not every toolchain has.
fn check_with(suite: &str, check: &str, component: &str, arguments: &[&str]) -> Suite {
    let mut suite = Suite::new(suite);
    let probe =
        cargo(&[arguments[0], "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if probe.is_ok_and(|status| status.success()) {
        expect_exit(&mut suite, check, cargo(arguments), 0);
    } else {
        suite.skip(check, &format!("{component} is not installed with this toolchain"));
    }
    suite
}

fn documentation() -> Suite {
    let mut suite = Suite::new("documentation");
    let mut doc = cargo(&["doc", "--workspace", "--no-deps"]);
    doc.env("RUSTDOCFLAGS", "-D warnings");
    expect_exit(&mut suite, "cargo doc", doc, 0);
    suite
}

/// The demo as the README has it, on a small cache.
fn demo() -> Suite {
    let mut suite = Suite::new("demo");
    let demo =
        |arguments: &[&str]| cargo(&[&["run", "--release", "--", "demo"], arguments].concat());
    expect_exit(&mut suite, "moves 256 tokens, digests equal", demo(&["--tokens", "256"]), 0);
    expect_exit(&mut suite, "refuses a bad option", demo(&["--tokens", "none"]), 2);
    suite
}

/// Every benchmark once, unoptimised: that it runs, not how fast. The registry of 100,000 regions
/// alone takes minutes to fill so, and is left out.
fn benchmarks() -> Suite {
    let mut suite = Suite::new("benchmarks");
    let filters =
        [("codec", ""), ("plan", ""), ("registry", "/10{0,3}$"), ("post", ""), ("transfer", "")];
    for (bench, filter) in filters {
        println!("\n== benchmarks: {bench}");
        let run = cargo(&["test", "--quiet", "--bench", bench, "--", filter]);
        let mut tried = 0;
        // Criterion names each benchmark that it tries so.
        match run_lines(run, |line| tried += usize::from(line.starts_with("Testing "))) {
            Ok(status) if !status.success() => suite.fail(bench, &status.to_string()),
            Ok(_) if tried == 0 => suite.fail(bench, &format!("none is called {filter:?}")),
            Ok(_) => suite.passed += 1,
            Err(error) => suite.fail(bench, &format!("does not start: {error}")),
        }
    }
    suite
}

/// Runs a command with its output passed through, and counts it as one test of the suite.
fn expect_exit(suite: &mut Suite, test: &str, mut command: Command, expected: i32) {
    println!("\n== {}: {test}", suite.name);
    match command.status() {
        Ok(status) if status.code() == Some(expected) => suite.passed += 1,
        Ok(status) => suite.fail(test, &format!("{status}, expected {expected}")),
        Err(error) => suite.fail(test, &format!("does not start: {error}")),
    }
}
