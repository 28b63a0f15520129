//! The sending half of a lane: asks the host for frames, and gathers each from registered memory
//! into the socket. Not which frames, nor in what order.

use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll};

use kvx_core::error::LaneError;
use kvx_core::region::Leases;
use kvx_core::transport::OutFrame;
use kvx_io::{LaneState, Outgoing, SendHalf, Sent};

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
    /// The payload of the frame that has one; empty when there is none.
    outgoing: Outgoing,
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
            outgoing: Outgoing::default(),
        }
    }

    /// One system call. `false` if the socket takes no more for now.
    fn send(&mut self, lane: &LaneState, left: &mut usize) -> Result<bool, LaneError> {
        let Some(socket) = &self.socket else {
            return Ok(false);
        };
        let prefix = self.prefix.get(self.sent..self.ready).unwrap_or_default();
        let (regions, places) = match self.stage {
            Stage::Sending => (self.outgoing.regions(), self.outgoing.places.rest()),
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
        self.outgoing.places.advance((bytes - of_prefix) as u64);
        let unsent = self.outgoing.places.left();
        if self.stage == Stage::Sending && unsent == 0 && self.sent == self.ready {
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
        let prefix = &mut self.prefix;
        self.outgoing.load(frame, |bytes| prefix.extend_from_slice(bytes))?;
        let places = &self.outgoing.places;
        if places.is_staged() {
            self.stage = Stage::Staging;
        } else if places.left() > 0 {
            self.stage = Stage::Sending;
        }
        Ok(())
    }

    /// Asks for the staging memory of the frame.
    fn poll_stage(&mut self, lane: &LaneState) -> Result<Poll<()>, LaneError> {
        if self.outgoing.poll_stage(lane)?.is_pending() {
            return Ok(Poll::Pending);
        }
        self.ready = self.prefix.len();
        self.stage = Stage::Sending;
        Ok(Poll::Ready(()))
    }

    /// Gives staging memory back. A refusal has nothing to say any more: the bytes are sent.
    fn poll_release(&mut self, lane: &LaneState) -> Poll<()> {
        let places = &mut self.outgoing.places;
        if places.is_staged() {
            let waker = lane.waker();
            let mut cx = Context::from_waker(&waker);
            if places.poll_commit(&mut cx).is_pending() {
                return Poll::Pending;
            }
        }
        self.release();
        Poll::Ready(())
    }

    /// Lets go of the frame with payload.
    fn release(&mut self) {
        self.stage = Stage::Empty;
        self.outgoing.clear();
    }
}
