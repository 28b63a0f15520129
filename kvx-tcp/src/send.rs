//! The sending half of a lane: asks the host for frames, and gathers each from registered memory
//! into the socket. Not which frames, nor in what order.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use kvx_core::error::LaneError;
use kvx_core::region::{Leases, Region};
use kvx_core::transport::{Access, AnswerFrame, LocalSpan, OutFrame, PlannedFrame};
use kvx_core::wire::frame::RawSpan;
use kvx_core::wire::{FrameHeader, WireSpan};
use kvx_io::{LaneState, Places, SendHalf, Sent};
use zerocopy::IntoBytes;

use crate::sys;

/// Frames without payload are gathered before the next frame with payload, or until they are this
/// long, and leave in one call with it.
const PREFIX_FULL: usize = 16 << 10;

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    /// `None` once the lane has ended.
    socket: Option<Arc<OwnedFd>>,
    /// Headers and tables: of any number of frames without payload, then of at most one with.
    /// `prefix[..sent]` is the kernel's, `prefix[sent..ready]` may go, and what lies beyond is of
    /// a frame that waits for staging memory. `0 <= sent <= ready <= prefix.len()`.
    prefix: Vec<u8>,
    sent: usize,
    ready: usize,
    /// The last attempt to send found no room.
    was_full: bool,
    stage: Stage,
    /// The regions and spans of the frame with payload; empty when there is none.
    regions: Vec<Arc<Region>>,
    spans: Vec<LocalSpan>,
    places: Places,
    /// While a planned frame is taken up: for each of the plan's local regions, 1 + its index in
    /// `regions`, or 0.
    known: Vec<u32>,
}

/// How far the frame with payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// There is none.
    Empty,
    /// Waits for staging memory; no byte of it was sent.
    Staging,
    /// On its way.
    Sending,
    /// All of it was sent; staging memory is given back.
    Releasing,
}

impl SendHalf for Sender {
    fn turn(&mut self, lane: &LaneState, left: &mut usize) -> Result<Sent, LaneError> {
        while lane.ending().is_none() {
            match self.stage {
                Stage::Empty if self.sent < self.ready => {}
                Stage::Empty => {
                    if !self.fetch(lane)? {
                        return Ok(Sent::Done);
                    }
                    continue;
                }
                // What went before the frame need not wait with it.
                Stage::Staging => {
                    if self.poll_stage(lane)?.is_pending() && self.sent == self.ready {
                        return Ok(Sent::Done);
                    }
                }
                Stage::Sending => {}
                Stage::Releasing => {
                    if self.poll_release(lane).is_pending() {
                        return Ok(Sent::Done);
                    }
                    continue;
                }
            }
            if *left == 0 {
                return Ok(Sent::More);
            }
            if !self.send(lane, left)? {
                return Ok(Sent::Done);
            }
        }
        Ok(Sent::Done)
    }

    fn end(&mut self) {
        self.socket = None;
        self.release();
        self.prefix = Vec::new();
        (self.sent, self.ready) = (0, 0);
    }
}

impl Sender {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self {
            socket: Some(socket),
            prefix: Vec::new(),
            sent: 0,
            ready: 0,
            was_full: false,
            stage: Stage::Empty,
            regions: Vec::new(),
            spans: Vec::new(),
            places: Places::default(),
            known: Vec::new(),
        }
    }

    /// One system call. `false` if the socket takes no more for now.
    fn send(&mut self, lane: &LaneState, left: &mut usize) -> Result<bool, LaneError> {
        let Some(socket) = &self.socket else {
            return Ok(false);
        };
        let prefix = self.prefix.get(self.sent..self.ready).unwrap_or_default();
        let (regions, places) = match self.stage {
            Stage::Sending => (self.regions.as_slice(), self.places.rest()),
            _ => Default::default(),
        };
        // The rest of a frame cannot be withheld from a stream that goes on: a source that was
        // deregistered ends the lane. The transfer finds another.
        let held = Leases::enter(regions.iter().map(|region| &region.gate))
            .map_err(|_| LaneError::SourceGone)?;
        let result = sys::gather(socket.as_fd(), &held, prefix, places, *left);
        drop(held);

        let bytes = match result {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.was_full = true;
                lane.is_full();
                return Ok(false);
            }
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                return Err(LaneError::SourceGone);
            }
            Err(error) => return Err(Arc::new(error).into()),
        };
        if mem::take(&mut self.was_full) {
            lane.has_taken();
        }
        lane.sent().call(bytes);
        *left = left.saturating_sub(bytes);
        let of_prefix = bytes.min(prefix.len());
        self.sent += of_prefix;
        self.places.advance((bytes - of_prefix) as u64);
        if self.stage == Stage::Sending && self.places.left() == 0 && self.sent == self.ready {
            self.stage = Stage::Releasing;
        }
        // Not blocked, however short: a call that met unmapped memory halfway is short as well,
        // and no edge follows it. Only EAGAIN says that one will.
        Ok(true)
    }

    /// Takes up the host's next frames. `false` if there are none.
    fn fetch(&mut self, lane: &LaneState) -> Result<bool, LaneError> {
        self.prefix.clear();
        self.sent = 0;
        self.ready = 0;
        if self.socket.is_none() {
            return Ok(false);
        }
        while self.stage == Stage::Empty && self.prefix.len() < PREFIX_FULL {
            let Some(frame) = lane.host().next_frame(lane.id()) else {
                break;
            };
            lane.sent().frame();
            self.load(frame)?;
            if self.stage != Stage::Staging {
                self.ready = self.prefix.len();
            }
        }
        Ok(self.sent < self.ready || self.stage == Stage::Staging)
    }

    fn load(&mut self, frame: OutFrame) -> Result<(), LaneError> {
        match frame {
            OutFrame::Ack(header) => {
                self.prefix.extend_from_slice(&header.encode());
                Ok(())
            }
            OutFrame::ReadRequest(frame) => self.load_planned(&frame, false),
            OutFrame::Write(frame) => {
                self.load_planned(&frame, true)?;
                self.load_payload(&frame.header)
            }
            OutFrame::ReadData(AnswerFrame { header, regions, spans }) => {
                self.prefix.extend_from_slice(&header.encode());
                self.regions = regions;
                self.spans = spans;
                self.load_payload(&header)
            }
        }
    }

    /// Header and table of a planned frame, and, if its payload goes along, regions and spans.
    fn load_planned(&mut self, frame: &PlannedFrame, payload: bool) -> Result<(), LaneError> {
        let header = &frame.header;
        self.prefix.extend_from_slice(&header.encode());
        self.known.clear();
        self.known.resize(frame.local.len(), 0);
        let first = header.first_run as usize;
        for index in first..first.saturating_add(header.runs as usize) {
            if index >= frame.plan.len() {
                return Err(bad_frame());
            }
            let run = frame.plan.run(index);
            let remote = frame.slots.get(run.remote as usize);
            let entry = RawSpan::from(WireSpan {
                slot: *remote.ok_or_else(bad_frame)?,
                len: run.len,
                offset: run.remote_offset,
            });
            self.prefix.extend_from_slice(entry.as_bytes());
            if payload {
                let region = self.know(frame, run.local)?;
                self.spans.push(LocalSpan { region, len: run.len, offset: run.local_offset });
            }
        }
        Ok(())
    }

    /// The index in `regions` of the plan's local region `local`, which joins them if it is new.
    fn know(&mut self, frame: &PlannedFrame, local: u32) -> Result<u32, LaneError> {
        let known = self.known.get_mut(local as usize).ok_or_else(bad_frame)?;
        if *known == 0 {
            let region = frame.local.get(local as usize).ok_or_else(bad_frame)?;
            self.regions.push(Arc::clone(region));
            *known = self.regions.len() as u32;
        }
        Ok(*known - 1)
    }

    fn load_payload(&mut self, header: &FrameHeader) -> Result<(), LaneError> {
        self.places
            .fill(&self.regions, &self.spans, header.payload_len.into())
            .map_err(|_| bad_frame())?;
        self.stage = if self.places.is_staged() { Stage::Staging } else { Stage::Sending };
        Ok(())
    }

    /// Asks for the staging memory of the frame. The leases are held while a provider is asked; a
    /// copy of its own that goes on afterwards is its own to guard.
    fn poll_stage(&mut self, lane: &LaneState) -> Result<Poll<()>, LaneError> {
        let held = Leases::enter(self.regions.iter().map(|region| &region.gate))
            .map_err(|_| LaneError::SourceGone)?;
        let waker = lane.waker();
        let mut cx = Context::from_waker(&waker);
        let polled = self.places.poll_stage(Access::Gather, &self.regions, &mut cx);
        drop(held);
        if polled.map_err(|_| LaneError::SourceGone)?.is_pending() {
            return Ok(Poll::Pending);
        }
        self.ready = self.prefix.len();
        self.stage = Stage::Sending;
        Ok(Poll::Ready(()))
    }

    /// Gives staging memory back. A refusal has nothing to say any more: the bytes are sent.
    fn poll_release(&mut self, lane: &LaneState) -> Poll<()> {
        if self.places.is_staged() {
            let waker = lane.waker();
            let mut cx = Context::from_waker(&waker);
            if self.places.poll_commit(&mut cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.release();
        Poll::Ready(())
    }

    /// Lets go of the frame with payload.
    fn release(&mut self) {
        self.stage = Stage::Empty;
        self.places.clear();
        self.regions.clear();
        self.spans.clear();
    }
}

/// The host gave a frame whose parts contradict each other. It cannot be sent, nor be left out.
fn bad_frame() -> LaneError {
    let error =
        io::Error::new(io::ErrorKind::InvalidInput, "a frame's spans do not fit its header");
    Arc::new(error).into()
}
