//! The network: connections as two streams of bytes, each in order, with delays, that can be cut at
//! any byte and seen to end at different times by their two ends.

mod garble;
mod weather;

use std::collections::VecDeque;

use crate::error::LaneError;
use crate::id::{Association, LaneId};
use crate::proto::{Dialer, LaneDialer, LaneListener, Listener};
use crate::testing::lane::{LaneReceiver, LaneSender};
use crate::testing::sim::{Fault, Happening, Instant, MS, SECOND, World};

pub(crate) use weather::{Network, Scope};

/// A connection's number, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(u64);

/// Bytes under way or not yet read on a lane, at most: what sockets buffer.
pub(crate) const LANE_WINDOW: usize = 3000;

/// A connection. End 0 dialed.
pub(crate) struct Conn {
    /// `None` once it was closed here, or its engine died.
    pub(crate) ends: [Option<ConnEnd>; 2],
    /// `pipes[i]` leads to end `i`.
    pipes: [Pipe; 2],
    /// The engines at both ends, which stay known when an end is gone.
    pub(crate) engines: [usize; 2],
    /// What it carries, or was dialed to carry.
    scope: Scope,
    /// Bytes written now go nowhere.
    cut: bool,
    /// Bytes of it were damaged: what its ends make of them is no fault of theirs.
    pub(crate) tainted: bool,
}

pub(crate) struct ConnEnd {
    /// Bytes that have arrived and were not read.
    pub(crate) inbox: VecDeque<u8>,
    /// No more bytes come, once the inbox is empty.
    ended: bool,
    /// Nobody reads before this point.
    stalled: Instant,
    pub(crate) role: Role,
}

/// What an end of a connection is there for, and how far it has come.
pub(crate) enum Role {
    /// Welcome is due.
    DialControl(Dialer),
    /// The first message is due.
    Accept,
    /// Confirm is due.
    AcceptControl(Listener),
    /// Messages. It belongs to the link of this serial number.
    Control(u64),
    /// The challenge is due.
    DialLane(LaneDialer, LaneTicket),
    /// The proof is due.
    AcceptLane(LaneListener, LaneTicket),
    /// Frames.
    Lane(Box<LaneHalf>),
    /// A hostile engine's, who does not care what comes.
    Mute,
    /// Being dealt with further up the stack.
    Busy,
}

/// What a lane belongs to. If its link is another by now, or has begun anew, the lane is nobody's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneTicket {
    pub(crate) lane: LaneId,
    /// The serial number of the link at this end.
    pub(crate) link: u64,
    /// Those under which the lane was asked for, own first.
    pub(crate) associations: (Association, Association),
}

/// One end of an open lane.
pub(crate) struct LaneHalf {
    pub(crate) ticket: LaneTicket,
    /// `None` while it is in a system call.
    pub(crate) receiver: Option<LaneReceiver>,
    pub(crate) sender: LaneSender,
    /// It is to be closed when the system call is over.
    pub(crate) closing: Option<LaneError>,
}

/// Bytes on their way in one direction.
#[derive(Default)]
struct Pipe {
    /// Oldest first; times never go back.
    chunks: VecDeque<(Instant, Vec<u8>)>,
    last: Instant,
    /// No bytes arrive before this point.
    blocked: Instant,
    /// The next bytes that can be damaged are.
    garble: bool,
}

impl ConnEnd {
    fn new(role: Role) -> Self {
        Self { inbox: VecDeque::new(), ended: false, stalled: 0, role }
    }

    /// No more bytes come than are in the inbox.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

impl Conn {
    /// Bytes under way to an end, and there unread.
    fn backlog(&self, end: usize) -> usize {
        let unread = self.ends[end].as_ref().map_or(0, |end| end.inbox.len());
        unread + self.pipes[end].chunks.iter().map(|(_, bytes)| bytes.len()).sum::<usize>()
    }

    pub(crate) fn is_lane(&self) -> bool {
        self.scope == Scope::Lanes
    }
}

impl World {
    /// A new connection between two engines; `role` is its dialer's. The listener hears of it by
    /// the first bytes.
    pub(crate) fn connect(&mut self, from: usize, to: usize, role: Role) -> ConnId {
        self.network.made += 1;
        let id = ConnId(self.network.made);
        let scope = if matches!(role, Role::DialLane(..)) { Scope::Lanes } else { Scope::Control };
        let listening = self.engines[to].is_alive();
        let accepted = listening.then(|| ConnEnd::new(Role::Accept));
        let conn = Conn {
            ends: [Some(ConnEnd::new(role)), accepted],
            pipes: Default::default(),
            engines: [from, to],
            scope,
            cut: !listening,
            tainted: false,
        };
        self.conns.insert(id, conn);
        if listening {
            self.after(2 * SECOND, Happening::Impatience(id, 1));
            self.trouble_dial(id);
        } else {
            let delay = self.delay(from, to);
            self.after(delay, Happening::End(id, 0));
        }
        self.after(2 * SECOND, Happening::Impatience(id, 0));
        id
    }

    /// Sends bytes from one end of a connection to the other.
    pub(crate) fn send(&mut self, id: ConnId, from: usize, mut bytes: Vec<u8>) {
        let Some(conn) = self.conns.get(&id) else { return };
        if conn.cut || bytes.is_empty() {
            return;
        }
        let (own, other) = (conn.engines[from], conn.engines[1 - from]);
        if conn.pipes[1 - from].garble && self.garble(id, from, &mut bytes) {
            self.note(|| format!("bytes from {own} to {other} are damaged on {id:?}"));
        }
        self.report.mix(u64::from(crc32c::crc32c(&bytes)) << 32 | bytes.len() as u64);
        let delay = self.delay(own, other);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let parted = self.network.parted_until(own, other, conn.scope);
        let pipe = &mut conn.pipes[1 - from];
        // What is sent into a parted network is sent again by TCP until it is whole.
        let at = (self.now.max(parted).max(pipe.blocked) + delay).max(pipe.last);
        pipe.last = at;
        pipe.chunks.push_back((at, bytes));
        self.at(at, Happening::Arrive(id, 1 - from));
        self.see_overtaking(id, from, at);
    }

    /// Whether what arrives on a lane at this point overtakes what another lane of the pair
    /// carries.
    fn see_overtaking(&mut self, id: ConnId, from: usize, at: Instant) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.is_lane()) else { return };
        let (own, other) = (conn.engines[from], conn.engines[1 - from]);
        let Some(link) = self.engines[own].links.get(&other) else { return };
        let later = |(lane, end): &(ConnId, usize)| {
            *lane != id
                && self.conns.get(lane).is_some_and(|conn| {
                    let pipe = &conn.pipes[1 - end];
                    pipe.last > at && !pipe.chunks.is_empty()
                })
        };
        if link.lanes.values().any(later) {
            self.count(Fault::Reordering);
        }
    }

    /// Whether a lane may send more from this end.
    pub(crate) fn has_room(&self, id: ConnId, from: usize) -> bool {
        self.conns.get(&id).is_some_and(|conn| conn.backlog(1 - from) < LANE_WINDOW)
    }

    pub(crate) fn end(&mut self, id: ConnId, end: usize) -> Option<&mut ConnEnd> {
        self.conns.get_mut(&id)?.ends[end].as_mut()
    }

    pub(crate) fn is_tainted(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_none_or(|conn| conn.tainted)
    }

    /// Takes at most `limit` bytes that have arrived at an end.
    pub(crate) fn read(&mut self, id: ConnId, end: usize, limit: usize) -> Vec<u8> {
        let Some(end) = self.end(id, end) else { return Vec::new() };
        let count = limit.min(end.inbox.len());
        end.inbox.drain(..count).collect()
    }

    /// Whether nothing more will ever come to an end.
    pub(crate) fn is_exhausted(&self, id: ConnId, end: usize) -> bool {
        let end = self.conns.get(&id).and_then(|conn| conn.ends[end].as_ref());
        end.is_none_or(|end| end.ended && end.inbox.is_empty())
    }

    pub(crate) fn arrive(&mut self, id: ConnId, to: usize) {
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let pipe = &mut conn.pipes[to];
        while pipe.chunks.front().is_some_and(|(at, _)| *at <= now) {
            let chunk = pipe.chunks.pop_front();
            if let (Some((_, bytes)), Some(end)) = (chunk, conn.ends[to].as_mut()) {
                end.inbox.extend(bytes);
            }
        }
        // Who stalls looks again when that is over.
        if conn.ends[to].as_ref().is_some_and(|end| end.stalled <= now) {
            self.proceed(id, to);
        }
    }

    pub(crate) fn see_end(&mut self, id: ConnId, end: usize) {
        let now = self.now;
        let Some(here) = self.end(id, end) else { return };
        here.ended = true;
        if here.stalled <= now {
            self.proceed(id, end);
        }
    }

    /// Closes one end in good order: what it sent before still arrives, and then the end.
    pub(crate) fn close_end(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.conns.get(&id) else { return };
        let (own, other) = (conn.engines[end], conn.engines[1 - end]);
        let delay = self.delay(own, other);
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.ends[end].take().is_none() {
            return;
        }
        conn.pipes[end].chunks.clear();
        if conn.ends[1 - end].is_none() {
            self.conns.remove(&id);
            return;
        }
        if !conn.cut {
            let at = conn.pipes[1 - end].last.max(self.now) + delay;
            self.at(at, Happening::End(id, 1 - end));
        }
    }

    /// One end vanishes without a word: the other sees it only when its kernel gives up.
    pub(crate) fn lose_end(&mut self, id: ConnId, end: usize) {
        let patience = self.random.within(1000..10_000) * MS;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.ends[end] = None;
        if conn.ends[1 - end].is_none() {
            self.conns.remove(&id);
        } else if !std::mem::replace(&mut conn.cut, true) {
            conn.pipes.iter_mut().for_each(|pipe| pipe.chunks.clear());
            self.after(patience, Happening::End(id, 1 - end));
        }
    }

    /// Cuts a connection: of what is under way some random part still arrives, and each end sees it
    /// in its own time.
    pub(crate) fn cut(&mut self, id: ConnId) {
        let seen = [0, 1].map(|_| self.random.within(0..2000) * MS);
        let keep = [0, 1].map(|_| self.random.bits() as usize);
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if std::mem::replace(&mut conn.cut, true) {
            return;
        }
        let mut ends = [now; 2];
        for to in 0..2 {
            let pipe = &mut conn.pipes[to];
            let total: usize = pipe.chunks.iter().map(|(_, bytes)| bytes.len()).sum();
            let mut kept = keep[to] % (total + 1);
            for (_, bytes) in &mut pipe.chunks {
                bytes.truncate(kept);
                kept -= bytes.len();
            }
            ends[to] = pipe.last.max(now) + seen[to];
        }
        for (to, at) in ends.into_iter().enumerate() {
            self.at(at, Happening::End(id, to));
        }
    }

    /// The connections of an engine, with the end that is its.
    pub(crate) fn conns_of(&self, engine: usize) -> Vec<(ConnId, usize)> {
        let ends = |(id, conn): (&ConnId, &Conn)| -> Vec<(ConnId, usize)> {
            (0..2)
                .filter(|end| conn.engines[*end] == engine && conn.ends[*end].is_some())
                .map(|end| (*id, end))
                .collect()
        };
        self.conns.iter().flat_map(ends).collect()
    }

    /// Nobody reads at this end for a while.
    pub(crate) fn stall(&mut self, id: ConnId, end: usize, pause: Instant) {
        let until = self.now + pause;
        if let Some(here) = self.end(id, end) {
            here.stalled = here.stalled.max(until);
            self.at(until, Happening::Arrive(id, end));
        }
    }

    /// No bytes arrive at this end for a while.
    pub(crate) fn block(&mut self, id: ConnId, to: usize, pause: Instant) {
        let until = self.now + pause;
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.pipes[to].blocked = until;
        }
    }
}
