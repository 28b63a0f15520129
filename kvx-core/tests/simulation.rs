//! Many engines over a network that fails, by seed: what is promised holds in every run.
//!
//! `KVX_SIM_SEED=<n>` runs one seed, `KVX_SIM_RUNS=<n>` as many seeds as that.

use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

use kvx_core::testing::{Report, Trace, simulate};

/// Seeds that run where nothing else is said.
const RUNS: u64 = 40;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// Runs a seed. If it fails, it is run again with a trace, whose last lines are shown.
fn run(seed: u64) -> Report {
    let result = panic::catch_unwind(|| simulate(seed, None));
    result.unwrap_or_else(|_| {
        let trace = Trace::default();
        let again = panic::catch_unwind(AssertUnwindSafe(|| simulate(seed, Some(&trace))));
        for line in trace.lines() {
            println!("{line}");
        }
        println!("KVX_SIM_SEED={seed} runs this again");
        match again {
            Ok(_) => panic!("seed {seed} failed once and then not: a run is not reproducible"),
            Err(cause) => panic::resume_unwind(cause),
        }
    })
}

#[test]
fn promises_hold_whatever_fails() {
    let seeds = match setting("KVX_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("KVX_SIM_RUNS").unwrap_or(RUNS),
    };
    let runs = seeds.end - seeds.start;
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let mut ends: BTreeMap<String, u64> = BTreeMap::new();
    let mut happenings = 0;
    for seed in seeds {
        let report = run(seed);
        happenings += report.happenings;
        report
            .faults
            .into_iter()
            .for_each(|(kind, count)| *faults.entry(kind).or_default() += count);
        report.ends.into_iter().for_each(|(kind, count)| *ends.entry(kind).or_default() += count);
    }
    println!("{runs} runs, {happenings} happenings\nfaults: {faults:#?}\nends: {ends:#?}");
}
