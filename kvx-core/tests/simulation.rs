//! Many engines over a network that fails, by seed: what is promised holds in every run.
//!
//! | variable | |
//! |---|---|
//! | `KVX_SIM_SEED` | the first seed; alone, the only one |
//! | `KVX_SIM_RUNS` | as many runs as that, and no more |
//! | `KVX_SIM_SECONDS` | as many runs as fit in that, but no fewer than CI needs unless runs are given |
//! | `KVX_SIM_ENGINES` | as many engines in every run |
//! | `KVX_SIM_JOBS` | runs at once; as many as there are cores where it is not said |

#![allow(clippy::panic, clippy::print_stdout, reason = "a test that fails says why")]

#[path = "simulation/campaign.rs"]
mod campaign;
#[path = "simulation/table.rs"]
mod table;

use kvx_core::testing::{Fault, Scenario, Trace, simulate};

use campaign::Campaign;

/// How often every kind of fault fires in CI at least.
const FIRED: u64 = 1000;

#[test]
fn promises_hold_whatever_fails() {
    let campaign = Campaign::from_environment();
    let total = campaign.run();
    table::print(&total);
    if campaign.is_whole() {
        for fault in Fault::ALL {
            let count = total.report.count(*fault);
            assert!(count >= FIRED, "{:?} fired {count} times only", fault.name());
        }
    }
}

#[test]
fn a_seed_tells_a_run_to_the_last_bit() {
    for (seed, engines) in [(1, None), (2, None), (3, None), (4, Some(24))] {
        let scenario = Scenario { seed, engines };
        let first = simulate(scenario, None);
        let trace = Trace::default();
        assert_eq!(first, simulate(scenario, Some(&trace)), "{scenario}");
        assert!(!trace.lines().is_empty());
        let other = simulate(Scenario { seed: seed + 100, engines }, None);
        assert_ne!(first.digest, other.digest, "seeds {seed} and {} are one", seed + 100);
    }
}
