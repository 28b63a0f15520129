//! The peer's control messages, as they come.

use std::time::Duration;

use bytes::Bytes;

use crate::error::{Cause, Refusal, Side, Violation};
use crate::id::{Association, GrantId, LaneId, SessionKey, TransferId};
use crate::proto::clock::ClockSample;
use crate::proto::grants::Progress;
use crate::proto::lanes::Sent;
use crate::proto::peer::{Event, Peer};
use crate::proto::remote::Settled;
use crate::time::Time;
use crate::wire::message::{Message, MessageHeader, OpenRegion, RegionOpened};

impl Peer {
    /// A control message has come: its header and its body.
    ///
    /// # Errors
    /// The peer broke the protocol: the connection and the peer are over ([`Peer::kill`]).
    pub fn handle_message(
        &mut self,
        now: Time,
        header: &MessageHeader,
        body: Bytes,
    ) -> Result<(), Violation> {
        if self.dead.is_some() {
            return Ok(());
        }
        self.hear(now);
        self.check_answers()?;
        let message = Message::decode(header.kind, body)?;
        if let Message::Resume { own, peer } = message {
            let acknowledged = self.handle_resume(own, peer, header.acknowledged)?;
            self.stream.receive(&MessageHeader { acknowledged, ..*header })?;
            self.stream.resume();
            self.events.push_back(Event::Ready);
            self.open_lanes(now);
        } else if self.stream.receive(header)? {
            self.handle_fresh(now, message)?;
        }
        let settled = self.notify_sender.settle(&self.stream);
        self.settle_notifications(settled);
        let ended = self.got.settle(self.stream.acknowledged(), &mut self.budget);
        self.events.extend(ended.into_iter().map(|(id, key)| Event::SessionSettled(id, key)));
        Ok(())
    }

    /// A message that was not dealt with before.
    fn handle_fresh(&mut self, now: Time, message: Message) -> Result<(), Violation> {
        match message {
            Message::Resume { .. } | Message::Acknowledge => {}
            Message::Heartbeat { time } => {
                self.stream.send(Message::HeartbeatReply { echo: time, time: now });
            }
            Message::HeartbeatReply { echo, time } => {
                if self.heartbeat_sent == Some(echo) {
                    self.heartbeat_sent = None;
                    self.clock.observe(ClockSample { sent: echo, peer: time, received: now });
                }
            }
            Message::Goodbye => self.kill(Cause::PeerClosed),
            Message::OpenRegions(asked) => self.open_regions(&asked),
            Message::RegionsOpened(answers) => {
                let settled = self.remote.opened(&answers)?;
                self.slots_settled(settled);
            }
            Message::SlotsClosed(slots) => {
                let settled = self.remote.closed(&slots);
                self.slots_settled(settled);
            }
            Message::LaneRetired { lane, processed } => self.retire_lane(now, lane, processed)?,
            Message::Refused { lane, frame, transfer: _, refusal } => {
                self.handle_refused(now, lane, frame, refusal)?;
            }
            Message::ReadFailed { transfer, refusal } => {
                let ended = self.outbound.fail(transfer, Cause::Refused(refusal));
                self.transfers_ended(ended);
            }
            Message::ReadExpired { transfer, first, count } => {
                let runs = first..first.saturating_add(count);
                let ended = self.outbound.expired(now, transfer, runs)?;
                self.transfers_ended(ended);
                self.doubt_clock(now);
            }
            Message::Cancel { transfer } => self.handle_cancel(transfer)?,
            Message::Fenced { transfer } => {
                let ended = self.outbound.fenced(transfer);
                self.transfers_ended(ended);
            }
            Message::Notify { after, more, bytes } => {
                let inbound = &self.inbound;
                let standing = |transfer| inbound.standing(transfer);
                let due =
                    self.notify_receiver.receive(after, more, bytes, standing, &mut self.budget)?;
                self.events.extend(due.map(Event::Notification));
            }
            Message::NotificationCredit { consumed } => self.notify_sender.credit(consumed)?,
            Message::Grant(grant) => {
                let whole = self.got.receive(*grant, &mut self.budget)?;
                self.events.extend(whole.map(|grant| Event::Granted(Box::new(grant))));
            }
            Message::GrantBlocks { grant, blocks } => {
                let whole = self.got.receive_blocks(grant, blocks)?;
                self.events.extend(whole.map(|grant| Event::Granted(Box::new(grant))));
            }
            Message::Layers { transfer, grant, first, count } => {
                let layers = first..first.saturating_add(count);
                let standing = self.inbound.standing(transfer);
                let budget = &mut self.budget;
                let progress =
                    self.given.expect_layers(grant, transfer, layers, standing, budget)?;
                self.session_progress(progress);
            }
            Message::SessionEnd { grant, writes, payload } => {
                let progress = self.given.expect_end(grant, writes, payload, &mut self.budget)?;
                self.session_progress(progress);
            }
            Message::SessionAbort { session, grant, by_receiver, reason } => {
                self.handle_abort(session, grant, by_receiver, &reason);
            }
            Message::DirectoryPut { rank, entry } => {
                self.events.push_back(Event::DirectoryPut(rank, entry));
            }
            Message::DirectoryGet { request, rank, wait_ms } => {
                let wait = Duration::from_millis(u64::from(wait_ms));
                self.events.push_back(Event::DirectoryAsked { request, rank, wait });
            }
            Message::DirectoryAnswer { request, entry } => {
                self.events.push_back(Event::DirectoryAnswered { request, entry });
            }
            Message::ListRegions => self.tell_regions()?,
            Message::RegionsListed { more, regions } => self.hear_regions(more, regions)?,
        }
        Ok(())
    }

    /// The peer names its association, and ours as it knows it. Where it is another than before,
    /// the peer has forgotten us and both begin anew; in every other case either nothing was said
    /// in sequence yet, or both go on where they were. Returns what the peer acknowledges.
    fn handle_resume(
        &mut self,
        theirs: Association,
        ours: Option<Association>,
        acknowledged: u64,
    ) -> Result<u64, Violation> {
        if self.stream.is_resumed() {
            return Err(Violation::Unexpected { message: "Resume", why: "it came before" });
        }
        if self.theirs.is_some_and(|known| known != theirs) {
            self.restart(&Cause::PeerReset);
        }
        self.theirs = Some(theirs);
        // What it acknowledges of an earlier association of ours says nothing of this one.
        Ok(if ours == Some(self.own) { acknowledged } else { 0 })
    }

    /// Both sides begin anew under new associations.
    fn restart(&mut self, cause: &Cause) {
        self.forget_everything(cause);
        self.forget_lanes();
        self.opener.restart();
    }

    fn open_regions(&mut self, asked: &[OpenRegion]) {
        let answers = asked
            .iter()
            .map(|open| RegionOpened {
                region: open.region,
                slot: self.slots.open(&self.registry, open.region, &open.key),
            })
            .collect();
        self.stream.send(Message::RegionsOpened(answers));
    }

    fn slots_settled(&mut self, settled: Vec<Settled>) {
        for (transfer, slots) in settled {
            match slots {
                Ok(slots) => self.outbound.set_slots(transfer, slots),
                Err(refusal) => {
                    let ended = self.outbound.fail(transfer, Cause::Refused(refusal));
                    self.transfers_ended(ended);
                }
            }
        }
    }

    /// The peer has stopped a lane and says what it has dealt with.
    fn retire_lane(&mut self, now: Time, lane: LaneId, processed: u64) -> Result<(), Violation> {
        let Some(ledger) = self.lanes.get(lane) else {
            // It never opened here, and must not any more.
            self.opener.bar(lane)?;
            self.stream.send(Message::LaneRetired { lane, processed: 0 });
            return Ok(());
        };
        let (landed, lost) = ledger.retire(processed)?;
        let closed = ledger.is_closed();
        self.frames_landed(now, landed);
        self.frames_lost(lost);
        if closed {
            self.lanes.remove_if_ended(lane);
        } else {
            self.events.push_back(Event::CloseLane(lane));
        }
        Ok(())
    }

    fn handle_refused(
        &mut self,
        now: Time,
        lane: LaneId,
        frame: u64,
        refusal: Refusal,
    ) -> Result<(), Violation> {
        let Some(ledger) = self.lanes.get(lane) else {
            return Err(Violation::Unexpected { message: "Refused", why: "no such lane" });
        };
        let (refused, landed) = ledger.refuse(frame)?;
        if refusal == Refusal::Expired {
            self.doubt_clock(now);
        }
        match refused {
            Sent::Write(transfer, runs) | Sent::Request(transfer, runs) => {
                let ended = self.outbound.refused(now, transfer, runs, refusal);
                self.transfers_ended(ended);
            }
            Sent::Answer(answer) => self.answers.landed(&answer, &mut self.budget),
            Sent::Void => {}
        }
        self.frames_landed(now, landed);
        Ok(())
    }

    /// Something expired at the peer. It was late, or the peer's clock is not known well: a fresh
    /// look at it helps.
    fn doubt_clock(&mut self, now: Time) {
        if self.heartbeat_sent.is_none() {
            self.ask(now);
        }
    }

    fn handle_cancel(&mut self, transfer: TransferId) -> Result<(), Violation> {
        if transfer.is_read() {
            self.answers.forget(transfer, &mut self.budget);
            self.stream.send(Message::Fenced { transfer });
            return Ok(());
        }
        self.notify_receiver.fenced(transfer);
        if self.inbound.cancel(transfer, &mut self.budget, &self.waker)? {
            self.stream.send(Message::Fenced { transfer });
        }
        Ok(())
    }

    /// The other side of a session gives it up.
    fn handle_abort(
        &mut self,
        session: SessionKey,
        grant: Option<GrantId>,
        by_receiver: bool,
        reason: &str,
    ) {
        let by = if by_receiver { Side::Receiver } else { Side::Sender };
        let cause = Cause::Aborted { by, reason: reason.into() };
        if by_receiver {
            if let Some(grant) = grant {
                let ended = self.outbound.fail_grant(grant, &cause);
                self.transfers_ended(ended);
                self.got.take_back(grant, &cause, &mut self.budget);
            }
            self.session_over(Side::Sender, session, grant, &cause);
        } else {
            // A session that is complete here, or was ended here, has had its end.
            let budget = &mut self.budget;
            if grant.is_some_and(|grant| self.given.revoke(grant, budget).is_none()) {
                return;
            }
            self.session_over(Side::Receiver, session, grant, &cause);
        }
    }

    /// Something arrived for sessions whose receiver is here.
    pub(super) fn session_progress(&mut self, progress: Vec<Progress>) {
        self.events.extend(progress.into_iter().map(|progress| match progress {
            Progress::Layers(grant, layers) => Event::LayersArrived(grant, layers),
            Progress::Ended(grant, session, payload) => {
                Event::SessionEnded(grant, session, payload)
            }
        }));
    }
}
