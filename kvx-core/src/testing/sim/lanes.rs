//! Lanes of simulated engines: frames in and out, a system call at a time, while other things
//! happen.

use std::sync::Arc;

use crate::error::{LaneError, Refusal, Violation};
use crate::id::LaneId;
use crate::region::Region;
use crate::testing::lane::{LaneReceiver, Place};
use crate::testing::sim::network::{ConnId, LaneHalf, LaneTicket, Role};
use crate::testing::sim::{Fault, Happening, MS, World};
use crate::time::Time;
use crate::transport::{Admission, Landing, LocalSpan};
use crate::wire::{FrameHeader, FrameKind, WireSpan};

impl World {
    fn half(&mut self, id: ConnId, end: usize) -> Option<&mut LaneHalf> {
        match &mut self.end(id, end)?.role {
            Role::Lane(half) => Some(half),
            _ => None,
        }
    }

    /// Whether the link that a lane was opened for still is what it was.
    fn is_current(&mut self, engine: usize, remote: usize, ticket: LaneTicket) -> bool {
        let link = self.link_of(engine, remote, ticket.link);
        link.is_some_and(|link| link.peer.associations() == Some(ticket.associations))
    }

    /// Deals with the frames that have arrived.
    pub(crate) fn receive_frames(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (engine, remote) = (conn.engines[end], conn.engines[1 - end]);
        let life = self.engines[engine].life;
        loop {
            let limit = self.random.within(1..400) as usize;
            let Some(half) = self.half(id, end) else { return };
            let ticket = half.ticket;
            let Some(mut receiver) = half.receiver.take() else { return };
            let mut place = Here { world: self, id, end, engine, remote, life, ticket };
            let stepped = receiver.step(&mut place, limit);
            let ended = self.is_exhausted(id, end);
            // The engine may have died in the middle of the call.
            let Some(half) = self.half(id, end) else { return };
            half.receiver = Some(receiver);
            let closing = match (half.closing.take(), stepped) {
                (Some(cause), _) => Some(cause),
                (None, Err(violation)) => Some(LaneError::Violation(violation)),
                (None, Ok(false)) if ended => Some(LaneError::Closed),
                (None, Ok(true)) => continue,
                (None, Ok(false)) => None,
            };
            if let Some(cause) = closing {
                self.end_lane(id, end, cause);
            }
            break;
        }
        self.after(MS / 100, Happening::Pump(id, 1 - end));
        self.attend(engine, remote);
    }

    /// The peer has stopped a lane: so does this side, after a call in progress.
    pub(crate) fn close_lane(
        &mut self,
        engine: usize,
        remote: usize,
        lane: LaneId,
        cause: LaneError,
    ) {
        let link = self.engines[engine].links.get(&remote);
        if let Some(&(id, end)) = link.and_then(|link| link.lanes.get(&lane)) {
            self.close_half(id, end, cause);
        }
    }

    /// The link of a lane is over.
    pub(crate) fn abandon_lane(&mut self, id: ConnId, end: usize) {
        self.close_half(id, end, LaneError::Closed);
    }

    fn close_half(&mut self, id: ConnId, end: usize, cause: LaneError) {
        let Some(half) = self.half(id, end) else { return };
        if half.receiver.is_none() {
            half.closing = Some(cause);
        } else {
            self.end_lane(id, end, cause);
        }
    }

    /// Nothing touches memory for this lane any more.
    fn end_lane(&mut self, id: ConnId, end: usize, cause: LaneError) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (engine, remote) = (conn.engines[end], conn.engines[1 - end]);
        let Some(half) = self.half(id, end) else { return };
        let ticket = half.ticket;
        if half.receiver.as_ref().is_some_and(LaneReceiver::is_within_a_frame) {
            self.count(Fault::HalfFrame);
        }
        if let LaneError::Violation(violation) = &cause {
            let guilty = self.is_tainted(id)
                || self.setting.is_hostile(remote)
                || self.setting.is_hostile(engine);
            assert!(
                guilty || !self.is_current(engine, remote, ticket),
                "{remote} broke the frame rules: {violation}"
            );
        }
        self.note(|| format!("{engine} ends {} with {remote}: {cause}", ticket.lane));
        self.close_end(id, end);
        let now = self.local(engine);
        let current = self.is_current(engine, remote, ticket);
        if let Some(link) = self.link_of(engine, remote, ticket.link) {
            if link.lanes.get(&ticket.lane) == Some(&(id, end)) {
                link.lanes.remove(&ticket.lane);
            }
            if current {
                link.peer.handle_lane_closed(now, ticket.lane, cause);
            }
            self.attend(engine, remote);
        }
    }

    /// Lets all lanes of a link send that have something to send.
    pub(crate) fn pump_all(&mut self, engine: usize, remote: usize) {
        let Some(link) = self.engines[engine].links.get(&remote) else { return };
        let lanes: Vec<(ConnId, usize)> = link.lanes.values().copied().collect();
        for (id, end) in lanes {
            self.pump(id, end);
        }
    }

    /// Sends on a lane until there is nothing to send or no room.
    pub(crate) fn pump(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (engine, remote) = (conn.engines[end], conn.engines[1 - end]);
        while self.has_room(id, end) {
            let now = self.local(engine);
            let limit = self.random.within(1..400) as usize;
            let Some(half) = self.half(id, end) else { return };
            if half.closing.is_some() {
                return;
            }
            let (busy, ticket) = (half.sender.is_busy(), half.ticket);
            if !self.is_current(engine, remote, ticket) {
                return;
            }
            if !busy {
                let Some(link) = self.link_of(engine, remote, ticket.link) else { return };
                let Some(frame) = link.peer.next_frame(now, ticket.lane) else { return };
                self.check_source(engine, remote, &frame);
                if let Some(half) = self.half(id, end) {
                    half.sender.begin(frame);
                }
            }
            // The sender is out of the half while it reads the engine's memory.
            let Some(half) = self.half(id, end) else { return };
            let mut sender = std::mem::take(&mut half.sender);
            let memory = &self.engines[engine].memory;
            let read =
                |region: &Region, span: LocalSpan| memory.span(&*region.memory, span).to_vec();
            let sent = sender.step(limit, read);
            if let Some(half) = self.half(id, end) {
                half.sender = sender;
            }
            match sent {
                Ok(bytes) => self.send(id, end, bytes),
                Err(cause) => return self.close_half(id, end, cause),
            }
        }
    }
}

/// The world of one lane's receiving half.
struct Here<'a> {
    world: &'a mut World,
    id: ConnId,
    end: usize,
    engine: usize,
    remote: usize,
    life: u32,
    ticket: LaneTicket,
}

impl Here<'_> {
    fn is_alive(&self) -> bool {
        let engine = &self.world.engines[self.engine];
        engine.life == self.life && engine.has_memory()
    }
}

impl Place for Here<'_> {
    fn now(&self) -> Time {
        self.world.local(self.engine)
    }

    fn receive(&mut self, limit: usize) -> Vec<u8> {
        self.world.read(self.id, self.end, limit)
    }

    fn frame_arrived(
        &mut self,
        header: &FrameHeader,
        table: &[WireSpan],
        landing: &mut Landing,
    ) -> Result<Admission, Violation> {
        if !self.world.is_current(self.engine, self.remote, self.ticket) {
            return Ok(Admission::Discard);
        }
        if self.world.setting.is_hostile(self.engine) {
            self.world.loot_frame(self.engine, self.remote, header.transfer);
        }
        let now = self.now();
        if header.kind == FrameKind::Write && now >= header.expiry {
            self.world.count(Fault::LateFrame);
        }
        let Some(link) = self.world.link_of(self.engine, self.remote, self.ticket.link) else {
            return Ok(Admission::Discard);
        };
        let admission = link.peer.handle_frame(now, self.ticket.lane, header, table, landing)?;
        self.world.note(|| {
            let (engine, remote) = (self.engine, self.remote);
            let FrameHeader { kind, transfer, first_run, runs, .. } = header;
            let runs = *first_run..first_run + runs;
            format!(
                "{engine} has {kind:?} {transfer} runs {runs:?} of {remote} on {}: {admission:?}",
                self.ticket.lane
            )
        });
        self.world.attend(self.engine, self.remote);
        Ok(admission)
    }

    fn frame_finished(&mut self, header: &FrameHeader, outcome: Result<(), Refusal>) {
        if !self.is_alive() || !self.world.is_current(self.engine, self.remote, self.ticket) {
            return;
        }
        let now = self.now();
        let intrudes = self.world.setting.is_hostile(self.remote);
        if intrudes && header.kind == FrameKind::Write && outcome.is_ok() {
            self.world.intrusion_landed(self.ticket.associations, header);
        }
        if let Some(link) = self.world.link_of(self.engine, self.remote, self.ticket.link) {
            link.peer.handle_frame_finished(now, self.ticket.lane, header, outcome);
            self.world.attend(self.engine, self.remote);
        }
    }

    fn acknowledged(&mut self, ack: &FrameHeader) -> Result<(), Violation> {
        if !self.world.is_current(self.engine, self.remote, self.ticket) {
            return Ok(());
        }
        let now = self.now();
        let link = self.world.link_of(self.engine, self.remote, self.ticket.link);
        link.map_or(Ok(()), |link| link.peer.handle_ack(now, self.ticket.lane, ack))?;
        self.world.attend(self.engine, self.remote);
        Ok(())
    }

    fn call_begins(&mut self, header: &FrameHeader, landing: &Landing) -> Result<(), Refusal> {
        let late = self.now() >= landing.expiry;
        assert!(!late, "a system call began after the expiry of {:?}", header.transfer);
        self.world.check_call(self.engine, self.remote, self.ticket.associations, header);
        self.world.happen_meanwhile();
        self.world.interfere(self.engine, self.remote, self.ticket.associations, header);
        let regions = landing.regions.iter().map(|region| &region.gate);
        if regions.chain(landing.gates.iter().map(|gate| &**gate)).any(|gate| !gate.is_open()) {
            self.world.count(Fault::GateClosed);
        }
        self.world.fault_memory(self.engine, self.remote)
    }

    fn scatter(&mut self, header: &FrameHeader, region: &Arc<Region>, offset: u64, bytes: &[u8]) {
        if self.is_alive() {
            let (engine, by) = (self.engine, self.ticket.associations);
            if self.world.setting.is_hostile(self.remote) {
                let ticket = self.ticket;
                self.world.check_intrusion(engine, ticket, header, region, offset, bytes);
            } else if !self.world.setting.is_hostile(engine) {
                self.world.check_landing(engine, by, header, region, offset, bytes);
            }
            self.world.report.bytes += bytes.len() as u64;
            let memory = &mut self.world.engines[engine].memory;
            memory.bytes_mut(region.base() + offset, bytes.len()).copy_from_slice(bytes);
        }
    }
}
