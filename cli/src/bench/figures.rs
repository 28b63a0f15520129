//! What was measured, and the figures that follow from it. How they are written is in
//! [`super::report`].

use std::time::Duration;

use kvx::transport::TransportKind;

use super::memory::Owner;
use super::options::Task;

/// A row as it was measured.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) task: Task,
    pub(super) transport: TransportKind,
    pub(super) lanes: u16,
    /// Whose memory moved.
    pub(super) owner: Owner,
    /// What the blocks were merged to.
    pub(super) runs: usize,
    /// Transfers that were measured.
    pub(super) reps: u64,
    /// Times that the content was changed and looked at.
    pub(super) rounds: u64,
    /// To prepare the transfer, once.
    pub(super) prep: Duration,
    /// Of each post, until the call returned.
    pub(super) posts: Samples,
    /// Of each transfer, from post to done.
    pub(super) transfers: Samples,
    /// Of both processes, for all transfers.
    pub(super) cpu: Duration,
    pub(super) limits: Limits,
}

/// What was measured beside kvx.
#[derive(Clone, Debug, Default)]
pub(super) struct Limits {
    pub(super) limit: Option<Limit>,
    /// Of the same blocks in one process.
    pub(super) memcpy: Option<Limit>,
    /// Why there is no limit, though it was asked for.
    pub(super) refused: Option<String>,
}

/// What kvx is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Yardstick {
    /// writev and readv over TCP.
    Sockets,
    /// One blocking round trip over TCP.
    RoundTrip,
    ProcessVmReadv,
    Memcpy,
    /// One round trip over eventfds.
    Eventfd,
}

impl Yardstick {
    /// How users read it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sockets | Self::RoundTrip => "tcp",
            Self::ProcessVmReadv => "process_vm_readv",
            Self::Memcpy => "memcpy",
            Self::Eventfd => "eventfd",
        }
    }
}

/// What a bare loop reached with the number of threads that suited it best.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) by: Yardstick,
    /// On each side that does anything; over sockets each has a connection.
    pub(super) threads: usize,
    /// Of each rep.
    pub(super) bytes: u64,
    pub(super) reps: Samples,
}

impl Row {
    /// 10^9 bytes a second, by the median.
    pub(super) fn gbps(&self) -> f64 {
        gbps(self.task.shape.bytes(), self.transfers.p50())
    }

    /// What kvx reached of the limit.
    pub(super) fn ratio(&self) -> Option<f64> {
        self.limits.limit.as_ref().map(|limit| self.gbps() / limit.gbps())
    }

    /// CPU seconds of both processes for each 2^30 bytes that moved.
    pub(super) fn cpu_a_gib(&self) -> f64 {
        let gib = (self.task.shape.bytes() * self.reps) as f64 / (1_u64 << 30) as f64;
        self.cpu.as_secs_f64() / gib
    }
}

impl Limit {
    /// 10^9 bytes a second, by the median.
    pub(super) fn gbps(&self) -> f64 {
        gbps(self.bytes, self.reps.p50())
    }
}

fn gbps(bytes: u64, time: Duration) -> f64 {
    // A clock that stood still measured a nanosecond.
    bytes as f64 / time.max(Duration::from_nanos(1)).as_secs_f64() / 1e9
}

/// A time in microseconds, as all figures are.
pub(super) fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e3
}

/// Times of the same thing, measured often.
#[derive(Clone, Debug)]
pub(super) struct Samples {
    /// Ascending.
    sorted: Vec<Duration>,
}

impl Samples {
    pub(super) fn new(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        Self { sorted: times }
    }

    pub(super) fn p50(&self) -> Duration {
        self.percentile(50)
    }

    pub(super) fn p99(&self) -> Duration {
        self.percentile(99)
    }

    pub(super) fn average(&self) -> Duration {
        let sum: Duration = self.sorted.iter().sum();
        sum.checked_div(self.sorted.len() as u32).unwrap_or_default()
    }

    /// The middle half's width, as a part of the median.
    pub(super) fn spread(&self) -> f64 {
        let width = self.percentile(75).saturating_sub(self.percentile(25));
        width.as_secs_f64() / self.p50().max(Duration::from_nanos(1)).as_secs_f64()
    }

    /// The smallest sample that at least so many of a hundred do not exceed.
    fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.sorted.len() * percent).div_ceil(100).max(1);
        self.sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::Workload;
    use super::*;

    fn samples(micros: impl IntoIterator<Item = u64>) -> Samples {
        Samples::new(micros.into_iter().map(Duration::from_micros).collect())
    }

    #[test]
    fn percentiles_are_samples() {
        let hundred = samples((1..=100).rev());
        let micros = |time: Duration| time.as_micros();
        assert_eq!((micros(hundred.p50()), micros(hundred.p99())), (50, 99));
        assert_eq!(hundred.average(), Duration::from_nanos(50_500));
        assert!((hundred.spread() - 1.0).abs() < 1e-9);
        let few = samples([3, 1, 2]);
        assert_eq!((micros(few.p50()), micros(few.p99())), (2, 3));
        let none = samples([]);
        assert_eq!((none.p50(), none.average(), none.spread()), Default::default());
    }

    #[test]
    fn figures_follow_from_medians() {
        let task =
            Task { workload: "large", shape: Workload::Large.shape(), op: kvx::TransferOp::Write };
        let limit =
            |by, micros| Some(Limit { by, threads: 2, bytes: 256 << 20, reps: samples([micros]) });
        let limits = Limits {
            limit: limit(Yardstick::Sockets, 100_000),
            memcpy: limit(Yardstick::Memcpy, 50_000),
            refused: None,
        };
        let row = Row {
            task,
            transport: TransportKind::Tcp,
            lanes: 2,
            owner: Owner::Engine,
            runs: 256,
            reps: 4,
            rounds: 4,
            prep: Duration::ZERO,
            posts: samples([1]),
            transfers: samples([1, 125_000, 125_000, 999_999]),
            cpu: Duration::from_millis(500),
            limits,
        };
        assert!((row.gbps() - 2.147_483_648).abs() < 1e-9);
        assert!((row.ratio().unwrap() - 0.8).abs() < 1e-9);
        assert!((row.cpu_a_gib() - 0.5).abs() < 1e-9);
        assert!((row.limits.memcpy.unwrap().gbps() - 5.368_709_12).abs() < 1e-9);
    }
}
