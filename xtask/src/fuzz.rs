//! `cargo xtask fuzz`: the fuzz targets, driven by coverage.
//!
//! libFuzzer finds the inputs; rustc instruments for it by itself (`sancov-module` is an LLVM pass),
//! so that the stable toolchain does and neither nightly nor cargo-fuzz is needed, only a C++
//! compiler. No sanitizer is asked for: what the targets run is safe Rust. Debug assertions and
//! overflow checks are on. Who wants a sanitizer all the same runs `cargo +nightly fuzz run TARGET`.
//!
//! New inputs gather in the target directory; `fuzz/corpus` holds what is checked in, and changes
//! only with `--keep`.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use crate::cargo_test::{self, run_lines};
use crate::report::{Report, Suite};
use crate::test::{cargo, target_directory, workspace_root};

pub(crate) const HELP: &str = "\
  fuzz [TARGET...] [--seconds N] [--keep]
          Fuzz the named targets, or all, for N seconds each (default 60), from the inputs in
          fuzz/corpus and those found before. What breaks a target is saved under
          fuzz/artifacts. --keep adds the smallest set of inputs that reaches all that was
          reached, of at most 256 bytes each, to fuzz/corpus.
";

/// The longest input that is tried, and kept.
const MAX_LEN: usize = 4096;
const MAX_KEPT_LEN: usize = 256;

/// Random inputs a target in `cargo xtask test`, and the seed of the first: `cargo test` has gone
/// through those before.
const SHORT_INPUTS: &str = "2000";
const SHORT_SEED: &str = "100000";

/// Runs the chore.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let all = targets();
    let wish = match Wish::parse(arguments, &all) {
        Ok(wish) => wish,
        Err(reason) => {
            eprint!("{reason}\n\ntargets: {}\n\n{HELP}", all.join(", "));
            return ExitCode::from(2);
        }
    };
    let mut suite = Suite::new("fuzz");
    if let Err(reason) = fuzz(&mut suite, &wish) {
        suite.fail("all targets", &reason);
    }
    let mut report = Report::default();
    report.add(suite);
    print!("{}", report.summary());
    if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The short form, for `cargo xtask test`: more random inputs than `cargo test` tries, without
/// coverage. That the checked-in inputs pass, `cargo test` has shown.
pub(crate) fn short() -> Suite {
    println!("\n== fuzz: {SHORT_INPUTS} random inputs a target");
    let mut suite = Suite::new("fuzz");
    let mut tests = cargo(&["test", "--quiet", "--package", "kvx-fuzz", "takes_random_bytes"]);
    tests.env("KVX_FUZZ_INPUTS", SHORT_INPUTS).env("KVX_FUZZ_SEED", SHORT_SEED);
    let (mut passed, all) = (0, targets().len());
    match run_lines(tests, |line| passed += cargo_test::passed(line)) {
        Ok(status) if !status.success() => suite.fail("random inputs", "see the output above"),
        Ok(_) if passed < all => {
            suite.fail("random inputs", &format!("{passed} of {all} targets have such a test"));
        }
        Ok(_) => suite.passed = passed,
        Err(error) => suite.fail("random inputs", &format!("do not start: {error}")),
    }
    suite
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
struct Wish {
    targets: Vec<String>,
    seconds: u64,
    keep: bool,
}

impl Wish {
    fn parse(arguments: &[OsString], all: &[String]) -> Result<Self, String> {
        let mut wish = Self { targets: Vec::new(), seconds: 60, keep: false };
        let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--keep" => wish.keep = true,
                "--seconds" => {
                    let seconds = arguments.next().and_then(|text| text.parse().ok());
                    let seconds = seconds.filter(|seconds| *seconds > 0);
                    wish.seconds = seconds.ok_or("--seconds takes a number of at least 1")?;
                }
                name if all.iter().any(|target| target == name) => wish.targets.push(name.into()),
                other => return Err(format!("there is no target {other}")),
            }
        }
        if wish.targets.is_empty() {
            wish.targets = all.to_vec();
        }
        Ok(wish)
    }
}

/// Builds the targets and runs each: a test a target.
///
/// # Errors
/// Why this machine cannot.
fn fuzz(suite: &mut Suite, wish: &Wish) -> Result<(), String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if Command::new(&compiler).arg("--version").output().is_err() {
        return Err(format!("{compiler} does not start, and libFuzzer is built by a C++ compiler"));
    }
    let host = host()?;
    println!("== fuzz: building for coverage");
    let built = build(&host).status().map_err(|error| format!("cargo: {error}"))?;
    if !built.success() {
        suite.fail("all targets", "they do not build");
        return Ok(());
    }
    let programs = directory().join(host).join("release");
    for target in &wish.targets {
        match run_one(&programs.join(target), target, wish) {
            Ok(None) => suite.passed += 1,
            Ok(Some(finding)) => suite.fail(target, &finding),
            Err(error) => suite.fail(target, &format!("cannot be run: {error}")),
        }
    }
    Ok(())
}

/// The build by which libFuzzer sees coverage and comparisons. With an explicit target, so that
/// build scripts and macros stay as they are.
fn build(host: &str) -> Command {
    let mut build = cargo(&["build", "--release", "--package", "kvx-fuzz", "--bins"]);
    let flags = [
        "--cfg=fuzzing",
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        // Each unit of code generation would have a table of its own, of which the linker may
        // leave out the start.
        "-Ccodegen-units=1",
    ];
    build
        .args(["--target", host])
        .arg("--target-dir")
        .arg(directory())
        .env("RUSTFLAGS", flags.join(" "))
        .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
        .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true");
    build
}

/// Runs a target. Returns what it found, in words, with the command that shows it again.
fn run_one(program: &Path, target: &str, wish: &Wish) -> io::Result<Option<String>> {
    println!("\n== fuzz: {target}, {} s", wish.seconds);
    let found = directory().join("corpus").join(target);
    let kept = workspace_root().join("fuzz/corpus").join(target);
    let artifacts = workspace_root().join("fuzz/artifacts").join(target);
    for folder in [&found, &kept, &artifacts] {
        fs::create_dir_all(folder)?;
    }
    let known = files(&artifacts)?;
    let mut fuzzer = Command::new(program);
    fuzzer
        .args([&found, &kept])
        .arg(format!("-max_total_time={}", wish.seconds))
        .arg(format!("-max_len={MAX_LEN}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .args(["-timeout=30", "-rss_limit_mb=2048", "-print_final_stats=1", "-verbosity=0"])
        .stdin(Stdio::null());
    let status = fuzzer.status()?;
    if status.success() {
        if wish.keep {
            keep(program, &found, &kept)?;
        }
        return Ok(None);
    }
    let new = files(&artifacts)?.into_iter().find(|file| !known.contains(file));
    Ok(Some(match new {
        Some(file) => {
            let file = file.strip_prefix(workspace_root()).unwrap_or(&file).display().to_string();
            format!("{status}; again: cargo run --package kvx-fuzz --bin {target} -- {file}")
        }
        None => format!("{status}; see its output above"),
    }))
}

/// Adds to the checked-in inputs those that are needed to reach all that was reached.
fn keep(program: &Path, found: &Path, kept: &Path) -> io::Result<()> {
    let mut merge = Command::new(program);
    // By edges alone: how often each is taken, and what is compared, would keep ten times as many.
    merge.args(["-set_cover_merge=1", "-use_counters=0", "-use_cmp=0"]);
    merge.arg(format!("-max_len={MAX_KEPT_LEN}"));
    let status = merge.args([kept, found]).stdin(Stdio::null()).status()?;
    if status.success() { Ok(()) } else { Err(io::Error::other(format!("merging: {status}"))) }
}

/// Where programs and found inputs lie: apart from other builds, whose flags differ.
fn directory() -> PathBuf {
    target_directory().join("fuzz")
}

/// The targets, by the files of their programs.
fn targets() -> Vec<String> {
    let programs = files(&workspace_root().join("fuzz/fuzz_targets")).unwrap_or_default();
    let stem = |path: PathBuf| Some(path.file_stem()?.to_str()?.to_owned());
    programs.into_iter().filter_map(stem).collect()
}

fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// The triple of this machine.
fn host() -> Result<String, String> {
    let output = Command::new("rustc").arg("-vV").output();
    let output = output.map_err(|error| format!("rustc: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| "rustc does not tell its host".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Wish, String> {
        let arguments: Vec<OsString> = arguments.iter().map(OsString::from).collect();
        Wish::parse(&arguments, &["peer".to_owned(), "plan".to_owned()])
    }

    #[test]
    fn without_names_all_targets_are_fuzzed_for_a_minute() {
        let all = vec!["peer".to_owned(), "plan".to_owned()];
        assert_eq!(parse(&[]), Ok(Wish { targets: all, seconds: 60, keep: false }));
        let wish = parse(&["plan", "--seconds", "5", "--keep"]);
        let targets = vec!["plan".to_owned()];
        assert_eq!(wish, Ok(Wish { targets, seconds: 5, keep: true }));
    }

    #[test]
    fn what_is_no_target_and_no_number_is_refused() {
        assert!(parse(&["nothing"]).is_err());
        assert!(parse(&["--seconds"]).is_err());
        assert!(parse(&["--seconds", "0"]).is_err());
        assert!(parse(&["--seconds", "many"]).is_err());
    }

    #[test]
    fn every_program_is_a_target() {
        assert!(targets().iter().any(|target| target == "peer"), "{:?}", targets());
    }
}
