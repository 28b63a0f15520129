//! What breaks, and when.

use crate::error::Cause;
use crate::testing::sim::engine::State;
use crate::testing::sim::network::{ConnId, Role};
use crate::testing::sim::{Happening, MS, World};

impl World {
    /// Breaks something and asks for the next fault; heals everything when the time for faults is
    /// over.
    pub(crate) fn break_something(&mut self) {
        if self.now >= self.calm_at {
            self.network.heal();
            for engine in 0..self.engines.len() {
                self.go_on(engine);
            }
            return;
        }
        match self.random.within(0..100) {
            0..25 => self.cut_one("control cut", |role| matches!(role, Role::Control(_))),
            25..60 => self.cut_one("lane cut", |role| matches!(role, Role::Lane(_))),
            60..65 => self
                .cut_one("handshake cut", |role| !matches!(role, Role::Control(_) | Role::Lane(_))),
            65..78 => self.part_two(),
            78..88 => self.stop_one(),
            88..94 => self.crash_one(),
            _ => self.remove_one(),
        }
        let pause = self.random.within(20..800) * MS;
        self.after(pause, Happening::Fault);
    }

    fn cut_one(&mut self, name: &'static str, of_this_kind: impl Fn(&Role) -> bool) {
        let candidates: Vec<ConnId> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.ends.iter().flatten().any(|end| of_this_kind(&end.role)))
            .map(|(id, _)| *id)
            .collect();
        if candidates.is_empty() {
            return;
        }
        let id = candidates[self.random.index(candidates.len())];
        self.note(|| format!("{name}: {id:?}"));
        self.count(name);
        self.cut(id);
    }

    fn part_two(&mut self) {
        let a = self.random.index(self.engines.len());
        let b = (a + 1 + self.random.index(self.engines.len() - 1)) % self.engines.len();
        let until = self.now + self.random.within(50..5000) * MS;
        self.note(|| format!("{a} and {b} are parted until {until}"));
        self.count("partition");
        self.network.part(a, b, until.min(self.calm_at));
        if self.random.percent(40) {
            // It lasts long enough for their kernels to give up.
            for (id, _) in self.conns_of(a) {
                if self.conns.get(&id).is_some_and(|conn| conn.engines.contains(&b)) {
                    self.cut(id);
                }
            }
        }
    }

    fn stop_one(&mut self) {
        let engine = self.random.index(self.engines.len());
        if self.engines[engine].state == State::Running {
            self.note(|| format!("{engine} stops"));
            self.count("stop");
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

    fn crash_one(&mut self) {
        let engine = self.random.index(self.engines.len());
        if !self.engines[engine].is_alive() {
            return;
        }
        self.note(|| format!("{engine} crashes"));
        self.count("crash");
        let was_stopped = matches!(self.engines[engine].state, State::Stopped(_));
        self.engines[engine].state = State::Crashed;
        // Its kernel closes what it had open.
        for (id, end) in self.conns_of(engine) {
            self.close_end(id, end);
        }
        for remote in std::mem::take(&mut self.engines[engine].links).into_keys() {
            self.ledger.link_broken(engine, remote, self.now);
        }
        self.engine_died(engine);
        let pause = self.random.within(50..4000) * MS;
        self.after(pause, Happening::Restart(engine));
        if was_stopped {
            // What was kept for it is gone, but its user comes back with it.
            self.after(pause, Happening::User(engine));
        }
    }

    pub(crate) fn restart(&mut self, engine: usize) {
        self.note(|| format!("{engine} starts again"));
        self.engines[engine].renew(&mut self.random);
        self.furnish(engine);
    }

    /// An engine's user removes a peer, who may come back at once.
    fn remove_one(&mut self) {
        let engine = self.random.index(self.engines.len());
        let links: Vec<usize> = self.engines[engine].links.keys().copied().collect();
        if links.is_empty() || self.engines[engine].state != State::Running {
            return;
        }
        let remote = links[self.random.index(links.len())];
        self.count("peer removed");
        self.kill_link(engine, remote, Cause::PeerRemoved);
    }
}
