//! The lane's promises, shown between two lanes of one process with a scripted host on each side, and
//! against a peer that greets by hand.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod fences;
mod frames;
mod greeting;
mod pair;
mod pools;
#[path = "../../../kvx-io/tests/support/mod.rs"]
mod scripted;
mod withdrawn;
