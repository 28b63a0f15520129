//! `cargo xtask instructions`: how many instructions fixed work takes, against recorded figures, so
//! that a regression shows on a noisy machine too. Not how long it takes: that is `cargo bench`.
//!
//! The work is `benches/instructions`, the counting valgrind's callgrind, which collects only
//! inside the measured function. Two runs differ by 0.01 % at most: what remains comes from the
//! seeds of hash tables. Counts depend on the compiler, and by a few percent on the C library's
//! allocator, so that figures are held against one version of each. The processor's extensions, by
//! which the library chooses how it copies, are no more than 1.3 % (with and without AVX2), which
//! the tolerance bears.
//!
//! Counting by hand and not by gungraun (formerly iai-callgrind): that needs a runner program of
//! precisely its version installed beside it, and brings a macro language for what is one command
//! line here.

mod figures;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use crate::install;
use crate::report::{Report, Suite};
use crate::test::{cargo, target_directory, workspace_root};
use figures::Figures;

pub(crate) const HELP: &str = "\
  instructions [--bless]
          Count the instructions of codec, plan and post by valgrind, and compare them with
          benches/instructions/figures.toml: a case above its figure by more than 3 % fails.
          --bless records the counts as the new figures.
";

/// How far a count may lie above its figure; as far below it, blessing is advised.
const TOLERANCE_PERCENT: u64 = 3;

/// Runs the chore.
pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let bless = match arguments {
        [] => false,
        [only] if only == "--bless" => true,
        _ => {
            eprint!("cargo xtask instructions takes --bless or nothing\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let mut suite = Suite::new("instructions");
    if let Err(reason) = check(&mut suite, bless) {
        suite.fail("all cases", &reason);
    }
    let mut report = Report::default();
    report.add(suite);
    print!("{}", report.summary());
    if report.has_failed() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The same for `cargo xtask test`: a test a case; where nothing can be counted or compared, one
/// that is skipped.
pub(crate) fn short() -> Suite {
    println!("\n== instructions");
    let mut suite = Suite::new("instructions");
    if let Err(reason) = check(&mut suite, false) {
        suite.skip("all cases", &reason);
    }
    suite
}

/// Counts every case and compares it with its figure, or records it.
///
/// # Errors
/// Why there is nothing to count with or to compare with. What is wrong with a case, or does not
/// build, is a failure in the suite.
fn check(suite: &mut Suite, bless: bool) -> Result<(), String> {
    install::provide("valgrind", "valgrind")?;
    let here = Figures::of_this_machine()?;
    let path = workspace_root().join("benches/instructions/figures.toml");
    let recorded = Figures::read(&path, &here.architecture)?;
    if !bless && (&recorded.rustc, &recorded.libc) != (&here.rustc, &here.libc) {
        return Err(format!(
            "the figures for {} are those of {}, this is {}: --bless records new ones",
            here.architecture,
            recorded.versions(),
            here.versions(),
        ));
    }
    let build = ["build", "--quiet", "--profile", "instructions", "--package", "kvx-instructions"];
    let build = cargo(&build).status();
    if !build.is_ok_and(|status| status.success()) {
        suite.fail("all cases", "the work does not build");
        return Ok(());
    }
    let work = target_directory().join("instructions/kvx-instructions");
    let mut counted = here;
    for case in cases(&work)? {
        match count(&work, &case) {
            Ok(count) => _ = counted.counts.insert(case, count),
            Err(reason) => suite.fail(&case, &reason),
        }
    }
    if bless {
        return bless_all(suite, &path, &counted);
    }
    compare(suite, &recorded, &counted);
    Ok(())
}

fn bless_all(suite: &mut Suite, path: &Path, counted: &Figures) -> Result<(), String> {
    if suite.failures() == 0 {
        counted.write(path)?;
        suite.passed = counted.counts.len();
        println!("recorded {} figures in {}", counted.counts.len(), path.display());
    }
    Ok(())
}

/// A test a case: passed unless it takes more than its figure and the tolerance.
fn compare(suite: &mut Suite, recorded: &Figures, counted: &Figures) {
    println!("{:24} {:>12} {:>12} {:>9}", "case", "instructions", "recorded", "");
    for (case, count) in &counted.counts {
        let Some(figure) = recorded.get(case) else {
            suite.fail(case, &format!("{count} instructions, no figure: --bless records one"));
            continue;
        };
        let percent = (*count as f64 / figure as f64 - 1.0) * 100.0;
        let allowed = |percent: u64| figure * percent / 100;
        let better = *count < allowed(100 - TOLERANCE_PERCENT);
        let advice = if better { "  better: --bless" } else { "" };
        println!("{case:24} {count:>12} {figure:>12} {percent:>+8.2}%{advice}");
        if *count <= allowed(100 + TOLERANCE_PERCENT) {
            suite.passed += 1;
        } else {
            let reason = format!(
                "{count} instructions, recorded are {figure}: {percent:+.1} %, allowed are \
                 {TOLERANCE_PERCENT} %. Where they went: callgrind_annotate {}",
                profile(case).display(),
            );
            suite.fail(case, &reason);
        }
    }
    for case in recorded.counts.keys() {
        if counted.get(case).is_none() && !suite.has_failed(case) {
            suite.fail(case, "it has a figure and is gone: --bless forgets it");
        }
    }
}

fn cases(work: &Path) -> Result<Vec<String>, String> {
    let output = Command::new(work).output().map_err(|error| format!("{work:?}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// The instructions of one case.
fn count(work: &Path, case: &str) -> Result<u64, String> {
    let profile = profile(case);
    let directory = profile.parent().unwrap_or(&profile);
    std::fs::create_dir_all(directory).map_err(|error| format!("{directory:?}: {error}"))?;
    let mut valgrind = Command::new("valgrind");
    valgrind
        .args(["--tool=callgrind", "--collect-atstart=no", "--toggle-collect=*kvx_measured*"])
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(work)
        .arg(case)
        // What is in the environment lies on the stack, and moves everything else there.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .stdin(Stdio::null());
    let output = valgrind.output().map_err(|error| format!("valgrind: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    match collected(&told) {
        Some(count) if output.status.success() && count > 0 => Ok(count),
        _ => Err(format!("nothing was counted, {}: {told}", output.status)),
    }
}

/// The profile of a case, for `callgrind_annotate`.
fn profile(case: &str) -> std::path::PathBuf {
    target_directory().join("callgrind").join(case.replace('/', "-"))
}

/// `==1234== Collected : 104664`.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.split_once("== Collected :"));
    line?.1.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(counts: &[(&str, u64)]) -> Figures {
        let counts = counts.iter().map(|(case, count)| ((*case).to_owned(), *count)).collect();
        Figures { architecture: "x86_64".to_owned(), counts, ..Figures::default() }
    }

    #[test]
    fn a_count_above_its_figure_and_the_tolerance_fails_and_one_below_passes() {
        let mut suite = Suite::new("instructions");
        let recorded = figures(&[("same", 1000), ("in", 1000), ("above", 1000), ("below", 1000)]);
        let counted = figures(&[("same", 1000), ("in", 1030), ("above", 1031), ("below", 500)]);
        compare(&mut suite, &recorded, &counted);
        assert_eq!((suite.passed, suite.failures()), (3, 1));
        assert!(suite.has_failed("above"));
    }

    #[test]
    fn a_case_without_a_figure_and_a_figure_without_a_case_fail() {
        let mut suite = Suite::new("instructions");
        compare(&mut suite, &figures(&[("gone", 1)]), &figures(&[("new", 1)]));
        assert!(suite.has_failed("gone") && suite.has_failed("new"));
    }

    #[test]
    fn the_count_is_read_from_what_callgrind_says() {
        let told = "==7== Callgrind, a\n==7== Events    : Ir\n==7== Collected : 104664\n==7==\n";
        assert_eq!(collected(told), Some(104_664));
        assert_eq!(collected("valgrind: no such file"), None);
    }
}
