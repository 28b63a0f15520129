//! The clocks that the demo's processes have in common, and their CPU time.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time now, on a clock that all processes of the machine share.
pub(super) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// CPU time of all threads of this process, in user space and in the kernel.
pub(super) fn process_cpu() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// CPU time of this thread.
pub(super) fn thread_cpu() -> Duration {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> Duration {
    // These clocks never go below 0.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}
