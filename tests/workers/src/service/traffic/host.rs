//! The side that is visited.

use std::sync::Arc;

use kvx::error::Result;
use kvx::{Buffer, Engine, EngineId, Peer};

use super::{FAILED, PAUSE, Pools, Prompt, Prompts, SETTLE, Tally};
use crate::content;

pub(super) struct Host {
    pub(super) engine: Engine,
    pub(super) visitor: EngineId,
    /// What the visitor reads and writes.
    pub(super) memory: Buffer,
    pub(super) pools: Pools,
    /// Of what both sides give.
    pub(super) seed: u64,
    pub(super) tally: Arc<Tally>,
}

impl Host {
    pub(super) fn run(self) {
        while !self.tally.is_over() {
            let Some(note) = self.engine.wait_notification(PAUSE) else { continue };
            // Others may notify as they like: it is taken, and means nothing here.
            if note.engine() != Some(self.visitor) {
                continue;
            }
            let text = String::from_utf8_lossy(&note.bytes).into_owned();
            if text.starts_with(SETTLE) {
                // Everything before it has been dealt with.
                self.tell(&text);
                continue;
            }
            let mut words = text.split(' ');
            let mut number = || words.next().unwrap().parse::<u64>().unwrap();
            let (seed, round) = (number(), number());
            match self.serve(seed, round) {
                Ok(()) => self.tally.note_round(self.memory.len() * 2 + Prompt::BYTES * 2),
                Err(error) => {
                    self.tally.note_error(&error.to_string());
                    self.tell(FAILED);
                }
            }
        }
    }

    /// Says it until it is heard: what happens to the host may outlast a notification's deadline.
    fn tell(&self, what: &str) {
        while !self.tally.is_over() {
            let Some(peer) = self.peer() else { return };
            match peer.notify(what.to_owned()).wait() {
                Ok(()) => return,
                Err(error) => self.tally.note_error(&error.to_string()),
            }
        }
    }

    fn serve(&self, seed: u64, round: u64) -> Result<()> {
        // Visible, then told: the notification came after every byte.
        if let Some(at) = content::find_wrong(&self.memory, seed ^ round, 0, self.memory.len()) {
            self.tally.note_wrong(&format!("written, offset {at}, round {round}"));
        }
        let prompts = Prompts::of(seed, round);
        prompts.to_visitor.send(&self.engine, &self.pools.give)?;
        let Some(peer) = self.peer() else { return Ok(()) };
        if let Some(at) = prompts.to_host.receive(&peer, &self.pools.take, self.seed)? {
            self.tally.note_wrong(&format!("received, {at}, round {round}"));
        }
        peer.notify(round.to_string()).wait()
    }

    fn peer(&self) -> Option<Peer> {
        let mut peers = self.engine.peers().into_iter();
        peers.find(|peer| peer.identity().is_some_and(|(engine, _)| engine == self.visitor))
    }
}
