//! How a row is measured: rounds of transfers by kvx, each followed by the bare loops for the same
//! blocks, so that both see the same machine.
//!
//! Before each round the source gets other content, after it the target looks at every byte; both
//! outside of the timed section. A round is one transfer, unless transfers are so small that what
//! is around them would outweigh them.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use kvx::transport::TransportKind;
use kvx::{PostOptions, Prepared, Region, RegionId, TransferOp};

use super::Problem;
use super::beside::Beside;
use super::client::{Client, Ready};
use super::figures::{Row, Samples};
use super::memory::{Corrupt, Memory, Owner};
use super::options::Task;
use super::progress::Progress;
use super::shape::{Shape, Side};
use crate::clock;

/// Bytes that a row moves if nobody says how often.
const ROW_BYTES: u64 = 2 << 30;

/// Transfers of a row, likewise.
const LEAST_REPS: u64 = 9;
const MOST_REPS: u64 = 4000;

/// Bytes that a round moves, if more than one transfer fits in it.
const ROUND_BYTES: u64 = 16 << 20;

/// Transfers of a round at most.
const ROUND_REPS: u64 = 64;

/// What holds for all rows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) transport: TransportKind,
    pub(super) lanes: u16,
    pub(super) reps: Option<NonZeroU32>,
    pub(super) warmup: Option<u32>,
    pub(super) seed: u64,
    /// Whose memory moves.
    pub(super) owner: Owner,
    /// Whether to measure what bare loops and memcpy reach.
    pub(super) limit: bool,
    /// Which byte of the target to change before it is looked at.
    pub(super) corrupt: Option<Corrupt>,
}

impl Settings {
    /// Transfers that are measured for a row.
    pub(super) fn reps(&self, shape: &Shape) -> u64 {
        reps(self.reps, shape)
    }

    /// Transfers before them.
    fn warmup(&self, shape: &Shape) -> u64 {
        let tenth = || self.reps(shape).div_ceil(10);
        self.warmup.map_or_else(tenth, u64::from)
    }
}

/// Transfers that are measured for a row, `given` or as its size suggests.
pub(super) fn reps(given: Option<NonZeroU32>, shape: &Shape) -> u64 {
    let by_size = || (ROW_BYTES / shape.bytes()).clamp(LEAST_REPS, MOST_REPS);
    given.map_or_else(by_size, |reps| u64::from(reps.get()))
}

/// Measures one row.
///
/// # Errors
/// A byte differs; or the peer, or its bare loops, are gone.
pub(super) fn measure(
    client: &mut Client,
    task: &Task,
    settings: &Settings,
    progress: &mut Progress,
) -> Result<Row, Problem> {
    let &Task { shape, op, .. } = task;
    let &Settings { transport, lanes, seed, owner, .. } = settings;
    let beside = settings.limit.then(|| Beside::new(task, transport, lanes, owner, seed));
    let mut beside = beside.transpose()?;
    let memory = Memory::new(client.engine(), owner, shape, Side::Initiator, op, seed)?;
    let means = beside.as_ref().and_then(Beside::means);
    let ready = client.set_up(op, shape, seed, owner, means)?;
    let (prepared, prep) = prepare(op, &shape, &memory, &ready, seed)?;
    let (corrupt, peer) = (settings.corrupt, client.peer_name());
    let mut bench = Bench { client, task, memory, prepared, corrupt };
    if let Some(beside) = &mut beside {
        beside.connect(&ready.limit, &peer)?;
    }
    let warmup = settings.warmup(&shape);
    for _ in 0..warmup {
        bench.transfer()?;
    }
    if let Some(beside) = &mut beside {
        beside.warm_up(warmup, &peer)?;
    }
    let mut timed = Timed::default();
    let (reps, mut left, mut round) = (settings.reps(&shape), settings.reps(&shape), 0);
    while left > 0 {
        round += 1;
        let some = left.min(round_reps(&shape));
        bench.round(round, some, &mut timed)?;
        if let Some(beside) = &mut beside {
            beside.reps(some, &peer)?;
        }
        left -= some;
        progress.advance(some);
    }
    Ok(Row {
        task: *task,
        transport,
        lanes,
        owner,
        runs: bench.prepared.runs(),
        reps,
        rounds: round,
        prep,
        posts: Samples::new(timed.posts),
        transfers: Samples::new(timed.transfers),
        cpu: timed.cpu,
        limits: beside.map(Beside::limits).unwrap_or_default(),
    })
}

/// One transfer a round, or as many small ones as are worth looking at what they brought.
fn round_reps(shape: &Shape) -> u64 {
    (ROUND_BYTES / shape.bytes()).clamp(1, ROUND_REPS)
}

/// Pairs the blocks of both sides; and says how long that took.
pub(super) fn prepare(
    op: TransferOp,
    shape: &Shape,
    memory: &Memory,
    ready: &Ready,
    seed: u64,
) -> Result<(Prepared, Duration), Problem> {
    let [local, remote] =
        [Side::Initiator, Side::Peer].map(|side| Memory::spans(shape, side, seed));
    let local_regions: Vec<&Region> = memory.regions().iter().collect();
    let remote_regions: Vec<RegionId> =
        ready.peer.regions().iter().map(|region| region.id).collect();
    let begin = Instant::now();
    let prepared = ready.peer.prepare(op, (&local_regions, &local), (&remote_regions, &remote))?;
    Ok((prepared, begin.elapsed()))
}

/// What kvx does for one row.
struct Bench<'a> {
    client: &'a mut Client,
    task: &'a Task,
    memory: Memory,
    prepared: Prepared,
    corrupt: Option<Corrupt>,
}

/// What was measured of kvx.
#[derive(Debug, Default)]
struct Timed {
    /// Of each post, until the call returned.
    posts: Vec<Duration>,
    /// Of each transfer, from post to done.
    transfers: Vec<Duration>,
    /// Of both processes.
    cpu: Duration,
}

impl Bench<'_> {
    /// Some transfers of the same, new content, which is looked at when it has arrived.
    fn round(&mut self, round: u64, reps: u64, timed: &mut Timed) -> Result<(), Problem> {
        let peer_is_target = Side::Peer.is_target(self.task.op);
        match peer_is_target {
            true => self.memory.fill(round)?,
            false => self.client.fill(round)?,
        }
        let peer_before = self.client.cpu()?;
        let before = clock::process_cpu();
        for _ in 0..reps {
            let (post, transfer) = self.transfer()?;
            timed.posts.push(post);
            timed.transfers.push(transfer);
        }
        timed.cpu += clock::process_cpu().saturating_sub(before);
        timed.cpu += self.client.cpu()?.saturating_sub(peer_before);
        match self.corrupt {
            Some(which) if peer_is_target => self.client.corrupt(which)?,
            Some(which) => self.memory.corrupt(which)?,
            None => {}
        }
        let difference = match peer_is_target {
            true => self.client.difference(round)?,
            false => self.memory.difference(round)?,
        };
        match difference {
            None => Ok(()),
            Some(difference) => {
                let peer = self.client.peer_name();
                let whose = if peer_is_target { format!("{peer}'s") } else { "own".to_owned() };
                let Task { workload, .. } = self.task;
                Err(format!("{workload}: {whose} memory is wrong: {difference}").into())
            }
        }
    }

    /// One transfer: how long the post took, and how long all of it.
    fn transfer(&self) -> Result<(Duration, Duration), Problem> {
        let begin = Instant::now();
        let transfer = self.prepared.post(PostOptions::default())?;
        let post = begin.elapsed();
        transfer.wait()?;
        Ok((post, begin.elapsed()))
    }
}
