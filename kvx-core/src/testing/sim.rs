//! A simulation of many engines over a network that fails, told by its seed.
//!
//! [`simulate`] lets engines of a few lives each read, write, notify and hold sessions with each
//! other while connections break, networks part, processes stop, die and come back, and hostile
//! engines break the rules. What is promised (ARCHITECTURE, promises 1 to 7) is checked at every
//! byte that lands and every event that is told; a promise that is broken panics.
//!
//! Everything here happens in one queue, ordered by time and then by the order of asking. The
//! engine that drives a [`crate::proto::Peer`] in earnest is not under test; [`engine`] does what
//! it has to do in the plainest way.

mod clock;
mod engine;
mod faults;
mod handshakes;
mod hearing;
mod hostile;
mod lanes;
mod ledger;
mod network;
mod report;
mod scenario;
mod sessions;
mod trace;
mod user;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::testing::random::Random;
use engine::Engine;
use ledger::{Ledger, NoteIndex, TransferIndex};
use network::{Conn, ConnId, Network};
use scenario::Setting;
use sessions::SessionIndex;

pub use report::{Fault, Report};
pub use scenario::Scenario;
pub use trace::Trace;

/// Nanoseconds of the simulation's own time, which no engine's clock shows.
pub(crate) type Instant = u64;
/// A millisecond of it.
pub(crate) const MS: Instant = 1_000_000;
/// A second of it.
pub(crate) const SECOND: Instant = 1000 * MS;

/// How long there is no fault at the end: every deadline comes within it, and then what is asked
/// for once more must go well.
const CALM: Instant = 30 * SECOND;

/// Runs this scenario to its end.
///
/// # Panics
/// A promise is broken.
pub fn simulate(scenario: Scenario, trace: Option<&Trace>) -> Report {
    let mut world = World::new(scenario, trace.cloned());
    world.run();
    world.report
}

/// Everything there is.
pub(crate) struct World {
    random: Random,
    setting: Setting,
    now: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    /// Happenings asked for so far: of two at the same time the one asked for first comes first.
    asked: u64,
    engines: Vec<Engine>,
    conns: BTreeMap<ConnId, Conn>,
    network: Network,
    ledger: Ledger,
    /// Links made so far: their serial numbers.
    links: u64,
    /// System calls within which happenings are being run.
    depth: u32,
    report: Report,
    trace: Option<Trace>,
}

/// Something that will happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// Bytes have come to this end of a connection.
    Arrive(ConnId, usize),
    /// This end of a connection sees that it is over.
    End(ConnId, usize),
    /// A connection breaks.
    Cut(ConnId),
    /// A connection that is not verified by now never will be.
    Impatience(ConnId, usize),
    /// This end of a lane may have something to send, and room to send it.
    Pump(ConnId, usize),
    /// An engine's timers, as they were set to this point.
    Timer(usize, u32, Instant),
    /// Time to dial another engine again.
    Redial(usize, u32, usize),
    /// An engine's user wants something.
    User(usize),
    /// A transfer that failed is past its deadline: nothing of it may land from here on.
    Forbid(TransferIndex),
    /// A user takes a notification.
    Take(NoteIndex),
    /// A user takes a notification of a hostile engine, which nobody has counted.
    TakeStray(usize, usize, u64, usize),
    /// The next layers of a session are computed.
    Layers(SessionIndex),
    /// A session has taken too long.
    Patience(SessionIndex),
    /// Something breaks.
    Fault,
    /// All is well again: engines that lost each other meet.
    Reunion,
    /// What is asked for from here on must go well.
    Finale,
    /// A stopped engine goes on.
    Continue(usize),
    /// A slow engine has time for one more thing.
    Turn(usize),
    /// A crashed engine starts again.
    Restart(usize),
    /// An owner opens one of its baits again.
    LayBait(usize, u32, usize),
}

impl World {
    fn new(scenario: Scenario, trace: Option<Trace>) -> Self {
        let mut random = Random::new(scenario.seed);
        let setting = Setting::new(scenario, &mut random);
        let engines = setting.natures.len();
        let calm_at = setting.calm_at;
        let mut world = Self {
            now: 0,
            setting,
            queue: BinaryHeap::new(),
            asked: 0,
            engines: Vec::new(),
            conns: BTreeMap::new(),
            network: Network::new(&mut random),
            ledger: Ledger::default(),
            links: 0,
            depth: 0,
            report: Report { engines, ..Report::default() },
            trace,
            random,
        };
        for index in 0..engines {
            let engine = Engine::new(index, &mut world.random);
            world.engines.push(engine);
            world.furnish(index);
            world.at(index as u64 % 100 * MS, Happening::User(index));
        }
        world.at(100 * MS, Happening::Fault);
        world.at(calm_at + 12 * SECOND, Happening::Reunion);
        world.at(calm_at + 16 * SECOND, Happening::Finale);
        world
    }

    fn run(&mut self) {
        while self.now < self.setting.calm_at + CALM {
            let Some(Reverse((at, _, happening))) = self.queue.pop() else { break };
            self.now = self.now.max(at);
            self.happen(happening);
        }
        self.expel_villains();
        self.check_all_is_over();
        self.report.nanos = self.now;
    }

    fn is_calm(&self) -> bool {
        self.now >= self.setting.calm_at
    }

    /// Asks for something to happen at a point of time.
    fn at(&mut self, at: Instant, happening: Happening) {
        self.asked += 1;
        self.queue.push(Reverse((at.max(self.now), self.asked, happening)));
    }

    /// Asks for something to happen a while from now.
    fn after(&mut self, delay: Instant, happening: Happening) {
        self.at(self.now + delay, happening);
    }

    fn happen(&mut self, happening: Happening) {
        self.report.happenings += 1;
        self.report.mix(self.now ^ self.asked.rotate_left(32));
        if !self.is_held_back(happening) {
            self.happen_now(happening);
        }
    }

    fn happen_now(&mut self, happening: Happening) {
        match happening {
            Happening::Arrive(conn, end) => self.arrive(conn, end),
            Happening::End(conn, end) => self.see_end(conn, end),
            Happening::Cut(conn) => self.cut(conn),
            Happening::Impatience(conn, end) => self.lose_patience(conn, end),
            Happening::Pump(conn, end) => self.pump(conn, end),
            Happening::Timer(engine, life, set_to) => self.timers(engine, life, set_to),
            Happening::Redial(engine, life, remote) => self.redial(engine, life, remote),
            Happening::User(engine) => self.user_acts(engine),
            Happening::Forbid(transfer) => self.forbid(transfer),
            Happening::Take(note) => self.take_notification(note),
            Happening::TakeStray(engine, remote, link, len) => {
                self.take_stray(engine, remote, link, len);
            }
            Happening::Layers(session) => self.compute_layers(session),
            Happening::Patience(session) => self.lose_session(session),
            Happening::Fault => self.break_something(),
            Happening::Reunion => self.meet_again(),
            Happening::Finale => self.ask_once_more(),
            Happening::Continue(engine) => self.go_on(engine),
            Happening::Turn(engine) => self.take_turn(engine),
            Happening::Restart(engine) => self.restart(engine),
            Happening::LayBait(engine, life, bait) => self.lay_bait(engine, life, bait),
        }
        self.check_drained();
    }

    /// What happens while a system call is in progress: other threads and machines go on.
    fn happen_meanwhile(&mut self) {
        if self.depth >= 2 || !self.random.percent(15) {
            return;
        }
        self.depth += 1;
        let until = self.now + self.random.within(0..60) * MS;
        for _ in 0..self.random.within(1..12) {
            match self.queue.peek() {
                Some(Reverse((at, _, _))) if *at <= until => {}
                _ => break,
            }
            if let Some(Reverse((at, _, happening))) = self.queue.pop() {
                self.now = self.now.max(at);
                self.happen(happening);
            }
        }
        self.depth -= 1;
    }

    fn count(&mut self, fault: Fault) {
        *self.report.faults.entry(fault).or_default() += 1;
    }

    fn note(&self, line: impl FnOnce() -> String) {
        if let Some(trace) = &self.trace {
            let (seconds, nanos) = (self.now / SECOND, self.now % SECOND);
            trace.add(format!("{seconds:3}.{nanos:09} {}", line()));
        }
    }
}
