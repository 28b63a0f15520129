//! What is known of the peer's clock: enough to name a point that never lies too late.

use std::time::Duration;

use crate::time::Time;

/// Two clocks of one kind drift apart by at most this many parts in a million: the kernel slews
/// by at most 500 ppm (adjtimex(2)), and each side may.
const DRIFT_PPM: i128 = 1000;

/// One exchange: something was sent here at `sent`, the peer read its clock as `peer` later, and
/// the answer was received here at `received`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockSample {
    /// Own clock before.
    pub sent: Time,
    /// The peer's clock between.
    pub peer: Time,
    /// Own clock after.
    pub received: Time,
}

/// A lower bound on (peer's clock - own clock), from the samples so far.
///
/// In a sample the peer's clock showed `peer` at the latest at `received`, so the difference is at
/// least `peer - received`, and not before `sent`, so that it is at most `peer - sent`. Older bounds
/// weaken by the drift.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerClock {
    /// The highest bound, and when it was the last sample's.
    best: Option<(i128, Time)>,
    /// When the last sample was taken, whether it was good or not.
    sampled: Time,
}

impl PeerClock {
    /// Takes a sample in.
    pub(crate) fn observe(&mut self, sample: ClockSample) {
        let peer = i128::from(sample.peer.as_nanos());
        let lower = peer - i128::from(sample.received.as_nanos());
        let upper = peer - i128::from(sample.sent.as_nanos());
        self.sampled = sample.received;
        // A bound above what the sample allows was one before a clock jumped, as that of a virtual
        // machine does that was paused: to go on with it would set expiries too late.
        if self.lower_bound(sample.received).is_none_or(|known| lower >= known || known > upper) {
            self.best = Some((lower, sample.received));
        }
    }

    /// When the last sample was taken.
    pub(crate) fn sampled(&self) -> Time {
        self.sampled
    }

    /// A point of the peer's clock that comes no later than `own` comes here. [`Time::ZERO`], a
    /// point long past, while nothing is known of the peer's clock.
    pub(crate) fn no_later_than(&self, own: Time, now: Time) -> Time {
        let Some(lower) = self.lower_bound(now) else {
            return Time::ZERO;
        };
        let drift = (own.saturating_since(now).as_nanos() as i128 * DRIFT_PPM) / 1_000_000;
        let peer = i128::from(own.as_nanos()) + lower - drift;
        Time::from_nanos(peer.clamp(0, i128::from(u64::MAX)) as u64)
    }

    fn lower_bound(&self, now: Time) -> Option<i128> {
        let (lower, at) = self.best?;
        let age: Duration = now.saturating_since(at);
        Some(lower - (age.as_nanos() as i128 * DRIFT_PPM) / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the true offset, the delays and a drift within the bound: the named point
        /// never comes later on the peer's clock than the deadline does here.
        #[test]
        fn an_expiry_never_lies_after_the_deadline(
            offset in -1_000_000_000_000i128..1_000_000_000_000,
            samples in proptest::collection::vec((0u64..50_000_000, 0u64..50_000_000), 1..10),
            drift_ppm in -1000i128..1000,
            ahead in 0u64..60_000_000_000,
        ) {
            let start = 2_000_000_000_000u64;
            let peer_at = |own: u64| {
                let since = i128::from(own - start);
                (i128::from(own) + offset + since * drift_ppm / 1_000_000) as u64
            };
            let mut clock = PeerClock::default();
            let mut now = start;
            for (there, back) in samples {
                let sent = now;
                let peer = peer_at(now + there);
                now += there + back;
                clock.observe(ClockSample {
                    sent: Time::from_nanos(sent),
                    peer: Time::from_nanos(peer),
                    received: Time::from_nanos(now),
                });
                now += 1_000_000_000;
            }
            let deadline = now + ahead;
            let expiry =
                clock.no_later_than(Time::from_nanos(deadline), Time::from_nanos(now));
            prop_assert!(expiry.as_nanos() <= peer_at(deadline) + 1);
        }
    }

    #[test]
    fn a_clock_that_jumped_is_believed_from_the_next_sample_on() {
        let at = |millis: u64| Time::from_nanos(millis * 1_000_000);
        let mut clock = PeerClock::default();
        clock.observe(ClockSample { sent: at(1000), peer: at(5000), received: at(1010) });
        // The own clock jumps ahead by two seconds: the peer's is only two ahead from here on.
        clock.observe(ClockSample { sent: at(3020), peer: at(5020), received: at(3030) });
        assert!(clock.no_later_than(at(4000), at(3030)) <= at(5990));
        assert!(clock.no_later_than(at(4000), at(3030)) > at(5980));
    }

    #[test]
    fn nothing_known_means_expired() {
        let clock = PeerClock::default();
        assert_eq!(clock.no_later_than(Time::from_nanos(500), Time::from_nanos(1)), Time::ZERO);
    }
}
