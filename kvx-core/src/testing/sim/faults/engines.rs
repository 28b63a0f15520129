//! Faults of engines, and what their users do to them.

use std::sync::Arc;

use crate::error::Cause;
use crate::testing::sim::clock::SkewedClock;
use crate::testing::sim::engine::State;
use crate::testing::sim::{Fault, Happening, MS, SECOND, World};

impl World {
    pub(super) fn stop_one(&mut self) {
        let Some(engine) = self.pick_engine() else { return };
        if self.engines[engine].state == State::Running {
            self.note(|| format!("{engine} stops"));
            self.count(Fault::Stop);
            self.engines[engine].state = State::Stopped(Vec::new());
            let pause = self.random.within(10..5000) * MS;
            self.after(pause, Happening::Continue(engine));
        }
    }

    pub(crate) fn go_on(&mut self, engine: usize) {
        if let State::Stopped(kept) = &mut self.engines[engine].state {
            let kept = std::mem::take(kept);
            self.engines[engine].state = State::Running;
            self.engines[engine].went_on = self.now;
            self.note(|| format!("{engine} goes on"));
            kept.into_iter().for_each(|happening| self.at(self.now, happening));
        }
    }

    pub(super) fn slow_one(&mut self) {
        let Some(engine) = self.pick_engine() else { return };
        if self.engines[engine].state != State::Running {
            return;
        }
        let until = self.fault_until(3 * SECOND);
        let pause = self.random.within(MS..30 * MS);
        self.note(|| format!("{engine} takes {pause} ns for everything until {until}"));
        self.count(Fault::Slow);
        self.engines[engine].slow_down(until, pause);
    }

    /// A process is killed: its kernel closes what it had open.
    pub(super) fn crash_one(&mut self) {
        let Some(engine) = self.pick_engine().filter(|engine| self.engines[*engine].is_alive())
        else {
            return;
        };
        self.note(|| format!("{engine} crashes"));
        self.count(Fault::Crash);
        self.engines[engine].state = State::Crashed;
        for (id, end) in self.conns_of(engine) {
            self.close_end(id, end);
        }
        self.bury(engine);
    }

    /// A machine loses power. Its clock counts from when it was started.
    pub(super) fn lose_host(&mut self) {
        let Some(engine) = self.pick_engine().filter(|engine| self.engines[*engine].is_alive())
        else {
            return;
        };
        self.note(|| format!("the host of {engine} is lost"));
        self.count(Fault::HostLost);
        self.engines[engine].state = State::Crashed;
        for (id, end) in self.conns_of(engine) {
            self.lose_end(id, end);
        }
        self.bury(engine);
        self.engines[engine].clock = SkewedClock::booted(self.now, &mut self.random);
    }

    fn bury(&mut self, engine: usize) {
        for remote in std::mem::take(&mut self.engines[engine].links).into_keys() {
            self.ledger.link_broken(engine, remote, self.now);
        }
        self.engine_died(engine);
        self.restart_later(engine);
    }

    fn restart_later(&mut self, engine: usize) {
        let pause = self.random.within(50..4000) * MS;
        self.after(pause, Happening::Restart(engine));
    }

    pub(crate) fn restart(&mut self, engine: usize) {
        self.note(|| format!("{engine} starts again"));
        self.engines[engine].renew(&mut self.random);
        self.furnish(engine);
    }

    /// An engine ends in good order: everyone is told, and nothing lands in its memory from here
    /// on but what a call in progress brings.
    pub(super) fn shut_one_down(&mut self) {
        let Some(engine) = self.pick_engine() else { return };
        if self.engines[engine].state != State::Running {
            return;
        }
        self.note(|| format!("{engine} shuts down"));
        self.count(Fault::Shutdown);
        let remotes: Vec<usize> = self.engines[engine].links.keys().copied().collect();
        for remote in remotes {
            if let Some(link) = self.engines[engine].links.get_mut(&remote) {
                link.peer.goodbye();
                self.attend(engine, remote);
                self.kill_link(engine, remote, Cause::ShutDown);
            }
        }
        Arc::clone(&self.engines[engine].registry).close_all();
        self.engines[engine].state = State::Down;
        for (id, end) in self.conns_of(engine) {
            self.close_end(id, end);
        }
        self.restart_later(engine);
    }

    /// An engine's user removes a peer, who may come back at once.
    pub(super) fn remove_one(&mut self) {
        let Some((engine, remote)) = self.pick_pair() else { return };
        let links = &self.engines[engine].links;
        if links.contains_key(&remote) && self.engines[engine].state == State::Running {
            self.count(Fault::PeerRemoved);
            self.kill_link(engine, remote, Cause::PeerRemoved);
        }
    }

    pub(super) fn jump_one_clock(&mut self) {
        let Some(engine) = self.pick_engine() else { return };
        let by = self.random.within(MS..2 * SECOND);
        if self.engines[engine].jumped + by > 4 * SECOND {
            return;
        }
        self.note(|| format!("the clock of {engine} jumps ahead by {by} ns"));
        self.count(Fault::ClockJump);
        self.engines[engine].clock.jump(by);
        self.engines[engine].jumped += by;
        self.reset_timer(engine);
    }
}
