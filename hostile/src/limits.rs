//! How long and how hard an attack goes on. Not what it does.

use std::time::{Duration, Instant};

/// How long and how hard an attack goes on. A **blow** is whatever the attack is made of: a frame,
/// a message, a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Repeats the attack until this is over; `None`: it is done once.
    pub(crate) time: Option<Duration>,
    /// Blows of a flood, each time it is done.
    pub(crate) blows: u64,
    /// Blows a second at most.
    pub(crate) rate: Option<u32>,
}

impl Limits {
    /// Once, with floods of 20,000 blows, as fast as possible.
    pub const fn once() -> Self {
        Self { time: None, blows: 20_000, rate: None }
    }

    /// Over and over, for `time`.
    pub const fn lasting(time: Duration) -> Self {
        Self { time: Some(time), ..Self::once() }
    }

    /// Floods of so many blows. Default 20,000; connections count as a hundred each.
    pub const fn blows(mut self, blows: u64) -> Self {
        self.blows = blows;
        self
    }

    /// At most so many blows a second, so that the attacker's own work does not disturb what is
    /// measured beside it. Default: no bound.
    pub const fn per_second(mut self, rate: u32) -> Self {
        self.rate = Some(rate);
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::once()
    }
}

/// Counts the blows of one run, and keeps its limits.
#[derive(Debug)]
pub(crate) struct Pace {
    limits: Limits,
    begun: Instant,
    blows: u64,
}

/// Sleeps shorter than this are saved up: the kernel's are not that exact.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

impl Pace {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { limits, begun: Instant::now(), blows: 0 }
    }

    /// Counts a blow, after waiting for its turn.
    pub(crate) fn blow(&mut self) {
        self.blows += 1;
        let Some(rate) = self.limits.rate else { return };
        let due = Duration::from_secs_f64(self.blows as f64 / f64::from(rate.max(1)));
        let ahead = due.saturating_sub(self.begun.elapsed());
        if ahead >= SHORTEST_SLEEP {
            std::thread::sleep(ahead);
        }
    }

    pub(crate) fn blows(&self) -> u64 {
        self.blows
    }

    /// How many blows one flood has, where each weighs as much as `weight` frames.
    pub(crate) fn flood(&self, weight: u64) -> u64 {
        (self.limits.blows / weight).max(1)
    }

    /// Whether the time is up. Never, for an attack that is done once.
    pub(crate) fn is_over(&self) -> bool {
        self.limits.time.is_some_and(|time| self.begun.elapsed() >= time)
    }

    /// Whether the attack is done once more.
    pub(crate) fn goes_on(&self) -> bool {
        self.limits.time.is_some() && !self.is_over()
    }
}
