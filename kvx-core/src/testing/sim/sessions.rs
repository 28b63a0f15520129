//! Sessions of simulated engines: a receiver grants blocks, a sender writes them layer by layer,
//! and either may give up.

mod sending;

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::Cause;
use crate::id::{GrantId, Room, SessionKey};
use crate::layout::{Dtype, HeadWindow, Layout, LayoutBuilder, Order, Placement};
use crate::plan::{BlockMap, Span, spans_of};
use crate::proto::GrantPlan;
use crate::region::{Gate, Region, Rights};
use crate::testing::memory::Segment;
use crate::testing::sim::ledger::Life;
use crate::testing::sim::{Fault, Happening, MS, World};

/// A session's place in the ledger.
pub(crate) type SessionIndex = usize;

/// Blocks of a pool.
const BLOCKS: u32 = 12;
pub(crate) const LAYERS: u32 = 4;
/// Tokens of the longest prompt: every layout's five blocks hold them.
const MAX_TOKENS: u64 = 10;

/// A KV pool of an engine.
pub(crate) struct Pool {
    layout: Layout,
    pub(crate) regions: Vec<Arc<Region>>,
    pub(crate) segments: Vec<Segment>,
    /// Whether a session uses the block.
    used: Vec<bool>,
}

impl Pool {
    /// Where these blocks lie, in all layers.
    fn addresses(&self, blocks: &[u32]) -> Vec<Range<u64>> {
        let spans = spans_of(&self.layout, 0..LAYERS, blocks).expect("blocks of the pool");
        let range = |span: Span| {
            let start = self.segments[span.region as usize].base + span.offset;
            start..start + span.len
        };
        spans.map(range).collect()
    }
}

/// A session, as both of its users know it.
pub(crate) struct Session {
    pub(crate) sender: usize,
    pub(crate) receiver: usize,
    receiver_life: u32,
    key: SessionKey,
    /// The receiver's link, and the grant.
    link: u64,
    grant: GrantId,
    pub(crate) gate: Arc<Gate>,
    tokens: u32,
    blocks: Vec<u32>,
    /// The addresses that the grant is for.
    allowed: Vec<Range<u64>>,
    received: Stand,
    /// Set once the sender has the grant.
    sending: Option<Sending>,
    /// What must be in the receiver's memory: layer, address, bytes.
    expected: Vec<(u32, u64, Vec<u8>)>,
    payload: Bytes,
}

/// How a session stands at its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    Open,
    Complete,
    Aborted,
}

struct Sending {
    life: u32,
    link: u64,
    map: BlockMap,
    blocks: Vec<u32>,
    next_layer: u32,
    writes: u64,
    /// Transfers of it that may still land or be read from.
    unreleased: u64,
    /// Ended, for whatever reason, or all is posted.
    over: bool,
}

impl Session {
    /// Nothing of one of its transfers lands any more.
    pub(crate) fn transfer_released(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.unreleased -= 1;
        }
    }

    /// Whether the receiver lets all of these bytes be written.
    pub(crate) fn covers(&self, address: u64, len: u64) -> bool {
        let within = |at: u64| self.allowed.iter().any(|range| range.contains(&at));
        (address..address + len).all(within)
    }
}

impl World {
    pub(crate) fn new_pool(&mut self, engine: usize) -> Pool {
        let heads = HeadWindow { first: 0, count: 2, total: 2 };
        let placement =
            [Placement::RegionPerLayer, Placement::OneRegion, Placement::OneRegionInterleaved];
        let order = if self.random.percent(50) { Order::Nhd } else { Order::Hnd };
        let layout = LayoutBuilder::key_value(LAYERS, BLOCKS, heads, 12, Dtype::Fp16)
            .block_tokens(2 + self.random.index(3) as u32)
            .order(order)
            .placement(placement[self.random.index(placement.len())])
            .build()
            .expect("a small layout");
        let mut regions = Vec::new();
        let mut segments = Vec::new();
        for len in layout.region_lens() {
            let segment = self.engines[engine].memory.allocate(len as usize, 0x22);
            regions.push(self.register(engine, segment, Rights::empty()));
            segments.push(segment);
        }
        Pool { layout, regions, segments, used: vec![false; BLOCKS as usize] }
    }

    pub(crate) fn pool(&mut self, engine: usize) -> &mut Pool {
        self.engines[engine].belongings.pool.as_mut().expect("engines have pools")
    }

    fn take_blocks(&mut self, engine: usize, tokens: u32) -> Option<Vec<u32>> {
        let start = self.random.index(BLOCKS as usize);
        let pool = self.pool(engine);
        let count = pool.layout.blocks_for(tokens) as usize;
        let free = |index: &usize| !pool.used[*index];
        let blocks: Vec<usize> =
            (0..BLOCKS as usize).map(|i| (i + start) % BLOCKS as usize).filter(free).collect();
        let blocks = blocks.get(..count)?.to_vec();
        blocks.iter().for_each(|block| pool.used[*block] = true);
        Some(blocks.into_iter().map(|block| block as u32).collect())
    }

    fn free_blocks(&mut self, engine: usize, blocks: &[u32]) {
        let pool = self.pool(engine);
        blocks.iter().for_each(|block| pool.used[*block as usize] = false);
    }

    /// A receiver grants blocks to a sender.
    pub(crate) fn begin_session(&mut self, receiver: usize, sender: usize) {
        let tokens = self.random.within(1..MAX_TOKENS + 1) as u32;
        let Some(blocks) = self.take_blocks(receiver, tokens) else { return };
        let room = Room(self.ledger.sessions.len() as u64);
        let key = SessionKey { room, attempt: 0, sender_rank: 0, receiver_rank: 0 };
        let pool = self.pool(receiver);
        let plan =
            GrantPlan::new(pool.layout.clone(), pool.regions.clone(), tokens, blocks.clone());
        let plan = Arc::new(plan.expect("blocks of the pool"));
        let allowed = pool.addresses(&blocks);
        let link = self.link(receiver, sender);
        let serial = link.serial;
        match link.peer.grant(key, plan) {
            Ok((grant, gate)) => {
                let index = self.ledger.sessions.len();
                let payload = Bytes::from(format!("payload of {index}"));
                self.note(|| format!("{receiver} grants session {index} to {sender}"));
                self.ledger.sessions.push(Session {
                    sender,
                    receiver,
                    receiver_life: self.engines[receiver].life,
                    key,
                    link: serial,
                    grant,
                    gate,
                    tokens,
                    blocks,
                    allowed,
                    received: Stand::Open,
                    sending: None,
                    expected: Vec::new(),
                    payload,
                });
                let patience = self.random.within(2000..8000) * MS;
                self.after(patience, Happening::Patience(index));
                let receiver = (receiver, self.engines[receiver].life);
                self.ledger.add_session(receiver, (serial, grant), index);
            }
            Err(cause) => {
                self.count_end(format!("not granted: {cause}"));
                self.free_blocks(receiver, &blocks);
            }
        }
        self.attend(receiver, sender);
    }

    pub(crate) fn layers_arrived(
        &mut self,
        engine: usize,
        serial: u64,
        grant: GrantId,
        layers: Range<u32>,
    ) {
        let index = self.session_of(serial, grant);
        let session = &self.ledger.sessions[index];
        assert_eq!(session.received, Stand::Open, "layers of session {index} came after its end");
        let there = session.expected.iter().filter(|(layer, ..)| layers.contains(layer)).all(
            |(_, at, bytes)| self.engines[engine].memory.bytes(*at, bytes.len()) == &bytes[..],
        );
        let hostile = self.setting.is_hostile(session.sender);
        assert!(
            hostile || there,
            "layers {layers:?} of session {index} were told before they were there"
        );
    }

    pub(crate) fn session_complete(
        &mut self,
        engine: usize,
        serial: u64,
        grant: GrantId,
        payload: &Bytes,
    ) {
        let index = self.session_of(serial, grant);
        let session = &self.ledger.sessions[index];
        assert_eq!(session.received, Stand::Open, "session {index} has a second end");
        if self.setting.is_hostile(session.sender) {
            return self.close_session(index, Stand::Complete);
        }
        assert_eq!(session.payload, payload);
        let all = session.sending.as_ref().is_some_and(|sending| sending.next_layer == LAYERS);
        assert!(all, "session {index} is complete before all was sent");
        let there = session.expected.iter().all(|(_, at, bytes)| {
            self.engines[engine].memory.bytes(*at, bytes.len()) == &bytes[..]
        });
        assert!(there, "session {index} is complete and not all is there");
        self.count_end("session complete".to_owned());
        self.close_session(index, Stand::Complete);
    }

    pub(crate) fn receiver_aborted(&mut self, serial: u64, grant: GrantId, cause: &Cause) {
        let index = self.session_of(serial, grant);
        let stand = self.ledger.sessions[index].received;
        assert_eq!(stand, Stand::Open, "session {index} has a second end: {cause}");
        self.count_end("session aborted at receiver".to_owned());
        self.close_session(index, Stand::Aborted);
    }

    pub(crate) fn sender_aborted(&mut self, sender: usize, receiver: usize, key: SessionKey) {
        let index = key.room.0 as SessionIndex;
        let session = self.ledger.sessions.get(index);
        if session.is_some_and(|session| session.sender == sender && session.receiver == receiver) {
            self.session_sent(index);
        } else {
            assert!(self.setting.is_hostile(receiver), "session {index} is not of these two");
        }
    }

    /// A receiver has waited long enough.
    pub(crate) fn lose_session(&mut self, index: SessionIndex) {
        let session = &self.ledger.sessions[index];
        let (receiver, sender, serial, grant) =
            (session.receiver, session.sender, session.link, session.grant);
        let begun = session.sending.as_ref().is_some_and(|sending| sending.next_layer > 0);
        // What hostile engines are told of their sessions is not kept.
        if session.received != Stand::Open || self.setting.is_hostile(receiver) {
            return;
        }
        if let Some(link) = self.link_of(receiver, sender, serial) {
            let gate = link.peer.revoke(grant, "too late").expect("the session was open");
            assert!(Arc::ptr_eq(&gate, &self.ledger.sessions[index].gate));
            self.count(if begun { Fault::RevokeMidway } else { Fault::RevokeEarly });
            self.close_session(index, Stand::Aborted);
            self.attend(receiver, sender);
        }
    }

    /// A receiver gives one of its sessions up.
    pub(crate) fn end_one_session(&mut self, engine: usize) {
        let life = (engine, self.engines[engine].life);
        let open = self.ledger.open_sessions(life);
        if !open.is_empty() && self.random.percent(60) {
            let chosen = open[self.random.index(open.len())];
            return self.lose_session(chosen);
        }
        // A receiver that was complete or gave up is dropped: nothing is left to be taken back.
        if let Some(index) = self.ledger.last_session(life) {
            let session = &self.ledger.sessions[index];
            let (sender, serial, grant) = (session.sender, session.link, session.grant);
            self.count(Fault::RevokeLate);
            if let Some(link) = self.link_of(engine, sender, serial) {
                assert!(link.peer.revoke(grant, "dropped").is_none(), "session {index} was open");
            }
        }
    }

    fn close_session(&mut self, index: SessionIndex, stand: Stand) {
        let session = &mut self.ledger.sessions[index];
        session.received = stand;
        let receiver = (session.receiver, session.receiver_life);
        self.ledger.session_ended(receiver, index);
        let session = &mut self.ledger.sessions[index];
        let gate = Arc::clone(&session.gate);
        assert!(!gate.is_open(), "session {index} is over and its gate is open");
        self.ledger.drain_session(gate, index);
    }

    /// Nothing of a session lands any more at its receiver.
    pub(crate) fn session_fenced(&mut self, index: SessionIndex) {
        let session = &self.ledger.sessions[index];
        let receiver: Life = (session.receiver, session.receiver_life);
        let blocks = session.blocks.clone();
        if self.engines[receiver.0].life == receiver.1 {
            self.free_blocks(receiver.0, &blocks);
        }
    }

    fn session_of(&self, serial: u64, grant: GrantId) -> SessionIndex {
        self.ledger.find_session(serial, grant).expect("a session that was granted")
    }

    /// Every session has ended at its receiver, and at its sender.
    pub(crate) fn check_sessions(&self) {
        for (index, session) in self.ledger.sessions.iter().enumerate() {
            let hostile = [session.receiver, session.sender];
            let [receiver, sender] = hostile.map(|engine| self.setting.is_hostile(engine));
            if !receiver && self.engines[session.receiver].life == session.receiver_life {
                assert_ne!(session.received, Stand::Open, "session {index} never ended");
            }
            if let Some(sending) = &session.sending
                && !sender
                && self.engines[session.sender].life == sending.life
            {
                assert!(sending.over, "session {index} never ended at its sender");
            }
        }
    }
}
