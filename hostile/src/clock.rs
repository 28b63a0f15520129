//! The clock that the protocol speaks of. Nothing else of the time is here.

use kvx_core::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time on `CLOCK_BOOTTIME`. On the victim's machine it is the victim's clock too.
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}
