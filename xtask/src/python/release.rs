//! The wheel as others install it: `cargo xtask wheel`. It asks for no newer C library than Rust
//! itself does, whatever this machine has, and so runs on every Linux that is in use.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use super::interpreter::Environment;
use super::{MAIN, VERSIONS, expect, package, requirements_of_tests, wheel_in};
use crate::report::{Report, Suite};
use crate::test::target_directory;

pub(crate) const HELP: &str = "\
  wheel   Build the wheel for any Linux with glibc 2.17, with zig as the linker, leave it in
          target/wheels, and test it in the newest Python that is tested.
";

/// The oldest C library that Rust's own standard library runs with.
const PLATFORM: &str = "manylinux_2_17";

/// What builds it, beside Rust.
const TOOLS: [&str; 3] = ["maturin>=1.7,<2", "cffi>=1.15", "ziglang>=0.15,<0.16"];

/// The chore.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    if !arguments.is_empty() {
        eprint!("cargo xtask wheel takes no arguments\n\n{HELP}");
        return ExitCode::from(2);
    }
    let mut suite = Suite::new("wheel");
    if let Some(wheel) = build(&mut suite) {
        try_out(&mut suite, &wheel);
        println!("\n{}", wheel.display());
    }
    let mut report = Report::default();
    report.add(suite);
    print!("{}", report.summary());
    if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn build(suite: &mut Suite) -> Option<PathBuf> {
    let tools = match Environment::kept(MAIN, "release", &TOOLS.map(str::to_owned)) {
        Ok(tools) => tools,
        Err(reason) => {
            suite.fail("tools", &reason);
            return None;
        }
    };
    let wheels = target_directory().join("wheels");
    let _ = std::fs::remove_dir_all(&wheels);
    let mut command = tools.module("maturin");
    command.args(["build", "--release", "--locked", "--zig", "--compatibility", PLATFORM, "--out"]);
    command.arg(&wheels).current_dir(package());
    command.env("CARGO_TARGET_DIR", target_directory());
    // maturin looks for a Python that has zig, by name.
    if let Err(reason) = put_first(&tools, &mut command) {
        suite.fail("tools", &reason);
        return None;
    }
    // It fails where the library asks for more than the platform has.
    expect(suite, PLATFORM, &mut command);
    wheel_in(&wheels)
}

/// Puts the programs of an environment before all others.
fn put_first(tools: &Environment, command: &mut Command) -> Result<(), String> {
    let python = tools.python();
    let programs = python.parent().unwrap_or(Path::new("."));
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&others));
    command.env("PATH", std::env::join_paths(all).map_err(|error| error.to_string())?);
    Ok(())
}

fn try_out(suite: &mut Suite, wheel: &Path) {
    const TEST: &str = "it installs and works";
    let packages = [wheel.display().to_string(), requirements_of_tests()];
    match Environment::fresh(VERSIONS[VERSIONS.len() - 1], "released", &packages) {
        Ok(environment) => {
            let mut command = environment.module("pytest");
            command.args(["-q", "--ignore=mooncake", "--ignore=nixl", "--ignore=dropin"]);
            expect(suite, TEST, command.current_dir(package().join("tests")));
        }
        Err(reason) => suite.fail(TEST, &reason),
    }
}
