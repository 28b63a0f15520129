//! The puppet's frames: what arrives on a lane, and what of it lands, as a lane does it.

use std::sync::Arc;

use kvx_core::error::{Cause, LaneError, Refusal};
use kvx_core::id::LaneId;
use kvx_core::region::{Leases, Region};
use kvx_core::time::Time;
use kvx_core::transport::{Admission, Landing, LocalSpan, OutFrame};
use kvx_core::wire::{
    FRAME_HEADER_LEN, FrameFlags, FrameHeader, FrameKind, FrameRuns, RawSpan, WireSpan,
    decode_table,
};

use super::World;
use super::model;
use super::operation::Frame;

/// A frame that was admitted, and whose payload is coming in.
pub(super) struct Coming {
    header: FrameHeader,
    table: Vec<WireSpan>,
    landing: Landing,
    /// Bytes that have landed.
    done: usize,
}

impl World {
    /// A frame's header and table come.
    pub(super) fn frame(&mut self, lane: u8, frame: &Frame) -> Option<()> {
        let lane = self.lane(lane)?;
        if self.lanes[&lane].is_some() {
            return None;
        }
        let (header, raw) = self.parts(frame);
        let Ok(header) = FrameHeader::decode(&header.encode()) else {
            // So is the real lane's end.
            self.close(lane, LaneError::Closed);
            return Some(());
        };
        let mut table = Vec::new();
        decode_table(&header, &raw, &mut table).ok()?;
        let mut landing = Landing::default();
        let admitted = self.peer.handle_frame(self.now, lane, &header, &table, &mut landing);
        match admitted {
            Ok(Admission::Land) => {
                let coming = Coming { header, table, landing, done: 0 };
                self.may_land(&coming);
                let bytes = coming.landing.spans.iter().map(|span| u64::from(span.len)).sum();
                assert_eq!(u64::from(header.payload_len), bytes, "places are not the payload's");
                self.lanes.insert(lane, Some(coming));
            }
            Ok(Admission::Discard) => {}
            Err(violation) => self.peer.kill(Cause::PeerMisbehaved(violation)),
        }
        Some(())
    }

    /// The next bytes of a payload come: one system call of a lane.
    pub(super) fn land(&mut self, lane: u8, limit: usize) -> Option<()> {
        let lane = self.lane(lane)?;
        let mut coming = self.lanes.get_mut(&lane)?.take()?;
        if let Err(refusal) = self.admitted(&coming) {
            self.peer.handle_frame_finished(self.now, lane, &coming.header, Err(refusal));
            return Some(());
        }
        self.may_land(&coming);
        let mut left = limit + 1;
        let mut passed = 0;
        for span in &coming.landing.spans {
            let len = span.len as usize;
            let from = coming.done.saturating_sub(passed).min(len);
            let count = (len - from).min(left);
            let region = Arc::clone(&coming.landing.regions[span.region as usize]);
            self.put(&region, span.offset + from as u64, count);
            (coming.done, left) = (coming.done + count, left - count);
            passed += len;
        }
        if coming.done < coming.header.payload_len as usize {
            self.lanes.insert(lane, Some(coming));
            return Some(());
        }
        if coming.header.kind == FrameKind::Write {
            self.model.has_landed(&coming.header);
        }
        self.peer.handle_frame_finished(self.now, lane, &coming.header, Ok(()));
        Some(())
    }

    /// The leases, and then the clock, as a lane asks them.
    fn admitted(&self, coming: &Coming) -> Result<(), Refusal> {
        let Landing { regions, gates, expiry, .. } = &coming.landing;
        let all = regions.iter().map(|region| &region.gate).chain(gates.iter().map(|gate| &**gate));
        Leases::enter(all).map(drop).map_err(|closed| match closed.index < regions.len() {
            true => Refusal::RegionClosed,
            false => Refusal::Fenced,
        })?;
        if self.now < *expiry { Ok(()) } else { Err(Refusal::Expired) }
    }

    /// What is about to land must be allowed.
    fn may_land(&self, coming: &Coming) {
        let Coming { header, table, landing, .. } = coming;
        let place =
            |span: &LocalSpan| (landing.regions[span.region as usize].id, span.offset, span.len);
        let places: Vec<_> = landing.spans.iter().map(place).collect();
        if header.kind == FrameKind::ReadData {
            let range = header.first_run..header.first_run + header.runs;
            assert_eq!(self.asked.places(header.transfer, range), places);
            return;
        }
        assert!(self.model.allows(header, table, self.now), "{header:?} {table:?} lands");
        let named = table.iter().map(|span| (span.offset, span.len));
        assert!(named.eq(places.iter().map(|(_, offset, len)| (*offset, *len))));
    }

    fn put(&mut self, region: &Region, offset: u64, count: usize) {
        let place = self.model.place_of(region);
        let at = offset as usize;
        place.seen[at..at + count].fill(0x11);
        self.memory.bytes_mut(place.base + offset, count).fill(0x11);
    }

    pub(super) fn acknowledge(&mut self, lane: u8, processed: u64, refused: u64) -> Option<()> {
        let lane = self.lane(lane)?;
        let ack = FrameHeader::ack(processed, refused);
        let ack = FrameHeader::decode(&ack.encode()).ok()?;
        if let Err(violation) = self.peer.handle_ack(self.now, lane, &ack) {
            self.peer.kill(Cause::PeerMisbehaved(violation));
        }
        Some(())
    }

    /// Takes the next frame that the peer has for a lane: it must be one that a lane can send.
    pub(super) fn pull(&mut self, lane: u8) -> Option<()> {
        let lane: LaneId = self.lane(lane)?;
        let frame = self.peer.next_frame(self.now, lane)?;
        let header = match &frame {
            OutFrame::Ack(header) => *header,
            OutFrame::Write(frame) | OutFrame::ReadRequest(frame) => {
                let first = frame.header.first_run as usize;
                for run in frame.plan.runs(first..first + frame.header.runs as usize) {
                    assert!((run.remote as usize) < frame.slots.len(), "a run without a slot");
                    assert!((run.local as usize) < frame.local.len(), "a run without a region");
                }
                self.asked.handed_out(frame.header.transfer);
                frame.header
            }
            OutFrame::ReadData(frame) => {
                for span in &frame.spans {
                    let region = &frame.regions[span.region as usize];
                    assert!(self.model.may_read(region), "what nobody may read is sent");
                    assert!(span.offset + u64::from(span.len) <= model::LEN);
                }
                let bytes = frame.spans.iter().map(|span| u64::from(span.len)).sum::<u64>();
                assert_eq!(u64::from(frame.header.payload_len), bytes);
                frame.header
            }
        };
        let bytes: [u8; FRAME_HEADER_LEN] = header.encode();
        FrameHeader::decode(&bytes).expect("a header of ours");
        Some(())
    }

    /// A frame's header, with what counts its table put right.
    fn parts(&self, frame: &Frame) -> (FrameHeader, Vec<RawSpan>) {
        let kind = FrameKind::ALL[usize::from(frame.kind) % 4];
        let transfer = frame.transfer.id();
        let spans = frame.table.iter().take(16).map(|(slot, offset, len)| WireSpan {
            slot: model::slot(*slot),
            len: u32::from(len % 16) + 1,
            offset: (*offset).into(),
        });
        let table: Vec<WireSpan> = spans.collect();
        // Half of all frames are whole transfers.
        let few = |number: u8| u32::from(number.saturating_sub(128) % 16);
        let (first, count) = (few(frame.first_run), table.len().max(1) as u32);
        let total = first + count + few(frame.more_runs);
        let runs = FrameRuns { first, count, total };
        let bytes: u32 = table.iter().map(|span| span.len).sum();
        let expiry = match frame.expiry {
            255 => Time::from_nanos(1),
            millis => self.now + std::time::Duration::from_millis(millis.into()),
        };
        let grant = frame.grant.map(|grant| self.model.any_grant(grant));
        let mut header = match kind {
            FrameKind::Write => FrameHeader::write(transfer, grant, expiry, runs, bytes),
            FrameKind::ReadRequest => FrameHeader::read_request(transfer, expiry, runs),
            FrameKind::ReadData | FrameKind::Ack => {
                // Those of the READ, if there is one: no mutation hits its sum by chance.
                let runs = self.asked.runs(transfer, first, count).unwrap_or((runs, bytes));
                let request = FrameHeader::read_request(transfer, expiry, runs.0);
                FrameHeader::read_data(&request, runs.1 + u32::from(frame.too_long))
            }
        };
        if frame.flags % 16 == 15 {
            header.flags = FrameFlags::CHECKSUM;
        }
        let table = if kind.has_table() { table } else { Vec::new() };
        (header, table.into_iter().map(RawSpan::from).collect())
    }
}
