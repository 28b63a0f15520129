//! Suites: test binaries of the copied workspace, built by cargo and run by hand, so that one that
//! hangs can be ended.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use super::copy::Copy;
use crate::test::cargo;

/// Memory that a test binary may map, in KiB: broken code may ask for more and more.
const MEMORY_KIB: u64 = 8 << 20;

/// How often a test binary is looked at.
const TICK: Duration = Duration::from_millis(20);

/// A test target of a package, or those of its tests whose names contain the filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct SuiteName {
    package: String,
    /// `lib` for the unit tests.
    target: String,
    filter: Option<String>,
}

/// A suite that was built.
#[derive(Debug)]
pub(super) struct BuiltSuite {
    pub(super) name: SuiteName,
    binary: PathBuf,
}

/// What a suite says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// All tests passed.
    Passed,
    /// All that this machine can run passed, but not all could be run: for this reason.
    Skipped(String),
    /// These did not.
    Failed(Vec<String>),
    /// The binary ended before its tests did: it was aborted, or ran out of memory.
    Died(String),
    /// It did not end in time.
    Hung(Duration),
}

impl SuiteName {
    /// `PACKAGE TARGET` or `PACKAGE TARGET FILTER`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split(' ').map(str::to_owned);
        let (package, target, filter) = (words.next(), words.next(), words.next());
        match (package, target, words.next()) {
            (Some(package), Some(target), None) => Ok(Self { package, target, filter }),
            _ => Err(format!("`{text}` is not `PACKAGE TARGET` or `PACKAGE TARGET FILTER`")),
        }
    }

    /// Package and target, whatever the filter.
    pub(super) fn binary(&self) -> String {
        format!("{} {}", self.package, self.target)
    }

    /// How cargo selects the target.
    fn selection(&self) -> Vec<&str> {
        match &*self.target {
            "lib" => vec!["--lib"],
            test => vec!["--test", test],
        }
    }

    /// Whether cargo means this one by `tests/protocol.rs`, `tests/lane/main.rs` or
    /// `unittests src/lib.rs`.
    fn is_at(&self, source: &str) -> bool {
        match &*self.target {
            "lib" => source == "unittests src/lib.rs",
            test => {
                source == format!("tests/{test}.rs") || source == format!("tests/{test}/main.rs")
            }
        }
    }
}

impl TryFrom<String> for SuiteName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl fmt::Display for SuiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.binary())?;
        self.filter.iter().try_for_each(|filter| write!(f, " {filter}"))
    }
}

/// Builds these suites of the copy as it is now.
pub(super) fn build(copy: &Copy, suites: &[SuiteName]) -> Result<Vec<BuiltSuite>, String> {
    let mut packages: BTreeMap<&str, Vec<&SuiteName>> = BTreeMap::new();
    for suite in suites {
        packages.entry(&suite.package).or_default().push(suite);
    }
    let mut built = Vec::new();
    for (package, suites) in packages {
        let mut command = cargo(&["test", "--no-run", "--color", "never", "--package", package]);
        let selections: BTreeSet<_> = suites.iter().map(|suite| suite.selection()).collect();
        command.args(selections.into_iter().flatten());
        command.current_dir(copy.root()).env("CARGO_TARGET_DIR", copy.target());
        // Nobody debugs these.
        command.env("CARGO_PROFILE_DEV_DEBUG", "false").env("CARGO_PROFILE_TEST_DEBUG", "false");
        let output = command.output().map_err(|error| format!("cargo: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            let error = said.lines().find(|line| line.starts_with("error"));
            return Err(format!("does not build: {}", error.unwrap_or("cargo test --no-run")));
        }
        for suite in suites {
            let mut binaries = said.lines().filter_map(executable);
            let binary = binaries.find(|(source, _)| suite.is_at(source));
            let (_, binary) = binary.ok_or_else(|| format!("cargo built no {suite}"))?;
            // Relative to where cargo ran, if it is.
            built.push(BuiltSuite { name: suite.clone(), binary: copy.root().join(binary) });
        }
    }
    Ok(built)
}

/// Source and binary of `  Executable tests/protocol.rs (target/debug/deps/protocol-0f...)`.
fn executable(line: &str) -> Option<(&str, &str)> {
    line.trim_start().strip_prefix("Executable ")?.strip_suffix(')')?.split_once(" (")
}

impl BuiltSuite {
    /// Runs the tests, for so long at most.
    pub(super) fn run(&self, copy: &Copy, limit: Duration) -> Result<Verdict, String> {
        let package = copy.folder(&self.name.package)?;
        let script = format!("ulimit -v {MEMORY_KIB}; exec \"$0\" \"$@\"");
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(&self.binary).args(&self.name.filter);
        command.current_dir(&package).env("CARGO_MANIFEST_DIR", &package);
        // Neither files that a later run would find, nor time spent on a smaller example.
        command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1");
        command.env("PROPTEST_MAX_SHRINK_ITERS", "64").env("RUST_BACKTRACE", "0");
        let skip_log = copy.target().join("mutations-skipped.log");
        command.env("KVX_SKIP_LOG", &skip_log);
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(Stdio::piped());
        // Its own, so that what it starts can be ended with it.
        command.process_group(0);
        let failed = |error: io::Error| format!("{}: {error}", self.name);
        fs::write(&skip_log, "").map_err(failed)?;
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take().map(|mut stdout| {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = stdout.read_to_end(&mut bytes);
                read.map(|_| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
            })
        });
        let ended = wait(&mut child, limit).map_err(failed)?;
        let output = output.and_then(|output| output.join().ok()).unwrap_or_default();
        let failures: Vec<String> = output.lines().filter_map(failed_test).collect();
        Ok(match ended {
            None => Verdict::Hung(limit),
            Some(status) if status.success() && output.contains("\nrunning 0 tests") => {
                return Err(format!("{} has no such test", self.name));
            }
            Some(status) if status.success() => {
                let skipped = fs::read_to_string(&skip_log).unwrap_or_default();
                skipped.lines().next().map_or(Verdict::Passed, |line| Verdict::Skipped(line.into()))
            }
            Some(_) if !failures.is_empty() => Verdict::Failed(failures),
            Some(status) => Verdict::Died(status.to_string()),
        })
    }
}

/// Waits for the end of a child that leads a process group; `None` if it had to be killed. Nothing
/// of the group outlives it.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let started = Instant::now();
    loop {
        let ended = child.try_wait()?;
        if ended.is_some() || started.elapsed() >= limit {
            kill_group(child)?;
            child.kill()?;
            child.wait()?;
            return Ok(ended);
        }
        thread::sleep(TICK);
    }
}

/// Kills the process group that a child leads, if any of it is left. By the shell, for std ends
/// single processes only.
fn kill_group(leader: &Child) -> io::Result<()> {
    let script = format!("kill -s KILL -- -{}", leader.id());
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).stdin(Stdio::null()).stderr(Stdio::null());
    shell.status().map(drop)
}

/// `test NAME ... FAILED`.
fn failed_test(line: &str) -> Option<String> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED").map(str::to_owned)
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Skipped(line) => write!(f, "skipped, {line}"),
            Self::Failed(tests) => match &tests[..] {
                [one] => f.write_str(one),
                [one, rest @ ..] => write!(f, "{one} and {} more", rest.len()),
                [] => f.write_str("failed"),
            },
            Self::Died(status) => write!(f, "ended with {status}"),
            Self::Hung(limit) => write!(f, "hung for {} s", limit.as_secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_found_by_the_source_that_cargo_names() {
        let line = "  Executable tests/lane/main.rs (target/debug/deps/lane-3b9d17eb7c402586)";
        let (source, binary) = executable(line).unwrap();
        assert_eq!(binary, "target/debug/deps/lane-3b9d17eb7c402586");
        assert!(SuiteName::parse("kvx-tcp lane").unwrap().is_at(source));
        assert!(!SuiteName::parse("kvx-tcp main").unwrap().is_at(source));
        assert!(SuiteName::parse("kvx-core protocol").unwrap().is_at("tests/protocol.rs"));
        assert!(SuiteName::parse("kvx-core lib plan").unwrap().is_at("unittests src/lib.rs"));
        assert_eq!(executable("   Compiling kvx-core v0.1.0 (kvx-core)"), None);
    }

    #[test]
    fn what_a_suite_has_started_ends_with_it() {
        let (hangs, ends) = (("sleep 1000 & wait", 1, None), ("sleep 1000 & exit 3", 60, Some(3)));
        for (script, limit, code) in [hangs, ends] {
            let mut shell = Command::new("sh");
            shell.args(["-c", script]).process_group(0).stdout(Stdio::piped());
            let mut child = shell.spawn().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let ended = wait(&mut child, Duration::from_secs(limit)).unwrap();
            assert_eq!(ended.and_then(|status| status.code()), code);
            // Ends when nobody holds the other end any more.
            assert_eq!(stdout.read(&mut [0]).unwrap(), 0);
        }
    }

    #[test]
    fn a_suite_has_a_package_a_target_and_perhaps_a_filter() {
        for text in ["kvx-core lib", "kvx-core protocol lanes::"] {
            assert_eq!(SuiteName::parse(text).unwrap().to_string(), text);
        }
        for text in ["kvx-core", "kvx-core protocol lanes:: more", ""] {
            assert!(SuiteName::parse(text).is_err(), "{text}");
        }
    }
}
