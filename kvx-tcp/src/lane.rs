//! A lane as its holders see it, and its sending half's lock. Not the halves themselves.
//!
//! # Who touches what
//! The receiving half belongs to the I/O thread. The sending half is whoever's gets its lock, and
//! nobody waits for it: who finds it taken leaves a mark, and the holder looks again before it
//! goes. Only the end of a lane waits, for a holder that never blocks.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::task::Waker;

use kvx_core::error::LaneError;
use kvx_core::id::LaneId;
use kvx_core::transport::{Lane, LaneHost};

use crate::counters::Meter;
use crate::doorbell::Doorbell;
use crate::send::{Sender, Sent};

/// One lane over one socket.
///
/// Its host is called with a half held: with the sending half in `next_frame`, with the receiving
/// half in `frame_arrived`, `frame_finished` and `acknowledged`; never under leases, and with
/// nothing held in `closed`. The host may call any method of any lane from there; `drive` on the
/// lane that just asks for a frame does nothing.
pub(crate) struct TcpLane {
    id: LaneId,
    host: Arc<dyn LaneHost>,
    doorbell: Arc<Doorbell>,
    sender: Mutex<Sender>,
    /// Someone wanted to send since the holder of `sender` took it.
    again: AtomicBool,
    /// Why the lane ends, once it must: the first cause given. The I/O thread carries it out.
    ending: OnceLock<LaneError>,
}

/// What became of an attempt to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pumped {
    /// Nothing is left to do until the socket, the host or a provider of memory has news; or
    /// another thread sends, and has been told to look again.
    Done,
    /// The budget is spent.
    More,
}

impl TcpLane {
    pub(crate) fn new(
        id: LaneId,
        host: Arc<dyn LaneHost>,
        doorbell: Arc<Doorbell>,
        sender: Sender,
    ) -> Self {
        Self {
            id,
            host,
            doorbell,
            sender: Mutex::new(sender),
            again: AtomicBool::new(false),
            ending: OnceLock::new(),
        }
    }

    pub(crate) fn id(&self) -> LaneId {
        self.id
    }

    pub(crate) fn host(&self) -> &dyn LaneHost {
        &*self.host
    }

    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    pub(crate) fn sent(&self) -> &Meter {
        &self.doorbell.thread().sent
    }

    pub(crate) fn received(&self) -> &Meter {
        &self.doorbell.thread().received
    }

    /// Makes the I/O thread give the lane a turn.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.doorbell))
    }

    /// Why the lane ends, once it must. Neither half begins anything from then on.
    pub(crate) fn ending(&self) -> Option<&LaneError> {
        self.ending.get()
    }

    /// Says that the lane must end; the first cause stays. The I/O thread looks after its turn.
    pub(crate) fn end_with(&self, cause: LaneError) {
        let _ = self.ending.set(cause);
    }

    /// Sends at most about `budget` bytes, if nobody else is sending.
    pub(crate) fn pump(&self, budget: usize) -> Pumped {
        let mut left = budget;
        // An exchange, so that who takes the mark down sees what everyone did who put it up.
        self.again.swap(true, Ordering::AcqRel);
        loop {
            // Either this thread finds the lock free, or its holder, having let go, finds the
            // mark: the two fences stand between mark and lock on either side.
            fence(Ordering::SeqCst);
            let mut sender = match self.sender.try_lock() {
                Ok(sender) => sender,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return Pumped::Done,
            };
            self.again.swap(false, Ordering::AcqRel);
            let turn = sender.turn(self, &mut left);
            drop(sender);
            fence(Ordering::SeqCst);
            match turn {
                Ok(Sent::More) => return Pumped::More,
                Ok(Sent::Done) if self.again.load(Ordering::Relaxed) => {}
                Ok(Sent::Done) => return Pumped::Done,
                Err(cause) => {
                    // Rung, because this may be a thread that posts.
                    self.close(cause);
                    return Pumped::Done;
                }
            }
        }
    }

    /// Waits until nobody sends, and makes sure that nobody will.
    pub(crate) fn end_sender(&self) {
        let mut sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        sender.end();
    }

    /// Tells the host that the lane has ended. Called once, by the I/O thread.
    pub(crate) fn tell_closed(&self, cause: LaneError) {
        self.host.closed(self.id, cause);
    }
}

impl Lane for TcpLane {
    fn wake(&self) {
        self.doorbell.ring();
    }

    fn drive(&self, budget: usize) {
        if self.pump(budget) == Pumped::More {
            self.doorbell.ring();
        }
    }

    fn close(&self, cause: LaneError) {
        self.end_with(cause);
        self.doorbell.ring();
    }
}

impl fmt::Debug for TcpLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpLane")
            .field("id", &self.id)
            .field("ending", &self.ending)
            .finish_non_exhaustive()
    }
}
