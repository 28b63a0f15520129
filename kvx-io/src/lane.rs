//! A lane as its holders see it: two halves and why it ends. Not the halves themselves.
//!
//! # Who touches what
//! Either half is whoever's takes it ([`Half`]). The I/O thread does when the socket or the host
//! has something; a thread that posts sends, and a thread that waits may receive.

use std::fmt;
use std::io;
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
use crate::io_thread::IoThread;
use crate::sight::Sight;
use crate::watch::Watched;

/// The sending half of a lane.
pub trait SendHalf: Send {
    /// Sends until the host has no frame, there is no room, or `left` bytes are used up.
    ///
    /// # Errors
    /// The lane must end.
    fn turn(&mut self, lane: &LaneState, left: &mut usize) -> Result<Sent, LaneError>;

    /// The lane has ended: lets go of everything, and sends nothing any more.
    fn end(&mut self);
}

/// The receiving half of a lane.
pub trait ReceiveHalf: Send {
    /// Receives until nothing is there, or `left` bytes are used up.
    ///
    /// # Errors
    /// The lane must end.
    fn turn(
        &mut self,
        lane: &LaneState,
        left: &mut usize,
        received: &mut Received,
    ) -> Result<(), LaneError>;

    /// The lane has ended: lets go of everything, and receives nothing any more.
    fn end(&mut self);

    /// How arrivals can be seen, where not only the socket tells of them. Asked once.
    fn sight(&self) -> Option<Arc<dyn Sight>> {
        None
    }
}

/// What a sending half's turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing can be done now.
    Done,
    /// The budget is spent.
    More,
}

/// What a receiving half's turn came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The budget is spent, and there may be more.
    pub more: bool,
    /// The host was told of something.
    pub frames: bool,
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

/// A lane as its halves see it.
pub struct LaneState {
    id: LaneId,
    host: Arc<dyn LaneHost>,
    doorbell: Arc<Doorbell>,
    watched: Watched,
    /// A thread that waits attends the lane.
    pub(crate) attended: AtomicBool,
    waits_for_memory: AtomicBool,
    /// Something is there to be received of which the socket will not tell.
    unread: AtomicBool,
    /// The stream is known to end: only its end says that it is exhausted.
    ends: AtomicBool,
    /// Why the lane ends, once it must: the first cause given. The I/O thread carries it out.
    ending: OnceLock<LaneError>,
}

impl LaneState {
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
            attended: AtomicBool::new(false),
            waits_for_memory: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            ending: OnceLock::new(),
        }
    }

    /// A lane that no thread serves, for tests of a half.
    ///
    /// # Errors
    /// The process has no descriptors left.
    #[doc(hidden)]
    pub fn unserved(
        id: LaneId,
        host: Arc<dyn LaneHost>,
        socket: &Arc<OwnedFd>,
    ) -> io::Result<Self> {
        let doorbell = Arc::new(Doorbell::new(0, Arc::new(IoThread::new()?)));
        Ok(Self::new(id, host, doorbell, socket))
    }

    /// The lane's name.
    pub fn id(&self) -> LaneId {
        self.id
    }

    /// The protocol.
    pub fn host(&self) -> &dyn LaneHost {
        &*self.host
    }

    /// What was sent, by all lanes of the lane's thread.
    pub fn sent(&self) -> &Meter {
        &self.doorbell.thread().sent
    }

    /// What was received, by all lanes of the lane's thread.
    pub fn received(&self) -> &Meter {
        &self.doorbell.thread().received
    }

    /// Makes the I/O thread give the lane a turn.
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.doorbell))
    }

    /// Why the lane ends, once it must. Neither half begins anything from then on.
    pub fn ending(&self) -> Option<&LaneError> {
        self.ending.get()
    }

    /// Said by a half: whether the receiving one waits for staging memory rather than for its
    /// peer. Before it asks for memory, which rings when it is ready.
    pub fn set_waits_for_memory(&self, waits: bool) {
        self.waits_for_memory.store(waits, Ordering::SeqCst);
    }

    /// Said by the sending half: the socket had no room. Its turn comes when there is some.
    pub fn is_full(&self) {
        self.watched.is_full(&self.doorbell);
    }

    /// Said by the sending half: the socket has taken bytes again.
    pub fn has_taken(&self) {
        self.watched.has_taken();
    }

    /// Whether the socket's stream is known to end.
    pub fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    pub(crate) fn doorbell(&self) -> &Arc<Doorbell> {
        &self.doorbell
    }

    /// Whether the receiving half waits for staging memory rather than for its peer.
    pub(crate) fn waits_for_memory(&self) -> bool {
        self.waits_for_memory.load(Ordering::SeqCst)
    }

    /// Leaves to the I/O thread what was not received.
    pub(crate) fn leave_unread(&self) {
        self.unread.store(true, Ordering::SeqCst);
        self.doorbell.ring();
    }

    /// Whether something was left, once.
    pub(crate) fn take_unread(&self) -> bool {
        self.unread.swap(false, Ordering::SeqCst)
    }

    /// The socket, while the lane is open, and what it is watched for.
    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// The stream will end, or has.
    pub(crate) fn expect_end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    /// Says that the lane must end; the first cause stays. The I/O thread looks after its turn.
    pub(crate) fn end_with(&self, cause: LaneError) {
        let _ = self.ending.set(cause);
    }

    /// Ends the lane. Rings, because this may be a thread that posts or attends.
    fn close(&self, cause: LaneError) {
        self.end_with(cause);
        self.doorbell.ring();
    }

    /// Tells the host that the lane has ended. Called once, by the I/O thread.
    pub(crate) fn tell_closed(&self, cause: LaneError) {
        self.host.closed(self.id, cause);
    }
}

/// One lane over one socket.
///
/// Its host is called with a half held: with the sending half in `next_frame`, with the receiving
/// half in `frame_arrived`, `frame_finished` and `acknowledged`; never under leases, and with
/// nothing held in `closed`. The host may call any method of any lane from there but `attend`;
/// `drive` on the lane that just asks for a frame does nothing.
pub(crate) struct SocketLane {
    pub(crate) state: LaneState,
    sight: Option<Arc<dyn Sight>>,
    sender: Half<Box<dyn SendHalf>>,
    receiver: Half<Box<dyn ReceiveHalf>>,
}

impl SocketLane {
    pub(crate) fn new(
        state: LaneState,
        sender: Box<dyn SendHalf>,
        receiver: Box<dyn ReceiveHalf>,
    ) -> Self {
        let sight = receiver.sight();
        Self { state, sight, sender: Half::new(sender), receiver: Half::new(receiver) }
    }

    /// How arrivals can be seen.
    pub(crate) fn sight(&self) -> Option<&dyn Sight> {
        self.sight.as_deref()
    }

    /// Whether something is seen to have arrived that can be received now.
    pub(crate) fn sees(&self) -> bool {
        self.sight().is_some_and(Sight::has_arrived) && !self.state.waits_for_memory()
    }

    /// This thread looks from now on.
    pub(crate) fn look(&self) {
        if let Some(sight) = self.sight() {
            sight.look();
        }
    }

    /// This thread looks no more. Whether there is something of which the socket does not tell.
    pub(crate) fn sleep(&self) -> bool {
        self.sight().is_some_and(Sight::sleep) && !self.state.waits_for_memory()
    }

    /// Sends at most about `budget` bytes, if nobody else is sending.
    pub(crate) fn pump(&self, budget: usize) -> Pumped {
        let mut left = budget;
        let mut pumped = Pumped::Done;
        self.sender.work(|sender| match sender.turn(&self.state, &mut left) {
            Ok(Sent::Done) => ControlFlow::Continue(()),
            Ok(Sent::More) => {
                pumped = Pumped::More;
                ControlFlow::Break(())
            }
            Err(cause) => {
                self.state.close(cause);
                ControlFlow::Break(())
            }
        });
        pumped
    }

    /// Receives at most about `budget` bytes, if nobody else is receiving.
    pub(crate) fn receive(&self, budget: usize) -> Received {
        let mut left = budget;
        let mut received = Received::default();
        self.receiver.work(|receiver| match receiver.turn(&self.state, &mut left, &mut received) {
            Ok(()) if received.more => ControlFlow::Break(()),
            Ok(()) => ControlFlow::Continue(()),
            Err(cause) => {
                self.state.close(cause);
                ControlFlow::Break(())
            }
        });
        received
    }

    /// Waits until nobody sends or receives, and makes sure that nobody will.
    pub(crate) fn end_halves(&self) {
        self.sender.end(|sender| sender.end());
        self.receiver.end(|receiver| receiver.end());
    }
}

impl Lane for SocketLane {
    fn wake(&self) {
        self.state.doorbell.ring();
    }

    fn drive(&self, budget: usize) {
        if self.pump(budget) == Pumped::More {
            self.state.doorbell.ring();
        }
    }

    fn attend(&self, timeout: Option<Duration>, is_over: &mut dyn FnMut(&mut Context<'_>) -> bool) {
        attend::attend(self, timeout, is_over);
    }

    fn close(&self, cause: LaneError) {
        self.state.close(cause);
    }
}

impl fmt::Debug for SocketLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketLane")
            .field("id", &self.state.id)
            .field("ending", &self.state.ending)
            .finish_non_exhaustive()
    }
}
