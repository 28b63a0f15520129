//! What is measured beside kvx for a row: the bare loop that is its limit, and memcpy, in the same
//! rounds. Not how they work ([`super::limit`]), nor what is made of the times.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::thread::available_parallelism;
use std::time::Duration;

use kvx::error::PeerName;
use kvx::transport::TransportKind;

use super::Problem;
use super::figures::{Limit, Limits, Samples, Yardstick};
use super::limit::{Copier, LimitClient, MAX_CONNECTIONS, Means, Pages, is_refusal};
use super::memory::Owner;
use super::options::Task;

/// Connections that the bare loop over sockets is tried with.
const CONNECTIONS: [usize; 3] = [1, 2, 4];

/// The loops beside one row.
pub(super) struct Beside {
    yardstick: Yardstick,
    bytes: u64,
    /// `None` where memcpy is the limit.
    client: Option<LimitClient>,
    copier: Copier,
    /// What is tried.
    tries: Vec<Try>,
    /// Why this host allows no such loop.
    refused: Option<String>,
}

/// A loop with so many connections or threads, and what each of its reps took.
#[derive(Debug)]
struct Try {
    by: Yardstick,
    threads: usize,
    reps: Vec<Duration>,
}

/// The limit of a row: what the transport is made of, and nothing else.
fn yardstick(task: &Task, transport: TransportKind, owner: Owner) -> Yardstick {
    match (transport, owner) {
        (TransportKind::Shm, _) if task.is_ping() => Yardstick::Eventfd,
        (TransportKind::Shm, Owner::Caller) => Yardstick::ProcessVmReadv,
        (TransportKind::Shm, Owner::Engine) => Yardstick::Memcpy,
        _ if task.is_ping() => Yardstick::RoundTrip,
        _ => Yardstick::Sockets,
    }
}

impl Beside {
    /// Makes this side's memory.
    ///
    /// # Errors
    /// There is not as much.
    pub(super) fn new(
        task: &Task,
        transport: TransportKind,
        lanes: u16,
        owner: Owner,
        seed: u64,
    ) -> Result<Self, Problem> {
        let yardstick = yardstick(task, transport, owner);
        let blocks = task.shape.flat(task.op, seed);
        // As kvx has it: the engine's memory is a memfd.
        let pages = match owner {
            Owner::Engine => Pages::Small,
            Owner::Caller => Pages::Any,
        };
        let copier = Copier::new(&blocks, pages).map_err(|error| format!("memcpy: {error}"))?;
        let client = match yardstick {
            Yardstick::Memcpy => None,
            _ => Some(LimitClient::new(&blocks, task.op)?),
        };
        let threads = if task.is_ping() { vec![1] } else { threads(lanes) };
        let tried = match yardstick {
            Yardstick::Sockets => CONNECTIONS.to_vec(),
            Yardstick::RoundTrip | Yardstick::Eventfd => vec![1],
            Yardstick::ProcessVmReadv => threads.clone(),
            Yardstick::Memcpy => Vec::new(),
        };
        let with = |by| move |threads| Try { by, threads, reps: Vec::new() };
        let tries = tried.into_iter().map(with(yardstick));
        let tries = tries.chain(threads.into_iter().map(with(Yardstick::Memcpy))).collect();
        let bytes = task.shape.bytes();
        Ok(Self { yardstick, bytes, client, copier, tries, refused: None })
    }

    /// What the peer must serve for it, if anything.
    pub(super) fn means(&self) -> Option<Means> {
        let client = self.client.as_ref()?;
        Some(match self.yardstick {
            Yardstick::Sockets | Yardstick::RoundTrip => Means::Streams,
            _ => Means::Memory(client.lend()),
        })
    }

    /// Connects to the bare loops at the first address where they are found. Those that a host may
    /// refuse are tried: without them there is no limit, and the reason in its place.
    ///
    /// # Errors
    /// They are nowhere, or do not work.
    pub(super) fn connect(
        &mut self,
        addresses: &[SocketAddr],
        peer: &PeerName,
    ) -> Result<(), Problem> {
        let (Some(means), Some(client)) = (self.means(), &mut self.client) else { return Ok(()) };
        let mut failures = Vec::new();
        let connected = addresses.iter().any(|address| {
            let outcome = client.connect(*address, means);
            outcome.map_err(|error| failures.push(format!("{address}: {error}"))).is_ok()
        });
        if !connected {
            let why = failures.join("; ");
            let why = format!("connect to the peer's bare loops: {why} (--no-limit does without)");
            return Err(why.into());
        }
        if means == Means::Streams {
            return Ok(());
        }
        let mut tries = self.tries.iter().filter(|of| of.by == self.yardstick);
        let tried = tries.try_for_each(|of| rep(client, of.by, of.threads).map(drop));
        match tried {
            Err(error) if is_refusal(&error) => {
                self.refuse(format!("{}: {error}", self.yardstick.name()));
                Ok(())
            }
            tried => Ok(tried.map_err(|error| format!("bare loops with {peer}: {error}"))?),
        }
    }

    /// Does without the bare loop.
    fn refuse(&mut self, why: String) {
        self.refused = Some(why);
        self.client = None;
        let yardstick = self.yardstick;
        self.tries.retain(|of| of.by != yardstick);
    }

    /// Reps that do not count.
    pub(super) fn warm_up(&mut self, reps: u64, peer: &PeerName) -> Result<(), Problem> {
        self.reps(reps, peer)?;
        self.tries.iter_mut().for_each(|of| of.reps.clear());
        Ok(())
    }

    /// As many reps of each.
    pub(super) fn reps(&mut self, count: u64, peer: &PeerName) -> Result<(), Problem> {
        for Try { by, threads, reps } in &mut self.tries {
            for _ in 0..count {
                let spent = match (*by, &mut self.client) {
                    (Yardstick::Memcpy, _) => {
                        self.copier.rep(*threads).map_err(|error| format!("memcpy: {error}"))?
                    }
                    (by, Some(client)) => rep(client, by, *threads)
                        .map_err(|error| format!("bare loops with {peer}: {error}"))?,
                    (_, None) => continue,
                };
                reps.push(spent);
            }
        }
        Ok(())
    }

    /// What was reached.
    pub(super) fn limits(self) -> Limits {
        let Self { yardstick, bytes, tries, refused, .. } = self;
        let limits: Vec<Limit> = tries
            .into_iter()
            .map(|Try { by, threads, reps }| Limit { by, threads, bytes, reps: Samples::new(reps) })
            .collect();
        let best = |by| {
            let limits = limits.iter().filter(|limit| limit.by == by);
            limits.min_by_key(|limit| limit.reps.p50()).cloned()
        };
        Limits { limit: best(yardstick), memcpy: best(Yardstick::Memcpy), refused }
    }
}

fn rep(client: &mut LimitClient, by: Yardstick, threads: usize) -> std::io::Result<Duration> {
    match by {
        Yardstick::RoundTrip | Yardstick::Eventfd => client.ping(),
        _ => client.rep(threads),
    }
}

/// One thread, and as many as kvx copies with.
fn threads(lanes: u16) -> Vec<usize> {
    let cores = available_parallelism().map_or(1, NonZeroUsize::get);
    let most = usize::from(lanes).min(cores).min(MAX_CONNECTIONS);
    if most > 1 { vec![1, most] } else { vec![1] }
}

#[cfg(test)]
mod tests;
