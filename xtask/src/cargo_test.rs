//! `cargo test --workspace`, read as it runs: its output passes through, line by line, and is
//! counted by test binary.
//!
//! A test that cannot run on this machine appends the line `KVX-SKIP TEST: REASON` to the file
//! that `KVX_SKIP_LOG` names, and returns. libtest counts it as passed; here it is counted as
//! skipped. Ignored tests are skipped too.

use std::fs;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::report::Suite;
use crate::test::{cargo, target_directory};

/// Runs all tests: one suite for each test binary.
pub(crate) fn run() -> Vec<Suite> {
    println!("\n== tests: cargo test");
    try_run().unwrap_or_else(|error| {
        let mut suite = Suite::new("cargo test");
        suite.fail("cargo test", &format!("does not start: {error}"));
        vec![suite]
    })
}

fn try_run() -> io::Result<Vec<Suite>> {
    let mut skip_log = SkipLog::create()?;
    let mut command = cargo(&["test", "--workspace", "--no-fail-fast", "--color", "never"]);
    command.env("KVX_SKIP_LOG", &skip_log.path);
    let mut counter = Counter::default();
    let status = run_lines(command, |line| {
        if let Some(suite) = counter.line(line) {
            skip_log.apply(suite);
        }
    })?;
    Ok(counter.finish(status.success()))
}

/// Runs a command with its output passed through, of which `each` sees every line.
pub(crate) fn run_lines(
    mut command: Command,
    mut each: impl FnMut(&str),
) -> io::Result<ExitStatus> {
    // Both streams into one pipe: cargo names the binary on the one, the binary reports on the
    // other, and only a common pipe keeps their order.
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let child = command.spawn()?;
    // The command has copies of the writing end, without which the pipe ends.
    drop(command);
    read_lines(child, reader, |line| {
        println!("{line}");
        each(line);
    })
}

/// The tests that have passed, if this is the line by which libtest sums them up.
pub(crate) fn passed(line: &str) -> usize {
    result(line).map_or(0, |(passed, _)| passed)
}

/// Calls `each` for every line until the child has ended. A process that a test left behind may
/// hold the pipe open; it is not waited for.
fn read_lines(
    mut child: Child,
    pipe: PipeReader,
    mut each: impl FnMut(&str),
) -> io::Result<ExitStatus> {
    let lines = lines_of(pipe);
    loop {
        match lines.recv_timeout(Duration::from_millis(200)) {
            Ok(line) => each(&line),
            Err(RecvTimeoutError::Disconnected) => return child.wait(),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(status) = child.try_wait()? {
                    lines.try_iter().for_each(|line| each(&line));
                    return Ok(status);
                }
            }
        }
    }
}

fn lines_of(pipe: PipeReader) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n') {
            let Ok(line) = line else { return };
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Counts by the lines of cargo and libtest.
#[derive(Debug, Default)]
struct Counter {
    done: Vec<Suite>,
    /// The binary that runs: named by cargo, not yet summed up by libtest.
    running: Option<Suite>,
}

impl Counter {
    /// Takes a line. Returns the suite that it has ended, if so.
    fn line(&mut self, line: &str) -> Option<&mut Suite> {
        if let Some(name) = suite_name(line) {
            let abandoned = self.abandon();
            self.running = Some(Suite::new(&name));
            return if abandoned { self.done.last_mut() } else { None };
        }
        if let Some(suite) = &mut self.running {
            if let Some((test, reason)) = ignored_test(line) {
                suite.skip(test, reason);
            } else if let Some(test) = failed_test(line) {
                suite.fail(test, "see its output above");
            } else if let Some((passed, failed)) = result(line) {
                suite.passed = passed;
                for _ in suite.failures()..failed {
                    suite.fail("a test", "see its output above");
                }
                self.done.extend(self.running.take());
                return self.done.last_mut();
            }
        }
        None
    }

    /// Ends a binary that ended without a result: it was killed, or its harness gave up. Returns
    /// whether there was one.
    fn abandon(&mut self) -> bool {
        let Some(mut suite) = self.running.take() else { return false };
        suite.fail("the test binary", "ended without a result");
        self.done.push(suite);
        true
    }

    fn finish(mut self, success: bool) -> Vec<Suite> {
        self.abandon();
        if !success && self.done.iter().all(|suite| suite.failures() == 0) {
            let mut suite = Suite::new("cargo test");
            suite.fail("cargo test", "failed before a test did; see its output above");
            self.done.push(suite);
        }
        self.done
    }
}

/// The binary that cargo says it runs: `Running unittests src/lib.rs (target/debug/deps/kvx-0f...)`
/// is `kvx src/lib.rs`, `Doc-tests kvx` is `kvx examples in docs`.
fn suite_name(line: &str) -> Option<String> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{name} examples in docs"));
    }
    let (source, binary) = line.strip_prefix("Running ")?.strip_suffix(')')?.split_once(" (")?;
    let source = source.strip_prefix("unittests ").unwrap_or(source);
    let file = Path::new(binary).file_name()?.to_str()?;
    let (name, hash) = file.rsplit_once('-')?;
    let is_hash = hash.len() == 16 && hash.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hash.then(|| format!("{name} {source}"))
}

/// `test NAME ... ignored, REASON`.
fn ignored_test(line: &str) -> Option<(&str, &str)> {
    let (test, rest) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    match rest.strip_prefix(", ") {
        Some(reason) => Some((test, reason)),
        None => rest.is_empty().then_some((test, "ignored")),
    }
}

/// `test NAME ... FAILED`.
fn failed_test(line: &str) -> Option<&str> {
    line.strip_prefix("test ")?.strip_suffix(" ... FAILED")
}

/// Passed and failed of `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
fn result(line: &str) -> Option<(usize, usize)> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut counts = counts.split("; ").map(|count| count.split_once(' '));
    let mut next = |name: &str| match counts.next()?? {
        (count, word) if word == name => count.parse().ok(),
        _ => None,
    };
    Some((next("passed")?, next("failed")?))
}

/// The file in which tests say that they were skipped.
#[derive(Debug)]
struct SkipLog {
    path: PathBuf,
    /// Bytes of it that belong to suites that have ended.
    read: usize,
}

impl SkipLog {
    fn create() -> io::Result<Self> {
        let directory = target_directory();
        fs::create_dir_all(&directory)?;
        let path = directory.join("xtask-skipped.log");
        fs::write(&path, "")?;
        Ok(Self { path, read: 0 })
    }

    /// Moves the tests that were recorded since the last call from passed to skipped.
    fn apply(&mut self, suite: &mut Suite) {
        let log = fs::read(&self.path).unwrap_or_default();
        let new = log.get(self.read..).unwrap_or_default();
        apply_skips(suite, &String::from_utf8_lossy(new));
        self.read = log.len();
    }
}

fn apply_skips(suite: &mut Suite, lines: &str) {
    for line in lines.lines() {
        let Some((test, reason)) =
            line.strip_prefix("KVX-SKIP ").and_then(|line| line.split_once(": "))
        else {
            continue;
        };
        if !suite.has_skipped(test) {
            suite.skip(test, reason);
            suite.passed = suite.passed.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests;
