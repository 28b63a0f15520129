//! The link's lanes: what they ask of the protocol, and how they are woken, opened and closed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError, Weak};

use kvx_core::error::{HandshakeError, LaneError, Refusal, Violation};
use kvx_core::id::{Association, LaneId};
use kvx_core::proto::Peer as Protocol;
use kvx_core::time::Time;
use kvx_core::transport::{
    Admission, Landing, Lane, LaneHost, LaneOpen, OutFrame, Transport, TransportKind,
};
use kvx_core::wire::{FrameHeader, WireSpan};

use super::Link;
use crate::clock;

/// A link's lanes by name.
pub(super) type Lanes = BTreeMap<LaneId, Arc<Attached>>;

/// One lane of a link, from the moment the protocol knows it until the transport has closed it.
///
/// It belongs to the pair of associations that it was opened under. When the peer begins anew, lanes
/// may get names that were used before: what an old one still has to say must not be taken for its
/// namesake's.
pub(super) struct Attached {
    link: Arc<Link>,
    kind: TransportKind,
    pair: Option<(Association, Association)>,
    /// What the transport gave for it, and keeps while it is open: it holds this host in turn.
    lane: OnceLock<Weak<dyn Lane>>,
    /// Set when it is to be closed, which may be before the transport has given it out.
    closing: AtomicBool,
}

impl Attached {
    fn close(&self) {
        self.closing.store(true, Ordering::SeqCst);
        if let Some(lane) = self.lane() {
            lane.close(LaneError::Closed);
        }
    }

    fn wake(&self) {
        if let Some(lane) = self.lane() {
            lane.wake();
        }
    }

    /// The transport's lane, if there is one by now, and still.
    fn lane(&self) -> Option<Arc<dyn Lane>> {
        self.lane.get()?.upgrade()
    }

    /// Calls the protocol, unless the lane's time is over.
    fn with<R>(&self, f: impl FnOnce(&mut Protocol) -> R) -> Option<R> {
        self.link.with(|core| self.is_current(&core.protocol).then(|| f(&mut core.protocol)))
    }

    fn is_current(&self, protocol: &Protocol) -> bool {
        protocol.associations() == self.pair
    }
}

impl LaneHost for Attached {
    fn now(&self) -> Time {
        clock::now()
    }

    fn next_frame(&self, lane: LaneId) -> Option<OutFrame> {
        let mut core = self.link.lock();
        if !self.is_current(&core.protocol) {
            return None;
        }
        let frame = core.protocol.next_frame(clock::now(), lane);
        let messages = core.protocol.has_messages();
        drop(core);
        if messages {
            self.link.output.notify_one();
        }
        frame
    }

    fn frame_arrived(
        &self,
        lane: LaneId,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        let now = clock::now();
        self.with(|protocol| protocol.handle_frame(now, lane, header, table, landing))
            .unwrap_or(Ok(Admission::Discard))
    }

    fn frame_finished(&self, lane: LaneId, header: &FrameHeader, outcome: Result<(), Refusal>) {
        let now = clock::now();
        self.with(|protocol| protocol.handle_frame_finished(now, lane, header, outcome));
    }

    fn acknowledged(&self, lane: LaneId, ack: &FrameHeader) -> Result<(), Violation> {
        let now = clock::now();
        self.with(|protocol| protocol.handle_ack(now, lane, ack)).unwrap_or(Ok(()))
    }

    fn closed(&self, lane: LaneId, cause: LaneError) {
        let mut lanes = self.link.lanes();
        if lanes.get(&lane).is_some_and(|known| std::ptr::eq(&**known, self)) {
            lanes.remove(&lane);
        }
        drop(lanes);
        if let LaneError::Unreachable(_) = cause {
            // Before the protocol asks for another lane.
            self.link.rule_out(self.kind, &cause);
        }
        let now = clock::now();
        self.with(|protocol| protocol.handle_lane_closed(now, lane, cause));
    }
}

impl Link {
    /// Hands a lane that both sides have proved, for this pair of associations (own, theirs), to its
    /// transport.
    ///
    /// # Errors
    /// The peer has died, begun anew or retired the lane meanwhile, or the transport cannot open it.
    pub(crate) fn open_lane(
        self: &Arc<Self>,
        transport: &dyn Transport,
        open: LaneOpen,
        pair: (Association, Association),
    ) -> Result<(), LaneOpenError> {
        let (id, pair) = (open.lane, Some(pair));
        self.with(|core| {
            let current = core.protocol.associations() == pair;
            if current {
                core.protocol.handle_lane_opened(id)
            } else {
                Err(HandshakeError::NoControl)
            }
        })?;
        let attached = Arc::new(Attached {
            link: Arc::clone(self),
            kind: transport.kind(),
            pair,
            lane: OnceLock::new(),
            closing: AtomicBool::new(false),
        });
        // Before the transport has it, so that its end finds it here.
        let namesake = self.lanes().insert(id, Arc::clone(&attached));
        if let Some(old) = namesake {
            old.close();
        }
        match transport.open(open, Arc::clone(&attached) as Arc<dyn LaneHost>) {
            Ok(lane) => {
                let _ = attached.lane.set(Arc::downgrade(&lane));
                if attached.closing.load(Ordering::SeqCst) {
                    lane.close(LaneError::Closed);
                }
                lane.wake();
                Ok(())
            }
            Err(cause) => {
                attached.closed(id, cause.clone());
                Err(LaneOpenError::Transport(cause))
            }
        }
    }

    /// The transport of the lanes that there are.
    pub(crate) fn transport_in_use(&self) -> Option<TransportKind> {
        let kinds: Vec<_> = self.lanes().values().map(|attached| attached.kind).collect();
        // Some may be on their way out.
        kinds.into_iter().find(|kind| !self.is_ruled_out(*kind))
    }

    /// Closes a lane.
    pub(super) fn close_lane(&self, id: LaneId) {
        let attached = self.lanes().remove(&id);
        if let Some(attached) = attached {
            attached.close();
        }
    }

    /// The lane whose turn it is to carry a posting thread's frames.
    pub(super) fn next_lane(&self) -> Option<Arc<dyn Lane>> {
        let lanes = self.lanes();
        let count = lanes.len().max(1);
        let turn = self.turn.load(Ordering::Relaxed) % count;
        lanes.values().nth(turn).and_then(|attached| attached.lane())
    }

    /// Tells every lane that there may be frames.
    pub(super) fn wake_lanes(&self) {
        let lanes: Vec<Arc<Attached>> = self.lanes().values().cloned().collect();
        lanes.iter().for_each(|lane| lane.wake());
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a lane was not opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaneOpenError {
    /// The peer does not want it any more.
    #[error(transparent)]
    Unwanted(#[from] HandshakeError),
    /// The transport could not.
    #[error(transparent)]
    Transport(LaneError),
}
