//! Arrivals that are seen and not told of: none is left lying, whoever looks and whoever sleeps.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::Waker;
use std::thread;
use std::time::Duration;

use kvx_core::error::{LaneError, Refusal, Violation};
use kvx_core::id::LaneId;
use kvx_core::time::Time;
use kvx_core::transport::{Admission, Landing, Lane, LaneHost, OutFrame};
use kvx_core::wire::{FrameHeader, WireSpan};
use kvx_io::{LaneState, Pool, ReceiveHalf, Received, SendHalf, Sent, Sight};
use rustix::net::{RecvFlags, recv};

/// Arrivals of a test.
const ARRIVALS: u64 = 200;

/// A hang, and nothing else.
const HUNG: Duration = Duration::from_secs(20);

/// What a peer leaves in memory, one thing after the other.
#[derive(Default)]
struct Memory {
    left: AtomicU64,
    received: AtomicU64,
    /// The next thing comes when somebody sleeps, not when it has looked a while.
    comes_late: AtomicBool,
    lookers: AtomicU64,
    looks: AtomicU64,
    sleeps: AtomicU64,
    told: AtomicU64,
    /// Somebody has ended a look that nobody has begun.
    unpaired: AtomicBool,
    /// Somebody has received, and so perhaps heard the bell, who was not looking.
    unseeing: AtomicBool,
    waiting: Mutex<Option<Waker>>,
    changed: Condvar,
}

impl Memory {
    /// The next thing is there: never more than one.
    fn leave(&self) {
        if self.received.load(Ordering::SeqCst) == self.left.load(Ordering::SeqCst) {
            let _ = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                (left < ARRIVALS).then_some(left + 1)
            });
        }
    }

    fn is_received(&self) -> bool {
        self.received.load(Ordering::SeqCst) == ARRIVALS
    }

    fn wait_until(&self, mut is_so: impl FnMut(&Self) -> bool) {
        let waiting = self.waiting.lock().unwrap();
        let (_waiting, outcome) =
            self.changed.wait_timeout_while(waiting, HUNG, |_| !is_so(self)).unwrap();
        assert!(!outcome.timed_out(), "something was left lying");
    }

    /// It was seen, all but what so many bells told of.
    fn assert_seen(&self, bells: u64) {
        self.wait_until(Self::is_received);
        assert!(self.told.load(Ordering::SeqCst) <= bells);
        assert!(!self.unpaired.load(Ordering::SeqCst));
        assert!(!self.unseeing.load(Ordering::SeqCst));
    }

    fn tell(&self) {
        let waker = self.waiting.lock().unwrap().clone();
        self.changed.notify_all();
        waker.into_iter().for_each(Waker::wake);
    }
}

struct Seen(Arc<Memory>);

impl Sight for Seen {
    fn has_arrived(&self) -> bool {
        let memory = &self.0;
        if memory.received.load(Ordering::SeqCst) != memory.left.load(Ordering::SeqCst) {
            return true;
        }
        let began = memory.received.load(Ordering::SeqCst) > 0;
        let looks = memory.looks.fetch_add(1, Ordering::SeqCst);
        if began && looks.is_multiple_of(3) && !memory.comes_late.load(Ordering::SeqCst) {
            memory.leave();
        }
        false
    }

    fn look(&self) {
        self.0.lookers.fetch_add(1, Ordering::SeqCst);
    }

    fn sleep(&self) -> bool {
        let memory = &self.0;
        match memory.lookers.fetch_sub(1, Ordering::SeqCst) {
            0 => memory.unpaired.store(true, Ordering::SeqCst),
            1 => {}
            // Others look.
            _ => return false,
        }
        if memory.received.load(Ordering::SeqCst) > 0 {
            memory.leave();
        }
        memory.sleeps.fetch_add(1, Ordering::SeqCst);
        memory.tell();
        memory.received.load(Ordering::SeqCst) != memory.left.load(Ordering::SeqCst)
    }
}

struct Half(Arc<Memory>, Arc<OwnedFd>);

impl ReceiveHalf for Half {
    fn turn(
        &mut self,
        _: &LaneState,
        _: &mut usize,
        received: &mut Received,
    ) -> Result<(), LaneError> {
        let Self(memory, socket) = self;
        if memory.lookers.load(Ordering::SeqCst) == 0 {
            memory.unseeing.store(true, Ordering::SeqCst);
        }
        let mut told = [0; 8];
        if let Ok((bytes, _)) = recv(socket, &mut told, RecvFlags::DONTWAIT) {
            memory.told.fetch_add(bytes as u64, Ordering::SeqCst);
        }
        let left = memory.left.load(Ordering::SeqCst);
        received.frames |= memory.received.swap(left, Ordering::SeqCst) != left;
        if memory.is_received() {
            memory.tell();
        }
        Ok(())
    }

    fn end(&mut self) {}

    fn sight(&self) -> Option<Arc<dyn Sight>> {
        Some(Arc::new(Seen(Arc::clone(&self.0))))
    }
}

struct Silent;

impl SendHalf for Silent {
    fn turn(&mut self, _: &LaneState, _: &mut usize) -> Result<Sent, LaneError> {
        Ok(Sent::Done)
    }

    fn end(&mut self) {}
}

struct Nobody;

impl LaneHost for Nobody {
    fn now(&self) -> Time {
        Time::ZERO
    }

    fn next_frame(&self, _: LaneId) -> Option<OutFrame> {
        None
    }

    fn frame_arrived(
        &self,
        _: LaneId,
        _: &FrameHeader,
        _: &[WireSpan],
        _: &mut Landing,
    ) -> Result<Admission, Violation> {
        Ok(Admission::Discard)
    }

    fn frame_finished(&self, _: LaneId, _: &FrameHeader, _: Result<(), Refusal>) {}

    fn acknowledged(&self, _: LaneId, _: &FrameHeader) -> Result<(), Violation> {
        Ok(())
    }

    fn closed(&self, _: LaneId, _: LaneError) {}
}

struct Stage {
    memory: Arc<Memory>,
    lane: Arc<dyn Lane>,
    peer: UnixStream,
    _pool: Pool,
}

impl Stage {
    fn new() -> Self {
        let (peer, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (memory, socket) = (Arc::new(Memory::default()), Arc::new(OwnedFd::from(ours)));
        let pool = Pool::new("seen", 1, 1 << 20).unwrap();
        let half = Box::new(Half(Arc::clone(&memory), Arc::clone(&socket)));
        let lane = pool.open(LaneId(1), Arc::new(Nobody), socket, Box::new(Silent), half).unwrap();
        memory.wait_until(|memory| memory.sleeps.load(Ordering::SeqCst) > 0);
        Self { memory, lane, peer, _pool: pool }
    }

    /// The first thing is there, and the bell has rung for it.
    fn begin(&self) {
        self.memory.leave();
        (&self.peer).write_all(&[1]).unwrap();
    }
}

#[test]
fn what_is_seen_needs_one_bell_and_no_more() {
    for comes_late in [false, true] {
        let stage = Stage::new();
        stage.memory.comes_late.store(comes_late, Ordering::SeqCst);
        stage.begin();
        stage.memory.assert_seen(1);
    }
}

#[test]
fn a_thread_that_attends_sees_it_too_and_has_the_lane_sleep_when_it_goes() {
    for comes_late in [false, true] {
        let stage = Stage::new();
        let memory = &stage.memory;
        memory.comes_late.store(comes_late, Ordering::SeqCst);
        let before = memory.sleeps.load(Ordering::SeqCst);
        thread::scope(|scope| {
            // Its bell is heard by the one who attends, asleep.
            scope.spawn(|| {
                memory.wait_until(|memory| memory.sleeps.load(Ordering::SeqCst) > before);
                stage.begin();
            });
            stage.lane.attend(Some(HUNG), &mut |cx| {
                *memory.waiting.lock().unwrap() = Some(cx.waker().clone());
                // It leaves halfway: the rest is the I/O thread's.
                memory.received.load(Ordering::SeqCst) >= ARRIVALS / 2
            });
        });
        if memory.lookers.load(Ordering::SeqCst) == 0 {
            stage.begin();
        }
        memory.assert_seen(2);
    }
}

#[test]
fn nobody_looks_while_nothing_comes() {
    let stage = Stage::new();
    let memory = &stage.memory;
    stage.lane.attend(Some(Duration::from_millis(50)), &mut |_| false);
    let sleeps = memory.sleeps.load(Ordering::SeqCst);
    assert!((2..=4).contains(&sleeps), "{sleeps} times");
}
