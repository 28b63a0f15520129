//! Instruments for tests: a naive copy to compare with, two peers wired back to back, and a
//! simulation of many engines over a network that fails.
//!
//! Not for production: what is here panics where the code under test is wrong. Everything is
//! deterministic; a simulation is told by its seed.

pub mod oracle;

mod lane;
mod memory;
mod pair;
mod random;
mod sim;

pub use memory::{Memory, Segment};
pub use pair::{Pair, Side};
pub use random::Random;
pub use sim::{Fault, Report, Scenario, Trace, simulate};
