//! Real processes on loopback: killed, stopped, restarted, cut off from each other. Not every order
//! of events: the simulation in kvx-core shows those.
//!
//! The test binary starts itself again for each worker process ([`worker`]), which carries out
//! commands that come as lines on its standard input ([`service`]).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(unreachable_pub)]

mod content;
mod cut;
mod deregister;
mod kill;
mod line;
mod neighbours;
mod netns;
mod random;
mod relay;
mod restart;
mod service;
mod session;
mod stop;
mod worker;

use worker::Worker;

/// Also what a worker process runs: it is the test binary, asked for this one test.
#[test]
fn a_worker_ends_with_its_test() {
    if worker::is_worker() {
        service::run();
    }
    let mut worker = Worker::start("mortal", "");
    worker.close_input();
    worker.wait_gone();
}
