//! How a thread that waits sees to its lane meanwhile. Not what it waits for.
//!
//! The hand-over from the I/O thread to the one that waits costs as much as a small transfer. So
//! the waiting thread takes the lane's arrivals upon itself: asleep in poll(2) until something is
//! there, it reads, and sends what follows, until what it waits for has happened.
//!
//! For what a socket brings it does not look without sleeping: where one thread wakes another and
//! sleeps, the kernel lets the second go on at once where the first was, and that is faster than to
//! wake it on an idle core while this one spins (4 KiB there and an ACK back over loopback, two
//! cores: 22 us asleep, 33 us spinning). Where arrivals can be seen, nobody need be woken, and it
//! looks for a moment.

use std::cell::RefCell;
use std::mem;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::lane::{Pumped, SocketLane};
use crate::sight::{LOOK, glance};

/// Bytes that are received, and sent, before the thread looks up.
const TURN: usize = 1 << 20;

const NO_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// Asked whether the wait is over; registers the waker where it is not.
type IsOver<'a> = dyn FnMut(&mut Context<'_>) -> bool + 'a;

/// Sees to the lane's arrivals until `is_over`, the lane ends, or `timeout` has passed. Returns at
/// once where another thread does already, or the process has no descriptor left.
pub(crate) fn attend(lane: &SocketLane, timeout: Option<Duration>, is_over: &mut IsOver<'_>) {
    // Without end where it is farther than the clock counts.
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let state = &lane.state;
    let Some(bell) = Bell::of_this_thread(state.doorbell().thread().process()) else {
        return;
    };
    let Some(socket) = state.watched().socket() else {
        return;
    };
    if state.attended.swap(true, Ordering::AcqRel) {
        return;
    }
    let waker = Waker::from(Arc::clone(&bell));
    let mut cx = Context::from_waker(&waker);
    let mut attended =
        Attended { lane, socket: &socket, bell: &bell, until, is_looking: false, has_slept: false };
    let mut more = false;
    while attended.wait(more, || is_over(&mut cx)).is_continue() && state.ending().is_none() {
        // Whoever receives looks, until it says that it sleeps: the bell that it has heard rings for
        // nothing else until then.
        attended.start_looking();
        more = see_to(lane);
        if state.waits_for_memory() {
            // Its provider rings the I/O thread, and poll would not sleep while bytes are there.
            break;
        }
    }
    if attended.has_slept {
        state.watched().set_arrivals(true, state.doorbell());
    }
    state.attended.store(false, Ordering::Release);
    if attended.stop_looking() || more {
        // Of what was begun and left no socket tells.
        state.leave_unread();
    }
}

/// Receives what is there, and sends what follows from it. Whether there may be more.
fn see_to(lane: &SocketLane) -> bool {
    let received = lane.receive(TURN);
    if received.frames && lane.pump(TURN) == Pumped::More {
        lane.state.doorbell().ring();
    }
    received.more
}

/// A lane that a thread attends.
struct Attended<'a> {
    lane: &'a SocketLane,
    socket: &'a OwnedFd,
    /// The thread's.
    bell: &'a Bell,
    until: Option<Instant>,
    /// Between `look` and `sleep` of the lane.
    is_looking: bool,
    /// The I/O thread does not see to arrivals meanwhile.
    has_slept: bool,
}

impl Attended<'_> {
    /// Waits until something arrives, the bell rings, or the time is over; not at all where there is
    /// `more` to do. Breaks off, at once, if that time has come, or `is_over`, or there is no way to
    /// sleep.
    fn wait(&mut self, more: bool, is_over: impl FnOnce() -> bool) -> ControlFlow<()> {
        let now = Instant::now();
        let left = self.until.map(|until| until.saturating_duration_since(now));
        self.bell.asleep.store(true, Ordering::SeqCst);
        if is_over() || left == Some(Duration::ZERO) {
            self.bell.asleep.store(false, Ordering::SeqCst);
            return ControlFlow::Break(());
        }
        if !more && self.look(now + left.unwrap_or(LOOK).min(LOOK)) {
            self.bell.awake(false);
            return ControlFlow::Continue(());
        }
        if !self.has_slept {
            self.has_slept = true;
            self.lane.state.watched().set_arrivals(false, self.lane.state.doorbell());
        }
        // What is too long to say is as good as no end.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        self.sleep(if more { Some(NO_WAIT) } else { left })
    }

    /// Looks for arrivals where they can be seen. Whether one was, or the bell rang.
    fn look(&mut self, until: Instant) -> bool {
        if self.lane.sight().is_none() {
            return false;
        }
        self.start_looking();
        while Instant::now() < until {
            if glance(|| self.lane.sees() || !self.bell.asleep.load(Ordering::Relaxed)) {
                return true;
            }
        }
        self.stop_looking()
    }

    fn start_looking(&mut self) {
        if !mem::replace(&mut self.is_looking, true) {
            self.lane.look();
        }
    }

    /// From now on the socket tells. Whether there is something of which it does not.
    fn stop_looking(&mut self) -> bool {
        mem::take(&mut self.is_looking) && self.lane.sleep()
    }

    fn sleep(&self, timeout: Option<Timespec>) -> ControlFlow<()> {
        let arrivals = PollFlags::IN | PollFlags::RDHUP;
        let event = &self.bell.event;
        let mut watched = [PollFd::new(self.socket, arrivals), PollFd::new(event, PollFlags::IN)];
        let polled = poll(&mut watched, timeout.as_ref());
        let [arrived, rung] = watched.map(|fd| fd.revents());
        if arrived.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
            self.lane.state.expect_end();
        }
        self.bell.awake(rung.intersects(PollFlags::IN));
        match polled {
            Ok(_) | Err(rustix::io::Errno::INTR) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

/// Ends the sleep of one thread.
#[derive(Debug)]
struct Bell {
    /// Written by who rings, while the thread sleeps.
    event: OwnedFd,
    /// The thread sleeps or is about to. Cleared by the first who rings.
    asleep: AtomicBool,
}

impl Bell {
    /// One a thread, made when it first attends in this process: a child that was forked from the
    /// thread would ring its parent's.
    fn of_this_thread(process: u32) -> Option<Arc<Self>> {
        thread_local! {
            static BELL: RefCell<Option<(u32, Arc<Bell>)>> = const { RefCell::new(None) };
        }
        let bell = |known: &RefCell<Option<(u32, Arc<Self>)>>| {
            let mut known = known.try_borrow_mut().ok()?;
            if let Some((_, bell)) = known.as_ref().filter(|(of, _)| *of == process) {
                return Some(Arc::clone(bell));
            }
            let bell = Arc::new(Self::new()?);
            *known = Some((process, Arc::clone(&bell)));
            Some(bell)
        };
        BELL.try_with(bell).ok().flatten()
    }

    fn new() -> Option<Self> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        Some(Self { event, asleep: AtomicBool::new(false) })
    }

    /// The thread is awake, and found the bell rung or not.
    fn awake(&self, rung: bool) {
        if !self.asleep.swap(false, Ordering::SeqCst) || rung {
            let _ = rustix::io::read(&self.event, &mut [0; 8]);
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when 2^64 - 2 writes went before, and then the bell rings anyhow.
            let _ = rustix::io::write(&self.event, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_one_bell_in_each_process() {
        let bell = |process| Bell::of_this_thread(process).unwrap();
        let (parents, childs) = (bell(1), bell(2));
        assert!(!Arc::ptr_eq(&parents, &childs), "a child does not ring its parent's");
        assert!(Arc::ptr_eq(&childs, &bell(2)));
        let others = std::thread::spawn(|| Bell::of_this_thread(2).unwrap()).join().unwrap();
        assert!(!Arc::ptr_eq(&childs, &others));
    }
}
