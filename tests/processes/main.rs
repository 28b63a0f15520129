//! Real processes on loopback: killed, stopped, restarted, cut off from each other. Not every order
//! of events: the simulation in kvx-core shows those.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(unreachable_pub)]

mod another;
mod containers;
mod cut;
mod deregister;
mod kill;
mod neighbours;
mod netns;
mod restart;
mod stop;

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
