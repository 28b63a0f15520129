//! Two peers by a list of operations: what users ask for, what the network does, and how time goes,
//! in any order. Both are honest; everything else may happen. Compared with a ledger of what may
//! land, what was told and what ended.

mod ledger;
mod operation;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kvx_core::error::{Cause, LaneError};
use kvx_core::id::{LaneId, Room, SessionKey};
use kvx_core::layout::{Dtype, HeadWindow, Layout, LayoutBuilder, Placement};
use kvx_core::plan::{BlockMap, Plan, PlanOptions, Span, Spans};
use kvx_core::proto::{Deadline, GrantPlan, PeerConfig, Post, Target, TransferOp};
use kvx_core::testing::Pair;

use ledger::{Grant, Ledger, Piece, Role, State, Transfer};
use operation::{Operation, Shape};

/// Does the operations, and then lets everything come to its end.
pub fn run(bytes: &[u8]) {
    let Some(operations) = crate::structured::<Vec<Operation>>(bytes) else { return };
    let mut world = World::new();
    for operation in operations.into_iter().take(300) {
        // `None`: there was nothing to do it with.
        let _ = world.apply(operation);
        world.look();
    }
    world.end();
}

/// The peers, and what is known of them.
struct World {
    pair: Pair,
    ledger: Ledger,
    /// Rooms and notifications so far.
    drawn: u64,
}

impl World {
    fn new() -> Self {
        let config = PeerConfig { frame_bytes: 64, lanes: 2, ..PeerConfig::default() };
        let mut pair = Pair::connected(config);
        let mut ledger = Ledger::default();
        for side in 0..2 {
            Role::ALL.iter().for_each(|role| ledger.register(&mut pair, side, *role));
        }
        Self { pair, ledger, drawn: 0 }
    }

    fn apply(&mut self, operation: Operation) -> Option<()> {
        let pair = &mut self.pair;
        match operation {
            Operation::Post { side, write, shape, notify, deadline } => {
                self.post(side.into(), write, &shape, notify, deadline)?;
            }
            Operation::Cancel { side, which } => {
                let id = self.ledger.open_transfer(side.into(), which)?;
                pair.sides[usize::from(side)].peer.cancel(id);
            }
            Operation::Notify { side, len } => self.notify(side.into(), len.into())?,
            Operation::Take { side } => self.take(side.into()),
            Operation::List { side } => {
                let question = pair.sides[usize::from(side)].peer.list_regions().ok()?;
                self.ledger.asked(side.into(), question);
            }
            Operation::Renew { side, role } => {
                let role = Role::ALL[usize::from(role) % Role::ALL.len()];
                self.ledger.deregister(&mut self.pair, side.into(), role);
                self.ledger.register(&mut self.pair, side.into(), role);
            }
            Operation::Grant { receiver, block, tokens } => {
                self.grant(receiver.into(), block, tokens)?;
            }
            Operation::Write { grant, first, count } => self.write(grant, first, count)?,
            Operation::EndSession { grant } => self.end_session(grant)?,
            Operation::AbortSession { grant } => {
                let grant = self.ledger.got_grant(grant)?;
                let (id, key, sender) = (grant.id, grant.key, 1 - grant.receiver);
                grant.sender_done = true;
                self.pair.sides[sender].peer.abort_session(key, id, "the user wants it so");
            }
            Operation::Revoke { grant } => self.revoke(grant)?,
            Operation::Deliver { to, count } => {
                for _ in 0..=count % 8 {
                    pair.deliver(to.into());
                }
            }
            Operation::Transmit { from, lane } => {
                let lane = lane_of(pair, from.into(), lane)?;
                pair.transmit(from.into(), lane);
            }
            Operation::Receive { to, lane, count } => {
                let lane = lane_of(pair, to.into(), lane)?;
                for _ in 0..=count % 8 {
                    pair.receive(to.into(), lane);
                }
            }
            Operation::OpenLanes => {
                pair.open_lanes();
            }
            Operation::HoldLanes { side, hold } => pair.sides[usize::from(side)].hold_lanes = hold,
            Operation::FailLane { side } => {
                let side = &mut pair.sides[usize::from(side)];
                let lane = side.wanted.pop()?;
                side.peer.handle_lane_failed(pair.now, lane);
            }
            Operation::CloseLane { side, lane } => {
                let lane = lane_of(pair, side.into(), lane)?;
                pair.close(side.into(), lane, LaneError::SourceGone);
            }
            Operation::Cut { to, lane, kept } => {
                let lane = lane_of(pair, to.into(), lane)?;
                pair.cut(lane, to.into(), kept.into());
            }
            Operation::Disconnect => pair.disconnect(),
            Operation::Connect { dialer, delay } => self.connect(dialer.into(), delay),
            Operation::Forget { side } => self.forget(side.into()),
            Operation::Goodbye { side } => pair.sides[usize::from(side)].peer.goodbye(),
            Operation::Settle => pair.settle(),
            Operation::Elapse { millis } => pair.elapse(Duration::from_millis(millis.into())),
            Operation::Live { millis } => pair.live(Duration::from_millis(millis.into())),
        }
        Some(())
    }

    /// What has happened is entered in the ledger, which knows what may.
    fn look(&mut self) {
        self.pair.collect();
        self.ledger.look(&mut self.pair);
    }

    /// All is well again, and time passes: everything must have ended, and nothing be kept.
    fn end(&mut self) {
        self.pair.sides.iter_mut().for_each(|side| side.hold_lanes = false);
        let dead = self.pair.sides.iter().any(|side| side.peer.cause_of_death().is_some());
        if dead {
            (0..2).for_each(|side| self.forget(side));
        } else {
            self.pair.connect(0);
            self.pair.live(Duration::from_secs(25));
            self.look();
            while self.revoke(0).is_some() {}
            (0..2).for_each(|side| self.take(side));
            self.pair.live(Duration::from_secs(25));
            self.look();
            for side in &self.pair.sides {
                assert_eq!(side.peer.residue(), []);
            }
        }
        self.ledger.all_has_ended();
    }

    fn post(
        &mut self,
        side: usize,
        write: bool,
        shape: &Shape,
        notify: bool,
        deadline: u8,
    ) -> Option<()> {
        let (op, here, there) = match write {
            true => (TransferOp::Write, Role::Source, Role::Target),
            false => (TransferOp::Read, Role::Sink, Role::Source),
        };
        let (local, remote) = (self.ledger.place(side, here), self.ledger.place(1 - side, there));
        let (ours, theirs) = shape.spans();
        let plan = Plan::pair(&ours, &theirs, &PlanOptions { merge: true, max_run: 48 });
        let plan = plan.expect("spans that pair up");
        let pieces = ours.iter().zip(theirs.iter()).map(|(local_span, remote_span)| {
            let (from, to, at) = match write {
                true => (side, remote, (local_span, remote_span)),
                false => (1 - side, local, (remote_span, local_span)),
            };
            piece(from, to, at)
        });
        let pieces: Vec<Piece> = pieces.collect();
        let notification = notify.then(|| self.content(16));
        let post = Post {
            op,
            plan: Arc::new(plan),
            local: Arc::from([Arc::clone(&self.ledger.region(local))]),
            target: Target::Regions(Arc::from([self.ledger.region(remote).id])),
            notification: notification.clone(),
            layers: None,
            deadline: limits(deadline),
        };
        self.posted(side, post, pieces, None, notification)
    }

    fn posted(
        &mut self,
        side: usize,
        post: Post,
        pieces: Vec<Piece>,
        grant: Option<usize>,
        notification: Option<Bytes>,
    ) -> Option<()> {
        let op = post.op;
        let id = self.pair.sides[side].peer.post(self.pair.now, post).ok()??;
        let life = self.ledger.lives[side];
        let state = State::Open;
        let transfer = Transfer { side, life, id, op, pieces, grant, state, fenced: false };
        self.ledger.transfers.push(transfer);
        if let Some(content) = notification {
            let with = self.ledger.transfers.len() - 1;
            self.ledger.sent(side, None, Some(with), &content);
        }
        Some(())
    }

    fn notify(&mut self, side: usize, len: usize) -> Option<()> {
        let content = self.content(len);
        let peer = &mut self.pair.sides[side].peer;
        let id = peer.notify(self.pair.now, content.clone()).ok()?;
        self.ledger.sent(side, Some(id), None, &content);
        Some(())
    }

    /// The user of a side takes what it was told.
    fn take(&mut self, side: usize) {
        for len in std::mem::take(&mut self.ledger.untaken[side]) {
            self.pair.sides[side].peer.notification_taken(len);
        }
    }

    fn grant(&mut self, receiver: usize, block: u8, tokens: u8) -> Option<()> {
        self.drawn += 1;
        let key = SessionKey { room: Room(self.drawn), ..SESSION };
        let blocks: Vec<u32> = (0..2).map(|i| (u32::from(block) + i) % 4).collect();
        let tokens = 1 + u32::from(tokens) % 4;
        let pool = self.ledger.place(receiver, Role::Pool);
        let regions = vec![self.ledger.region(pool)];
        let plan = GrantPlan::new(layout(), regions, tokens, blocks).expect("blocks of the pool");
        let (id, gate) = self.pair.sides[receiver].peer.grant(key, Arc::new(plan)).ok()?;
        let life = self.ledger.lives[receiver];
        self.ledger.grants.push(Grant::new(receiver, life, id, key, gate, pool));
        Some(())
    }

    fn write(&mut self, which: u8, first: u8, count: u8) -> Option<()> {
        let index = self.ledger.got_grant_index(which)?;
        let grant = &self.ledger.grants[index];
        let (sender, pool, got) = (1 - grant.receiver, grant.pool, grant.got.clone()?);
        let map = BlockMap::new(&layout(), &got.layout).expect("the same layout");
        let first = u32::from(first % 2);
        let layers = first..(first + 1 + u32::from(count % 2)).min(2);
        let options = PlanOptions::default();
        let plan = map.plan(layers.clone(), got.tokens, &[2, 0], &got.blocks, &options);
        let plan = plan.expect("blocks of both pools");
        let span = |region, offset, len: u32| Span { region, offset, len: len.into() };
        let pieces = plan.runs(0..plan.len()).map(|run| {
            let at = (span(0, run.local_offset, run.len), span(0, run.remote_offset, run.len));
            piece(sender, pool, at)
        });
        let pieces = pieces.collect();
        let post = Post {
            op: TransferOp::Write,
            plan: Arc::new(plan),
            local: Arc::from([self.ledger.region(self.ledger.place(sender, Role::Source))]),
            target: Target::Grant(got.grant),
            notification: None,
            layers: Some(layers),
            deadline: Deadline::default(),
        };
        self.posted(sender, post, pieces, Some(index), None)?;
        self.ledger.grants[index].writes += 1;
        Some(())
    }

    fn end_session(&mut self, which: u8) -> Option<()> {
        let grant = self.ledger.got_grant(which)?;
        let (sender, id, writes) = (1 - grant.receiver, grant.id, grant.writes);
        let peer = &mut self.pair.sides[sender].peer;
        peer.end_session(id, writes, Bytes::from_static(b"first token")).ok()?;
        grant.sender_done = true;
        Some(())
    }

    fn revoke(&mut self, which: u8) -> Option<()> {
        let index = self.ledger.given_grant(which)?;
        let grant = &mut self.ledger.grants[index];
        let peer = &mut self.pair.sides[grant.receiver].peer;
        let gate = peer.revoke(grant.id, "the user wants it so").expect("a grant that stands");
        assert!(gate.is_drained() && Arc::ptr_eq(&gate, &grant.gate));
        grant.over();
        self.ledger.fence_grant(index);
        Some(())
    }

    /// A connection comes up. Peers that are dead are known anew, as an engine does it.
    fn connect(&mut self, dialer: usize, delay: u8) {
        for side in 0..2 {
            if self.pair.sides[side].peer.cause_of_death().is_some() {
                self.forget(side);
            }
        }
        self.pair.connect_slowly(dialer, Duration::from_millis(delay.into()));
    }

    /// A side removes the other, hangs up, and knows it anew.
    fn forget(&mut self, side: usize) {
        self.pair.sides[side].peer.kill(Cause::PeerRemoved);
        self.pair.disconnect();
        self.look();
        self.pair.forget(side);
        self.pair.sides[side].wanted.clear();
        self.ledger.begin_life(&mut self.pair, side);
    }

    /// Bytes that were never sent before.
    fn content(&mut self, len: usize) -> Bytes {
        self.drawn += 1;
        let mut content = self.drawn.to_le_bytes().to_vec();
        content.resize(len.max(content.len()), 0);
        content.into()
    }
}

const SESSION: SessionKey =
    SessionKey { room: Room(0), attempt: 0, sender_rank: 0, receiver_rank: 0 };

/// Two layers of keys and values, four blocks of two tokens of four bytes: 128 bytes.
fn layout() -> Layout {
    let heads = HeadWindow { first: 0, count: 1, total: 1 };
    let layout = LayoutBuilder::key_value(2, 4, heads, 4, Dtype::Fp8).block_tokens(2);
    layout.placement(Placement::OneRegion).build().expect("a layout that makes sense")
}

fn piece(from: usize, to: usize, (source, target): (Span, Span)) -> Piece {
    Piece { from, source: source.offset, place: to, offset: target.offset, len: target.len }
}

/// Without progress, and perhaps in all.
fn limits(deadline: u8) -> Deadline {
    let millis = Duration::from_millis(u64::from(deadline) * 20 + 1);
    match deadline % 4 {
        0 => Deadline { progress: millis, total: Some(millis * 2) },
        1 => Deadline { progress: millis, total: None },
        _ => Deadline::default(),
    }
}

fn lane_of(pair: &Pair, side: usize, which: u8) -> Option<LaneId> {
    let lanes = pair.lanes(side);
    lanes.get(usize::from(which) % lanes.len().max(1)).copied()
}

impl Shape {
    /// Local and remote spans: pieces of equal length, each side with a gap of its own.
    fn spans(&self) -> (Spans, Spans) {
        let (count, len) = (1 + u64::from(self.count % 8), 1 + u64::from(self.len % 24));
        let list = |start: u8, gap: u8| -> Spans {
            let step = len + u64::from(gap % 8);
            let room = ledger::LEN - (step * (count - 1) + len).min(ledger::LEN);
            let start = u64::from(start) % (room + 1);
            (0..count).map(|i| Span { region: 0, offset: start + i * step, len }).collect()
        };
        (list(self.local, self.local_gap), list(self.remote, self.remote_gap))
    }
}
