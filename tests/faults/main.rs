//! The fault suite: something goes wrong with or around an engine, while a healthy neighbour of it
//! is served. Each fault is a row of [`row`]: what goes wrong, what must hold, what was seen.
//!
//! Rows print one line each on standard error, so that the log of a run reads as a table.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

mod attacks;
mod garbage;
mod memory;
mod peers;
mod roads;
mod row;
mod scarcity;
mod silence;
mod stage;

use kvx_workers::service;
use kvx_workers::worker::Worker;

/// Also what a worker process runs: it is the test binary, asked for this one test.
#[test]
fn a_worker_ends_with_its_test() {
    service::serve();
    let mut worker = Worker::start("mortal", "");
    worker.close_input();
    worker.wait_gone();
}
