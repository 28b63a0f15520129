//! Clocks that do not agree: each engine's has its own offset and its own drift.

use crate::testing::random::Random;
use crate::testing::sim::{Instant, SECOND};
use crate::time::Time;

/// Parts in a million by which a clock is fast or slow at most: what the kernel slews at most
/// (adjtimex(2)).
const MAX_DRIFT: u64 = 500;

/// How an engine's clock differs from the simulation's time. Survives the engine, as a machine's
/// clock does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SkewedClock {
    offset: u64,
    drift_ppm: i64,
}

impl SkewedClock {
    pub(crate) fn new(random: &mut Random) -> Self {
        Self {
            offset: random.within(0..1_000_000) * SECOND,
            drift_ppm: random.within(0..2 * MAX_DRIFT + 1) as i64 - MAX_DRIFT as i64,
        }
    }

    /// What it shows.
    pub(crate) fn show(self, now: Instant) -> Time {
        let gained = i128::from(now) * i128::from(self.drift_ppm) / 1_000_000;
        Time::from_nanos((i128::from(self.offset) + i128::from(now) + gained) as u64)
    }

    /// The first instant at which it shows `time` or more.
    pub(crate) fn when(self, time: Time) -> Instant {
        let shown = u128::from(time.as_nanos().saturating_sub(self.offset));
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let mut now = (shown * 1_000_000 / rate) as u64;
        while self.show(now) < time {
            now += 1;
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_is_the_inverse_of_show() {
        let mut random = Random::new(7);
        for _ in 0..1000 {
            let clock = SkewedClock::new(&mut random);
            let now = random.within(1..100 * SECOND);
            let when = clock.when(clock.show(now));
            assert!(when <= now && clock.show(when) == clock.show(now));
        }
    }
}
