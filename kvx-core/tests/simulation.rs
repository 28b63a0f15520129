//! Many engines over a network that fails, by seed: what is promised holds in every run.
//!
//! `KVX_SIM_SEED=<n>` runs one seed, `KVX_SIM_RUNS=<n>` as many seeds as that.

#![allow(clippy::panic, clippy::print_stdout, reason = "a test that fails says why")]

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{self, AssertUnwindSafe};
use std::thread;

use kvx_core::testing::{Report, Trace, simulate};

/// Seeds that run where nothing else is said.
const RUNS: u64 = 400;

#[test]
fn promises_hold_whatever_fails() {
    let seeds = match setting("KVX_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("KVX_SIM_RUNS").unwrap_or(RUNS),
    };
    let results = run_all(seeds.clone());
    if let Some((seed, _)) = results.iter().find(|(_, report)| report.is_none()) {
        show(*seed);
    }
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let mut happenings = 0;
    for report in results.into_values().flatten() {
        happenings += report.happenings;
        report.faults.iter().for_each(|(kind, count)| *faults.entry(kind).or_default() += count);
        report.ends.into_iter().for_each(|(kind, count)| *ends.entry(kind).or_default() += count);
    }
    println!("seeds {seeds:?}, {happenings} happenings\nfaults: {faults:#?}\nends: {ends:#?}");
    if seeds.end - seeds.start >= RUNS {
        let kinds = ["control cut", "crash", "handshake cut", "lane cut", "partition", "stop"];
        assert!(kinds.iter().all(|kind| faults.contains_key(kind)), "every kind of fault fired");
    }
}

/// What the seeds came to: `None` where a promise was broken.
fn run_all(seeds: Range<u64>) -> BTreeMap<u64, Option<Report>> {
    let threads = thread::available_parallelism().map_or(1, |count| count.get());
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|worker| {
                let mine = seeds.clone().skip(worker).step_by(threads);
                let run = |seed| (seed, panic::catch_unwind(|| simulate(seed, None)).ok());
                scope.spawn(move || mine.map(run).collect::<Vec<_>>())
            })
            .collect();
        let results = workers.into_iter().map(|worker| worker.join().expect("runs are caught"));
        results.flatten().collect()
    })
}

/// Runs a seed that failed again, with a trace, whose last lines are shown.
fn show(seed: u64) {
    let trace = Trace::default();
    let again = panic::catch_unwind(AssertUnwindSafe(|| simulate(seed, Some(&trace))));
    trace.lines().iter().for_each(|line| println!("{line}"));
    println!("KVX_SIM_SEED={seed} runs this again");
    match again {
        Ok(_) => panic!("seed {seed} failed once and then not: a run is not reproducible"),
        Err(cause) => panic::resume_unwind(cause),
    }
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}
