//! A prefill rank: computes its prompt's KV cache layer by layer, and sends each layer while it
//! computes the next.

use std::collections::VecDeque;
use std::time::Duration;

use kvx::{Cause, Engine, Peer, Room, Sender, SessionKey, Transfer};

use super::content::{self, Place};
use super::memory::{Blocks, Memory};
use super::messages::{Report, Sent};
use super::options::Options;
use super::role::{Role, rank_key};
use super::worker::{Parent, Problem, engine, tell};
use crate::{clock, numbers};

pub(super) fn run(
    parent: &mut Parent,
    options: &Options,
    instance: u32,
    rank: u32,
) -> Result<(), Problem> {
    let engine = engine(options, Role::Prefill { instance, rank })?;
    // A directory forgets a rank whose engine leaves it.
    let _directory = register(parent, &engine, instance, rank)?;
    let layout = options.prefill_layout(rank)?;
    // All ranks of an instance keep a prompt in the same blocks, as their schedulers do.
    let ids =
        numbers::scattered(options.seed ^ u64::from(instance), options.blocks(), layout.blocks);
    let blocks = Blocks { ids, tokens: options.tokens };
    let memory = Memory::allocate(&engine, layout)?;
    tell(&Report::Ready);

    parent.go()?;
    let session = session(instance, rank);
    let sender = engine.sender(session, memory.pool(), None)?;
    sender.granted().wait()?;
    let sent = compute_and_send(options, sender, &memory, &blocks, (instance, rank))?;
    tell(&Report::Sent(sent));
    tell(&Report::Digest { instance, digest: memory.digest(&blocks)? });
    parent.done();
    Ok(())
}

/// The session of a rank pair: each prefill instance has a request of its own.
pub(super) fn session(instance: u32, rank: u32) -> SessionKey {
    let room = Room(u64::from(instance) + 1);
    SessionKey { room, attempt: 0, sender_rank: rank, receiver_rank: rank }
}

/// Enters this rank into the instance's directory, which rank 0 holds.
fn register(
    parent: &mut Parent,
    engine: &Engine,
    instance: u32,
    rank: u32,
) -> Result<Option<Peer>, Problem> {
    let key = rank_key(instance, rank);
    if rank == 0 {
        engine.serve_rank(key)?;
        tell(&Report::Listening(engine.local_addr()));
        return Ok(None);
    }
    let directory = engine.connect(parent.directory(instance)?).wait()?;
    directory.register_rank(key)?;
    Ok(Some(directory))
}

fn compute_and_send(
    options: &Options,
    sender: Sender,
    memory: &Memory,
    blocks: &Blocks,
    (instance, rank): (u32, u32),
) -> Result<Sent, Problem> {
    let seed = options.seed;
    let content = |pool, block, bytes: &mut [u8]| {
        content::fill(Place { seed, instance, rank, pool, block }, bytes);
    };
    let (begin, cpu_before) = (clock::now(), clock::process_cpu());
    let mut computing = Duration::ZERO;
    let mut first_write = begin;
    let mut under_way = VecDeque::new();
    for layer in 0..options.model.layers() {
        let cpu = clock::thread_cpu();
        memory.fill_layer(layer, blocks, content)?;
        computing += clock::thread_cpu().saturating_sub(cpu);
        let due = begin + options.pace * (layer + 1);
        std::thread::sleep(due.saturating_sub(clock::now()));
        if layer == 0 {
            first_write = clock::now();
        }
        write(&sender, layer, &blocks.ids, &mut under_way)?;
    }
    let computed = clock::now();
    let token = content::first_token(seed, instance);
    let sent = sender.finish(token.to_le_bytes().to_vec()).wait()?;
    let cpu = clock::process_cpu().saturating_sub(cpu_before).saturating_sub(computing);
    Ok(Sent { begin, first_write, computed, bytes: sent.bytes, runs: sent.runs, cpu })
}

/// Hands a layer to the engine. When the engine's bounds are reached, waits for the oldest of the
/// layers under way first.
fn write(
    sender: &Sender,
    layer: u32,
    blocks: &[u32],
    under_way: &mut VecDeque<Transfer>,
) -> Result<(), Problem> {
    loop {
        match sender.write(layer..layer + 1, blocks) {
            Ok(transfer) => {
                under_way.push_back(transfer);
                return Ok(());
            }
            Err(error) => match (&error.cause, under_way.pop_front()) {
                (Cause::Busy(_), Some(oldest)) => oldest.wait().map(drop)?,
                _ => return Err(error.into()),
            },
        }
    }
}
