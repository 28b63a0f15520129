//! One session of the tests: the commands for its two sides, and what it must have moved.

use std::process::Command;

use crate::content::{BLOCKS, LAYERS, POISON, PROMPT};
use crate::line::{Line, list};
use crate::random::Random;
use crate::worker::Worker;

/// A deadline in milliseconds that only a hang reaches.
pub const LONG: u64 = 30_000;

/// Bytes of one layer of a prompt.
pub const LAYER_BYTES: u64 = PROMPT as u64 * 2 * (8 << 10);

/// One prompt's way from a pool called `kv`.
pub struct Session {
    room: u64,
    /// Of the sender's pool.
    seed: u64,
    /// Blocks of the sender and of the receiver, in the prompt's order.
    sources: Vec<u32>,
    blocks: Vec<u32>,
}

/// A worker with a pool called `kv` that holds what belongs there by this seed.
pub fn prefill(name: &str, seed: u64, options: &str) -> Worker {
    prefill_by(Command::new(std::env::current_exe().unwrap()), name, seed, options)
}

/// The same, through a command that ends by running the test binary.
pub fn prefill_by(command: Command, name: &str, seed: u64, options: &str) -> Worker {
    let mut worker = Worker::start_by(command, name, options);
    worker.must("pool name=kv");
    worker.must(&format!("fill name=kv seed={seed}"));
    worker
}

impl Session {
    /// A session of a room, with blocks as they come.
    pub fn new(room: u64, seed: u64, random: &mut Random) -> Self {
        let (sources, blocks) = (random.pick(PROMPT, BLOCKS), random.pick(PROMPT, BLOCKS));
        Self { room, seed, sources, blocks }
    }

    /// The whole session, undisturbed: every byte must arrive, in the receiver's pool of this
    /// name.
    pub fn carry_out(&self, sender: &mut Worker, receiver: &mut Worker, pool: &str) {
        receiver.must(&format!("fill name={pool} byte={POISON}"));
        sender.must(&self.send(0, LONG));
        receiver.must(&self.receive(sender, pool, LONG));
        let received = receiver.must("join job=it");
        self.expect_sent(&sender.must("join job=it"));
        self.expect_received(&received, receiver, pool);
    }

    /// `pace`: microseconds before each layer. `deadline`: milliseconds.
    pub fn send(&self, pace: u64, deadline: u64) -> String {
        let (room, blocks) = (self.room, list(&self.sources));
        format!("send job=it pool=kv room={room} blocks={blocks} pace={pace} deadline={deadline}")
    }

    /// The command for its receiver: connects to the sender and receives.
    pub fn receive(&self, sender: &Worker, pool: &str, deadline: u64) -> String {
        let fields = self.receiver_fields(pool, deadline);
        format!("receive job=it address={} {fields}", sender.address)
    }

    /// A Receiver called `it`, from a peer that is connected.
    pub fn grant(&self, peer: &str, pool: &str, deadline: u64) -> String {
        format!("grant session=it peer={peer} {}", self.receiver_fields(pool, deadline))
    }

    fn receiver_fields(&self, pool: &str, deadline: u64) -> String {
        let (room, blocks) = (self.room, list(&self.blocks));
        format!("pool={pool} room={room} blocks={blocks} deadline={deadline}")
    }

    /// Every byte is there, and none where none was granted.
    pub fn expect_received(&self, received: &Line, receiver: &mut Worker, pool: &str) {
        assert_eq!(received.get("payload-is-right"), "true");
        let (seed, sources, blocks) = (self.seed, list(&self.sources), list(&self.blocks));
        let command = format!("check name={pool} seed={seed} sources={sources} blocks={blocks}");
        let found = receiver.must(&command);
        assert_eq!(found.verb, "ok", "{found:?}");
    }

    /// No byte is where none was granted.
    pub fn expect_untouched_outside(&self, receiver: &mut Worker, pool: &str) {
        let blocks = list(&self.blocks);
        let found = receiver.must(&format!("check-outside name={pool} blocks={blocks}"));
        assert_eq!(found.verb, "ok", "{found:?}");
    }

    /// The sender's answer says that it has moved everything.
    pub fn expect_sent(&self, sent: &Line) {
        assert_eq!(sent.number::<u64>("bytes"), u64::from(LAYERS) * LAYER_BYTES);
    }
}
