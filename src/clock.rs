//! The engine's clock. It is the only place that reads one; everything below takes time as an
//! argument.

use kvx_core::time::Time;
use rustix::time::{ClockId, clock_gettime};

/// The time on `CLOCK_BOOTTIME`.
pub(crate) fn now() -> Time {
    let time = clock_gettime(ClockId::Boottime);
    // The kernel never gives a negative time or more than 999,999,999 ns; at 2^64 ns the machine
    // has run for 584 years, so that saturating is only for form.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Time::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_that_of_the_machine_and_never_goes_back() {
        let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
        let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        let first = now();
        let second = now();
        assert!(second >= first);
        // /proc/uptime counts in hundredths of the same clock and was read before.
        assert!(first.as_nanos() as f64 / 1e9 >= seconds - 0.01);
    }
}
