//! The lane's promises, shown over loopback TCP with a scripted host on one side or both.
#![allow(clippy::unwrap_used, clippy::panic, unreachable_pub)]

mod attend;
mod fences;
mod fragments;
mod frames;
mod leases;
mod life;
#[path = "../../../kvx-io/tests/support/mod.rs"]
mod scripted;
mod staging;
mod support;
