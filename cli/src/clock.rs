//! The clock that processes of one machine have in common, and their CPU time. It never waits.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time now, on a clock that all processes of the machine share.
pub(crate) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// CPU time of all threads of this process, in user space and in the kernel.
pub(crate) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// CPU time of this thread.
pub(crate) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    // These clocks never go below 0.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
