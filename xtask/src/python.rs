//! The Python package: its wheel as pip builds it, checked, installed in each Python that is here
//! and tested there. Not a test of what serving engines do with it: `cargo xtask serving`.

mod interpreter;
mod pytest;
pub(crate) mod release;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use crate::install;
use crate::report::{Report, Suite};
use crate::test::{target_directory, workspace_root};
use interpreter::Environment;
pub(crate) use interpreter::find;

/// The versions that are tested.
const VERSIONS: [&str; 3] = ["3.9", "3.11", "3.13"];
/// The one that builds and checks, and that the alternatives are installed beside.
const MAIN: &str = "3.11";

/// The alternatives that drop-ins are compared with: the tests' folder, the package, and the
/// variable by which the tests know the Python that has it.
const ALTERNATIVES: [(&str, &str, &str); 2] = [
    ("nixl", "nixl-cu12==1.5.1", "KVX_TEST_NIXL_PYTHON"),
    ("mooncake", "mooncake-transfer-engine-non-cuda==0.3.13.post1", "KVX_TEST_MOONCAKE_PYTHON"),
];

pub(crate) const HELP: &str = "\
  python  Of `test`, what concerns the Python package: its wheel, checks and tests.
";

/// The chore of its own.
pub(crate) fn run_alone(arguments: &[OsString]) -> ExitCode {
    if !arguments.is_empty() {
        eprint!("cargo xtask python takes no arguments\n\n{HELP}");
        return ExitCode::from(2);
    }
    let mut report = Report::default();
    report.extend(run());
    print!("{}", report.summary());
    if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// What Mooncake's own library is linked against, and the Debian packages.
const LINKED: [(&str, &str); 2] =
    [("libibverbs.so.1", "libibverbs1"), ("libnuma.so.1", "libnuma1")];

/// Builds the wheel, checks the sources, and runs the tests in each Python.
pub(crate) fn run() -> Vec<Suite> {
    let mut suites = Vec::new();
    let mut checks = Suite::new("python");
    let wheel = match Environment::fresh(MAIN, "checks", &[requirements()]) {
        Ok(tools) => {
            check(&mut checks, &tools);
            build(&mut checks, &tools)
        }
        Err(reason) => {
            checks.skip("wheel", &reason);
            None
        }
    };
    if let Some(wheel) = wheel {
        let alternatives = alternatives(&mut checks);
        // Mostly, tests wait: for deadlines, for processes.
        thread::scope(|scope| {
            let (wheel, alternatives) = (&wheel, &alternatives[..]);
            let runs = VERSIONS.map(|version| {
                let alternatives = (version == MAIN).then_some(alternatives);
                scope.spawn(move || tested(version, wheel, alternatives))
            });
            for run in runs {
                match run.join() {
                    Ok(suite) => suites.push(suite),
                    Err(_) => checks.fail("a Python's tests", "what runs them panicked"),
                }
            }
        });
        alone(&mut checks);
    }
    suites.insert(0, checks);
    suites
}

/// The package's folder.
fn package() -> PathBuf {
    workspace_root().join("ffi/python")
}

/// Where environments and wheels lie.
pub(crate) fn folder() -> PathBuf {
    target_directory().join("python")
}

fn requirements() -> String {
    format!("--requirement={}", package().join("requirements-dev.txt").display())
}

/// Lints and types: of the package, and of the program that plays serving engines.
fn check(suite: &mut Suite, tools: &Environment) {
    let serving = workspace_root().join("tests/serving");
    let examples = "../../examples/serving";
    let checks: [(&str, &[&str], PathBuf); 6] = [
        ("ruff check", &["ruff", "check"], package()),
        ("ruff format", &["ruff", "format", "--check"], package()),
        ("mypy", &["mypy"], package()),
        ("ruff check, serving", &["ruff", "check", ".", examples], serving.clone()),
        ("ruff format, serving", &["ruff", "format", "--check", ".", examples], serving.clone()),
        ("mypy, serving", &["mypy"], serving),
    ];
    // What the package needs, so that mypy knows its types.
    if let Err(reason) = tools.install(&["numpy".into()]) {
        return suite.skip("mypy", &reason);
    }
    for (name, arguments, folder) in checks {
        let mut command = tools.module(arguments[0]);
        command.args(&arguments[1..]).current_dir(folder);
        expect(suite, name, &mut command);
    }
}

/// The wheel, built from the sources as `pip install ./ffi/python` does.
fn build(suite: &mut Suite, tools: &Environment) -> Option<PathBuf> {
    let wheels = folder().join("wheels");
    let _ = std::fs::remove_dir_all(&wheels);
    expect(suite, "wheel", &mut wheel_command(&tools.python(), &wheels));
    wheel_in(&wheels)
}

/// The command by which a Python builds the wheel and leaves it in a folder.
pub(crate) fn wheel_command(python: &Path, wheels: &Path) -> Command {
    let mut command = Command::new(python);
    command.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir"]).arg(wheels);
    command.arg(package()).env("CARGO_TARGET_DIR", target_directory()).stdin(Stdio::null());
    command
}

/// The wheel in a folder.
pub(crate) fn wheel_in(wheels: &Path) -> Option<PathBuf> {
    let mut found = std::fs::read_dir(wheels).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    found.find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}

/// The Pythons that have the alternatives, by the variable that tells the tests.
fn alternatives(suite: &mut Suite) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for (library, package) in LINKED {
        if let Err(reason) = install::provide_library(library, package) {
            suite.skip(package, &reason);
        }
    }
    for (name, package, variable) in ALTERNATIVES {
        // NIXL's wheel asks for PyTorch, gigabytes of which its Python code does without.
        let packages = ["numpy".into(), "--no-deps".into(), package.into()];
        match Environment::kept(MAIN, &format!("real-{name}"), &packages) {
            Ok(environment) => found.push((variable, environment.python())),
            Err(reason) => suite.skip(package, &reason),
        }
    }
    found
}

/// The package's tests in one Python.
fn tested(version: &str, wheel: &Path, alternatives: Option<&[(&str, PathBuf)]>) -> Suite {
    let mut suite = Suite::new(&format!("python {version}"));
    let packages = [wheel.display().to_string(), requirements_of_tests()];
    match Environment::fresh(version, version, &packages) {
        Ok(environment) => pytest::run(&mut suite, &environment, alternatives),
        Err(reason) => suite.skip("all tests", &reason),
    }
    suite
}

fn requirements_of_tests() -> String {
    format!("--requirement={}", package().join("tests/requirements.txt").display())
}

/// The installed wheel, with nothing of Rust, InfiniBand or CUDA in sight: a mount namespace in
/// which the folders of the toolchain are empty, and so are those libraries.
fn alone(suite: &mut Suite) {
    const TEST: &str = "the wheel works without Rust, libibverbs and CUDA";
    const HIDE: &str = r#"
set -e
for folder in "${CARGO_HOME:-$HOME/.cargo}" "${RUSTUP_HOME:-$HOME/.rustup}"; do
  if [ -d "$folder" ]; then mount -t tmpfs tmpfs "$folder"; fi
done
for library in $(find /usr/lib /usr/local /lib -name 'libibverbs.so*' -o -name 'libcuda*.so*' 2>/dev/null); do
  mount --bind /dev/null "$library"
done
if PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin" command -v cargo rustc; then exit 3; fi
exec "$@"
"#;
    let environment = match Environment::existing(MAIN) {
        Ok(environment) => environment,
        Err(reason) => return suite.skip(TEST, &reason),
    };
    let unshare = |program: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-c", program, "sh"]);
        command
    };
    if !unshare("true").status().is_ok_and(|status| status.success()) {
        return suite.skip(TEST, "no mount namespace can be made here");
    }
    let mut command = unshare(HIDE);
    // Without what cargo has added for this program.
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").arg(environment.python());
    command.args(["-m", "pytest", "-q", "test_package.py", "test_transfer.py"]);
    expect(suite, TEST, command.current_dir(package().join("tests")));
}

/// Runs a command with its output passed through, and counts it as one test.
fn expect(suite: &mut Suite, test: &str, command: &mut Command) {
    println!("\n== {}: {test}", suite.name);
    match command.status() {
        Ok(status) if status.success() => suite.passed += 1,
        Ok(status) => suite.fail(test, &status.to_string()),
        Err(error) => suite.fail(test, &format!("does not start: {error}")),
    }
}
