//! The sending half of a lane: asks the host for frames, and writes to the ring where their payload
//! lies. Not which frames, nor in what order; and it copies nothing.
//!
//! # Memory that the other side reads
//! What a message names must stay as it is until the other side has read the message. So the half
//! holds a lease on each region that it has named, up to the position at which it was named last.
//! When a region is deregistered the half is told, and looks: if that position was read, it lets go.
//! If not, the lane ends, for the other side may be slow, stopped or hostile, and nobody waits for
//! it: the ring is marked as withdrawn before any lease is given back, and so before the memory is
//! another's. Only if the other side is in the middle of a copy the leases outlast that one call, or
//! [`PATIENCE`], lest it copies what is written there next; who copies nevertheless does not say that
//! it has landed.
//!
//! # Memory that the other side may map
//! A region that is shared memory is offered to the other side before the first message that names it,
//! and taken back when it is deregistered.

use std::collections::{HashMap, VecDeque};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use kvx_core::error::LaneError;
use kvx_core::id::RegionId;
use kvx_core::region::{OnClose, RegionLease};
use kvx_io::{LaneState, Outgoing, Places, SendHalf, Sent};

use crate::message::{self, MAX_WORDS, OFFER, Offer, TAKE_BACK};
use crate::pools::Slots;
use crate::ring::RING;
use crate::setup::{Attached, Channel};

/// Bytes of payload that may wait to be copied, give or take a message: enough for whoever copies never
/// to wait, though this side is woken only when half of it is done; and no more, for what is sent after
/// them waits behind them.
const BACKLOG: u64 = 8 << 20;

/// Words of what may be offered, or taken back, at a time: what is left waits for the next message.
const NOTES: usize = 256;

/// Words that must be free before another message is begun.
const ROOM: u64 = (2 * NOTES + MAX_WORDS) as u64;

/// How long a copy that the other side is in the middle of is waited for: far more than a call takes,
/// for the process may have to wait for a CPU.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long until the next look.
const PAUSE: Duration = Duration::from_micros(50);

/// The sending half.
#[derive(Debug)]
pub(crate) struct Sender {
    /// `None` once the lane has ended.
    channel: Option<Arc<Channel>>,
    /// Words written so far.
    at: u64,
    /// Messages with payload that the other side has not read: where each ends, and its bytes.
    unread: VecDeque<(u64, u64)>,
    /// The sum of those bytes.
    backlog: u64,
    /// What is said of pools before the message at hand.
    notes: Vec<u64>,
    /// The message at hand.
    words: Vec<u64>,
    /// It waits for staging memory.
    is_staging: bool,
    outgoing: Outgoing,
    leased: HashMap<RegionId, Leased>,
    /// Which slots are free for pools.
    slots: Slots,
    /// Slots of pools to be taken back.
    withdrawn: Vec<u32>,
    /// For each region of the message at hand the slot of its pool.
    pools: Vec<Option<u32>>,
    /// Staging memory that the other side may still read, and up to which position.
    lent: VecDeque<(u64, Places)>,
    /// Told when a leased region is deregistered.
    closer: Option<Arc<Closer>>,
}

/// A region that was named.
#[derive(Debug)]
struct Leased {
    lease: RegionLease,
    /// The end of the last message that names it.
    until: u64,
    /// The slot in which it is offered, if it is.
    slot: Option<u32>,
}

/// Gives the sending half a turn when a region that it has named is deregistered.
#[derive(Debug)]
struct Closer {
    waker: Waker,
    told: AtomicBool,
}

impl OnClose for Closer {
    fn closed(&self) {
        self.told.store(true, Ordering::SeqCst);
        self.waker.wake_by_ref();
    }
}

impl Sender {
    pub(crate) fn new(channel: Arc<Channel>) -> Self {
        Self {
            channel: Some(channel),
            at: 0,
            unread: VecDeque::new(),
            backlog: 0,
            notes: Vec::new(),
            words: Vec::new(),
            is_staging: false,
            outgoing: Outgoing::default(),
            leased: HashMap::new(),
            slots: Slots::default(),
            withdrawn: Vec::new(),
            pools: Vec::new(),
            lent: VecDeque::new(),
            closer: None,
        }
    }
}

impl SendHalf for Sender {
    fn turn(&mut self, lane: &LaneState, left: &mut usize) -> Result<Sent, LaneError> {
        let Some(channel) = self.channel.clone() else {
            return Ok(Sent::Done);
        };
        let Some(attached) = channel.attached() else {
            return Ok(Sent::Done);
        };
        self.reclaim(lane, attached)?;
        while lane.ending().is_none() {
            if self.is_staging {
                if self.outgoing.poll_stage(lane)?.is_pending() {
                    return Ok(Sent::Done);
                }
                self.is_staging = false;
            } else {
                if !self.has_room(&channel, attached)? {
                    return Ok(Sent::Done);
                }
                self.take_back(&channel, attached);
                if *left == 0 {
                    return Ok(Sent::More);
                }
                let Some(frame) = lane.host().next_frame(lane.id()) else {
                    return Ok(Sent::Done);
                };
                lane.sent().frame();
                let words = &mut self.words;
                message::begin(words);
                self.outgoing.load(frame, |bytes| message::push(words, bytes))?;
                if self.outgoing.places.is_staged() {
                    self.is_staging = true;
                    continue;
                }
            }
            let bytes = self.send(lane, &channel, attached)?;
            *left = left.saturating_sub(bytes);
        }
        Ok(Sent::Done)
    }

    fn end(&mut self) {
        let kept = (std::mem::take(&mut self.leased), std::mem::take(&mut self.lent));
        if let Some(channel) = self.channel.take() {
            // Before any lease is given back.
            channel.own.withdraw();
            if channel.attached().is_some_and(|attached| attached.theirs.is_copying()) {
                // Not this thread: others wait for it. If there is none to be had, nobody waits.
                let named = thread::Builder::new().name("kvx-shm-fence".to_owned());
                let _ = named.spawn(move || outlast(&channel, kept));
            }
        }
        self.withdrawn.clear();
        self.unread.clear();
        self.backlog = 0;
        self.closer = None;
        self.outgoing.clear();
    }
}

impl Sender {
    /// Whether there is room for another message, the longest too, and notes before it. If not, the bell rings when
    /// something was read.
    fn has_room(&mut self, channel: &Channel, attached: &Attached) -> Result<bool, LaneError> {
        if self.look_for_room(attached)? {
            return Ok(true);
        }
        channel.own.ask_for_room(self.wanted());
        self.look_for_room(attached)
    }

    fn look_for_room(&mut self, attached: &Attached) -> Result<bool, LaneError> {
        let read = attached.theirs.has_read(self.at)?;
        while let Some((_, payload)) = self.unread.pop_front_if(|(until, _)| *until <= read) {
            self.backlog -= payload;
        }
        Ok(self.backlog < BACKLOG && attached.theirs.room(self.at)? >= ROOM)
    }

    /// How far the other side is to read until there is room: for the longest message, and for half of
    /// the backlog.
    fn wanted(&self) -> u64 {
        let room = (self.at + ROOM).saturating_sub(RING);
        let mut left = self.backlog;
        let half = self.unread.iter().find(|(_, payload)| {
            left -= payload;
            left <= BACKLOG / 2
        });
        let is_long = self.backlog >= BACKLOG;
        half.filter(|_| is_long).map_or(room, |(until, _)| room.max(*until))
    }

    /// Lets go of what the other side has read.
    fn reclaim(&mut self, lane: &LaneState, attached: &Attached) -> Result<(), LaneError> {
        if self.leased.is_empty() && self.lent.is_empty() {
            return Ok(());
        }
        let read = attached.theirs.has_read(self.at)?;
        let told = |closer: &Arc<Closer>| closer.told.swap(false, Ordering::SeqCst);
        if self.closer.as_ref().is_some_and(told) {
            let withdrawn = &mut self.withdrawn;
            let mut is_missed = false;
            self.leased.retain(|_, leased| {
                // Asked once: it may be revoked at any time.
                if !leased.lease.is_revoked() {
                    return true;
                }
                let is_read = leased.until <= read;
                is_missed |= !is_read;
                if is_read {
                    withdrawn.extend(leased.slot);
                }
                !is_read
            });
            if is_missed {
                return Err(LaneError::SourceGone);
            }
        }
        while let Some((until, places)) = self.lent.front_mut() {
            let waker = lane.waker();
            let mut cx = Context::from_waker(&waker);
            // A refusal has nothing to say any more: the bytes are with the other side.
            if *until > read || places.poll_commit(&mut cx).is_pending() {
                break;
            }
            self.lent.pop_front();
        }
        Ok(())
    }

    /// Writes the message at hand, under leases that last until it is read. Gives what it is worth of
    /// a turn: the bytes that the other side has to copy for it, and its own.
    fn send(
        &mut self,
        lane: &LaneState,
        channel: &Channel,
        attached: &Attached,
    ) -> Result<usize, LaneError> {
        self.lease(lane)?;
        let pools = &self.pools;
        let sources = self.outgoing.sources();
        let sources =
            sources.map(|(source, region)| (source, pools.get(region).copied().flatten()));
        message::end(&mut self.words, sources);
        let first = self.at + self.notes.len() as u64;
        let until = first + self.words.len() as u64;
        for region in self.outgoing.regions() {
            if let Some(leased) = self.leased.get_mut(&region.id) {
                leased.until = until;
            }
        }
        let places = &mut self.outgoing.places;
        let payload = places.left();
        if places.is_staged() {
            self.lent.push_back((until, std::mem::take(places)));
        }
        if payload > 0 {
            self.unread.push_back((until, payload));
            self.backlog += payload;
        }
        channel.own.write(self.at, &self.notes);
        channel.own.write(first, &self.words);
        self.publish(channel, attached, until);
        let bytes = size_of_val(&*self.words);
        lane.sent().call(bytes);
        self.notes.clear();
        self.outgoing.clear();
        Ok(bytes + payload as usize)
    }

    /// All words before `position` are written.
    fn publish(&mut self, channel: &Channel, attached: &Attached, position: u64) {
        self.at = position;
        channel.own.publish(position);
        channel.ring_if_asleep(attached);
    }

    /// Holds a lease on each region of the message at hand, and offers those that may be mapped.
    fn lease(&mut self, lane: &LaneState) -> Result<(), LaneError> {
        self.pools.clear();
        for region in self.outgoing.regions() {
            if let Some(leased) = self.leased.get(&region.id) {
                self.pools.push(leased.slot);
                continue;
            }
            let lease = RegionLease::enter(region).ok_or(LaneError::SourceGone)?;
            let closer = self.closer.get_or_insert_with(|| {
                Arc::new(Closer { waker: lane.waker(), told: AtomicBool::new(false) })
            });
            region.gate.on_close(&(Arc::clone(closer) as Arc<dyn OnClose>));
            let mut slot = None;
            if let Some(memfd) = region.memory.memfd()
                && self.notes.len() + OFFER <= NOTES
                && let Some(free) = self.slots.take()
            {
                let (base, len) = (region.base(), region.len());
                Offer { slot: free, memfd: memfd.as_raw_fd(), base, len }.write(&mut self.notes);
                slot = Some(free);
            }
            self.pools.push(slot);
            self.leased.insert(region.id, Leased { lease, until: self.at, slot });
        }
        Ok(())
    }

    /// Takes back the pools of regions that are no more; there is room to say so.
    fn take_back(&mut self, channel: &Channel, attached: &Attached) {
        if self.withdrawn.is_empty() {
            return;
        }
        let rest = self.withdrawn.len().saturating_sub(NOTES / TAKE_BACK);
        for slot in self.withdrawn.drain(rest..) {
            message::take_back(&mut self.notes, slot);
            self.slots.free(slot);
        }
        channel.own.write(self.at, &self.notes);
        self.publish(channel, attached, self.at + self.notes.len() as u64);
        self.notes.clear();
    }
}

/// Keeps something until the other side has ended the copy that it is in the middle of.
fn outlast<T>(channel: &Channel, kept: T) {
    let since = Instant::now();
    let is_copying = || channel.attached().is_some_and(|attached| attached.theirs.is_copying());
    while is_copying() && since.elapsed() < PATIENCE {
        thread::sleep(PAUSE);
    }
    drop(kept);
}

#[cfg(test)]
mod tests;
