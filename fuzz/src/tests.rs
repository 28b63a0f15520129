//! The targets as ordinary tests: the checked-in corpora, and random bytes from a seed.
//!
//! `KVX_FUZZ_INPUTS` sets how many random inputs each target gets; every one has a seed of its own,
//! which a failure names, and `KVX_FUZZ_SEED` begins with another one.

use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};

use kvx_core::testing::Random;

use super::TARGETS;

/// Random inputs a target, unless told otherwise.
const INPUTS: u64 = 400;

macro_rules! tests {
    ($($target:ident),*) => {
        /// The targets that have tests.
        const TESTED: &[&str] = &[$(stringify!($target)),*];
        $(mod $target {
            #[test]
            fn replays_its_corpus() {
                super::replay(stringify!($target));
            }

            #[test]
            fn takes_random_bytes() {
                super::randomly(stringify!($target));
            }
        })*
    };
}

tests!(
    blocks,
    config,
    frame,
    grant_map,
    handshake,
    handshake_message,
    hostile,
    layout,
    message,
    metadata,
    peer,
    plan,
    registry,
    ring,
    slots
);

#[test]
fn every_target_has_tests_a_program_and_a_corpus() {
    assert_eq!(TARGETS.map(|(name, _)| name), TESTED);
    for (name, _) in TARGETS {
        let program = fs::read_to_string(folder().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("kvx_fuzz::program!(kvx_fuzz::{name}::run);")), "{name}");
        assert!(!corpus(name).is_empty(), "{name} has no corpus");
    }
    let programs = fs::read_dir(folder().join("fuzz_targets")).unwrap().count();
    assert_eq!(programs, TARGETS.len(), "programs without a target");
}

fn replay(name: &str) {
    for path in corpus(name) {
        let bytes = fs::read(&path).unwrap();
        give(name, &bytes, &path.display().to_string());
    }
}

fn randomly(name: &str) {
    let number = |variable: &str| std::env::var(variable).ok().map(|text| text.parse().unwrap());
    let first: u64 = number("KVX_FUZZ_SEED").unwrap_or(1);
    for seed in (first..).take(number("KVX_FUZZ_INPUTS").unwrap_or(INPUTS) as usize) {
        let mut random = Random::new(seed);
        // Short ones reach other places than long ones.
        let most = 1 << random.within(1..12);
        let len = random.index(most);
        let bytes: Vec<u8> = (0..len).map(|_| random.bits() as u8).collect();
        give(name, &bytes, &format!("KVX_FUZZ_SEED={seed}"));
    }
}

/// Runs a target, and says what it was given when it fails.
fn give(name: &str, bytes: &[u8], whence: &str) {
    let (_, run) = TARGETS.into_iter().find(|(target, _)| *target == name).unwrap();
    if let Err(cause) = panic::catch_unwind(AssertUnwindSafe(|| run(bytes))) {
        println!("target {name}, input {whence}");
        panic::resume_unwind(cause);
    }
}

fn corpus(name: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("corpus").join(name)).into_iter().flatten();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
