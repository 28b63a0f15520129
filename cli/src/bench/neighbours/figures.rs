//! What was measured of the healthy peer in both conditions, and how it is written: a table for
//! people, an object for programs.

use std::fmt::Write;
use std::time::Duration;

use kvx::transport::TransportKind;

use super::super::figures::{Row, micros};
use super::super::shape::Shape;
use super::hostile::{Report, distinct};
use crate::text::bytes_text;

/// The part of its throughput that a healthy peer keeps.
const KEEPS: f64 = 0.9;

/// How much longer its slowest pings may take.
const LONGER: f64 = 2.0;

/// The healthy peer in one condition, once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Condition {
    /// 10^9 bytes a second, by the average bulk transfer: one that stands still counts.
    gbps: f64,
    bulk_p50: Duration,
    bulk_p99: Duration,
    ping_p50: Duration,
    ping_p99: Duration,
    /// Of both processes, for bulk.
    cpu_a_gib: f64,
    /// Compared where they arrived.
    bytes_checked: u64,
}

/// Both conditions, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    pub(super) alone: Condition,
    pub(super) beside: Condition,
    pub(super) report: Report,
    /// How long the hostile peer was at it.
    pub(super) attacked: Duration,
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Neighbours {
    pub(super) transport: TransportKind,
    pub(super) lanes: u16,
    pub(super) rate: u32,
    pub(super) bulk: Shape,
    pub(super) transfers: u32,
    pub(super) pings: u32,
    /// At least one.
    pub(super) rounds: Vec<Round>,
}

impl Condition {
    pub(super) fn new(bulk: &Row, ping: &Row) -> Self {
        let seconds = bulk.transfers.average().max(Duration::from_nanos(1)).as_secs_f64();
        Self {
            gbps: bulk.task.shape.bytes() as f64 / seconds / 1e9,
            bulk_p50: bulk.transfers.p50(),
            bulk_p99: bulk.transfers.p99(),
            ping_p50: ping.transfers.p50(),
            ping_p99: ping.transfers.p99(),
            cpu_a_gib: bulk.cpu_a_gib(),
            bytes_checked: [bulk, ping].iter().map(|row| row.rounds * row.task.shape.bytes()).sum(),
        }
    }
}

/// A figure of a condition, by name; in JSON and in the table.
type Figure = (&'static str, &'static str, fn(&Condition) -> f64);

const FIGURES: [Figure; 6] = [
    ("gbps", "GB/s", |of| of.gbps),
    ("bulk_p50_us", "bulk p50 (us)", |of| micros(of.bulk_p50)),
    ("bulk_p99_us", "bulk p99 (us)", |of| micros(of.bulk_p99)),
    ("p50_us", "ping p50 (us)", |of| micros(of.ping_p50)),
    ("p99_us", "ping p99 (us)", |of| micros(of.ping_p99)),
    ("cpu_s_per_gib", "CPU (s/GiB)", |of| of.cpu_a_gib),
];

impl Neighbours {
    /// The median over all rounds of a figure.
    fn median(&self, of: impl Fn(&Round) -> f64) -> f64 {
        let mut all: Vec<f64> = self.rounds.iter().map(of).collect();
        all.sort_unstable_by(f64::total_cmp);
        // The same one twice where their number is odd.
        let middle = all.get(all.len().saturating_sub(1) / 2).zip(all.get(all.len() / 2));
        middle.map_or(f64::NAN, |(low, high)| (low + high) / 2.0)
    }

    /// What a figure becomes beside the neighbours: the median of the rounds' ratios, each of
    /// which compares two moments that lie close together.
    fn ratio(&self, figure: fn(&Condition) -> f64) -> f64 {
        self.median(|round| figure(&round.beside) / figure(&round.alone))
    }

    fn blows_a_second(&self) -> f64 {
        let blows: u64 = self.rounds.iter().map(|round| round.report.blows).sum();
        blows as f64 / self.attacked().as_secs_f64()
    }

    /// The part of a core that the hostile process used itself.
    fn hostile_share(&self) -> f64 {
        let cpu: Duration = self.rounds.iter().map(|round| round.report.cpu).sum();
        cpu.as_secs_f64() / self.attacked().as_secs_f64()
    }

    fn attacked(&self) -> Duration {
        let sum: Duration = self.rounds.iter().map(|round| round.attacked).sum();
        sum.max(Duration::from_nanos(1))
    }

    /// Attacks that were played in any round, each counted once.
    fn attacks(&self) -> usize {
        distinct(self.rounds.iter().map(|round| round.report.attacks).sum())
    }

    fn surprises(&self) -> u64 {
        self.rounds.iter().map(|round| round.report.surprises).sum()
    }

    /// Bytes that were compared where they arrived, in both conditions.
    fn bytes_checked(&self) -> u64 {
        let both = |round: &Round| round.alone.bytes_checked + round.beside.bytes_checked;
        self.rounds.iter().map(both).sum()
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!("{:<14}  {:>12}  {:>12}  {:>6}\n", "", "alone", "beside", "ratio");
        for (_, head, figure) in FIGURES {
            let alone = self.median(|round| figure(&round.alone));
            let beside = self.median(|round| figure(&round.beside));
            let ratio = self.ratio(figure);
            let _ = writeln!(text, "{head:<14}  {alone:>12.3}  {beside:>12.3}  {ratio:>6.2}");
        }
        let Self { rate, lanes, .. } = self;
        let _ = write!(
            text,
            "\n\
             alone     a healthy peer and the engine that serves it, {lanes} lanes; medians of {} \
             rounds\n\
             beside    with it a process stopped in the middle of a WRITE and of a READ, and a \
             hostile one that\n          \
             sends {:.0} frames, messages and connections a second ({rate} at most) in {} attacks \
             and uses {:.1} %\n          of a core itself\n\
             ratio     median of the rounds' ratios; GB/s shall keep {KEEPS}, ping p99 stay below \
             {LONGER} times\n\
             checked   {} looked at, all as sent; {} answers to the hostile peer were none that the \
             protocol allows",
            self.rounds.len(),
            self.blows_a_second(),
            self.attacks(),
            self.hostile_share() * 100.0,
            bytes_text(self.bytes_checked()),
            self.surprises(),
        );
        text
    }

    pub(super) fn json(&self) -> String {
        let condition = |of: fn(&Round) -> &Condition| {
            let figures = FIGURES.map(|(name, _, figure)| {
                format!("\"{name}\":{}", self.median(|round| figure(of(round))))
            });
            figures.join(",")
        };
        let ratios = FIGURES.map(|(name, _, figure)| format!("\"{name}\":{}", self.ratio(figure)));
        let Self { transport, lanes, rate, transfers, pings, .. } = self;
        format!(
            "{{\"workload\":\"neighbours\",\"transport\":\"{transport}\",\"lanes\":{lanes},\
             \"rounds\":{},\"transfers\":{transfers},\"bulk_bytes\":{},\"pings\":{pings},\
             \"alone\":{{{}}},\"beside\":{{{}}},\"ratios\":{{{}}},\
             \"ratio\":{},\"bar_ratio\":{KEEPS},\"p99_ratio\":{},\"bar_p99_ratio\":{LONGER},\
             \"hostile_rate\":{rate},\"hostile_blows_per_s\":{},\"hostile_attacks\":{},\
             \"hostile_core_share\":{},\"hostile_surprises\":{},\"bytes_checked\":{}}}",
            self.rounds.len(),
            self.bulk.bytes(),
            condition(|round| &round.alone),
            condition(|round| &round.beside),
            ratios.join(","),
            self.ratio(|of| of.gbps),
            self.ratio(|of| micros(of.ping_p99)),
            self.blows_a_second(),
            self.attacks(),
            self.hostile_share(),
            self.surprises(),
            self.bytes_checked(),
        )
    }
}

#[cfg(test)]
mod tests;
