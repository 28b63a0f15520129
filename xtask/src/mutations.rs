//! `cargo xtask mutations`: breaks the code on purpose, one rule at a time, and shows that the
//! tests notice.
//!
//! `tests/mutations` lists the mutations, each with the rule that it breaks and the suites that
//! must notice. They are applied to a copy of the workspace, never to the workspace itself. Not a
//! tool that invents mutations: what is on the list was chosen by hand, one for each promise that
//! is easily lost in a change.

mod copy;
mod list;
mod outcome;
mod suites;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::report::Suite;
use crate::test::{target_directory, workspace_root};
use copy::Copy;
use list::{List, Mutation};
use outcome::{Outcome, Verdicts, table};
use suites::{BuiltSuite, SuiteName, Verdict};

pub(crate) const HELP: &str = "\
  mutations [NAME...] [--list] [--jobs N]
          Break the code in each of the ways that tests/mutations lists (or in those whose names
          begin so, or that are in a file of this name), and see that the tests notice. Ends with a
          table of who noticed; exit status 1 if a mutation survived, no longer applies or does not
          build.
          `--list` shows them; `--jobs` works on so many at once, each in a copy of its own.
";

/// Mutations that `cargo xtask test` really runs.
const SHORT_RUNS: usize = 3;

/// The suites that the short form runs them against: quick to build, and to run.
const SHORT_BINARY: &str = "kvx-core protocol";

/// What a suite may take longer than without the mutation before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn run(arguments: &[OsString]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(error) => {
            eprint!("{error}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match try_run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The short form, for `cargo xtask test`: every mutation applies, and a few of them, others each
/// day, are noticed. Each is a test.
pub(crate) fn short() -> Suite {
    println!("\n== mutations");
    let mut suite = Suite::new("mutations");
    if let Err(error) = try_short(&mut suite) {
        suite.fail("cargo xtask mutations", &error);
    }
    suite
}

/// What the command line says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// Beginnings of names, or names of files; empty for all.
    names: Vec<String>,
    list: bool,
    /// At least 1.
    jobs: usize,
}

impl Options {
    fn parse(arguments: &[OsString]) -> Result<Self, String> {
        let mut options = Self { jobs: 1, ..Self::default() };
        let mut arguments = arguments.iter().map(|argument| argument.to_string_lossy());
        while let Some(argument) = arguments.next() {
            match &*argument {
                "--list" => options.list = true,
                "--jobs" => {
                    let jobs = arguments.next().and_then(|jobs| jobs.parse().ok());
                    let jobs = jobs.filter(|jobs| *jobs > 0);
                    options.jobs = jobs.ok_or("--jobs takes a number from 1")?;
                }
                option if option.starts_with('-') => return Err(format!("no option {option}")),
                name => options.names.push(name.to_owned()),
            }
        }
        Ok(options)
    }
}

fn try_run(options: &Options) -> Result<bool, String> {
    let list = List::load(&workspace_root().join("tests/mutations"))?;
    let chosen = list.choose(&options.names)?;
    if options.list {
        chosen.iter().for_each(|mutation| println!("{mutation}"));
        return Ok(true);
    }
    let started = Instant::now();
    let chosen = chosen.into_iter().map(|mutation| (mutation, mutation.suites.clone())).collect();
    let outcomes = Run::prepare(chosen, options.jobs)?.all();
    println!("\n{}", table(&outcomes));
    let failed = outcomes.iter().filter(|outcome| outcome.failure().is_some()).count();
    let skipped = outcomes.iter().filter(|outcome| outcome.skip().is_some()).count();
    let caught = outcomes.len() - failed - skipped;
    let seconds = started.elapsed().as_secs();
    println!("{caught} caught, {failed} not, {skipped} skipped, in {seconds} s");
    Ok(failed == 0)
}

fn try_short(suite: &mut Suite) -> Result<(), String> {
    let list = List::load(&workspace_root().join("tests/mutations"))?;
    for mutation in list.all() {
        match mutation.apply_at(&workspace_root()) {
            Ok(_) => suite.passed += 1,
            Err(error) => suite.fail(&mutation.name, &error),
        }
    }
    let is_quick = |suite: &&SuiteName| suite.binary() == SHORT_BINARY;
    let quick: Vec<(&Mutation, Vec<SuiteName>)> = list
        .all()
        .map(|mutation| (mutation, mutation.suites.iter().filter(is_quick).cloned().collect()))
        .filter(|(_, suites): &(_, Vec<_>)| !suites.is_empty())
        .collect();
    let seed = seed();
    println!("KVX_MUTATION_SEED={seed} chooses the same {SHORT_RUNS} again");
    for outcome in Run::prepare(choose(quick, SHORT_RUNS, seed), 1)?.all() {
        match (outcome.failure(), outcome.skip()) {
            (Some(failure), _) => suite.fail(&outcome.name, &failure),
            (None, Some(reason)) => suite.skip(&outcome.name, &reason),
            (None, None) => suite.passed += 1,
        }
    }
    Ok(())
}

/// `KVX_MUTATION_SEED`, or the day.
fn seed() -> u64 {
    let given = std::env::var("KVX_MUTATION_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_secs() / (24 * 60 * 60)
    })
}

/// `count` of these, by the seed.
fn choose<T>(mut from: Vec<T>, count: usize, mut seed: u64) -> Vec<T> {
    let mut chosen = Vec::new();
    while chosen.len() < count && !from.is_empty() {
        // SplitMix64 (Steele, Lea, Flood 2014): seeds that follow each other choose apart.
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        chosen.push(from.swap_remove((mixed % from.len() as u64) as usize));
    }
    chosen
}

/// Mutations on their way through one or more copies of the workspace.
struct Run<'a> {
    /// With the suites that must notice each.
    mutations: Vec<(&'a Mutation, Vec<SuiteName>)>,
    /// At least one; each with the code as it is.
    copies: Vec<Copy>,
    /// How long each suite takes with the code as it is.
    durations: BTreeMap<SuiteName, Duration>,
}

impl<'a> Run<'a> {
    /// Makes the copies, and sees that all suites pass with the code as it is: otherwise they would
    /// notice anything.
    fn prepare(
        mutations: Vec<(&'a Mutation, Vec<SuiteName>)>,
        jobs: usize,
    ) -> Result<Self, String> {
        let jobs = jobs.min(mutations.len()).max(1);
        let copies = (0..jobs).map(Copy::make).collect::<Result<Vec<_>, _>>()?;
        let suites: BTreeSet<&SuiteName> =
            mutations.iter().flat_map(|(_, suites)| suites).collect();
        println!("== {} suites with the code as it is", suites.len());
        let suites: Vec<SuiteName> = suites.into_iter().cloned().collect();
        let mut durations = BTreeMap::new();
        for copy in &copies {
            for suite in suites::build(copy, &suites)? {
                if durations.contains_key(&suite.name) {
                    continue;
                }
                let started = Instant::now();
                let verdict = suite.run(copy, 10 * PATIENCE)?;
                if !matches!(verdict, Verdict::Passed | Verdict::Skipped(_)) {
                    return Err(format!("without a mutation: {}: {verdict}", suite.name));
                }
                let seconds = started.elapsed().as_secs_f32();
                println!("{}: {verdict}, in {seconds:.1} s", suite.name);
                durations.insert(suite.name, started.elapsed());
            }
        }
        Ok(Self { mutations, copies, durations })
    }

    /// Applies and runs all of them, in order of the list as far as one copy is concerned.
    fn all(self) -> Vec<Outcome> {
        println!("== {} mutations", self.mutations.len());
        let next = AtomicUsize::new(0);
        let outcomes = Mutex::new(BTreeMap::new());
        let work = |copy: &Copy| {
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some((mutation, suites)) = self.mutations.get(index) else { return };
                let outcome = self.one(copy, mutation, suites);
                println!("{outcome}");
                outcomes.lock().unwrap_or_else(PoisonError::into_inner).insert(index, outcome);
            }
        };
        thread::scope(|scope| {
            self.copies.iter().for_each(|copy| drop(scope.spawn(|| work(copy))));
        });
        outcomes.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
    }

    fn one(&self, copy: &Copy, mutation: &Mutation, suites: &[SuiteName]) -> Outcome {
        let started = Instant::now();
        let noticed = mutation
            .apply_at(copy.root())
            .and_then(|mutated| copy.with(&mutation.file, &mutated, || self.ask(copy, suites)));
        Outcome { name: mutation.name.clone(), noticed, took: started.elapsed() }
    }

    /// What the suites say of the code as it is now.
    fn ask(&self, copy: &Copy, suites: &[SuiteName]) -> Result<Verdicts, String> {
        let built = suites::build(copy, suites)?;
        let ask = |suite: &BuiltSuite| {
            let usual = self.durations.get(&suite.name).copied().unwrap_or_default();
            let verdict = suite.run(copy, 10 * usual + PATIENCE)?;
            Ok((suite.name.clone(), verdict))
        };
        built.iter().map(ask).collect()
    }
}

/// The directory for copies and what is built in them.
fn directory() -> PathBuf {
    target_directory().join("mutations")
}

#[cfg(test)]
mod tests;
