//! What tests with real processes are played with: workers, each a process with an engine of its
//! own; relays and network namespaces between them; bytes that tell where they belong. No test.
//!
//! A worker process is the test binary itself, started again ([`worker`]): every binary that has
//! workers has the test `a_worker_ends_with_its_test`, which begins with [`service::serve`].
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on has failed"
)]

/// Makes tests of functions that take the option of the `engine` command which chooses a
/// transport: `tcp::the_tests_name` and `shm::the_tests_name`.
#[macro_export]
macro_rules! over_each_transport {
    ($($test:ident),+ $(,)?) => {
        mod tcp {
            $(#[test]
            fn $test() {
                super::$test("transports=tcp");
            })+
        }

        mod shm {
            $(#[test]
            fn $test() {
                super::$test("transports=shm");
            })+
        }
    };
}

pub mod container;
pub mod content;
pub mod line;
pub mod namespace;
pub mod random;
pub mod relay;
pub mod service;
pub mod session;
pub mod skip;
pub mod vitals;
pub mod worker;
