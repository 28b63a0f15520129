//! What two honest peers may do: which bytes may land where, what was told, what has ended.
//!
//! Memory is watched byte by byte. A byte that changes must be one that a transfer which is not
//! fenced would put there, in memory that is registered. Nothing of the protocol is used to decide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use kvx_core::error::Refusal::{NotGranted, RegionClosed, UnknownSlot, WrongKey};
use kvx_core::error::{Cause, Fence, Side};
use kvx_core::id::{GrantId, NotificationId, SessionKey, TransferId};
use kvx_core::proto::{Delivery, Event, GrantReceived, TransferOp, TransferReport};
use kvx_core::region::{Gate, Region, Rights};
use kvx_core::testing::Pair;

/// Bytes of every region.
pub(super) const LEN: u64 = 256;
/// What memory holds before anything lands; no source holds it.
const EMPTY: u8 = 0xff;

/// What a region is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Role {
    /// Holds what is written from here and read by the peer. Never changes.
    Source,
    /// The peer may write here. Published.
    Target,
    /// The peer may write here under grants only.
    Pool,
    /// What is read lands here; the peer may do nothing.
    Sink,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::Source, Self::Target, Self::Pool, Self::Sink];
}

/// Everything that is known.
#[derive(Default)]
pub(super) struct Ledger {
    places: Vec<Place>,
    /// The place that serves a role now.
    current: BTreeMap<(usize, Role), usize>,
    pub(super) transfers: Vec<Transfer>,
    notes: Vec<Note>,
    pub(super) grants: Vec<Grant>,
    /// How often each side began to know the other anew: names count from the start then.
    pub(super) lives: [u32; 2],
    /// Questions for published regions that are open: who asked, in which life, and its number.
    lists: BTreeSet<(usize, u32, u64)>,
    /// Notifications that a side's user was told and has not taken, by their lengths.
    pub(super) untaken: [Vec<usize>; 2],
}

/// Registered memory, also after its end.
struct Place {
    side: usize,
    region: Arc<Region>,
    base: u64,
    /// Its bytes when last looked at.
    seen: Vec<u8>,
    live: bool,
}

/// Bytes of a transfer that follow each other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Piece {
    /// Whose source they come from, and where in it.
    pub(super) from: usize,
    pub(super) source: u64,
    /// Where they land.
    pub(super) place: usize,
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// A transfer that was posted.
pub(super) struct Transfer {
    pub(super) side: usize,
    pub(super) life: u32,
    pub(super) id: TransferId,
    pub(super) op: TransferOp,
    pub(super) pieces: Vec<Piece>,
    pub(super) grant: Option<usize>,
    pub(super) state: State,
    /// Nothing of it may land any more.
    pub(super) fenced: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Done,
    Failed,
}

/// A notification that was sent.
struct Note {
    from: usize,
    life: u32,
    /// `None` until the end of its transfer tells: posts do not name theirs.
    id: Option<NotificationId>,
    with: Option<usize>,
    content: Bytes,
    told: bool,
    fate: Option<Fate>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    NotDelivered,
    Unknown,
}

/// A grant that was given.
pub(super) struct Grant {
    pub(super) receiver: usize,
    life: u32,
    pub(super) id: GrantId,
    pub(super) key: SessionKey,
    pub(super) gate: Arc<Gate>,
    pub(super) pool: usize,
    /// As the sender knows it.
    pub(super) got: Option<GrantReceived>,
    pub(super) writes: u64,
    /// The sender has said its last word.
    pub(super) sender_done: bool,
    /// The receiver's session has ended.
    over: bool,
}

impl Grant {
    pub(super) fn new(
        receiver: usize,
        life: u32,
        id: GrantId,
        key: SessionKey,
        gate: Arc<Gate>,
        pool: usize,
    ) -> Self {
        let (got, writes, sender_done, over) = (None, 0, false, false);
        Self { receiver, life, id, key, gate, pool, got, writes, sender_done, over }
    }

    /// A session ends once.
    pub(super) fn over(&mut self) {
        assert!(!std::mem::replace(&mut self.over, true), "session {:?} ended twice", self.key);
        assert!(self.gate.is_drained(), "a session is over and its bytes may land");
    }
}

impl Ledger {
    pub(super) fn register(&mut self, pair: &mut Pair, side: usize, role: Role) {
        let rights = match role {
            Role::Source => Rights::REMOTE_READ,
            Role::Target => Rights::all(),
            Role::Pool | Role::Sink => Rights::empty(),
        };
        let (region, segment) = pair.sides[side].register(LEN as usize, EMPTY, rights);
        if role == Role::Source {
            let bytes = pair.sides[side].memory.bytes_mut(segment.base, LEN as usize);
            bytes.iter_mut().zip(0..).for_each(|(byte, at)| *byte = source(side, at));
        }
        if role == Role::Target {
            pair.sides[side].registry.publish(region.id).expect("a region that is live");
        }
        let seen = pair.sides[side].memory.bytes(segment.base, LEN as usize).to_vec();
        let key = (region.id, region.key.clone());
        pair.sides[1 - side].peer.learn_regions([key]);
        self.current.insert((side, role), self.places.len());
        self.places.push(Place { side, region, base: segment.base, seen, live: true });
    }

    /// In the order that an engine does it.
    pub(super) fn deregister(&mut self, pair: &mut Pair, side: usize, role: Role) {
        let index = self.place(side, role);
        let place = &mut self.places[index];
        let (registry, peer) = (&pair.sides[side].registry, &mut pair.sides[side].peer);
        peer.close_region(place.region.id);
        let closed = registry.deregister(place.region.id).expect("a region that is live");
        assert!(closed.gate.is_drained());
        peer.close_region(place.region.id);
        place.live = false;
    }

    /// A side knows the other anew: it learns of the other's regions again.
    pub(super) fn begin_life(&mut self, pair: &mut Pair, side: usize) {
        self.lives[side] += 1;
        self.untaken[side].clear();
        for role in Role::ALL {
            let region = self.region(self.place(1 - side, role));
            pair.sides[side].peer.learn_regions([(region.id, region.key.clone())]);
        }
    }

    pub(super) fn place(&self, side: usize, role: Role) -> usize {
        self.current[&(side, role)]
    }

    pub(super) fn region(&self, place: usize) -> Arc<Region> {
        Arc::clone(&self.places[place].region)
    }

    pub(super) fn open_transfer(&self, side: usize, which: u8) -> Option<TransferId> {
        let open = |transfer: &&Transfer| {
            transfer.side == side && self.is_present(side, transfer.life) && transfer.is_open()
        };
        let open: Vec<&Transfer> = self.transfers.iter().filter(open).collect();
        pick(&open, which).map(|transfer| transfer.id)
    }

    /// A grant that its sender has, and has more to say about.
    pub(super) fn got_grant(&mut self, which: u8) -> Option<&mut Grant> {
        let index = self.got_grant_index(which)?;
        self.grants.get_mut(index)
    }

    pub(super) fn got_grant_index(&self, which: u8) -> Option<usize> {
        let standing = |grant: &Grant| grant.got.is_some() && !grant.sender_done;
        let all = self.grants.iter().zip(0..);
        let all: Vec<usize> = all.filter(|(grant, _)| standing(grant)).map(|(_, i)| i).collect();
        pick(&all, which).copied()
    }

    /// A grant whose session stands at the receiver.
    pub(super) fn given_grant(&self, which: u8) -> Option<usize> {
        let all = self.grants.iter().zip(0..);
        let all: Vec<usize> = all.filter(|(grant, _)| !grant.over).map(|(_, i)| i).collect();
        pick(&all, which).copied()
    }

    pub(super) fn fence_grant(&mut self, grant: usize) {
        let under = self.transfers.iter_mut().filter(|transfer| transfer.grant == Some(grant));
        under.for_each(|transfer| transfer.fenced = true);
    }

    pub(super) fn sent(
        &mut self,
        from: usize,
        id: Option<NotificationId>,
        with: Option<usize>,
        content: &Bytes,
    ) {
        let (life, content) = (self.lives[from], content.clone());
        self.notes.push(Note { from, life, id, with, content, told: false, fate: None });
    }

    pub(super) fn asked(&mut self, side: usize, question: u64) {
        self.lists.insert((side, self.lives[side], question));
    }

    /// Looks at all memory, and then hears what both sides have to tell: first what has come, then
    /// what has ended, for what is told to have come must have.
    pub(super) fn look(&mut self, pair: &mut Pair) {
        self.look_at_memory(pair);
        let events = [0, 1].map(|side| pair.sides[side].take_events());
        for (side, events) in events.iter().enumerate() {
            events.iter().for_each(|event| self.has_come(side, event));
        }
        for (side, events) in events.into_iter().enumerate() {
            events.into_iter().for_each(|event| self.has_ended(side, event));
            let violation = &pair.sides[side].violation;
            assert!(violation.is_none(), "an honest peer is blamed: {violation:?}");
        }
    }

    pub(super) fn all_has_ended(&self) {
        for transfer in &self.transfers {
            assert!(!transfer.is_open(), "transfer {:?} has no end", transfer.id);
        }
        for note in &self.notes {
            let fate = note.fate.expect("a notification without a fate");
            assert!(note.told || fate != Fate::Delivered, "delivered, and never told");
            assert!(!note.told || fate != Fate::NotDelivered, "told, and not delivered");
        }
        assert!(self.grants.iter().all(|grant| grant.over), "a session has no end");
        assert!(self.lists.is_empty(), "a question has no answer");
    }

    fn look_at_memory(&mut self, pair: &Pair) {
        for (index, place) in self.places.iter_mut().enumerate() {
            let now = pair.sides[place.side].memory.bytes(place.base, LEN as usize);
            if now == place.seen {
                continue;
            }
            assert!(place.live, "bytes landed in memory that was deregistered");
            let puts = |at: u64, byte: u8| {
                let open = self.transfers.iter().filter(|transfer| !transfer.fenced);
                open.flat_map(|transfer| &transfer.pieces).any(|p| p.puts(index, at) == Some(byte))
            };
            for (at, (seen, now)) in (0..).zip(place.seen.iter().zip(now)) {
                assert!(seen == now || puts(at, *now), "byte {at} of place {index} became {now}");
            }
            place.seen = now.to_vec();
        }
    }

    fn has_come(&mut self, side: usize, event: &Event) {
        match event {
            Event::Notification(content) => {
                self.untaken[side].push(content.len());
                self.told(side, content);
            }
            Event::Granted(got) => {
                let given = |grant: &&mut Grant| {
                    grant.receiver == 1 - side && grant.id == got.grant && grant.key == got.session
                };
                let grant = self.grants.iter_mut().find(given).expect("a grant that was given");
                assert!(grant.got.replace((**got).clone()).is_none(), "granted twice");
            }
            Event::SessionEnded(id, key, payload) => {
                let index = self.grant_of(side, *id);
                let grant = &mut self.grants[index];
                assert_eq!((grant.key, &payload[..]), (*key, &b"first token"[..]));
                grant.over();
                let under = self.transfers.iter().filter(|t| t.grant == Some(index));
                under.for_each(|transfer| self.is_there(transfer));
                self.fence_grant(index);
            }
            Event::SessionAborted { grant: Some(id), here: Side::Receiver, .. } => {
                let index = self.grant_of(side, *id);
                self.grants[index].over();
                self.fence_grant(index);
            }
            Event::SessionAborted { session, here: Side::Sender, .. } => {
                let ours = |grant: &&mut Grant| grant.key == *session;
                self.grants.iter_mut().filter(ours).for_each(|grant| grant.sender_done = true);
            }
            _ => {}
        }
    }

    fn told(&mut self, side: usize, content: &Bytes) {
        let known = |note: &Note| note.from == 1 - side && note.content == *content;
        let index = self.notes.iter().position(known).expect("a notification that was sent");
        let note = &self.notes[index];
        assert!(!note.told, "told twice");
        assert_ne!(note.fate, Some(Fate::NotDelivered), "told, and not delivered");
        match note.with {
            Some(transfer) => self.is_there(&self.transfers[transfer]),
            // Those that wait for nothing keep their order.
            None => {
                let later = self.notes[index..].iter();
                let mut later = later.filter(|n| n.from == note.from && n.with.is_none());
                assert!(!later.any(|later| later.told), "told out of order");
            }
        }
        self.notes[index].told = true;
    }

    fn has_ended(&mut self, side: usize, event: Event) {
        match event {
            Event::TransferEnded { transfer, outcome, fence } => {
                if let Some(fence) = fence {
                    assert!(fence.is_drained(), "a READ has ended and its bytes may land");
                }
                self.transfer_ended(side, transfer, &outcome);
            }
            Event::NotificationSettled(id, delivery, with) => {
                self.settled(side, id, &delivery, with)
            }
            Event::RegionsListed { question, regions } => {
                let life = self.lives[side];
                assert!(self.lists.remove(&(side, life, question)), "answered twice, or unasked");
                for told in regions.iter().flatten() {
                    let known =
                        |place: &&Place| place.side == 1 - side && place.region.describe() == *told;
                    let place = self.places.iter().find(known).expect("the other side's region");
                    assert_eq!(place.region.rights, Rights::all(), "only targets are published");
                }
            }
            _ => {}
        }
    }

    fn transfer_ended(
        &mut self,
        side: usize,
        id: TransferId,
        outcome: &Result<TransferReport, Cause>,
    ) {
        let index = self.transfer_of(side, id);
        let transfer = &mut self.transfers[index];
        assert!(transfer.is_open(), "{id:?} ended twice");
        transfer.state = if outcome.is_ok() { State::Done } else { State::Failed };
        transfer.fenced |= match outcome {
            // All has landed, and lands once.
            Ok(_) => true,
            // Nothing lands at or after the deadline, and nothing that the owner has fenced.
            Err(Cause::Cancelled(Fence::Fenced | Fence::Unfenced) | Cause::Deadline { .. }) => true,
            Err(_) => transfer.op == TransferOp::Read,
        };
        if let Err(Cause::Refused(refusal)) = outcome {
            // What the owner or the receiver took away, and nothing else.
            let known = [RegionClosed, UnknownSlot, WrongKey, NotGranted];
            assert!(known.contains(refusal), "an honest transfer was refused: {refusal}");
        }
        if let Ok(report) = outcome {
            let transfer = &self.transfers[index];
            assert_eq!(report.bytes, transfer.pieces.iter().map(|piece| piece.len).sum::<u64>());
            self.is_there(transfer);
        }
    }

    fn settled(
        &mut self,
        side: usize,
        id: NotificationId,
        delivery: &Delivery,
        with: Option<TransferId>,
    ) {
        let with = with.map(|id| self.transfer_of(side, id));
        let life = self.lives[side];
        let known = |note: &&mut Note| match with {
            Some(with) => note.with == Some(with),
            None => (note.from, note.life, note.id) == (side, life, Some(id)),
        };
        let note = self.notes.iter_mut().find(known).expect("a notification that was sent");
        let fate = match delivery {
            Delivery::Delivered => Fate::Delivered,
            Delivery::NotDelivered(_) => Fate::NotDelivered,
            Delivery::Unknown(_) => Fate::Unknown,
        };
        assert_eq!(note.fate.replace(fate), None, "settled twice");
        assert!(note.told || fate != Fate::Delivered, "delivered, and not told");
        assert!(!note.told || fate != Fate::NotDelivered, "told, and not delivered");
    }

    /// Every byte of a transfer is in memory, or a later one's in its place.
    fn is_there(&self, transfer: &Transfer) {
        for piece in &transfer.pieces {
            let range = piece.offset as usize..(piece.offset + piece.len) as usize;
            let there = self.places[piece.place].seen[range].iter().all(|byte| *byte != EMPTY);
            assert!(there, "told of {:?} before it was there", transfer.id);
        }
    }

    fn transfer_of(&self, side: usize, id: TransferId) -> usize {
        let known = |transfer: &Transfer| {
            transfer.side == side && transfer.id == id && self.is_present(side, transfer.life)
        };
        self.transfers.iter().position(known).expect("a transfer that was posted")
    }

    fn grant_of(&self, side: usize, id: GrantId) -> usize {
        let known = |grant: &Grant| {
            grant.receiver == side && grant.id == id && self.is_present(side, grant.life)
        };
        self.grants.iter().position(known).expect("a grant that was given")
    }

    fn is_present(&self, side: usize, life: u32) -> bool {
        self.lives[side] == life
    }
}

impl Transfer {
    fn is_open(&self) -> bool {
        self.state == State::Open
    }
}

impl Piece {
    /// The byte that it puts there, if any.
    fn puts(&self, place: usize, at: u64) -> Option<u8> {
        let within = at.checked_sub(self.offset).filter(|within| *within < self.len)?;
        (self.place == place).then(|| source(self.from, self.source + within))
    }
}

/// What a source holds: another byte at each of 250 neighbours, and never [`EMPTY`].
fn source(side: usize, at: u64) -> u8 {
    ((at * 7 + side as u64 * 101) % 250) as u8
}

fn pick<T>(list: &[T], which: u8) -> Option<&T> {
    list.get(usize::from(which) % list.len().max(1))
}
