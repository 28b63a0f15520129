//! The fuzz targets: functions that take any bytes and panic where a promise is broken.
//!
//! Not what drives them. Three things do: `cargo xtask fuzz`, and cargo-fuzz, by coverage
//! (`fuzz_targets/`); `cargo test` by the checked-in corpora (`corpus/`) and by random bytes from a
//! seed; and a target's program alone, built as usual, with the file of a finding:
//! `cargo run --package kvx-fuzz --bin peer -- fuzz/artifacts/peer/crash-...`.
//!
//! Two kinds of target. Those of parsers take their input as it would come from outside, mended
//! where nobody could guess it (checksums); what is accepted must survive being written and read
//! again, and keep the rules that its type promises. Those of state machines and planners make a
//! list of operations of their input, and compare what happens with a model that does the same in
//! the dumbest way.

pub mod blocks;
pub mod config;
pub mod frame;
pub mod grant_map;
pub mod handshake;
pub mod handshake_message;
pub mod hostile;
pub mod layout;
pub mod message;
pub mod metadata;
pub mod peer;
pub mod plan;
pub mod registry;
pub mod ring;
pub mod slots;

#[cfg(test)]
mod tests;

use arbitrary::{Arbitrary, Unstructured};

#[cfg(fuzzing)]
pub use libfuzzer_sys;

/// A target: its name, and the function that takes any bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. Each has a program of its name in `fuzz_targets/` and a folder in `corpus/`.
pub const TARGETS: [Target; 15] = [
    ("blocks", blocks::run),
    ("config", config::run),
    ("frame", frame::run),
    ("grant_map", grant_map::run),
    ("handshake", handshake::run),
    ("handshake_message", handshake_message::run),
    ("hostile", hostile::run),
    ("layout", layout::run),
    ("message", message::run),
    ("metadata", metadata::run),
    ("peer", peer::run),
    ("plan", plan::run),
    ("registry", registry::run),
    ("ring", ring::run),
    ("slots", slots::run),
];

/// What `bytes` say when they are read as a `T`; `None` where they end too early for one.
pub(crate) fn structured<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> Option<T> {
    T::arbitrary_take_rest(Unstructured::new(bytes)).ok()
}

/// The program of a target: driven by libFuzzer where it is built for fuzzing, else it gives the
/// target the files that its arguments name.
#[macro_export]
macro_rules! program {
    ($target:path) => {
        #[cfg(fuzzing)]
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| $target(bytes));

        #[cfg(not(fuzzing))]
        fn main() -> ::std::io::Result<()> {
            let files = ::std::env::args_os().skip(1);
            files.map(::std::fs::read).try_for_each(|bytes| Ok($target(&bytes?)))
        }
    };
}
