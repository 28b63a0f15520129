//! A decode rank: grants blocks to every prefill instance, follows the layers as they arrive, and
//! looks at its memory when all are there.

use std::sync::mpsc;
use std::time::Duration;

use kvx::error::PeerName;
use kvx::{Engine, Peer, Receiver};

use super::content;
use super::memory::{Blocks, Memory};
use super::messages::{Received, Report};
use super::options::{Corrupt, Options};
use super::prefill::session;
use super::role::{Role, rank_key};
use super::worker::{Parent, Problem, engine, tell};
use crate::{clock, numbers};

/// How long a directory waits for a rank that is not there yet.
const RANK_APPEARS: Duration = Duration::from_secs(30);

pub(super) fn run(parent: &mut Parent, options: &Options, rank: u32) -> Result<(), Problem> {
    let engine = engine(options, Role::Decode { rank })?;
    let layout = options.decode_layout(rank)?;
    let (prompts, spare) = place_prompts(options, layout.blocks);
    let memory = Memory::allocate(&engine, layout)?;
    memory.poison()?;
    let mut peers = Vec::new();
    for instance in 0..options.prefill {
        peers.push(find(parent, &engine, instance, rank)?);
    }
    tell(&Report::Ready);

    parent.go()?;
    let cpu_before = clock::process_cpu();
    let receivers = (0..).zip(peers.iter().zip(&prompts)).map(|(instance, (peer, blocks))| {
        let session = session(instance, rank);
        peer.receiver(session, memory.pool(), options.tokens, &blocks.ids, None)
    });
    let receivers = receivers.collect::<kvx::Result<Vec<_>>>()?;
    let all_received = follow_all(receivers, options.seed)?;
    let cpu = clock::process_cpu().saturating_sub(cpu_before);
    for received in all_received {
        tell(&Report::Received(received));
    }
    for (instance, peer) in (0..).zip(&peers) {
        if let Some(transport) = peer.transport() {
            tell(&Report::Transport { instance, transport });
        }
    }
    tell(&Report::Spent { cpu });

    match options.corrupt.filter(|_| rank == 0) {
        Some(Corrupt::Inside) => memory.corrupt(prompts[0].ids[0])?,
        Some(Corrupt::Outside) => memory.corrupt(spare[0])?,
        None => {}
    }
    for (instance, blocks) in (0..).zip(&prompts) {
        tell(&Report::Digest { instance, digest: memory.digest(blocks)? });
    }
    tell(&Report::Outside { bytes: memory.count_outside(&prompts)? });
    parent.done();
    Ok(())
}

/// The blocks that each prompt gets, and those that are left.
fn place_prompts(options: &Options, of: u32) -> (Vec<Blocks>, Vec<u32>) {
    let mut ids = numbers::scattered(!options.seed, of, of);
    let spare = ids.split_off((options.blocks() * options.prefill) as usize);
    let prompts = ids.chunks(options.blocks() as usize);
    let prompts = prompts.map(|ids| Blocks { ids: ids.to_vec(), tokens: options.tokens });
    (prompts.collect(), spare)
}

/// The engine of this rank in a prefill instance, found through the instance's directory.
fn find(parent: &mut Parent, engine: &Engine, instance: u32, rank: u32) -> Result<Peer, Problem> {
    let directory = engine.connect(parent.directory(instance)?).wait()?;
    let entry = directory.find_rank(rank_key(instance, rank), RANK_APPEARS).wait()?;
    let role = Role::Prefill { instance, rank };
    let entry = entry.ok_or_else(|| format!("directory, peer {role}: it has not appeared"))?;
    let is_it = |peer: &Peer| peer.identity().is_some_and(|(id, _)| id == entry.engine);
    if is_it(&directory) {
        return Ok(directory);
    }
    let address = entry.addresses.first().ok_or("directory: an entry without addresses")?;
    let peer = engine.connect(*address).wait()?;
    if !is_it(&peer) {
        let expected = PeerName::verified(role.to_string(), entry.engine);
        return Err(format!("connect: expected {expected}, found {}", peer.name()).into());
    }
    Ok(peer)
}

/// Follows all sessions at once. The first failure ends it: the others are not waited for.
fn follow_all(receivers: Vec<Receiver>, seed: u64) -> Result<Vec<Received>, Problem> {
    let (sender, outcomes) = mpsc::channel();
    let count = receivers.len();
    for (instance, receiver) in (0..).zip(receivers) {
        let sender = sender.clone();
        std::thread::spawn(move || {
            let outcome = follow(&receiver, instance, seed);
            // Nobody hears of it when another session has failed before.
            let _ = sender.send(outcome);
        });
    }
    drop(sender);
    let all: Vec<Received> = outcomes.iter().collect::<Result<_, Problem>>()?;
    if all.len() < count {
        return Err("receive KV cache: a thread has died".into());
    }
    Ok(all)
}

fn follow(receiver: &Receiver, instance: u32, seed: u64) -> Result<Received, Problem> {
    let mut first_layer = None;
    for (layers, layer) in (1..).zip(receiver.layers()) {
        receiver.layer(layer).wait()?;
        first_layer.get_or_insert_with(clock::now);
        tell(&Report::Arrived { instance, layers });
    }
    let received = receiver.wait()?;
    let complete = clock::now();
    if received.payload[..] != content::first_token(seed, instance).to_le_bytes() {
        return Err(format!("the first token of prefill instance {instance} is another").into());
    }
    Ok(Received { instance, first_layer: first_layer.unwrap_or(complete), complete })
}
