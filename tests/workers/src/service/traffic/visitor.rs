//! The side that visits.

use std::sync::Arc;
use std::time::Duration;

use kvx::error::Result;
use kvx::{Buffer, Engine, Peer, PostOptions, Prepared, Span, Spans, TransferOp};

use super::{FAILED, PAUSE, Pools, Prompt, Prompts, SETTLE, Tally};
use crate::content;
use crate::service::Memory;

/// Pieces of a write or read, none of which merge.
const RUNS: u64 = 16;
/// How long the host's word is waited for: longer than any of its deadlines.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Visitor {
    engine: Engine,
    peer: Peer,
    /// What is written.
    memory: Buffer,
    /// Where it is read back to.
    sink: Buffer,
    pools: Pools,
    seed: u64,
    tally: Arc<Tally>,
    write: Prepared,
    read: Prepared,
}

impl Visitor {
    pub(super) fn new(
        engine: Engine,
        peer: Peer,
        (memory, sink): (&Memory, &Memory),
        pools: Pools,
        seed: u64,
        tally: Arc<Tally>,
    ) -> Self {
        let spans = pieces(memory.buffer.len());
        let remote = [peer.regions()[0].id];
        let prepare = |op, local: &Memory| {
            let local = local.region.as_ref().unwrap();
            peer.prepare(op, (&[local], &spans), (&remote, &spans)).unwrap()
        };
        let write = prepare(TransferOp::Write, memory);
        let read = prepare(TransferOp::Read, sink);
        let (memory, sink) = (memory.buffer.clone(), sink.buffer.clone());
        Self { engine, peer, memory, sink, pools, seed, tally, write, read }
    }

    pub(super) fn run(self) {
        for round in 0.. {
            self.tally.rest();
            if self.tally.is_over() {
                return;
            }
            match self.visit(round) {
                Ok(()) => self.tally.note_round(self.memory.len() * 2 + Prompt::BYTES * 2),
                Err(error) => {
                    self.tally.note_error(&error.to_string());
                    self.settle(round);
                }
            }
        }
    }

    fn visit(&self, round: u64) -> Result<()> {
        content::write(&self.memory, self.seed ^ round);
        let note = PostOptions::new().notify(format!("{} {round}", self.seed));
        self.write.post(note)?.wait()?;
        let prompts = Prompts::of(self.seed, round);
        if let Some(at) = prompts.to_visitor.receive(&self.peer, &self.pools.take, self.seed)? {
            self.tally.note_wrong(&format!("received, {at}, round {round}"));
        }
        prompts.to_host.send(&self.engine, &self.pools.give)?;
        if !self.is_told(round) {
            return Ok(());
        }
        self.read.post(PostOptions::new())?.wait()?;
        if let Some(at) = content::find_wrong(&self.sink, self.seed ^ round, 0, self.sink.len()) {
            self.tally.note_wrong(&format!("read, offset {at}, round {round}"));
        }
        Ok(())
    }

    /// After a round that failed: waits until the host is done with it too, for it may still look
    /// at what the next round changes.
    fn settle(&self, round: u64) {
        let settled = format!("{SETTLE} {round}");
        while !self.tally.is_over() {
            std::thread::sleep(PAUSE);
            match self.peer.notify(settled.clone()).wait() {
                Ok(()) => break,
                Err(error) => self.tally.note_error(&error.to_string()),
            }
        }
        while !self.tally.is_over() {
            let Some(note) = self.engine.wait_notification(PATIENCE) else {
                return self.tally.note_wrong(&format!("never settled, round {round}"));
            };
            if note.bytes == settled {
                return;
            }
        }
    }

    /// Waits for the host's word on this round: whether it has found everything in its place.
    fn is_told(&self, round: u64) -> bool {
        while let Some(note) = self.engine.wait_notification(PATIENCE) {
            if note.bytes == FAILED {
                return false;
            }
            // Those of rounds that failed here may come late.
            if note.bytes == round.to_string() {
                return true;
            }
        }
        self.tally.note_wrong(&format!("never told, round {round}"));
        false
    }
}

/// All of it, back to front.
fn pieces(len: u64) -> Spans {
    let piece = len / RUNS;
    (0..RUNS).rev().map(|index| Span { region: 0, offset: index * piece, len: piece }).collect()
}
