//! Arrivals that can be seen without being told. Not how they are received.

use std::hint;
use std::thread;
use std::time::{Duration, Instant};

/// How long a lane that had something is looked at before its thread sleeps: about as long as it
/// takes to wake a thread, so that who waits costs no more than twice what waking it would.
pub(crate) const LOOK: Duration = Duration::from_micros(30);

/// How long a thread looks before it sees to everything else, and to whoever waits for its CPU.
const GLANCE: Duration = Duration::from_micros(3);

/// Sees what has arrived on a lane by a look at memory, where the peer needs no system call to leave
/// it there. Any number of threads may look, each from [`look`](Self::look) to
/// [`sleep`](Self::sleep).
pub trait Sight: Send + Sync {
    /// Whether there is something that was not received yet.
    fn has_arrived(&self) -> bool;

    /// A thread looks from now on: the peer need not tell.
    fn look(&self);

    /// It looks no more. Unless others do, the socket tells of arrivals from now on; and the answer
    /// says whether something has arrived before, of which it does not.
    fn sleep(&self) -> bool;
}

/// Looks for a moment. Whether `is_there` was so.
pub(crate) fn glance(mut is_there: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if is_there() {
            return true;
        }
        if begin.elapsed() >= GLANCE {
            // The peer may be waiting for this CPU.
            thread::yield_now();
            return false;
        }
        hint::spin_loop();
    }
}
