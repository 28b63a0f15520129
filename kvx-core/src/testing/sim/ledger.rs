//! What was promised, checked: every transfer, notification and landing byte of a run.

mod checks;
mod endings;
mod intruders;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;

use crate::id::{Association, GrantId, Incarnation, TransferId};
use crate::proto::{Deadline, TransferOp};
use crate::region::{Gate, Region};
use crate::testing::random::Random;
use crate::testing::sim::sessions::{Session, SessionIndex};
use crate::testing::sim::{Instant, SECOND};

/// A transfer's place in the ledger.
pub(crate) type TransferIndex = usize;
/// A notification's.
pub(crate) type NoteIndex = usize;
/// One life of one engine.
pub(crate) type Life = (usize, u32);

/// Everything that users of a run have asked for.
#[derive(Default)]
pub(crate) struct Ledger {
    pub(crate) transfers: Vec<Transfer>,
    /// By the initiator's association and its number.
    by_id: BTreeMap<(Association, TransferId), TransferIndex>,
    /// Those that are open, by their initiator.
    open: BTreeMap<Life, BTreeSet<TransferIndex>>,
    /// The one that ended last, by its initiator.
    last_ended: BTreeMap<Life, TransferIndex>,
    pub(crate) notes: Vec<Note>,
    /// By the sending link's serial number and its count.
    notes_by_id: BTreeMap<(u64, u64), NoteIndex>,
    /// Those whose fate is open, by their sender.
    unsettled: BTreeMap<Life, BTreeSet<NoteIndex>>,
    /// Notifications that became due at their senders so far: all but those after a WRITE.
    dues: u64,
    /// The place among them of the one delivered last, of each sending link.
    last_due: BTreeMap<u64, u64>,
    pub(crate) sessions: Vec<Session>,
    /// By the receiving link's serial number and the grant.
    sessions_by_grant: BTreeMap<(u64, GrantId), SessionIndex>,
    /// Those that are open at their receiver, by it.
    open_sessions: BTreeMap<Life, BTreeSet<SessionIndex>>,
    /// The one that ended last at its receiver, by it.
    last_session: BTreeMap<Life, SessionIndex>,
    /// What waits until a gate has drained.
    draining: Vec<(Arc<Gate>, Waits)>,
    /// Deregistered regions that have not drained.
    regions: Vec<(Arc<Region>, Life, Holding)>,
    /// WRITEs of hostile engines of which nothing may land any more: both associations, the
    /// owner's first, and the transfer.
    fenced: BTreeSet<(Association, Association, TransferId)>,
    /// Those that are complete: what lands is at most a call that has begun before.
    complete: BTreeSet<(Association, Association, TransferId)>,
    /// Runs of hostile engines' WRITEs that have landed, by the same.
    intrusions: BTreeMap<(Association, Association, TransferId), BTreeSet<u32>>,
    /// Keys of regions that were ever published, by their engines.
    pub(crate) published: BTreeSet<(usize, [u8; 16])>,
    /// Questions for published regions, by the asking link's serial number and the question's.
    pub(crate) lists: BTreeMap<(u64, u64), Published>,
    /// Pairs of engines of which one gave the other up, lower first, and when last.
    breaks: BTreeMap<[usize; 2], Instant>,
}

/// What a region is to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holding {
    /// An estate, by its number.
    Estate(usize),
    /// A region of the KV pool, by its number.
    Pool(usize),
    /// A bait, by its number.
    Bait(usize),
}

/// A transfer, as its user knows it.
pub(crate) struct Transfer {
    pub(crate) op: TransferOp,
    /// The initiator and the owner.
    pub(crate) parties: [Life; 2],
    /// The initiator's link.
    pub(crate) link: u64,
    pub(crate) id: TransferId,
    /// Empty once it is over and its memory in other hands.
    pub(crate) pieces: Vec<Piece>,
    /// Whether every byte had landed by then.
    pub(crate) whole: bool,
    /// Used until it is over.
    pub(crate) cells: Vec<Cell>,
    pub(crate) session: Option<SessionIndex>,
    pub(crate) note: Option<NoteIndex>,
    pub(crate) limits: Deadline,
    pub(crate) posted: Instant,
    pub(crate) stage: Stage,
    /// While it is failed: until when its bytes may land.
    pub(crate) lingers: Instant,
    /// Whether its initiator was told that it is done.
    pub(crate) done: bool,
    /// Whether nothing is in its way, so that it must be done.
    pub(crate) due: bool,
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    /// It failed, and its bytes may land until its last deadline.
    Failed,
    /// Its deadline has come: no system call for it may begin.
    Expired,
    /// No byte of it may land.
    Over,
    /// The same, and its memory is in other hands.
    Released,
}

/// Bytes that a transfer moves.
pub(crate) struct Piece {
    pub(crate) local: u64,
    pub(crate) remote: u64,
    /// The source's bytes.
    pub(crate) bytes: Vec<u8>,
    /// Which of them have landed.
    pub(crate) landed: Vec<bool>,
}

impl Transfer {
    /// Whether every byte has landed, whatever came after it; not known of memory whose engine has
    /// another life by now.
    fn has_landed(&self) -> bool {
        match self.stage {
            Stage::Released => self.whole,
            _ => self.pieces.iter().flat_map(|piece| &piece.landed).all(|landed| *landed),
        }
    }

    /// Whether any byte has landed.
    pub(crate) fn has_begun(&self) -> bool {
        self.pieces.iter().flat_map(|piece| &piece.landed).any(|landed| *landed)
    }

    /// Its memory is in other hands: what it was to carry is not needed any more.
    fn forget_bytes(&mut self) {
        self.whole = self.has_landed();
        self.pieces = Vec::new();
        self.stage = Stage::Released;
    }
}

impl Transfer {
    /// A transfer that was posted just now.
    pub(crate) fn posted(
        op: TransferOp,
        parties: [Life; 2],
        link: u64,
        id: TransferId,
        limits: Deadline,
        posted: Instant,
    ) -> Self {
        Self {
            op,
            parties,
            link,
            id,
            pieces: Vec::new(),
            whole: false,
            cells: Vec::new(),
            session: None,
            note: None,
            limits,
            posted,
            stage: Stage::Open,
            lingers: 0,
            done: false,
            due: false,
        }
    }
}

impl Piece {
    pub(crate) fn new(local: u64, remote: u64, bytes: Vec<u8>) -> Self {
        let landed = vec![false; bytes.len()];
        Self { local, remote, bytes, landed }
    }
}

/// A cell of an engine's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) owner: Life,
    pub(crate) estate: usize,
    pub(crate) index: usize,
}

/// A notification, as its sender knows it.
pub(crate) struct Note {
    /// The sending link.
    pub(crate) link: u64,
    pub(crate) from: Life,
    pub(crate) to: usize,
    /// The receiver's life, if it was known when it was sent.
    pub(crate) incarnation: Option<Incarnation>,
    pub(crate) len: usize,
    pub(crate) after: Option<TransferIndex>,
    /// Its place among those that became due at their senders, once it is. Those after a WRITE
    /// become due at the target.
    pub(crate) due: Option<u64>,
    pub(crate) sent: Instant,
    pub(crate) delivered: u32,
    pub(crate) fate: Option<Fate>,
    /// The link on which it came, until it is taken.
    pub(crate) came_on: Option<u64>,
}

/// What was published when it was asked for, and in which life.
pub(crate) struct Published {
    pub(crate) life: Life,
    pub(crate) regions: Vec<Arc<Region>>,
}

/// What its sender was told of a notification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Delivered,
    NotDelivered,
    Unknown,
}

/// What waits until a gate has drained.
#[derive(Clone, Copy, Debug)]
enum Waits {
    /// A READ's own memory.
    Read(TransferIndex),
    /// The blocks of a session at its receiver.
    Session(SessionIndex),
}

impl Ledger {
    pub(crate) fn add_transfer(
        &mut self,
        association: Association,
        transfer: Transfer,
    ) -> TransferIndex {
        let index = self.transfers.len();
        let known = self.by_id.insert((association, transfer.id), index);
        assert!(known.is_none(), "a transfer's id came twice");
        self.open.entry(transfer.parties[0]).or_default().insert(index);
        self.transfers.push(transfer);
        index
    }

    pub(crate) fn find(&self, association: Association, id: TransferId) -> Option<TransferIndex> {
        self.by_id.get(&(association, id)).copied()
    }

    pub(crate) fn open_transfers(&self, initiator: Life) -> Vec<TransferIndex> {
        self.open.get(&initiator).into_iter().flatten().copied().collect()
    }

    /// The transfer that ended last.
    pub(crate) fn last_ended(&self, initiator: Life) -> Option<TransferIndex> {
        self.last_ended.get(&initiator).copied()
    }

    /// The bytes of the next notification: its number, and some more.
    pub(crate) fn next_note_bytes(&self, random: &mut Random) -> Bytes {
        let mut bytes = (self.notes.len() as u64).to_le_bytes().to_vec();
        let more = random.within(0..200) as usize;
        let more = if random.percent(5) { more * 1000 } else { more };
        bytes.resize(8 + more, 0x77);
        Bytes::from(bytes)
    }

    /// Takes in what the link `note.link` has sent as its notification number `id`.
    pub(crate) fn add_note(&mut self, id: u64, note: Note) -> NoteIndex {
        let index = self.notes.len();
        let plain = note.after.is_none();
        self.notes_by_id.insert((note.link, id), index);
        self.unsettled.entry(note.from).or_default().insert(index);
        self.notes.push(note);
        if plain {
            self.due(index);
        }
        index
    }

    /// A notification becomes due at its sender, after all that did before.
    fn due(&mut self, index: NoteIndex) {
        self.dues += 1;
        self.notes[index].due = Some(self.dues);
    }

    /// A receiver has given this grant.
    pub(crate) fn add_session(
        &mut self,
        receiver: Life,
        grant: (u64, GrantId),
        session: SessionIndex,
    ) {
        self.sessions_by_grant.insert(grant, session);
        self.open_sessions.entry(receiver).or_default().insert(session);
    }

    pub(crate) fn find_session(&self, link: u64, grant: GrantId) -> Option<SessionIndex> {
        self.sessions_by_grant.get(&(link, grant)).copied()
    }

    pub(crate) fn open_sessions(&self, receiver: Life) -> Vec<SessionIndex> {
        self.open_sessions.get(&receiver).into_iter().flatten().copied().collect()
    }

    pub(crate) fn session_ended(&mut self, receiver: Life, session: SessionIndex) {
        if let Some(open) = self.open_sessions.get_mut(&receiver) {
            open.remove(&session);
        }
        self.last_session.insert(receiver, session);
    }

    /// The session that ended last.
    pub(crate) fn last_session(&self, receiver: Life) -> Option<SessionIndex> {
        self.last_session.get(&receiver).copied()
    }

    pub(crate) fn note_target(&self, note: NoteIndex) -> usize {
        self.notes[note].to
    }

    pub(crate) fn link_broken(&mut self, a: usize, b: usize, now: Instant) {
        self.breaks.insert([a.min(b), a.max(b)], now);
    }

    /// Whether one of two engines may have given the other up after a point of time. The other
    /// learns of it later, when it has asked for more.
    fn broken_since(&self, a: usize, b: usize, since: Instant) -> bool {
        let since = since.saturating_sub(15 * SECOND);
        self.breaks.get(&[a.min(b), a.max(b)]).is_some_and(|at| *at >= since)
    }

    pub(crate) fn drain_region(&mut self, region: Arc<Region>, owner: Life, holding: Holding) {
        self.regions.push((region, owner, holding));
    }

    pub(crate) fn drain_session(&mut self, gate: Arc<Gate>, session: SessionIndex) {
        self.draining.push((gate, Waits::Session(session)));
    }
}
