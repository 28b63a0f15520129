//! A lane as its holders see it: two halves and why it ends. Not the halves themselves.
//!
//! # Who touches what
//! Either half is whoever's takes it ([`Half`]). The I/O thread does when the socket or the host
//! has something; a thread that posts sends, and a thread that waits may receive.

use std::fmt;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::Duration;

use kvx_core::error::LaneError;
use kvx_core::id::LaneId;
use kvx_core::transport::{Lane, LaneHost};

use crate::attend;
use crate::counters::Meter;
use crate::doorbell::Doorbell;
use crate::half::Half;
use crate::receive::{Received, Receiver};
use crate::send::{Sender, Sent};
use crate::watch::Watched;

/// One lane over one socket.
///
/// Its host is called with a half held: with the sending half in `next_frame`, with the receiving
/// half in `frame_arrived`, `frame_finished` and `acknowledged`; never under leases, and with
/// nothing held in `closed`. The host may call any method of any lane from there but `attend`;
/// `drive` on the lane that just asks for a frame does nothing.
pub(crate) struct TcpLane {
    id: LaneId,
    host: Arc<dyn LaneHost>,
    doorbell: Arc<Doorbell>,
    watched: Watched,
    sender: Half<Sender>,
    receiver: Half<Receiver>,
    /// A thread that waits attends the lane.
    pub(crate) attended: AtomicBool,
    waits_for_memory: AtomicBool,
    /// The stream is known to end: only its end says that it is exhausted.
    ends: AtomicBool,
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
        socket: &Arc<OwnedFd>,
    ) -> Self {
        Self {
            id,
            host,
            doorbell,
            watched: Watched::new(Arc::downgrade(socket)),
            sender: Half::new(Sender::new(Arc::clone(socket))),
            receiver: Half::new(Receiver::new(Arc::clone(socket))),
            attended: AtomicBool::new(false),
            waits_for_memory: AtomicBool::new(false),
            ends: AtomicBool::new(false),
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
        let mut pumped = Pumped::Done;
        self.sender.work(|sender| match sender.turn(self, &mut left) {
            Ok(Sent::Done) => ControlFlow::Continue(()),
            Ok(Sent::More) => {
                pumped = Pumped::More;
                ControlFlow::Break(())
            }
            Err(cause) => {
                // Rung, because this may be a thread that posts.
                self.close(cause);
                ControlFlow::Break(())
            }
        });
        pumped
    }

    /// Receives at most about `budget` bytes, if nobody else is receiving.
    pub(crate) fn receive(&self, budget: usize) -> Received {
        let mut left = budget;
        let mut received = Received::default();
        self.receiver.work(|receiver| match receiver.turn(self, &mut left, &mut received) {
            Ok(()) if received.more => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(cause) => {
                // Rung, because this may be a thread that attends.
                self.close(cause);
                ControlFlow::Break(())
            }
        });
        received
    }

    /// Whether the receiving half waits for staging memory rather than for its peer.
    pub(crate) fn waits_for_memory(&self) -> bool {
        self.waits_for_memory.load(Ordering::SeqCst)
    }

    /// Said by the receiving half: before it asks for memory, which rings when it is ready.
    pub(crate) fn set_waits_for_memory(&self, waits: bool) {
        self.waits_for_memory.store(waits, Ordering::SeqCst);
    }

    /// The stream will end, or has.
    pub(crate) fn expect_end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Whether the stream is known to end.
    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// The socket, while the lane is open, and what it is watched for.
    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// Waits until nobody sends or receives, and makes sure that nobody will.
    pub(crate) fn end_halves(&self) {
        self.sender.end(Sender::end);
        self.receiver.end(Receiver::end);
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

    fn attend(&self, timeout: Option<Duration>, is_over: &mut dyn FnMut(&mut Context<'_>) -> bool) {
        attend::attend(self, timeout, is_over);
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
