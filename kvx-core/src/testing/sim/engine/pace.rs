//! When a simulated engine does what is due: later, while it is stopped or slow.

use std::collections::VecDeque;

use crate::testing::sim::engine::{Engine, State};
use crate::testing::sim::network::ConnId;
use crate::testing::sim::{Happening, Instant, World};

/// One thing after another, each after a pause.
pub(crate) struct Slowness {
    pub(crate) until: Instant,
    pub(crate) pause: Instant,
    waiting: VecDeque<Happening>,
}

impl Engine {
    /// From here on everything takes it long.
    pub(crate) fn slow_down(&mut self, until: Instant, pause: Instant) {
        let waiting = VecDeque::new();
        self.slowness.get_or_insert(Slowness { until, pause, waiting });
    }
}

impl World {
    /// Keeps what concerns a stopped or slow engine for later. Users come back by themselves.
    pub(crate) fn is_held_back(&mut self, happening: Happening) -> bool {
        let conn = |id: ConnId, end: usize| self.conns.get(&id).map(|conn| conn.engines[end]);
        let engine = match happening {
            Happening::Arrive(id, end)
            | Happening::End(id, end)
            | Happening::Impatience(id, end)
            | Happening::Pump(id, end) => conn(id, end),
            Happening::Timer(engine, ..) | Happening::Redial(engine, ..) => Some(engine),
            Happening::Take(note) => Some(self.ledger.note_target(note)),
            Happening::TakeStray(engine, ..) => Some(engine),
            Happening::Layers(session) => Some(self.ledger.sessions[session].sender),
            Happening::Patience(session) => Some(self.ledger.sessions[session].receiver),
            _ => None,
        };
        let Some(engine) = engine else { return false };
        if self.is_stopped(engine, happening) {
            return true;
        }
        let Some(slowness) = &mut self.engines[engine].slowness else { return false };
        slowness.waiting.push_back(happening);
        if slowness.waiting.len() == 1 {
            let pause = slowness.pause;
            self.after(pause, Happening::Turn(engine));
        }
        true
    }

    fn is_stopped(&mut self, engine: usize, happening: Happening) -> bool {
        let State::Stopped(kept) = &mut self.engines[engine].state else { return false };
        kept.push(happening);
        true
    }

    /// A slow engine does one of the things that wait, and is itself again once its time is over
    /// and all is done.
    pub(crate) fn take_turn(&mut self, engine: usize) {
        let turn = Happening::Turn(engine);
        if self.engines[engine].slowness.is_none() || self.is_stopped(engine, turn) {
            return;
        }
        let Some(slowness) = &mut self.engines[engine].slowness else { return };
        let next = slowness.waiting.pop_front();
        let over = slowness.until <= self.now;
        let pause = if over { 0 } else { slowness.pause };
        if !slowness.waiting.is_empty() {
            self.after(pause, turn);
        } else if over {
            self.engines[engine].slowness = None;
            self.engines[engine].went_on = self.now;
        }
        if let Some(happening) = next {
            self.happen_now(happening);
        }
    }
}
