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

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use kvx_core::error::LaneError;
use kvx_core::id::RegionId;
use kvx_core::region::{OnClose, RegionLease};
use kvx_io::{LaneState, Outgoing, Places, SendHalf, Sent};

use crate::message::{self, MAX_WORDS};
use crate::setup::{Attached, Channel};

/// Bytes of payload that may wait to be copied: enough for whoever copies never to wait, and no more,
/// for what is sent after them waits behind them.
const BACKLOG: u64 = 2 << 20;

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
    /// The message at hand.
    words: Vec<u64>,
    /// It waits for staging memory.
    is_staging: bool,
    outgoing: Outgoing,
    leased: HashMap<RegionId, Leased>,
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
            words: Vec::new(),
            is_staging: false,
            outgoing: Outgoing::default(),
            leased: HashMap::new(),
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
        self.unread.clear();
        self.backlog = 0;
        self.closer = None;
        self.outgoing.clear();
    }
}

impl Sender {
    /// Whether there is room for another message, the longest too. If not, the bell rings when
    /// something was read.
    fn has_room(&mut self, channel: &Channel, attached: &Attached) -> Result<bool, LaneError> {
        if self.look_for_room(attached)? {
            return Ok(true);
        }
        channel.own.mark_full();
        self.look_for_room(attached)
    }

    fn look_for_room(&mut self, attached: &Attached) -> Result<bool, LaneError> {
        let read = attached.theirs.has_read(self.at)?;
        while let Some((_, payload)) = self.unread.pop_front_if(|(until, _)| *until <= read) {
            self.backlog -= payload;
        }
        let room = attached.theirs.room(self.at)?;
        Ok(self.backlog < BACKLOG && room >= MAX_WORDS as u64)
    }

    /// Lets go of what the other side has read.
    fn reclaim(&mut self, lane: &LaneState, attached: &Attached) -> Result<(), LaneError> {
        if self.leased.is_empty() && self.lent.is_empty() {
            return Ok(());
        }
        let read = attached.theirs.has_read(self.at)?;
        let told = |closer: &Arc<Closer>| closer.told.swap(false, Ordering::SeqCst);
        if self.closer.as_ref().is_some_and(told) {
            let is_read = |leased: &Leased| leased.until <= read;
            if self.leased.values().any(|leased| leased.lease.is_revoked() && !is_read(leased)) {
                return Err(LaneError::SourceGone);
            }
            self.leased.retain(|_, leased| !leased.lease.is_revoked());
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
        let places = &mut self.outgoing.places;
        let payload = places.left();
        message::end(&mut self.words, places.rest());
        let until = self.at + self.words.len() as u64;
        self.lease(lane, until)?;
        let places = &mut self.outgoing.places;
        if places.is_staged() {
            self.lent.push_back((until, std::mem::take(places)));
        }
        if payload > 0 {
            self.unread.push_back((until, payload));
            self.backlog += payload;
        }
        channel.own.write(self.at, &self.words);
        self.at = until;
        channel.own.publish(until);
        channel.ring_if_asleep(attached);
        let bytes = size_of_val(&*self.words);
        lane.sent().call(bytes);
        self.outgoing.clear();
        Ok(bytes + payload as usize)
    }

    /// Holds a lease on each region of the message at hand until the other side has read so far.
    fn lease(&mut self, lane: &LaneState, until: u64) -> Result<(), LaneError> {
        for region in self.outgoing.regions() {
            if let Some(leased) = self.leased.get_mut(&region.id) {
                leased.until = until;
                continue;
            }
            let lease = RegionLease::enter(region).ok_or(LaneError::SourceGone)?;
            let closer = self.closer.get_or_insert_with(|| {
                Arc::new(Closer { waker: lane.waker(), told: AtomicBool::new(false) })
            });
            region.gate.on_close(&(Arc::clone(closer) as Arc<dyn OnClose>));
            self.leased.insert(region.id, Leased { lease, until });
        }
        Ok(())
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
