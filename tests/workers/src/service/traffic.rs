//! A healthy neighbour: two workers that keep each other busy and check every byte, while the
//! test does something else to one of them. They need no command once they have begun.
//!
//! In each round the **visitor** WRITEs memory of the **host** with a notification, gets a prompt
//! from the host and gives it one in sessions, is told by a notification that the host found
//! everything in its place, and READs back what it wrote.

mod host;
mod visitor;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use kvx::error::Result;
use kvx::{Engine, Room, SessionKey};

use super::Service;
use crate::content::{BLOCK_TOKENS, BLOCKS, LAYERS, Pool};
use crate::line::{Line, unhex};
use crate::random::Random;

/// Blocks of a visit's prompts.
const PROMPT: u32 = 4;
/// Bytes of a block in one region.
const BLOCK_LEN: u64 = 8 << 10;
/// Rooms of visits begin here: no test's own rooms are near.
const FIRST_ROOM: u64 = 1 << 62;

/// Between looks at what may have changed.
const PAUSE: Duration = Duration::from_millis(20);

/// What the visitor says after a round that has failed, and the host says again when it is done
/// with all that came before.
const SETTLE: &str = "settle";

/// What the host says of a round that has failed.
const FAILED: &str = "failed";

/// One side of a visit.
#[derive(Debug)]
pub(super) struct Traffic {
    tally: Arc<Tally>,
    thread: JoinHandle<()>,
}

/// The pools of one side.
#[derive(Debug)]
struct Pools {
    /// Holds what belongs there by the visit's seed.
    give: Arc<Pool>,
    /// Poisoned, but for what is being received.
    take: Arc<Pool>,
}

/// What one side has seen so far.
#[derive(Debug, Default)]
struct Tally {
    over: AtomicBool,
    /// No new round begins.
    paused: AtomicBool,
    /// None is under way.
    resting: AtomicBool,
    /// Rounds in which every byte was right.
    rounds: AtomicU64,
    /// Bytes that these moved, both ways.
    bytes: AtomicU64,
    /// Operations that failed, with an error that says so.
    errors: AtomicU64,
    last_error: Mutex<String>,
    /// The first byte that was wrong: nothing excuses it.
    wrong: Mutex<Option<String>>,
}

impl Service {
    /// `host visitor= ENGINE_ID memory= give= take= seed=`: serves visits: memory that the visitor
    /// may read and write, a pool that holds what belongs there by this seed, one that is poisoned.
    pub(super) fn host(&mut self, command: &Line) -> String {
        let tally = Arc::new(Tally::default());
        let host = host::Host {
            engine: self.engine().clone(),
            visitor: kvx::EngineId(unhex(command.get("visitor")).try_into().unwrap()),
            memory: self.memory[command.get("memory")].buffer.clone(),
            pools: self.pools_of(command),
            seed: command.number("seed"),
            tally: Arc::clone(&tally),
        };
        let thread = std::thread::spawn(move || host.run());
        self.traffic = Some(Traffic { tally, thread });
        "ok".to_owned()
    }

    /// `visit peer= memory= sink= give= take= seed=`: visits a peer whose first region is the memory
    /// that it lends; `memory` and `sink` are of its length.
    pub(super) fn visit(&mut self, command: &Line) -> String {
        let tally = Arc::new(Tally::default());
        let memory = |field: &str| &self.memory[command.get(field)];
        let visitor = visitor::Visitor::new(
            self.engine().clone(),
            self.peers[command.get("peer")].clone(),
            (memory("memory"), memory("sink")),
            self.pools_of(command),
            command.number("seed"),
            Arc::clone(&tally),
        );
        let thread = std::thread::spawn(move || visitor.run());
        self.traffic = Some(Traffic { tally, thread });
        "ok".to_owned()
    }

    fn pools_of(&self, command: &Line) -> Pools {
        let pool = |field: &str| Arc::clone(&self.pools[command.get(field)]);
        Pools { give: pool("give"), take: pool("take") }
    }

    /// `traffic`: how far it is: `rounds= bytes= errors= last-error= wrong=`.
    pub(super) fn traffic(&self) -> String {
        self.traffic.as_ref().unwrap().tally.to_line()
    }

    /// `pause paused=true|false`, of a visitor: returns between two rounds.
    pub(super) fn pause(&self, command: &Line) -> String {
        let tally = &self.traffic.as_ref().unwrap().tally;
        let paused = command.number("paused");
        tally.paused.store(paused, Ordering::Release);
        while tally.resting.load(Ordering::Acquire) != paused {
            std::thread::sleep(PAUSE);
        }
        "ok".to_owned()
    }

    /// `leave`: ends this side's part after its round.
    pub(super) fn leave(&mut self) -> String {
        let traffic = self.traffic.take().unwrap();
        traffic.tally.over.store(true, Ordering::Release);
        traffic.thread.join().unwrap();
        traffic.tally.to_line()
    }
}

impl Tally {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Between two rounds.
    fn rest(&self) {
        while self.paused.load(Ordering::Acquire) && !self.is_over() {
            self.resting.store(true, Ordering::Release);
            std::thread::sleep(PAUSE);
        }
        self.resting.store(false, Ordering::Release);
    }

    fn note_round(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.rounds.fetch_add(1, Ordering::Release);
    }

    fn note_error(&self, error: &str) {
        *self.last_error.lock().unwrap() = one_word(error);
        self.errors.fetch_add(1, Ordering::Release);
    }

    fn note_wrong(&self, what: &str) {
        self.wrong.lock().unwrap().get_or_insert_with(|| one_word(what));
    }

    fn to_line(&self) -> String {
        let (rounds, errors) = (&self.rounds, &self.errors);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let mut line = format!(
            "ok rounds={} errors={} bytes={bytes}",
            rounds.load(Ordering::Acquire),
            errors.load(Ordering::Acquire)
        );
        let last_error = self.last_error.lock().unwrap();
        if !last_error.is_empty() {
            line += &format!(" last-error={last_error}");
        }
        if let Some(wrong) = &*self.wrong.lock().unwrap() {
            line += &format!(" wrong={wrong}");
        }
        line
    }
}

/// Answers are words without blanks.
fn one_word(text: &str) -> String {
    text.replace(char::is_whitespace, "_").replace('=', ":")
}

/// The two prompts of a round, which both sides know from the visitor's seed.
#[derive(Clone, Debug)]
struct Prompts {
    to_visitor: Prompt,
    to_host: Prompt,
}

/// One prompt: the sender's blocks and the receiver's.
#[derive(Clone, Debug)]
struct Prompt {
    session: SessionKey,
    sources: Vec<u32>,
    blocks: Vec<u32>,
}

impl Prompts {
    fn of(seed: u64, round: u64) -> Self {
        let mut random = Random::new(seed ^ round << 32);
        let room = FIRST_ROOM + (seed << 40) + 2 * round;
        let mut prompt = |room: u64| Prompt {
            session: SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 },
            sources: random.pick(PROMPT, BLOCKS),
            blocks: random.pick(PROMPT, BLOCKS),
        };
        Self { to_visitor: prompt(room), to_host: prompt(room + 1) }
    }
}

impl Prompt {
    /// Bytes of it, over all layers.
    const BYTES: u64 = PROMPT as u64 * LAYERS as u64 * 2 * BLOCK_LEN;

    fn send(&self, engine: &Engine, pool: &Pool) -> Result<()> {
        let sender = engine.sender(self.session, &pool.kv, None)?;
        for layer in sender.granted().wait()?.layers {
            // Its failure is the session's.
            drop(sender.write(layer..layer + 1, &self.sources)?);
        }
        sender.finish("prompt").wait().map(drop)
    }

    /// What is wrong with what came, if anything.
    fn receive(&self, peer: &kvx::Peer, pool: &Pool, seed: u64) -> Result<Option<String>> {
        let tokens = PROMPT * BLOCK_TOKENS;
        let receiver = peer.receiver(self.session, &pool.kv, tokens, &self.blocks, None)?;
        let outcome = receiver.wait();
        // The grant is over: what is there now stays.
        let found = match &outcome {
            Ok(_) => pool.find_wrong(seed, &self.sources, &self.blocks),
            Err(_) => pool.find_touched(&self.blocks),
        };
        pool.poison(&self.blocks);
        outcome.map(|_| found)
    }
}
