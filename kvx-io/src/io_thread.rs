//! An I/O thread: sleeps in its epoll, and gives each lane that has something to do its turn. Not
//! what a lane does with its turn.
//!
//! # Edge-triggered
//! A lane's socket is watched for arrivals, but while another thread attends it, and for room once
//! it was full ([`crate::watch`]): a posting thread that fills it leaves the rest to the I/O
//! thread, which the edge that follows wakes.
//! The price is that nothing is told twice, so that a lane which stops before the socket is
//! exhausted, because its turn is over or it waits for staging memory, is remembered here.
//!
//! # Looking
//! Where arrivals can be seen, the thread looks at a lane that had some for a moment before it
//! sleeps: a peer that answers at once is heard without a system call on either side.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use kvx_core::error::LaneError;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};

use crate::counters::Meter;
use crate::lane::{Pumped, SocketLane};
use crate::sight::{LOOK, glance};
use crate::watch::Watch;

/// The eventfd's token. Lanes count upward from 0.
const BELL: u64 = u64::MAX;

/// Events fetched by one call.
const EVENTS: usize = 256;

const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What others share with one I/O thread.
#[derive(Debug)]
pub(crate) struct IoThread {
    epoll: OwnedFd,
    /// Ends the thread's sleep. Edge-triggered, so that it is written and never read.
    bell: OwnedFd,
    inbox: Mutex<Inbox>,
    /// Lanes that are open.
    lanes: AtomicUsize,
    /// The process that made it. A forked child has none of its threads.
    process: u32,
    pub(crate) sent: Meter,
    pub(crate) received: Meter,
}

/// What others have left for the thread.
#[derive(Debug, Default)]
struct Inbox {
    opened: Vec<Opened>,
    /// Tokens of lanes whose bell was rung.
    rung: Vec<u64>,
    stop: bool,
    /// The thread is, or will be, in epoll_wait without a timeout: who leaves something must
    /// write to the bell. Cleared by the first who does.
    asleep: bool,
}

/// A lane on its way to the thread.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) lane: Arc<SocketLane>,
    pub(crate) socket: Arc<OwnedFd>,
}

impl IoThread {
    /// A thread that is not started.
    pub(crate) fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &bell, epoll::EventData::new_u64(BELL), flags)?;
        Ok(Self {
            epoll,
            bell,
            inbox: Mutex::default(),
            lanes: AtomicUsize::new(0),
            process: std::process::id(),
            sent: Meter::default(),
            received: Meter::default(),
        })
    }

    /// The process that the thread is one of.
    pub(crate) fn process(&self) -> u32 {
        self.process
    }

    /// Hands the thread a lane. After an error nothing of it is left here.
    pub(crate) fn open(&self, opened: Opened) -> Result<(), LaneError> {
        let mut inbox = self.inbox();
        if inbox.stop {
            return Err(LaneError::Closed);
        }
        // Both under the inbox's lock: the thread, woken by the lane's first event, finds the
        // lane in its inbox.
        let data = epoll::EventData::new_u64(opened.lane.state.doorbell().token());
        epoll::add(&self.epoll, &*opened.socket, data, Watch::AT_FIRST.flags())
            .map_err(|errno| LaneError::from(Arc::new(errno.into())))?;
        inbox.opened.push(opened);
        self.lanes.fetch_add(1, Ordering::Relaxed);
        self.leave(inbox);
        Ok(())
    }

    /// Changes what a lane's socket is watched for. What is there already is an edge.
    pub(crate) fn watch(&self, socket: &OwnedFd, token: u64, flags: epoll::EventFlags) {
        // Fails for a lane that has ended, and is not watched any more.
        let _ = epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(token), flags);
    }

    /// Makes the thread look at the lane of this token, if it is still open.
    pub(crate) fn call(&self, token: u64) {
        let mut inbox = self.inbox();
        if !inbox.stop {
            inbox.rung.push(token);
            self.leave(inbox);
        }
    }

    /// Makes the thread end all its lanes and then itself.
    pub(crate) fn stop(&self) {
        let mut inbox = self.inbox();
        inbox.stop = true;
        self.leave(inbox);
    }

    /// Lanes that are open.
    pub(crate) fn lanes(&self) -> usize {
        self.lanes.load(Ordering::Relaxed)
    }

    fn leave(&self, mut inbox: MutexGuard<'_, Inbox>) {
        let asleep = mem::take(&mut inbox.asleep);
        drop(inbox);
        if asleep {
            // Fails only when 2^64 - 2 writes went before, and then the bell rings anyhow.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // The lists are whole after every step.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread's own side.
pub(crate) struct EventLoop {
    shared: Arc<IoThread>,
    turn_bytes: usize,
    lanes: HashMap<u64, Entry>,
    /// Tokens of lanes that have something to do, each once.
    due: VecDeque<u64>,
    /// Tokens of lanes that are looked at, each once.
    looked_at: Vec<u64>,
}

/// One lane.
struct Entry {
    lane: Arc<SocketLane>,
    socket: Arc<OwnedFd>,
    /// In `due`.
    is_due: bool,
    /// The socket may hold bytes, or its end, that were not read.
    readable: bool,
    /// The socket may have room again, or the host another frame.
    sendable: bool,
    /// Between `look` and `sleep` of the lane.
    is_looking: bool,
    /// In `looked_at`, until then.
    look_until: Option<Instant>,
}

impl EventLoop {
    pub(crate) fn new(shared: Arc<IoThread>, turn_bytes: usize) -> Self {
        Self {
            shared,
            turn_bytes,
            lanes: HashMap::new(),
            due: VecDeque::new(),
            looked_at: Vec::new(),
        }
    }

    /// The life of the thread.
    pub(crate) fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        let mut inbox = Inbox::default();
        while !inbox.stop {
            self.look();
            if let Err(error) = self.wait(&mut events) {
                // Nothing is told any more: better no lane than a silent one.
                self.shared.stop();
                self.end_all(&LaneError::from(Arc::new(error)));
            }
            self.empty_inbox(&mut inbox);
            for event in events.drain(..) {
                self.note(event.data.u64(), event.flags);
            }
            for _ in 0..self.due.len() {
                self.next_turn();
            }
        }
        self.end_all(&LaneError::Closed);
    }

    /// Looks for arrivals, if there is nothing else to do, on the lanes that had some.
    fn look(&mut self) {
        if self.looked_at.is_empty() || !self.due.is_empty() {
            return;
        }
        let Self { lanes, due, looked_at, .. } = self;
        glance(|| {
            for token in &*looked_at {
                if let Some(entry) = lanes.get_mut(token).filter(|entry| entry.lane.sees()) {
                    entry.readable = true;
                    entry.queue(*token, due);
                }
            }
            !due.is_empty()
        });
        let now = Instant::now();
        looked_at.retain(|token| {
            let Some(entry) = lanes.get_mut(token) else {
                return false;
            };
            // Who attends the lane looks for itself.
            let is_attended = entry.lane.state.attended.load(Ordering::Relaxed);
            if !is_attended && entry.look_until.is_some_and(|until| now < until) {
                return true;
            }
            entry.look_until = None;
            if entry.stop_looking() {
                entry.queue(*token, due);
            }
            false
        });
    }

    /// Fetches events; sleeps if there is nothing else to do.
    fn wait(&self, events: &mut Vec<epoll::Event>) -> io::Result<()> {
        let mut inbox = self.shared.inbox();
        let idle = self.due.is_empty()
            && self.looked_at.is_empty()
            && inbox.opened.is_empty()
            && inbox.rung.is_empty()
            && !inbox.stop;
        inbox.asleep = idle;
        drop(inbox);

        let timeout = if idle { None } else { Some(&NO_WAIT) };
        let room = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.shared.epoll, room, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Takes what others have left. `inbox` lends its memory.
    fn empty_inbox(&mut self, inbox: &mut Inbox) {
        {
            let mut left = self.shared.inbox();
            left.asleep = false;
            inbox.stop = left.stop;
            mem::swap(&mut left.opened, &mut inbox.opened);
            mem::swap(&mut left.rung, &mut inbox.rung);
        }
        for opened in inbox.opened.drain(..) {
            let token = opened.lane.state.doorbell().token();
            let entry = Entry {
                lane: opened.lane,
                socket: opened.socket,
                is_due: true,
                readable: true,
                sendable: true,
                is_looking: false,
                look_until: None,
            };
            self.lanes.insert(token, entry);
            self.due.push_back(token);
        }
        for token in inbox.rung.drain(..) {
            if let Some(entry) = self.lanes.get_mut(&token) {
                entry.lane.state.doorbell().answer();
                entry.sendable = true;
                let state = &entry.lane.state;
                entry.readable |= state.waits_for_memory() | state.take_unread();
                entry.queue(token, &mut self.due);
            }
        }
    }

    fn note(&mut self, token: u64, flags: epoll::EventFlags) {
        use epoll::EventFlags as Flags;
        let Some(entry) = self.lanes.get_mut(&token) else {
            return;
        };
        let ends = Flags::RDHUP | Flags::HUP | Flags::ERR;
        if flags.intersects(ends) {
            entry.lane.state.expect_end();
        }
        entry.readable |= flags.intersects(ends | Flags::IN);
        entry.sendable |= flags.intersects(ends | Flags::OUT);
        entry.queue(token, &mut self.due);
    }

    /// One turn of the lane that has waited longest.
    fn next_turn(&mut self) {
        let Some(token) = self.due.pop_front() else {
            return;
        };
        let Some(entry) = self.lanes.get_mut(&token) else {
            return;
        };
        entry.is_due = false;
        if !mem::replace(&mut entry.is_looking, true) {
            entry.lane.look();
        }
        let seen = entry.lane.sees();
        if entry.turn(self.turn_bytes) {
            entry.queue(token, &mut self.due);
        } else if seen {
            if entry.look_until.replace(Instant::now() + LOOK).is_none() {
                self.looked_at.push(token);
            }
        } else if entry.look_until.is_none() && entry.stop_looking() {
            entry.queue(token, &mut self.due);
        }
        if let Some(cause) = entry.lane.state.ending().cloned() {
            self.end(token, cause);
        }
    }

    /// Ends a lane. From here on nothing of it touches registered memory.
    fn end(&mut self, token: u64, cause: LaneError) {
        let Some(entry) = self.lanes.remove(&token) else {
            return;
        };
        // Others may be at work on the lane, and look for the cause.
        entry.lane.state.end_with(cause.clone());
        entry.lane.end_halves();
        // Both calls fail only for a socket that is past them.
        let _ = rustix::net::shutdown(entry.socket.as_fd(), rustix::net::Shutdown::Both);
        let _ = epoll::delete(&self.shared.epoll, entry.socket.as_fd());
        drop(entry.socket);
        self.shared.lanes.fetch_sub(1, Ordering::Relaxed);
        entry.lane.state.tell_closed(cause);
    }

    fn end_all(&mut self, cause: &LaneError) {
        self.empty_inbox(&mut Inbox::default());
        let tokens: Vec<u64> = self.lanes.keys().copied().collect();
        for token in tokens {
            let lane = self.lanes.get(&token).map(|entry| &entry.lane);
            let first = lane.and_then(|lane| lane.state.ending()).unwrap_or(cause).clone();
            self.end(token, first);
        }
    }
}

impl Entry {
    /// Lets the lane receive, then send, at most `budget` bytes each. Whether it has more to do
    /// at once.
    fn turn(&mut self, budget: usize) -> bool {
        let mut more = false;
        if mem::take(&mut self.readable) {
            let received = self.lane.receive(budget);
            self.readable = received.more;
            more |= received.more;
            // What arrived may be answered: an ACK, the data of a READ, the next frame under a
            // window that has opened. Now is when that costs least.
            self.sendable |= received.frames;
        }
        if mem::take(&mut self.sendable) && self.lane.pump(budget) == Pumped::More {
            self.sendable = true;
            more = true;
        }
        more
    }

    /// From now on the socket tells. Whether there is something of which it does not.
    fn stop_looking(&mut self) -> bool {
        self.is_looking = false;
        let unread = self.lane.sleep();
        self.readable |= unread;
        unread
    }

    fn queue(&mut self, token: u64, due: &mut VecDeque<u64>) {
        if !self.is_due {
            self.is_due = true;
            due.push_back(token);
        }
    }
}
