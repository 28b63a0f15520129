//! Hostile engines: they prove who they are, speak the protocol, and break its rules.
//!
//! One is an honest engine possessed: its peers are real, so that it holds slots, grants and open
//! transfers, and what they say is right. Into that it puts what is not. Its own memory, transfers
//! and sessions are nobody's concern; what it does to others is checked where it lands, and in
//! what becomes of theirs.

mod baits;
mod door;
mod floods;
mod frames;
mod messages;
mod posts;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::error::Cause;
use crate::id::{GrantId, SessionKey, Slot, TransferId};
use crate::layout::Layout;
use crate::proto::Event;
use crate::testing::sim::network::{ConnId, LaneTicket, Role};
use crate::testing::sim::{Fault, World};
use crate::wire::message::{Message, MessageHeader};

/// What a hostile engine has learned of one of its peers, by the serial number of its own link.
#[derive(Default)]
pub(crate) struct Loot {
    link: u64,
    /// Slots that region keys gave.
    slots: Vec<Slot>,
    /// Grants, those that are gone included.
    grants: Vec<Stolen>,
    /// Frames that it sent.
    frames: VecDeque<Vec<u8>>,
    /// Control messages that it sent.
    messages: VecDeque<Vec<u8>>,
    /// The peer's WRITEs and READs of which it knows.
    transfers: VecDeque<TransferId>,
    /// Own transfers that the peer said are fenced, and some that it will.
    fenced: VecDeque<TransferId>,
    /// The last forged transfer's number: far above what its peer counts.
    forged: u64,
}

/// A grant as it came.
#[derive(Clone)]
struct Stolen {
    grant: GrantId,
    session: SessionKey,
    layout: Layout,
    slots: Vec<Slot>,
    blocks: Vec<u32>,
}

/// Own transfers of hostile engines that are made up are counted from here.
const FORGED: u64 = 1 << 40;
/// Things of one kind that are remembered.
const MEMORY: usize = 16;

pub(crate) type Loots = BTreeMap<usize, Loot>;

impl World {
    /// A hostile engine does something to one of its peers.
    pub(crate) fn do_mischief(&mut self, engine: usize) {
        let partners = &self.setting.partners[engine];
        let remote = partners[self.random.index(partners.len())];
        if self.setting.is_hostile(remote) {
            return;
        }
        let ready = self.engines[engine]
            .links
            .get(&remote)
            .is_some_and(|link| link.peer.is_connected() && link.peer.associations().is_some());
        if !ready {
            return self.approach(engine, remote);
        }
        self.note(|| format!("{engine} is up to something with {remote}"));
        match self.random.within(0..100) {
            0..52 => self.forge_frame(engine, remote),
            52..74 => self.forge_message(engine, remote),
            74..82 => self.flood(engine, remote),
            82..90 => self.knock(engine, remote),
            90..96 => self.post_to(engine, remote),
            _ => self.begin_session(engine, remote),
        }
        self.attend(engine, remote);
    }

    /// Gets a connection by asking for something, or tries the door.
    fn approach(&mut self, engine: usize, remote: usize) {
        if self.random.percent(30) {
            return self.knock(engine, remote);
        }
        self.expect(engine, remote, self.engines[remote].identity.incarnation);
        let now = self.local(engine);
        // Busy: it has asked often enough.
        let _ = self.link(engine, remote).peer.notify(now, Bytes::from_static(b"hello"));
        self.attend(engine, remote);
    }

    /// What a hostile engine knows of a peer; nothing of an earlier link.
    fn loot(&mut self, engine: usize, remote: usize) -> &mut Loot {
        let link = self.link(engine, remote).serial;
        let loot = self.engines[engine].loots.entry(remote).or_default();
        if loot.link != link {
            *loot = Loot { link, forged: FORGED, ..Loot::default() };
        }
        loot
    }

    /// A number that no transfer of this link has had.
    fn fresh_transfer(&mut self, engine: usize, remote: usize) -> TransferId {
        let loot = self.loot(engine, remote);
        loot.forged += 1;
        TransferId(loot.forged)
    }

    /// A message has come to a hostile engine, which looks for what it can use.
    pub(crate) fn loot_message(
        &mut self,
        engine: usize,
        remote: usize,
        header: &MessageHeader,
        body: &Bytes,
    ) {
        let Ok(message) = Message::decode(header.kind, body.clone()) else { return };
        let loot = self.loot(engine, remote);
        match message {
            Message::RegionsOpened(opened) => {
                loot.slots.extend(opened.iter().filter_map(|answer| answer.slot.ok()));
            }
            Message::Grant(grant) => loot.grants.push(Stolen {
                grant: grant.grant,
                session: grant.session,
                layout: grant.layout.clone(),
                slots: grant.slots.clone(),
                blocks: grant.blocks.clone(),
            }),
            Message::Heartbeat { time } => self.lie_about_time(engine, remote, time),
            Message::Fenced { transfer } => {
                remember(&mut loot.fenced, transfer);
                if let Some(by) = self.link(engine, remote).peer.associations() {
                    self.ledger.fenced_for(by, transfer);
                }
            }
            Message::Layers { transfer, .. } | Message::Cancel { transfer } => {
                remember(&mut loot.transfers, transfer);
            }
            _ => {}
        }
    }

    /// What a hostile engine says is kept, to be said again.
    pub(crate) fn keep_message(&mut self, engine: usize, remote: usize, bytes: &[u8]) {
        if self.setting.is_hostile(engine) {
            remember(&mut self.loot(engine, remote).messages, bytes.to_vec());
        }
    }

    /// Frames of the peer that come to a hostile engine tell it of transfers.
    pub(crate) fn loot_frame(&mut self, engine: usize, remote: usize, transfer: TransferId) {
        let transfers = &mut self.loot(engine, remote).transfers;
        if transfers.back() != Some(&transfer) {
            remember(transfers, transfer);
        }
    }

    /// What a hostile engine's peers tell it, but for what they need done.
    pub(crate) fn villain_hears(&mut self, engine: usize, remote: usize, link: u64, event: Event) {
        match event {
            Event::Disconnected => {
                if let Some(link) = self.engines[engine].links.get_mut(&remote) {
                    link.control = None;
                }
            }
            Event::Notification(bytes) if self.random.percent(70) => {
                self.take_stray(engine, remote, link, bytes.len());
            }
            _ => {}
        }
    }

    /// What hostile engines have of honest ones is taken from them, so that nothing of it is left
    /// at the end.
    pub(crate) fn expel_villains(&mut self) {
        for engine in 0..self.engines.len() {
            let remotes: Vec<usize> = self.engines[engine].links.keys().copied().collect();
            for remote in remotes {
                if self.setting.is_hostile(engine) || self.setting.is_hostile(remote) {
                    self.kill_link(engine, remote, Cause::PeerRemoved);
                }
            }
        }
    }

    /// A lane of a hostile engine that is between two frames, if it has one.
    fn quiet_lane(&mut self, engine: usize, remote: usize) -> Option<(ConnId, usize, LaneTicket)> {
        let link = self.engines[engine].links.get(&remote)?;
        let lanes: Vec<(ConnId, usize)> = link.lanes.values().copied().collect();
        let start = self.random.index(lanes.len().max(1));
        let turn = lanes.iter().cycle().skip(start).take(lanes.len());
        turn.copied().find_map(|(id, end)| match &self.conns.get(&id)?.ends[end].as_ref()?.role {
            Role::Lane(half) if !half.sender.is_busy() => Some((id, end, half.ticket)),
            _ => None,
        })
    }

    fn did(&mut self, fault: Fault, engine: usize, remote: usize) {
        self.note(|| format!("{} ({engine} to {remote})", fault.name()));
        self.count(fault);
    }
}

fn remember<T>(memory: &mut VecDeque<T>, thing: T) {
    if memory.len() == MEMORY {
        memory.pop_front();
    }
    memory.push_back(thing);
}
