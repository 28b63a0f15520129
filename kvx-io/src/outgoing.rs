//! A frame on its way out: its header and table as bytes, and where its payload lies. Not how either
//! is sent.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use kvx_core::error::LaneError;
use kvx_core::region::{Leases, Region};
use kvx_core::transport::{Access, AnswerFrame, HostSpan, LocalSpan, OutFrame, PlannedFrame};
use kvx_core::wire::frame::RawSpan;
use kvx_core::wire::{FrameHeader, WireSpan};
use zerocopy::IntoBytes;

use crate::lane::LaneState;
use crate::places::Places;

/// The payload of the frame at hand. Kept by a lane and filled anew for each.
#[derive(Debug, Default)]
pub struct Outgoing {
    regions: Vec<Arc<Region>>,
    spans: Vec<LocalSpan>,
    /// Where the bytes lie; none where the frame has no payload.
    pub places: Places,
    /// While a planned frame is taken up: for each of the plan's local regions, 1 + its index in
    /// `regions`, or 0.
    known: Vec<u32>,
}

impl Outgoing {
    /// Takes up a frame, and gives `write` its header and then each entry of its table.
    ///
    /// # Errors
    /// Its parts contradict each other.
    pub fn load(&mut self, frame: OutFrame, mut write: impl FnMut(&[u8])) -> Result<(), LaneError> {
        self.clear();
        match frame {
            OutFrame::Ack(header) => {
                write(&header.encode());
                Ok(())
            }
            OutFrame::ReadRequest(frame) => self.load_planned(&frame, false, write),
            OutFrame::Write(frame) => {
                self.load_planned(&frame, true, write)?;
                self.load_payload(&frame.header)
            }
            OutFrame::ReadData(AnswerFrame { header, regions, spans }) => {
                write(&header.encode());
                self.regions = regions;
                self.spans = spans;
                self.load_payload(&header)
            }
        }
    }

    /// The regions of the payload, each once.
    pub fn regions(&self) -> &[Arc<Region>] {
        &self.regions
    }

    /// Where the bytes of the payload lie, each place with the index in [`Self::regions`] of its
    /// region; once staging memory is there, if any is needed.
    pub fn sources(&self) -> impl Iterator<Item = (HostSpan, usize)> {
        let regions = self.spans.iter().map(|span| span.region as usize);
        self.places.rest().iter().copied().zip(regions)
    }

    /// Asks for the staging memory of the payload. The leases are held while a provider is asked; a
    /// copy of its own that goes on afterwards is its own to guard.
    ///
    /// # Errors
    /// A region was deregistered, or its memory cannot be had.
    pub fn poll_stage(&mut self, lane: &LaneState) -> Result<Poll<()>, LaneError> {
        let held = Leases::enter(self.regions.iter().map(|region| &region.gate))
            .map_err(|_| LaneError::SourceGone)?;
        let waker = lane.waker();
        let mut cx = Context::from_waker(&waker);
        let polled = self.places.poll_stage(Access::Gather, &self.regions, &mut cx);
        drop(held);
        Ok(polled.map_err(|_| LaneError::SourceGone)?)
    }

    /// Lets go of everything.
    pub fn clear(&mut self) {
        self.places.clear();
        self.regions.clear();
        self.spans.clear();
    }

    /// Header and table of a planned frame, and, if its payload goes along, regions and spans.
    fn load_planned(
        &mut self,
        frame: &PlannedFrame,
        payload: bool,
        mut write: impl FnMut(&[u8]),
    ) -> Result<(), LaneError> {
        let header = &frame.header;
        write(&header.encode());
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
            write(entry.as_bytes());
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
        let len = header.payload_len.into();
        self.places.fill(&self.regions, &self.spans, len).map_err(|_| bad_frame())
    }
}

/// The host gave a frame whose parts contradict each other. It cannot be sent, nor be left out.
fn bad_frame() -> LaneError {
    let error =
        io::Error::new(io::ErrorKind::InvalidInput, "a frame's spans do not fit its header");
    Arc::new(error).into()
}
