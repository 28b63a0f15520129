//! The peer's lanes: frames out, frames in, acknowledgements.

use crate::error::{Cause, Refusal, Violation};
use crate::id::{LaneId, TransferId};
use crate::proto::answers::Next;
use crate::proto::inbound::{Allowed, Completed};
use crate::proto::lanes::Sent;
use crate::proto::peer::{Event, Peer};
use crate::time::Time;
use crate::transport::{Admission, Landing, OutFrame};
use crate::wire::message::Message;
use crate::wire::{FrameHeader, FrameKind, WireSpan};

impl Peer {
    /// The next frame for a lane. It counts as handed over.
    pub fn next_frame(&mut self, now: Time, lane: LaneId) -> Option<OutFrame> {
        let ledger = self.lanes.get(lane)?;
        if ledger.is_closed() {
            return None;
        }
        let has_room = ledger.has_room();
        let in_company = has_room && (self.outbound.has_ready() || !self.answers.is_empty());
        if let Some(ack) = ledger.take_ack(in_company) {
            return Some(OutFrame::Ack(ack));
        }
        if !has_room {
            return None;
        }
        self.answer_next = !self.answer_next;
        if self.answer_next {
            self.next_answer(now, lane).or_else(|| self.next_own(now, lane))
        } else {
            self.next_own(now, lane).or_else(|| self.next_answer(now, lane))
        }
    }

    /// Whether any lane would get a frame from [`Self::next_frame`], ACKs aside.
    pub fn has_frames(&self) -> bool {
        self.outbound.has_ready() || !self.answers.is_empty()
    }

    /// Whether the peer is owed an ACK on this lane, which [`Self::next_frame`] gives.
    pub fn owes_ack(&mut self, lane: LaneId) -> bool {
        self.lanes.get(lane).is_some_and(|ledger| ledger.owes_ack())
    }

    /// Whether that is so on any lane: to be asked after [`Self::handle_timeout`].
    pub fn owes_acks(&self) -> bool {
        self.lanes.owe_acks()
    }

    /// A frame's header and table have come on a lane. See [`crate::transport::LaneHost`].
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub fn handle_frame(
        &mut self,
        now: Time,
        lane: LaneId,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        self.hear(now);
        self.check_answers()?;
        landing.clear();
        if self.lanes.get(lane).is_none_or(|ledger| ledger.is_closed()) {
            return Ok(Admission::Discard);
        }
        if !header.flags.is_empty() {
            return Err(Violation::Unexpected {
                message: "a frame",
                why: "its flags were not agreed on",
            });
        }
        match header.kind {
            FrameKind::Write => self.handle_write(now, lane, header, table, landing),
            FrameKind::ReadRequest if !header.transfer.is_read() => {
                Err(Violation::Unexpected { message: "READ request", why: "its id is a WRITE's" })
            }
            FrameKind::ReadRequest => {
                let taken = self.answers.request(now, header, table, &self.slots, &mut self.budget);
                match taken {
                    Ok(()) => self.lanes.count_read(now, lane),
                    Err(refusal) => self.refuse(lane, header.transfer, refusal),
                }
                Ok(Admission::Discard)
            }
            FrameKind::ReadData => match self.outbound.place(header, landing)? {
                Some(()) => Ok(Admission::Land),
                None => {
                    self.count_processed(lane);
                    Ok(Admission::Discard)
                }
            },
            FrameKind::Ack => {
                Err(Violation::Unexpected { message: "ACK", why: "it has no payload to place" })
            }
        }
    }

    /// The frame admitted last on a lane is dealt with.
    pub fn handle_frame_finished(
        &mut self,
        now: Time,
        lane: LaneId,
        header: &FrameHeader,
        outcome: Result<(), Refusal>,
    ) {
        self.hear(now);
        if !self.lanes.contains(lane) {
            // The lane belongs to what was before both sides began anew, when numbers were other's.
            return;
        }
        if header.kind == FrameKind::ReadData {
            self.lanes.count_read(now, lane);
            let ended = match outcome {
                Ok(()) => self.outbound.received(now, header),
                Err(Refusal::Expired) => {
                    // The deadline moved on while the frame came in: ask for its runs again.
                    let runs = header.first_run..header.first_run + header.runs;
                    self.outbound.lost(header.transfer, runs);
                    None
                }
                Err(Refusal::RegionClosed) => {
                    self.outbound.fail(header.transfer, Cause::RegionClosed)
                }
                Err(refusal) => self.outbound.fail(header.transfer, Cause::Refused(refusal)),
            };
            self.transfers_ended(ended);
            return;
        }
        let landed = outcome.and_then(|()| self.inbound.landed(header, &mut self.budget));
        match landed {
            Ok(completed) => {
                self.count_processed(lane);
                if let Some(completed) = completed {
                    self.write_completed(completed);
                }
            }
            Err(refusal) => self.refuse(lane, header.transfer, refusal),
        }
    }

    /// An ACK has come on a lane.
    ///
    /// # Errors
    /// It acknowledges what was never sent.
    pub fn handle_ack(
        &mut self,
        now: Time,
        lane: LaneId,
        ack: &FrameHeader,
    ) -> Result<(), Violation> {
        self.hear(now);
        let Some(ledger) = self.lanes.get(lane) else { return Ok(()) };
        let landed = ledger.acknowledge(ack.processed, ack.refused)?;
        self.frames_landed(now, landed);
        Ok(())
    }

    fn handle_write(
        &mut self,
        now: Time,
        lane: LaneId,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        if header.transfer.is_read() {
            return Err(Violation::Unexpected { message: "WRITE", why: "its id is a READ's" });
        }
        let allowed = Allowed { slots: &self.slots, grants: &self.given };
        let admitted = self.inbound.admit(now, header, table, allowed, &mut self.budget, landing);
        match admitted {
            Ok(true) => Ok(Admission::Land),
            Ok(false) => {
                self.count_processed(lane);
                Ok(Admission::Discard)
            }
            Err(refusal) => {
                self.refuse(lane, header.transfer, refusal);
                Ok(Admission::Discard)
            }
        }
    }

    fn next_own(&mut self, now: Time, lane: LaneId) -> Option<OutFrame> {
        let (transfer, runs, frame) =
            self.outbound.next_frame(now, &self.clock, self.config.frame_bytes)?;
        let ledger = self.lanes.get(lane)?;
        if frame.header.kind == FrameKind::Write {
            ledger.record(Sent::Write(transfer, runs));
            Some(OutFrame::Write(frame))
        } else {
            ledger.record(Sent::Request(transfer, runs));
            Some(OutFrame::ReadRequest(frame))
        }
    }

    fn next_answer(&mut self, now: Time, lane: LaneId) -> Option<OutFrame> {
        loop {
            match self.answers.next(now, &mut self.budget)? {
                Next::Answer(answer) => {
                    let frame = answer.frame.clone();
                    self.lanes.get(lane)?.record(Sent::Answer(answer));
                    return Some(OutFrame::ReadData(frame));
                }
                Next::Late(transfer, runs) => {
                    let (first, count) = (runs.start, runs.len() as u32);
                    self.stream.send(Message::ReadExpired { transfer, first, count });
                }
                Next::Failed(transfer, refusal) => {
                    self.stream.send(Message::ReadFailed { transfer, refusal });
                }
            }
        }
    }

    fn count_processed(&mut self, lane: LaneId) {
        if let Some(ledger) = self.lanes.get(lane) {
            ledger.count_processed(false);
        }
    }

    /// Refuses the frame at hand. Every refusal but that of a late frame ends the transfer.
    fn refuse(&mut self, lane: LaneId, transfer: TransferId, refusal: Refusal) {
        let Some(ledger) = self.lanes.get(lane) else { return };
        let frame = ledger.count_processed(true);
        self.stream.send(Message::Refused { lane, frame, transfer, refusal });
        if refusal == Refusal::Expired || transfer.is_read() {
            return;
        }
        self.notify_receiver.fenced(transfer);
        if let Err(resource) = self.inbound.refuse(transfer, &mut self.budget) {
            self.kill(Cause::PeerMisbehaved(Violation::Overrun(resource)));
        }
    }

    /// One of the peer's WRITEs is complete: tells the user what hung on it.
    fn write_completed(&mut self, completed: Completed) {
        let due = self.notify_receiver.completed(completed.transfer);
        self.events.extend(due.into_iter().map(Event::Notification));
        if let Some(grant) = completed.grant {
            let transfer = completed.transfer;
            let progress = self.given.write_completed(grant, transfer, &mut self.budget);
            self.session_progress(progress);
        }
    }
}
