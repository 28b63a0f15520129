//! The receiving half of a lane: parses frames, asks the host where their payload may land, and
//! scatters it from the socket into registered memory. Not who may write where.
//!
//! Header and table are read into buffers of the lane, exactly: what follows them is payload, and
//! must not come to lie in a buffer, from which only this process's own stores could move it. So
//! a frame costs a call for its table and one or more for its payload, the last of which brings
//! the next frame's header along.
//!
//! # When the socket is empty
//! Its events come once, at the edge: a half that stops before the socket is exhausted must know.
//! Mostly the socket tells ([`sys::tell_rest`]). Else a read of fewer bytes than were wanted has
//! exhausted it, epoll(7), and the next byte is an edge; but the end of the stream is no byte, and
//! its edge may have been before, and a short read into registered memory may have met memory that
//! is unmapped.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;

use kvx_core::error::{LaneError, Refusal, Violation};
use kvx_core::wire::frame::{RawSpan, decode_table};
use kvx_core::wire::{FRAME_HEADER_LEN, FrameHeader, FrameKind, WireSpan};
use kvx_io::{Arrival, Incoming, LaneState, ReceiveHalf, Received};
use zerocopy::IntoBytes;

use crate::sys::{self, Arrived};

/// The receiving half.
#[derive(Debug)]
pub(crate) struct Receiver {
    /// `None` once the lane has ended.
    socket: Option<Arc<OwnedFd>>,
    stage: Stage,
    /// The header that is due, or arrived early: its first `have` bytes.
    head: [u8; FRAME_HEADER_LEN],
    /// At most `FRAME_HEADER_LEN`.
    have: usize,
    /// The table of the frame, and the bytes of it that have arrived.
    table: Vec<RawSpan>,
    table_have: usize,
    /// The same, decoded.
    spans: Vec<WireSpan>,
    incoming: Incoming,
    /// The last read, in this turn, has exhausted the socket.
    exhausted: bool,
}

/// What is due next.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// A frame's header.
    Header,
    /// Its table.
    Table(FrameHeader),
    /// Staging memory for its payload.
    Staging(FrameHeader),
    /// Its payload.
    Payload(FrameHeader),
    /// The staging memory's way into the regions.
    Committing(FrameHeader),
    /// As many bytes that land nowhere.
    Discard(u64),
}

/// What a step came to.
enum Step {
    /// As many bytes were taken from the socket, or something else has changed.
    Took(usize),
    /// The socket is empty, or memory is not ready: an event or a ring of the bell follows.
    Wait,
}

impl ReceiveHalf for Receiver {
    fn turn(
        &mut self,
        lane: &LaneState,
        left: &mut usize,
        received: &mut Received,
    ) -> Result<(), LaneError> {
        let Some(socket) = self.socket.clone() else {
            return Ok(());
        };
        self.exhausted = false;
        while lane.ending().is_none() {
            // What needs no read is done first: of a frame that lies here whole no event tells.
            if *left == 0 && self.reads() {
                received.more = true;
                break;
            }
            let step = self.step(lane, &socket, *left, &mut received.frames)?;
            // A frame that is passed over is dealt with: its ACK is due, whatever part of it the
            // host turned down, and in whatever turn.
            received.frames |= matches!(self.stage, Stage::Discard(_));
            match step {
                Step::Took(bytes) => *left = left.saturating_sub(bytes),
                Step::Wait => break,
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.socket = None;
        self.leave(Stage::Header);
        self.table = Vec::new();
        self.spans = Vec::new();
    }
}

impl Receiver {
    pub(crate) fn new(socket: Arc<OwnedFd>) -> Self {
        Self {
            socket: Some(socket),
            stage: Stage::Header,
            head: [0; FRAME_HEADER_LEN],
            have: 0,
            table: Vec::new(),
            table_have: 0,
            spans: Vec::new(),
            incoming: Incoming::default(),
            exhausted: false,
        }
    }

    fn step(
        &mut self,
        lane: &LaneState,
        socket: &OwnedFd,
        limit: usize,
        frames: &mut bool,
    ) -> Result<Step, LaneError> {
        if self.reads() && self.exhausted {
            return Ok(Step::Wait);
        }
        match self.stage {
            Stage::Header if self.have < self.head.len() => self.read_header(lane, socket),
            Stage::Header => {
                *frames = true;
                self.begin(lane)
            }
            Stage::Table(header) if self.table_have < header.table_len() => {
                self.read_table(lane, socket, header)
            }
            Stage::Table(header) => self.arrive(lane, header),
            Stage::Staging(header) => Ok(self.stage_memory(lane, header)),
            Stage::Payload(header) if self.incoming.places.left() > 0 => {
                self.scatter(lane, socket, header, limit)
            }
            Stage::Payload(header) => {
                self.stage = Stage::Committing(header);
                Ok(Step::Took(0))
            }
            Stage::Committing(header) => {
                *frames = true;
                Ok(self.commit(lane, header))
            }
            Stage::Discard(0) => {
                self.stage = Stage::Header;
                Ok(Step::Took(0))
            }
            Stage::Discard(rest) => self.discard(lane, socket, rest, limit),
        }
    }

    /// Whether the next step reads from the socket.
    fn reads(&self) -> bool {
        match self.stage {
            Stage::Header => self.have < self.head.len(),
            Stage::Table(header) => self.table_have < header.table_len(),
            Stage::Payload(_) => self.incoming.places.left() > 0,
            Stage::Discard(rest) => rest > 0,
            Stage::Staging(_) | Stage::Committing(_) => false,
        }
    }

    fn read_header(&mut self, lane: &LaneState, socket: &OwnedFd) -> Result<Step, LaneError> {
        let room = self.head.get_mut(self.have..).unwrap_or_default();
        let Some(bytes) = read(lane, socket, room, &mut self.exhausted)? else {
            return Ok(Step::Wait);
        };
        if bytes == 0 {
            let clean = self.have == 0;
            return Err(if clean { LaneError::Closed } else { cut_off() });
        }
        lane.received().call(bytes);
        self.have += bytes;
        Ok(Step::Took(bytes))
    }

    fn read_table(
        &mut self,
        lane: &LaneState,
        socket: &OwnedFd,
        header: FrameHeader,
    ) -> Result<Step, LaneError> {
        let table = self.table.as_mut_bytes();
        let room = table.get_mut(self.table_have..header.table_len()).unwrap_or_default();
        let Some(bytes) = read(lane, socket, room, &mut self.exhausted)? else {
            return Ok(Step::Wait);
        };
        if bytes == 0 {
            return Err(cut_off());
        }
        lane.received().call(bytes);
        self.table_have += bytes;
        Ok(Step::Took(bytes))
    }

    /// The header is complete.
    fn begin(&mut self, lane: &LaneState) -> Result<Step, LaneError> {
        lane.received().frame();
        self.have = 0;
        let header = FrameHeader::decode(&self.head).map_err(Violation::from)?;
        if header.kind == FrameKind::Ack {
            lane.host().acknowledged(lane.id(), &header)?;
            return Ok(Step::Took(0));
        }
        let entries = header.table_entries();
        self.table.clear();
        self.table_have = 0;
        self.table.try_reserve(entries).map_err(|_| out_of_memory())?;
        self.table.resize(entries, RawSpan::default());
        self.stage = Stage::Table(header);
        Ok(Step::Took(0))
    }

    /// Header and table are complete: the host decides.
    fn arrive(&mut self, lane: &LaneState, header: FrameHeader) -> Result<Step, LaneError> {
        decode_table(&header, &self.table, &mut self.spans).map_err(Violation::from)?;
        let len = u64::from(header.payload_len);
        match self.incoming.arrive(lane, &header, &self.spans)? {
            Arrival::Discarded => self.stage = Stage::Discard(len),
            Arrival::Refused(refusal) => self.refuse(lane, header, refusal, len),
            Arrival::Admitted if self.incoming.places.is_staged() => {
                self.stage = Stage::Staging(header);
            }
            Arrival::Admitted => self.stage = Stage::Payload(header),
        }
        Ok(Step::Took(0))
    }

    fn stage_memory(&mut self, lane: &LaneState, header: FrameHeader) -> Step {
        match self.incoming.poll_stage(lane) {
            Poll::Pending => return Step::Wait,
            Poll::Ready(Ok(())) => self.stage = Stage::Payload(header),
            Poll::Ready(Err(refusal)) => {
                self.refuse(lane, header, refusal, self.incoming.places.left());
            }
        }
        Step::Took(0)
    }

    /// One call into registered memory, and into the next header if the payload ends.
    fn scatter(
        &mut self,
        lane: &LaneState,
        socket: &OwnedFd,
        header: FrameHeader,
        limit: usize,
    ) -> Result<Step, LaneError> {
        let left = self.incoming.places.left();
        let result = self.incoming.admit(lane.host()).map(|held| {
            sys::scatter(socket.as_fd(), &held, self.incoming.places.rest(), &mut self.head, limit)
        });
        let result = match result {
            Ok(result) => result,
            Err(refusal) => {
                self.refuse(lane, header, refusal, left);
                return Ok(Step::Took(0));
            }
        };
        match result {
            Ok(Arrived { bytes: 0, .. }) => Err(cut_off()),
            Ok(Arrived { bytes, last }) => {
                lane.received().call(bytes);
                let landed = (bytes as u64).min(left);
                self.incoming.places.advance(landed);
                self.have = bytes - landed as usize;
                // No more is made of a short read: it may have met unmapped memory halfway, and the
                // next one says.
                self.exhausted = last && !lane.ends();
                Ok(Step::Took(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait),
            Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {
                self.refuse(lane, header, Refusal::MemoryFault, left);
                Ok(Step::Took(0))
            }
            Err(error) => Err(Arc::new(error).into()),
        }
    }

    /// All of the payload has been read.
    fn commit(&mut self, lane: &LaneState, header: FrameHeader) -> Step {
        match self.incoming.poll_commit(lane) {
            Poll::Pending => return Step::Wait,
            Poll::Ready(Ok(())) => {
                self.leave(Stage::Header);
                lane.host().frame_finished(lane.id(), &header, Ok(()));
            }
            Poll::Ready(Err(refusal)) => self.refuse(lane, header, refusal, 0),
        }
        Step::Took(0)
    }

    /// Nothing more of the frame lands: the host hears at once, and the `rest` of the payload,
    /// which is still to come, is dropped.
    fn refuse(&mut self, lane: &LaneState, header: FrameHeader, refusal: Refusal, rest: u64) {
        self.leave(Stage::Discard(rest));
        lane.host().frame_finished(lane.id(), &header, Err(refusal));
    }

    /// Lets go of the frame's memory.
    fn leave(&mut self, next: Stage) {
        self.stage = next;
        self.incoming.clear();
    }

    fn discard(
        &mut self,
        lane: &LaneState,
        socket: &OwnedFd,
        rest: u64,
        limit: usize,
    ) -> Result<Step, LaneError> {
        let len = usize::try_from(rest).unwrap_or(usize::MAX).min(limit);
        match sys::discard(socket.as_fd(), len) {
            Ok(0) => Err(cut_off()),
            Ok(bytes) => {
                lane.received().call(bytes);
                self.stage = Stage::Discard(rest.saturating_sub(bytes as u64));
                Ok(Step::Took(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Step::Wait),
            Err(error) => Err(Arc::new(error).into()),
        }
    }
}

/// Reads into a buffer of this process; `None` if nothing has arrived. Notes whether the socket is
/// exhausted now.
fn read(
    lane: &LaneState,
    socket: &OwnedFd,
    buffer: &mut [u8],
    exhausted: &mut bool,
) -> Result<Option<usize>, LaneError> {
    let wanted = buffer.len();
    match sys::read(socket.as_fd(), buffer) {
        Ok(Arrived { bytes, last }) => {
            *exhausted = (last || bytes < wanted) && !lane.ends();
            Ok(Some(bytes))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(Arc::new(error).into()),
    }
}

/// The stream ended inside a frame.
fn cut_off() -> LaneError {
    let error =
        io::Error::new(io::ErrorKind::UnexpectedEof, "the peer ended the lane inside a frame");
    Arc::new(error).into()
}

fn out_of_memory() -> LaneError {
    Arc::new(io::Error::from(io::ErrorKind::OutOfMemory)).into()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::atomic::{AtomicU64, Ordering};

    use kvx_core::id::LaneId;
    use kvx_core::time::Time;
    use kvx_core::transport::{Admission, Landing, LaneHost, OutFrame};

    use super::*;

    /// Counts the frames that it is told were dealt with.
    #[derive(Default)]
    struct Acknowledged(AtomicU64);

    impl LaneHost for Acknowledged {
        fn now(&self) -> Time {
            Time::ZERO
        }

        fn next_frame(&self, _: LaneId) -> Option<OutFrame> {
            None
        }

        fn frame_arrived(
            &self,
            _: LaneId,
            _: &FrameHeader,
            _: &[WireSpan],
            _: &mut Landing,
        ) -> Result<Admission, Violation> {
            Ok(Admission::Discard)
        }

        fn frame_finished(&self, _: LaneId, _: &FrameHeader, _: Result<(), Refusal>) {}

        fn acknowledged(&self, _: LaneId, ack: &FrameHeader) -> Result<(), Violation> {
            self.0.store(ack.processed, Ordering::Relaxed);
            Ok(())
        }

        fn closed(&self, _: LaneId, _: LaneError) {}
    }

    #[test]
    fn a_frame_that_is_read_whole_is_dealt_with_though_the_turn_is_over() {
        let (mut peer, ours) = UnixStream::pair().unwrap();
        for processed in 1..=3 {
            peer.write_all(&FrameHeader::ack(processed, 0).encode()).unwrap();
        }
        let host = Arc::new(Acknowledged::default());
        let socket = Arc::new(OwnedFd::from(ours));
        let lane = LaneState::unserved(LaneId(1), Arc::clone(&host) as _, &socket).unwrap();
        let mut receiver = Receiver::new(socket);
        for turn in 1..=2 {
            // As much as one frame: nothing is left of it when the frame has been read.
            let (mut left, mut received) = (FRAME_HEADER_LEN, Received::default());
            receiver.turn(&lane, &mut left, &mut received).unwrap();
            assert_eq!(host.0.load(Ordering::Relaxed), turn);
            assert!(received.more, "there are more");
        }
    }
}
