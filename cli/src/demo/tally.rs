//! The figures of a demo, from what its processes report.

use std::time::Duration;

use kvx::transport::TransportKind;

use super::messages::{Received, Sent};
use super::options::Options;
use super::role::Role;

const GIB: f64 = (1_u64 << 30) as f64;

/// What the processes have reported.
#[derive(Debug)]
pub(super) struct Tally<'a> {
    pub(super) options: &'a Options,
    /// Those of an instance lie together.
    pairs: Vec<Pair>,
    /// By decode rank.
    decode_cpu: Vec<Duration>,
    /// Bytes outside of the grants that have changed.
    pub(super) outside: u64,
}

/// A prefill rank and the decode rank that receives from it.
#[derive(Clone, Debug)]
struct Pair {
    instance: u32,
    rank: u32,
    sent: Option<Sent>,
    received: Option<Received>,
    transport: Option<TransportKind>,
    /// Of the prefill rank's and the decode rank's memory.
    digests: [Option<String>; 2],
}

/// The figures of one rank pair, or of all together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Figures {
    pub(super) bytes: u64,
    /// Blocks of the prompt.
    pub(super) blocks: u64,
    /// What the blocks of all pools merged into.
    pub(super) runs: u64,
    /// From the first layer handed to the engine until everything was there.
    pub(super) moving: Duration,
    /// From the beginning of prefill until the first layer was there.
    pub(super) first_layer: Duration,
    /// From the end of prefill until everything was there.
    pub(super) exposed: Duration,
    /// Of both processes while KV caches moved, without that for computing the content.
    pub(super) cpu: Duration,
    pub(super) equal: bool,
}

/// A rank pair and its figures.
#[derive(Debug)]
pub(super) struct Row<'a> {
    pub(super) instance: u32,
    pub(super) rank: u32,
    pub(super) figures: Figures,
    /// What the prompt came over, if its connection was still there to tell.
    pub(super) transport: Option<TransportKind>,
    /// Of the prefill rank's and the decode rank's memory.
    pub(super) digests: [&'a str; 2],
}

impl<'a> Tally<'a> {
    pub(super) fn new(options: &'a Options) -> Self {
        let ranks = |instance| (0..options.tp).map(move |rank| Pair::new(instance, rank));
        let pairs = (0..options.prefill).flat_map(ranks).collect();
        let decode_cpu = vec![Duration::ZERO; options.tp as usize];
        Self { options, pairs, decode_cpu, outside: 0 }
    }

    pub(super) fn sent(&mut self, role: Role, sent: Sent) {
        if let Role::Prefill { instance, rank } = role {
            self.pair(instance, rank, |pair| pair.sent = Some(sent));
        }
    }

    pub(super) fn received(&mut self, role: Role, received: Received) {
        self.pair(received.instance, role.rank(), |pair| pair.received = Some(received));
    }

    pub(super) fn transport(&mut self, role: Role, instance: u32, transport: TransportKind) {
        self.pair(instance, role.rank(), |pair| pair.transport = Some(transport));
    }

    pub(super) fn spent(&mut self, role: Role, cpu: Duration) {
        if let Some(sum) = self.decode_cpu.get_mut(role.rank() as usize) {
            *sum += cpu;
        }
    }

    pub(super) fn digest(&mut self, role: Role, instance: u32, digest: String) {
        let side = usize::from(matches!(role, Role::Decode { .. }));
        self.pair(instance, role.rank(), |pair| pair.digests[side] = Some(digest));
    }

    pub(super) fn outside(&mut self, bytes: u64) {
        self.outside += bytes;
    }

    /// Whether every byte arrived where it should, and none elsewhere.
    pub(super) fn is_equal(&self) -> bool {
        let rows = self.rows();
        self.outside == 0 && rows.len() == self.pairs.len() && rows.iter().all(|r| r.figures.equal)
    }

    /// The rank pairs that have reported everything.
    pub(super) fn rows(&self) -> Vec<Row<'_>> {
        self.pairs.iter().filter_map(|pair| self.row(pair)).collect()
    }

    /// All together: sums, and of times the longest.
    pub(super) fn total(&self) -> Figures {
        let rows = self.rows();
        let figures = || rows.iter().map(|row| &row.figures);
        let longest =
            |time: fn(&Figures) -> Duration| figures().map(time).max().unwrap_or_default();
        let times = self.pairs.iter().filter_map(|pair| pair.sent.zip(pair.received));
        let begin = times.clone().map(|(sent, _)| sent.first_write).min().unwrap_or_default();
        let end = times.map(|(_, received)| received.complete).max().unwrap_or_default();
        Figures {
            bytes: figures().map(|figures| figures.bytes).sum(),
            blocks: figures().map(|figures| figures.blocks).sum(),
            runs: figures().map(|figures| figures.runs).sum(),
            moving: end.saturating_sub(begin),
            first_layer: longest(|figures| figures.first_layer),
            exposed: longest(|figures| figures.exposed),
            cpu: figures().map(|figures| figures.cpu).sum(),
            equal: self.is_equal(),
        }
    }

    fn row<'b>(&'b self, pair: &'b Pair) -> Option<Row<'b>> {
        let (sent, received) = pair.sent.zip(pair.received)?;
        let digests = [pair.digests[0].as_deref()?, pair.digests[1].as_deref()?];
        // A decode process serves all instances at once; each gets an equal share.
        let decode_cpu =
            self.decode_cpu.get(pair.rank as usize)?.div_f64(f64::from(self.options.prefill));
        let figures = Figures {
            bytes: sent.bytes,
            blocks: u64::from(self.options.blocks()),
            runs: sent.runs,
            moving: received.complete.saturating_sub(sent.first_write),
            first_layer: received.first_layer.saturating_sub(sent.begin),
            exposed: received.complete.saturating_sub(sent.computed),
            cpu: sent.cpu + decode_cpu,
            equal: digests[0] == digests[1] && sent.bytes == self.options.prompt_bytes(),
        };
        let Pair { instance, rank, transport, .. } = *pair;
        Some(Row { instance, rank, figures, transport, digests })
    }

    fn pair(&mut self, instance: u32, rank: u32, change: impl FnOnce(&mut Pair)) {
        let found = |pair: &&mut Pair| pair.instance == instance && pair.rank == rank;
        if let Some(pair) = self.pairs.iter_mut().find(found) {
            change(pair);
        }
    }
}

impl Pair {
    fn new(instance: u32, rank: u32) -> Self {
        Self { instance, rank, sent: None, received: None, transport: None, digests: [None, None] }
    }
}

impl Figures {
    /// 10^9 bytes a second.
    pub(super) fn gigabytes_a_second(&self) -> f64 {
        ratio(self.bytes as f64 / 1e9, self.moving.as_secs_f64())
    }

    /// CPU seconds for 2^30 bytes.
    pub(super) fn cpu_a_gib(&self) -> f64 {
        ratio(self.cpu.as_secs_f64(), self.bytes as f64 / GIB)
    }
}

/// 0 where there is nothing to divide by.
fn ratio(over: f64, under: f64) -> f64 {
    if under > 0.0 { over / under } else { 0.0 }
}
