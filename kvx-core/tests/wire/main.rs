//! The wire formats as another engine meets them: golden vectors, round trips, garbage, bounds.
//!
//! Only the public interface is used. What a message brings about is tested elsewhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bounds;
mod extensions;
mod format;
mod garbage;
mod golden;
mod round_trip;
mod samples;
mod strategies;
