//! A simulated lane: frames as bytes, gathered from and scattered into simulated memory in steps
//! that stand for system calls, as kvx-tcp does it. Not the network between the two halves.

use std::collections::VecDeque;
use std::sync::Arc;

use zerocopy::IntoBytes;

use crate::error::{LaneError, Refusal, Violation};
use crate::region::{Leases, Region};
use crate::time::Time;
use crate::transport::{Admission, Landing, LocalSpan, OutFrame};
use crate::wire::frame::{RawSpan, decode_table};
use crate::wire::{FRAME_HEADER_LEN, FrameHeader, FrameKind, WireSpan};

/// What a lane's receiving half needs of the world: [`crate::transport::LaneHost`], a socket, and
/// memory.
pub(crate) trait Place {
    fn now(&self) -> Time;

    /// Takes at most `limit` bytes from the socket.
    fn receive(&mut self, limit: usize) -> Vec<u8>;

    fn frame_arrived(
        &mut self,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation>;

    fn frame_finished(&mut self, header: &FrameHeader, outcome: Result<(), Refusal>);

    fn acknowledged(&mut self, ack: &FrameHeader) -> Result<(), Violation>;

    /// A system call that scatters begins: its leases are held until [`Place::scatter`] was called
    /// for all of its bytes. Other things may happen meanwhile.
    ///
    /// # Errors
    /// The call fails, and nothing of the frame lands any more.
    fn call_begins(&mut self, header: &FrameHeader, landing: &Landing) -> Result<(), Refusal>;

    /// Bytes of the call land.
    fn scatter(&mut self, header: &FrameHeader, region: &Arc<Region>, offset: u64, bytes: &[u8]);
}

/// The receiving half.
#[derive(Debug, Default)]
pub(crate) struct LaneReceiver {
    stage: Stage,
    /// Bytes of a header or table that is not complete.
    held: Vec<u8>,
    spans: Vec<WireSpan>,
    landing: Landing,
    /// The place of the payload's next byte: index of the span, bytes of it that are there.
    at: (usize, usize),
}

#[derive(Clone, Copy, Debug, Default)]
enum Stage {
    #[default]
    Header,
    Table(FrameHeader),
    Payload(FrameHeader, usize),
    Discard(usize),
}

impl LaneReceiver {
    /// Does one step, at most one system call of at most `limit` bytes. `false`: the socket is
    /// empty.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub(crate) fn step(&mut self, place: &mut impl Place, limit: usize) -> Result<bool, Violation> {
        match self.stage {
            Stage::Header => {
                if !self.fill(place, FRAME_HEADER_LEN) {
                    return Ok(false);
                }
                let mut bytes = [0; FRAME_HEADER_LEN];
                bytes.copy_from_slice(&self.held);
                self.held.clear();
                let header = FrameHeader::decode(&bytes)?;
                if header.kind == FrameKind::Ack {
                    place.acknowledged(&header)?;
                } else {
                    self.stage = Stage::Table(header);
                }
            }
            Stage::Table(header) => {
                if !self.fill(place, header.table_len()) {
                    return Ok(false);
                }
                self.arrive(place, header)?;
            }
            Stage::Payload(header, 0) => {
                self.stage = Stage::Header;
                self.landing.clear();
                place.frame_finished(&header, Ok(()));
            }
            Stage::Payload(header, left) => return Ok(self.scatter(place, header, left, limit)),
            Stage::Discard(0) => self.stage = Stage::Header,
            Stage::Discard(left) => {
                let bytes = place.receive(left.min(limit));
                self.stage = Stage::Discard(left - bytes.len());
                return Ok(!bytes.is_empty());
            }
        }
        Ok(true)
    }

    /// Whether a frame has begun to come and is not dealt with.
    pub(crate) fn is_within_a_frame(&self) -> bool {
        !matches!(self.stage, Stage::Header) || !self.held.is_empty()
    }

    fn fill(&mut self, place: &mut impl Place, len: usize) -> bool {
        let bytes = place.receive(len - self.held.len());
        self.held.extend_from_slice(&bytes);
        self.held.len() == len
    }

    fn arrive(&mut self, place: &mut impl Place, header: FrameHeader) -> Result<(), Violation> {
        let mut table = vec![RawSpan::default(); header.table_entries()];
        table.as_mut_bytes().copy_from_slice(&self.held);
        self.held.clear();
        decode_table(&header, &table, &mut self.spans)?;
        let len = header.payload_len as usize;
        let admission = place.frame_arrived(&header, &self.spans, &mut self.landing)?;
        self.at = (0, 0);
        self.stage = match admission {
            Admission::Land => {
                let places: usize = self.landing.spans.iter().map(|span| span.len as usize).sum();
                assert_eq!(places, len, "the landing's places are not the payload's length");
                Stage::Payload(header, len)
            }
            Admission::Discard => Stage::Discard(len),
        };
        Ok(())
    }

    /// One system call: leases on everything, then the look at the clock, then the bytes.
    fn scatter(
        &mut self,
        place: &mut impl Place,
        header: FrameHeader,
        left: usize,
        limit: usize,
    ) -> bool {
        let landing = std::mem::take(&mut self.landing);
        let held = match admit(&landing, place.now()) {
            Ok(held) => held,
            Err(refusal) => {
                self.stage = Stage::Discard(left);
                place.frame_finished(&header, Err(refusal));
                return true;
            }
        };
        let bytes = place.receive(left.min(limit));
        if !bytes.is_empty()
            && let Err(refusal) = place.call_begins(&header, &landing)
        {
            drop(held);
            self.stage = Stage::Discard(left - bytes.len());
            place.frame_finished(&header, Err(refusal));
            return true;
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (index, done) = self.at;
            let LocalSpan { region, len, offset } = landing.spans[index];
            let count = rest.len().min(len as usize - done);
            let (now, later) = rest.split_at(count);
            place.scatter(&header, &landing.regions[region as usize], offset + done as u64, now);
            let done = done + count;
            self.at = if done == len as usize { (index + 1, 0) } else { (index, done) };
            rest = later;
        }
        drop(held);
        self.landing = landing;
        self.stage = Stage::Payload(header, left - bytes.len());
        !bytes.is_empty()
    }
}

fn admit(landing: &Landing, now: Time) -> Result<Leases<'_>, Refusal> {
    let regions = landing.regions.iter().map(|region| &region.gate);
    let gates = landing.gates.iter().map(|gate| &**gate);
    let held = Leases::enter(regions.chain(gates)).map_err(|closed| {
        if closed.index < landing.regions.len() { Refusal::RegionClosed } else { Refusal::Fenced }
    })?;
    if now < landing.expiry { Ok(held) } else { Err(Refusal::Expired) }
}

/// The sending half.
#[derive(Debug, Default)]
pub(crate) struct LaneSender {
    /// Header and table of the frame at hand, as far as they are not sent.
    head: VecDeque<u8>,
    /// What is left of its payload.
    payload: VecDeque<(Arc<Region>, LocalSpan)>,
}

impl LaneSender {
    /// Whether a frame is in the middle.
    pub(crate) fn is_busy(&self) -> bool {
        !self.head.is_empty() || !self.payload.is_empty()
    }

    /// Takes a frame in hand. The last must be sent.
    pub(crate) fn begin(&mut self, frame: OutFrame) {
        assert!(!self.is_busy(), "a frame is in the middle");
        let header = match &frame {
            OutFrame::Ack(header) => *header,
            OutFrame::Write(frame) | OutFrame::ReadRequest(frame) => frame.header,
            OutFrame::ReadData(frame) => frame.header,
        };
        self.head.extend(header.encode());
        if let OutFrame::Write(frame) | OutFrame::ReadRequest(frame) = &frame {
            for index in header.first_run..header.first_run + header.runs {
                let run = frame.plan.run(index as usize);
                let slot = frame.slots[run.remote as usize];
                let span = WireSpan { slot, len: run.len, offset: run.remote_offset };
                self.head.extend(RawSpan::from(span).as_bytes());
                if header.kind == FrameKind::Write {
                    let region = Arc::clone(&frame.local[run.local as usize]);
                    let offset = run.local_offset;
                    self.payload.push_back((region, LocalSpan { region: 0, len: run.len, offset }));
                }
            }
        }
        if let OutFrame::ReadData(frame) = frame {
            let region = |span: &LocalSpan| Arc::clone(&frame.regions[span.region as usize]);
            self.payload.extend(frame.spans.iter().map(|span| (region(span), *span)));
        }
    }

    /// The next at most `limit` bytes of the frame: one system call. `read` looks into memory.
    ///
    /// # Errors
    /// A source region was deregistered.
    pub(crate) fn step(
        &mut self,
        limit: usize,
        read: impl Fn(&Region, LocalSpan) -> Vec<u8>,
    ) -> Result<Vec<u8>, LaneError> {
        let head = self.head.len().min(limit);
        let mut bytes: Vec<u8> = self.head.drain(..head).collect();
        while bytes.len() < limit {
            let Some((region, span)) = self.payload.front_mut() else { break };
            let len = (span.len as usize).min(limit - bytes.len()) as u32;
            {
                let _held = region.gate.enter().ok_or(LaneError::SourceGone)?;
                bytes.extend(read(region, LocalSpan { len, ..*span }));
            }
            span.offset += u64::from(len);
            span.len -= len;
            if span.len == 0 {
                self.payload.pop_front();
            }
        }
        Ok(bytes)
    }
}
