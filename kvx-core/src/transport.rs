//! What a transport is: the seam between the protocol and the crates that touch hardware.
//!
//! A [`Transport`] opens [`Lane`]s to a peer. A lane does not know transfers, sessions or the
//! peer's rights: it asks its [`LaneHost`], which stands for the peer state machine
//! ([`crate::proto`]), what to send next and where arriving bytes may land, and reports what
//! became of it. Memory is reached through a [`MemoryProvider`], so that a lane moves GPU memory
//! without knowing of GPUs.

mod memory;
mod route;

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use crate::error::{LaneError, Refusal, Violation};
use crate::id::{LaneId, RegionId, Slot};
use crate::plan::Plan;
use crate::proto::LaneKey;
use crate::region::{Gate, Region};
use crate::time::Time;
use crate::wire::{FrameHeader, WireSpan};

pub use memory::{Access, HostMemory, HostSpan, MemoryKind, MemoryProvider, Staged, Staging};
pub use route::{Capabilities, Operations, TransportKind, TransportOffer, choose};

/// A way to reach a peer's memory. One object serves all peers of an engine.
pub trait Transport: Send + Sync + fmt::Debug {
    /// Which transport this is, on the wire and in `KVX_TRANSPORTS`.
    fn kind(&self) -> TransportKind;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Opens one lane. Frames may flow, and `host` may be called from the transport's threads,
    /// before this returns.
    ///
    /// # Errors
    /// When the descriptor or the hardware refuses; nothing was started then, and
    /// [`LaneHost::closed`] is not called.
    fn open(&self, open: LaneOpen, host: Arc<dyn LaneHost>) -> Result<Arc<dyn Lane>, LaneError>;

    /// Closes every lane and ends the transport's threads. No host is called after it returns.
    fn shutdown(&self);
}

/// What a lane is opened with.
#[derive(Debug)]
pub struct LaneOpen {
    /// The lane's name, equal on both sides.
    pub lane: LaneId,
    /// A connected byte stream to the peer that has proved the session key and carries nothing
    /// but this lane's bytes from here on.
    pub stream: OwnedFd,
    /// What both sides know, and nobody else.
    pub key: LaneKey,
    /// Whether this side dialed.
    pub dialed: bool,
}

/// One open lane. Dropping it does not close it; [`Lane::close`] does.
pub trait Lane: Send + Sync + fmt::Debug {
    /// Says that [`LaneHost::next_frame`] may have something new. Cheap, callable anywhere.
    fn wake(&self);

    /// Sends from the calling thread, never blocking, at most about `budget` bytes; what is left
    /// is the transport's threads' to send. Does nothing while another thread sends.
    fn drive(&self, budget: usize);

    /// Moves what the peer sends on this lane from the calling thread, which waits for something
    /// that it will probably bring, until `is_over`, the lane ends, or `timeout` has passed.
    /// `is_over` registers the waker of its context, which ends the thread's sleep, when the answer
    /// is no.
    ///
    /// Saves the hand-over from the transport's threads; may return at once, and does where
    /// another thread attends the lane already.
    fn attend(&self, timeout: Option<Duration>, is_over: &mut dyn FnMut(&mut Context<'_>) -> bool);

    /// Ends the lane: nothing is read from or written to registered memory after
    /// [`LaneHost::closed`] was called, which happens once, soon, on the transport's threads.
    fn close(&self, cause: LaneError);
}

/// The protocol as a lane sees it. Called from any thread; every call is short and never blocks
/// on the network.
pub trait LaneHost: Send + Sync {
    /// The time on this engine's `CLOCK_BOOTTIME`.
    fn now(&self) -> Time;

    /// The next frame to send on `lane`, if any. The frame counts as handed over: it is either
    /// acknowledged by the peer or comes back to the protocol when the lane has closed.
    fn next_frame(&self, lane: LaneId) -> Option<OutFrame>;

    /// A frame's header and table have arrived. For [`Admission::Land`] the places of its payload
    /// are in `landing`, in order, and add up to `header.payload_len`.
    ///
    /// # Errors
    /// The peer broke the protocol: the lane must close.
    fn frame_arrived(
        &self,
        lane: LaneId,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation>;

    /// The frame last admitted on `lane` is dealt with: every byte is in memory (`Ok`), or the
    /// payload was discarded from some byte on (`Err`).
    fn frame_finished(&self, lane: LaneId, header: &FrameHeader, outcome: Result<(), Refusal>);

    /// An ACK frame has arrived.
    ///
    /// # Errors
    /// The peer acknowledged what was never sent: the lane must close.
    fn acknowledged(&self, lane: LaneId, ack: &FrameHeader) -> Result<(), Violation>;

    /// The lane has ended and touches no registered memory any more. The last call for `lane`.
    fn closed(&self, lane: LaneId, cause: LaneError);
}

/// Whether a frame's payload may land.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Into the places listed in the [`Landing`]. The lane calls [`LaneHost::frame_finished`].
    Land,
    /// Nowhere: the payload is read and dropped. Refused or not, the protocol knows already; the
    /// lane does not call [`LaneHost::frame_finished`].
    Discard,
}

/// Where the payload of one frame lands. Owned by the lane and reused from frame to frame.
#[derive(Debug, Default)]
pub struct Landing {
    /// The regions concerned, each once.
    pub regions: Vec<Arc<Region>>,
    /// The places in payload order.
    pub spans: Vec<LocalSpan>,
    /// What must stay open besides the regions: the transfer's gate, and the grant's.
    pub gates: Vec<Arc<Gate>>,
    /// Nothing lands at or after this point.
    pub expiry: Time,
    /// The places of `regions` by their ids.
    index: HashMap<RegionId, u32>,
}

/// A run of bytes in one of the regions listed beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalSpan {
    /// Index into the list of regions.
    pub region: u32,
    /// Length in bytes; never 0.
    pub len: u32,
    /// Offset in the region in bytes.
    pub offset: u64,
}

/// A frame to be sent.
#[derive(Clone, Debug)]
pub enum OutFrame {
    /// Acknowledges frames of the other direction; no table, no payload.
    Ack(FrameHeader),
    /// Runs of a WRITE: a table of remote spans, then their bytes from local regions.
    Write(PlannedFrame),
    /// Asks for runs of a READ: a table of remote spans, no payload.
    ReadRequest(PlannedFrame),
    /// Answers one READ request: no table; the bytes of `spans` in order.
    ReadData(AnswerFrame),
}

/// A frame whose runs stand in a plan: `header.runs` runs from `header.first_run` on.
#[derive(Clone, Debug)]
pub struct PlannedFrame {
    /// The header, complete.
    pub header: FrameHeader,
    /// The runs.
    pub plan: Arc<Plan>,
    /// The plan's local regions, by its indices.
    pub local: Arc<[Arc<Region>]>,
    /// The slots of the plan's remote regions, by its indices.
    pub slots: Arc<[Slot]>,
}

/// The answer to one READ request.
#[derive(Clone, Debug)]
pub struct AnswerFrame {
    /// The header, complete.
    pub header: FrameHeader,
    /// The regions concerned.
    pub regions: Vec<Arc<Region>>,
    /// The bytes to send, in order.
    pub spans: Vec<LocalSpan>,
}

impl Landing {
    /// Appends a place. Spans mostly come sorted by region, so that the last one is it; others are
    /// looked up, for whoever sends the frame may choose the worst order.
    pub(crate) fn push(&mut self, region: &Arc<Region>, offset: u64, len: u32) {
        let last = self.regions.len().wrapping_sub(1);
        let is_last = self.regions.last().is_some_and(|known| Arc::ptr_eq(known, region));
        let region = if is_last { last as u32 } else { self.index_of(region) };
        self.spans.push(LocalSpan { region, len, offset });
    }

    fn index_of(&mut self, region: &Arc<Region>) -> u32 {
        *self.index.entry(region.id).or_insert_with(|| {
            self.regions.push(Arc::clone(region));
            self.regions.len() as u32 - 1
        })
    }

    /// Empties all lists, keeping their memory.
    pub fn clear(&mut self) {
        self.index.clear();
        self.regions.clear();
        self.spans.clear();
        self.gates.clear();
        self.expiry = Time::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::{RegionKey, Registry, Rights};

    #[test]
    fn a_landing_names_each_region_once_in_whatever_order_spans_come() {
        let registry = Registry::new();
        let regions: Vec<Arc<Region>> = (0..100)
            .map(|index| {
                let memory = Arc::new(HostMemory::new(0x1000 * (1 + index), 64).unwrap());
                registry.register(memory, Rights::empty(), RegionKey::new([1; 16])).unwrap()
            })
            .collect();
        let mut landing = Landing::default();
        for round in 0..3 {
            landing.clear();
            // 37 and 100 have no common factor: every region is met four times, apart.
            let order: Vec<usize> = (0..400).map(|i| (i * 37 + round) % 100).collect();
            for index in &order {
                landing.push(&regions[*index], *index as u64, 1);
            }
            assert_eq!(landing.regions.len(), 100);
            for (index, span) in order.iter().zip(&landing.spans) {
                assert!(Arc::ptr_eq(&landing.regions[span.region as usize], &regions[*index]));
                assert_eq!(span.offset, *index as u64);
            }
        }
    }
}
