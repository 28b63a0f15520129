//! What has moved: plain counters, summed over the lanes. Not a metrics library; the engine
//! exports them.

use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a transport has moved since it was made, and what it has open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lanes open now.
    pub lanes: u64,
    /// Everything sent, on lanes that have ended too.
    pub sent: Traffic,
    /// Everything received, on lanes that have ended too.
    pub received: Traffic,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes, headers and tables included, discarded payload too.
    pub bytes: u64,
    /// Frames begun, ACKs included.
    pub frames: u64,
    /// System calls that moved at least one byte.
    pub calls: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.frames += other.frames;
        self.calls += other.calls;
    }
}

/// Counts one direction of the lanes of one I/O thread. The numbers are told, never acted upon, so
/// that nothing needs to be ordered.
#[derive(Debug, Default)]
pub struct Meter {
    bytes: AtomicU64,
    frames: AtomicU64,
    calls: AtomicU64,
}

impl Meter {
    /// One call that moved `bytes`.
    pub fn call(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// One frame.
    pub fn frame(&self) {
        self.frames.fetch_add(1, Ordering::Relaxed);
    }

    /// The numbers now.
    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            bytes: self.bytes.load(Ordering::Relaxed),
            frames: self.frames.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
        }
    }
}
