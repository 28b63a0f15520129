//! The sender's part of simulated sessions.

use std::ops::Range;
use std::sync::Arc;

use crate::plan::{BlockMap, PlanOptions};
use crate::proto::{GrantReceived, Post, Target, TransferOp};
use crate::region::Region;
use crate::testing::sim::ledger::{Piece, Transfer};
use crate::testing::sim::sessions::{LAYERS, Sending, SessionIndex};
use crate::testing::sim::{Fault, Happening, MS, World};

impl World {
    /// The sender has a grant: it begins to compute.
    pub(crate) fn granted(&mut self, sender: usize, receiver: usize, received: GrantReceived) {
        let index = received.session.room.0 as SessionIndex;
        if self.setting.is_hostile(receiver) && !self.is_sound(sender, receiver, &received) {
            let link = self.link(sender, receiver);
            return link.peer.abort_session(received.session, received.grant, "makes no sense");
        }
        let session = &self.ledger.sessions[index];
        assert_eq!((session.sender, session.receiver), (sender, receiver));
        assert_eq!((session.key, session.tokens), (received.session, received.tokens));
        assert_eq!((session.grant, &session.blocks), (received.grant, &received.blocks));
        assert!(session.sending.is_none(), "session {index} was granted before");
        let tokens = received.tokens;
        let Some(blocks) = self.take_blocks(sender, tokens) else {
            self.count_end("session refused by sender".to_owned());
            let link = self.link(sender, receiver);
            return link.peer.abort_session(received.session, received.grant, "no blocks");
        };
        let map = BlockMap::new(&self.pool(sender).layout, &received.layout);
        let map = map.expect("layouts of one model");
        let life = self.engines[sender].life;
        let link = self.link(sender, receiver).serial;
        self.ledger.sessions[index].sending = Some(Sending {
            life,
            link,
            map,
            blocks,
            next_layer: 0,
            writes: 0,
            unreleased: 0,
            over: false,
        });
        let pause = self.random.within(0..200) * MS;
        self.after(pause, Happening::Layers(index));
    }

    /// Whether a hostile receiver's grant is one that its user really asked for.
    fn is_sound(&self, sender: usize, receiver: usize, received: &GrantReceived) -> bool {
        let session = self.ledger.sessions.get(received.session.room.0 as SessionIndex);
        session.is_some_and(|session| {
            (session.sender, session.receiver, session.grant, session.key)
                == (sender, receiver, received.grant, received.session)
                && session.sending.is_none()
                && (session.tokens, &session.blocks) == (received.tokens, &received.blocks)
        })
    }

    /// One or more layers are computed, and are sent.
    pub(crate) fn compute_layers(&mut self, index: SessionIndex) {
        let session = &self.ledger.sessions[index];
        let (sender, receiver, grant) = (session.sender, session.receiver, session.grant);
        let Some(sending) = &session.sending else { return };
        let gone = self.engines[sender].life != sending.life || !self.engines[sender].is_alive();
        if sending.over || gone {
            return;
        }
        if self.random.percent(5) {
            self.count(Fault::AbortSender);
            return self.abort_as_sender(index, "the prompt was withdrawn");
        }
        let session = &self.ledger.sessions[index];
        let Some(sending) = &session.sending else { return };
        let first = sending.next_layer;
        let (link, writes) = (sending.link, sending.writes);
        if first == LAYERS {
            let payload = session.payload.clone();
            let Some(link) = self.link_of(sender, receiver, link) else { return };
            let ended = link.peer.end_session(grant, writes, payload);
            self.session_sent(index);
            self.count_end(format!("session end posted: {}", ended.is_ok()));
            return self.attend(sender, receiver);
        }
        let last = first + 1 + self.random.index((LAYERS - first) as usize) as u32;
        self.write_layers(index, first..last);
        let pause = self.random.within(0..300) * MS;
        self.after(pause, Happening::Layers(index));
    }

    fn write_layers(&mut self, index: SessionIndex, layers: Range<u32>) {
        let session = &self.ledger.sessions[index];
        let (sender, receiver, grant) = (session.sender, session.receiver, session.grant);
        let deadline = self.deadline(sender, receiver);
        let session = &self.ledger.sessions[index];
        let Some(sending) = &session.sending else { return };
        let (life, serial) = (sending.life, sending.link);
        let plan = sending
            .map
            .plan(
                layers.clone(),
                session.tokens,
                &sending.blocks,
                &session.blocks,
                &PlanOptions::default(),
            )
            .expect("a plan of valid blocks");
        let (tokens, receiver_life) = (session.tokens, session.receiver_life);
        assert!(tokens > 0);
        let ours: Vec<(Arc<Region>, u64)> = {
            let pool = self.pool(sender);
            pool.regions.iter().cloned().zip(pool.segments.iter().map(|s| s.base)).collect()
        };
        let mut fresh = self.random.fork();
        let mut pieces = Vec::new();
        for run in plan.runs(0..plan.len()) {
            let local = ours[run.local as usize].1 + run.local_offset;
            let bytes: Vec<u8> = (0..run.len).map(|_| fresh.bits() as u8).collect();
            let memory = &mut self.engines[sender].memory;
            memory.bytes_mut(local, bytes.len()).copy_from_slice(&bytes);
            let remote = if self.engines[receiver].life == receiver_life {
                self.pool(receiver).segments[run.remote as usize].base + run.remote_offset
            } else {
                0
            };
            pieces.push(Piece::new(local, remote, bytes));
        }
        let expected = pieces.iter().map(|piece| (layers.start, piece.remote, piece.bytes.clone()));
        let expected: Vec<_> = expected.collect();
        let post = Post {
            op: TransferOp::Write,
            plan: Arc::new(plan),
            local: ours.iter().map(|(region, _)| Arc::clone(region)).collect(),
            target: Target::Grant(grant),
            notification: None,
            layers: Some(layers.clone()),
            deadline,
        };
        let now = self.local(sender);
        let Some(link) = self.link_of(sender, receiver, serial) else { return };
        let association = link.association;
        let posted = link.peer.post(now, post);
        match posted {
            Ok(id) => {
                let parties = [(sender, life), (receiver, receiver_life)];
                let id = id.expect("the plan has runs");
                let op = TransferOp::Write;
                let posted = Transfer::posted(op, parties, serial, id, deadline, self.now);
                let transfer = Transfer { pieces, session: Some(index), ..posted };
                self.report.transfers += 1;
                let transfer = self.ledger.add_transfer(association, transfer);
                self.note(|| {
                    format!("{sender} sends layers {layers:?} of session {index} as #{transfer}")
                });
                let session = &mut self.ledger.sessions[index];
                session.expected.extend(expected);
                if let Some(sending) = &mut session.sending {
                    sending.next_layer = layers.end;
                    sending.writes += 1;
                    sending.unreleased += 1;
                }
                self.attend(sender, receiver);
            }
            Err(_) => self.abort_as_sender(index, "cannot post"),
        }
    }

    /// A write of a session has failed at its sender: the session cannot be completed.
    pub(crate) fn session_write_failed(&mut self, index: SessionIndex) {
        self.abort_as_sender(index, "a write failed");
    }

    fn abort_as_sender(&mut self, index: SessionIndex, reason: &str) {
        let session = &self.ledger.sessions[index];
        let (sender, receiver, key, grant) =
            (session.sender, session.receiver, session.key, session.grant);
        let Some(sending) = &session.sending else { return };
        let serial = sending.link;
        self.session_sent(index);
        if let Some(link) = self.link_of(sender, receiver, serial) {
            link.peer.abort_session(key, grant, reason);
            self.attend(sender, receiver);
        }
    }

    /// The sender posts no more.
    pub(super) fn session_sent(&mut self, index: SessionIndex) {
        let session = &mut self.ledger.sessions[index];
        if let Some(sending) = &mut session.sending {
            sending.over = true;
        }
        self.free_source(index);
    }

    /// The sender's blocks are free once it posts no more and nothing that it posted can land.
    pub(crate) fn free_source(&mut self, index: SessionIndex) {
        let session = &mut self.ledger.sessions[index];
        let sender = session.sender;
        let sending = session.sending.as_mut();
        let Some(sending) = sending.filter(|sending| sending.over && sending.unreleased == 0)
        else {
            return;
        };
        let (life, blocks) = (sending.life, std::mem::take(&mut sending.blocks));
        if self.engines[sender].life == life {
            self.free_blocks(sender, &blocks);
        }
    }
}
