//! Clocks that do not agree: each engine's has its own offset and its own drift.

use crate::testing::random::Random;
use crate::testing::sim::{Instant, SECOND};
use crate::time::Time;

/// Parts in a million by which a clock is fast or slow at most: what the kernel slews at most
/// (adjtimex(2)).
const MAX_DRIFT: u64 = 500;

/// How a machine's clock differs from the simulation's time. Survives the engine, not the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SkewedClock {
    /// When the machine was started.
    began: Instant,
    /// What the clock showed then.
    offset: u64,
    drift_ppm: i64,
}

impl SkewedClock {
    /// That of a machine that has run for anything up to eleven days.
    pub(crate) fn new(random: &mut Random) -> Self {
        Self { offset: random.within(0..1_000_000) * SECOND, ..Self::booted(0, random) }
    }

    /// That of a machine that is started now.
    pub(crate) fn booted(now: Instant, random: &mut Random) -> Self {
        let drift_ppm = random.within(0..2 * MAX_DRIFT + 1) as i64 - MAX_DRIFT as i64;
        Self { began: now, offset: random.within(0..SECOND), drift_ppm }
    }

    /// It shows more by as much from here on.
    pub(crate) fn jump(&mut self, by: Instant) {
        self.offset += by;
    }

    /// Whether two clocks drift apart by 100 parts in a million at least.
    pub(crate) fn drifts_from(self, other: Self) -> bool {
        self.drift_ppm.abs_diff(other.drift_ppm) >= 100
    }

    /// What it shows.
    pub(crate) fn show(self, now: Instant) -> Time {
        let passed = i128::from(now.saturating_sub(self.began));
        let gained = passed * i128::from(self.drift_ppm) / 1_000_000;
        Time::from_nanos((i128::from(self.offset) + passed + gained) as u64)
    }

    /// The first instant at which it shows `time` or more.
    pub(crate) fn when(self, time: Time) -> Instant {
        let shown = u128::from(time.as_nanos().saturating_sub(self.offset));
        let rate = (1_000_000 + self.drift_ppm) as u128;
        let mut now = self.began + (shown * 1_000_000 / rate) as u64;
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
            let clock = SkewedClock::booted(random.within(0..SECOND), &mut random);
            let now = SECOND + random.within(1..100 * SECOND);
            let when = clock.when(clock.show(now));
            assert!(when <= now && clock.show(when) == clock.show(now));
        }
    }
}
