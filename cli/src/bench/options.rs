//! The options of `kvx bench serve`, `run` and `local`, and the rows that they ask for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use kvx::error::Invalid;
use kvx::transport::TransportKind;
use kvx::{Config, TransferOp};

use super::limit;
use super::measure;
use super::memory::{Corrupt, Owner};
use super::shape::{Order, Shape};
use super::sweep::{BatchSizes, BlockSizes};
use super::workload::Workload;
use crate::arguments::{lanes, transport};
use crate::available::available_memory;
use crate::text::bytes_text;

/// Waits for runs, and is the other side of them
///
/// Prints its address, and serves any number of runs until it is ended. Off loopback, both sides
/// need KVX_AUTH_KEY_FILE (or KVX_INSECURE=1).
#[derive(Clone, Debug, Args)]
pub(crate) struct Serve {
    /// Where to listen, IP or IP:PORT; default: KVX_BIND, else any free port on loopback.
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    pub(super) bind: Option<SocketAddr>,

    /// The transport; default: those of KVX_TRANSPORTS.
    #[arg(long, value_parser = transport())]
    pub(super) transport: Option<TransportKind>,

    /// End when standard input does: whoever started this process is dead then.
    #[arg(long, hide = true)]
    pub(super) with_parent: bool,
}

/// Runs against a side that serves, usually on another host
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// Where `kvx bench serve` listens.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) peer: String,

    #[command(flatten)]
    pub(super) work: Work,
}

/// Runs against a second process on this host, over loopback
#[derive(Clone, Debug, Args)]
pub(crate) struct Local {
    #[command(flatten)]
    pub(super) work: Work,
}

/// What to measure, and how.
#[derive(Clone, Debug, Args)]
pub(super) struct Work {
    /// What to move; may be given more than once, or as a list.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "all",
        conflicts_with = "Sweep"
    )]
    workload: Vec<Choice>,

    #[command(flatten)]
    sweep: Sweep,

    /// Who moves it: the initiator writes into the peer's memory, or reads it.
    #[arg(long, value_enum, default_value = "both")]
    op: Ops,

    /// The transport; default: the first of KVX_TRANSPORTS that leads to the peer.
    #[arg(long, value_parser = transport())]
    pub(super) transport: Option<TransportKind>,

    /// Lanes between the two engines; default: KVX_LANES, else what the transport likes best.
    #[arg(long, value_parser = lanes)]
    lanes: Option<NonZeroU16>,

    /// Who allocates the memory that moves, on both sides.
    #[arg(long, value_enum, default_value = "engine")]
    pub(super) memory: Owner,

    /// Transfers measured for a row; default: as many as move 2 GiB, from 9 to 4,000.
    #[arg(long)]
    pub(super) reps: Option<NonZeroU32>,

    /// Transfers before them that are not measured; default: a tenth as many.
    #[arg(long, value_name = "REPS")]
    pub(super) warmup: Option<u32>,

    /// Decides the content and where blocks lie.
    #[arg(long, default_value_t = 1)]
    pub(super) seed: u64,

    /// Measure without bare loops and memcpy beside; rows of more than 16 GiB a side need it.
    #[arg(long)]
    pub(super) no_limit: bool,

    /// Print a JSON object a line for each row.
    #[arg(long)]
    pub(super) json: bool,

    /// Change a byte of the target before it is looked at, to see that it is noticed.
    #[arg(long, hide = true)]
    pub(super) corrupt: Option<Corrupt>,
}

/// A sweep instead of named workloads: scattered blocks of one pool, all sizes with all batches.
#[derive(Clone, Debug, Args)]
#[group(id = "Sweep", multiple = true)]
struct Sweep {
    /// Sweep instead: bytes of a block, such as 16KiB, or by powers of two 512..16MiB.
    #[arg(long, value_name = "SIZE|FROM..TO")]
    block_size: Option<BlockSizes>,

    /// Sweep instead: blocks of a transfer, such as 64, or by powers of two 1..64.
    #[arg(long, value_name = "COUNT|FROM..TO")]
    batch: Option<BatchSizes>,
}

/// One workload, or all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    All,
    One(Workload),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Ops {
    Write,
    Read,
    Both,
}

/// A row to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Task {
    /// How users call it.
    pub(super) workload: &'static str,
    pub(super) shape: Shape,
    pub(super) op: TransferOp,
}

impl Task {
    /// Whether it is about one round trip, and the limit is one too.
    pub(super) fn is_ping(&self) -> bool {
        self.workload == Workload::Ping.name()
    }
}

impl Serve {
    /// The engine's options.
    pub(super) fn config(&self) -> Result<Config, Invalid> {
        let mut config = Config::from_env()?;
        if let Some(address) = self.bind {
            config = config.bind(address);
        }
        if let Some(transport) = self.transport {
            config = config.transports([transport]);
        }
        config.validate()?;
        Ok(config)
    }
}

impl Work {
    /// The engine's options, and the transports of which it uses one.
    pub(super) fn config(&self) -> Result<(Config, Vec<TransportKind>), Invalid> {
        let mut config = Config::from_env()?;
        let transports = match self.transport {
            Some(transport) => vec![transport],
            None => allowed_transports(&config)?,
        };
        if let Some(lanes) = self.lanes {
            config = config.lanes(lanes);
        }
        config.validate()?;
        Ok((config, transports))
    }

    /// Transfers that are measured for these rows.
    pub(super) fn transfers(&self, tasks: &[Task]) -> u64 {
        tasks.iter().map(|task| measure::reps(self.reps, &task.shape)).sum()
    }

    /// The rows that are asked for, in order.
    ///
    /// # Errors
    /// One that is too large for anything.
    pub(super) fn tasks(&self) -> Result<Vec<Task>, String> {
        let shapes = match &self.sweep {
            Sweep { block_size: None, batch: None } => self.named(),
            sweep => sweep.shapes(),
        };
        let ops = match self.op {
            Ops::Write => &[TransferOp::Write][..],
            Ops::Read => &[TransferOp::Read],
            Ops::Both => &[TransferOp::Write, TransferOp::Read],
        };
        let mut tasks = Vec::new();
        for (workload, shape) in shapes {
            let shape = shape.check().map_err(|why| format!("--block-size, --batch: {why}"))?;
            tasks.extend(ops.iter().map(|op| Task { workload, shape, op: *op }));
        }
        Ok(tasks)
    }

    fn named(&self) -> Vec<(&'static str, Shape)> {
        let chosen = |workload: &Workload| {
            self.workload.iter().any(|choice| match choice {
                Choice::All => true,
                Choice::One(one) => one == workload,
            })
        };
        let workloads = Workload::ALL.into_iter().filter(chosen);
        workloads.map(|workload| (workload.name(), workload.shape())).collect()
    }

    /// Whether the memory that this host needs for the largest row is there, and the bare loops
    /// take it.
    ///
    /// # Errors
    /// Says how much is needed.
    pub(super) fn check_memory(&self, tasks: &[Task], sides: u64) -> Result<(), String> {
        let cost = |Task { shape, .. }: &Task| limit::cost(shape.side_bytes(), shape.block_count());
        let dearest = tasks.iter().map(cost).max().unwrap_or(0);
        if !self.no_limit && dearest > limit::MEMORY {
            return Err(format!(
                "this needs {} of memory for the bare loops, which take {} at most; expected a \
                 smaller --block-size or --batch, or --no-limit",
                bytes_text(dearest),
                bytes_text(limit::MEMORY),
            ));
        }
        // The bare loops have memory of their own, and memcpy has both sides'.
        let copies = if self.no_limit { sides } else { 2 * sides + 2 };
        let largest = tasks.iter().map(|task| task.shape.side_bytes()).max().unwrap_or(0);
        let needed = largest.saturating_mul(copies);
        match available_memory() {
            Some(available) if needed > available => Err(format!(
                "this needs {} of memory, and {} are available; expected a smaller workload, \
                 --block-size or --batch",
                bytes_text(needed),
                bytes_text(available),
            )),
            _ => Ok(()),
        }
    }
}

impl Sweep {
    fn shapes(&self) -> Vec<(&'static str, Shape)> {
        const BLOCK_BYTES: u64 = 16 << 10;
        let sizes = self.block_size.as_ref().map_or(&[BLOCK_BYTES][..], |BlockSizes(sizes)| sizes);
        let batches = self.batch.as_ref().map_or(&[NonZeroU32::MIN][..], |BatchSizes(of)| of);
        let pairs = sizes.iter().flat_map(|size| batches.iter().map(move |batch| (*size, *batch)));
        let shape = |(block_bytes, batch): (u64, NonZeroU32)| Shape {
            pools: 1,
            blocks: batch.get(),
            block_bytes,
            order: Order::Scattered,
        };
        pairs.map(|pair| ("sweep", shape(pair))).collect()
    }
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        const VARIANTS: [Choice; 6] = [
            Choice::All,
            Choice::One(Workload::Large),
            Choice::One(Workload::Paged),
            Choice::One(Workload::Mla),
            Choice::One(Workload::Token),
            Choice::One(Workload::Ping),
        ];
        &VARIANTS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        match self {
            Self::All => Some(PossibleValue::new("all").help("All of them, one after another")),
            Self::One(workload) => workload.to_possible_value(),
        }
    }
}

/// The transports that the environment allows, best first.
fn allowed_transports(config: &Config) -> Result<Vec<TransportKind>, Invalid> {
    let settings = config.settings();
    let list = settings.iter().find(|setting| setting.name == "transports");
    list.map_or("", |list| &list.value).split(',').map(str::parse).collect()
}

/// An address on this host, with or without a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let ip = || text.parse::<IpAddr>().map(|ip| SocketAddr::from((ip, 0)));
    let address = text.parse().or_else(|_| ip());
    address.map_err(|_| format!("expected IP or IP:PORT, such as {}:7000", Ipv4Addr::LOCALHOST))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        work: Work,
    }

    fn tasks(arguments: &[&str]) -> Vec<Task> {
        let line = std::iter::once("run").chain(arguments.iter().copied());
        Line::try_parse_from(line).unwrap().work.tasks().unwrap()
    }

    fn names(arguments: &[&str]) -> Vec<(&'static str, TransferOp)> {
        tasks(arguments).into_iter().map(|task| (task.workload, task.op)).collect()
    }

    #[test]
    fn workloads_are_named_as_a_list_or_one_by_one_and_default_to_all() {
        use TransferOp::{Read, Write};
        assert_eq!(names(&[]).len(), 10);
        let two = [("large", Read), ("ping", Read)];
        assert_eq!(names(&["--workload=ping,large", "--op=read"]), two);
        assert_eq!(names(&["--workload=ping", "--workload=large", "--op=read"]), two);
        assert_eq!(names(&["--workload=mla"]), [("mla", Write), ("mla", Read)]);
        assert_eq!(names(&["--workload=all,mla", "--op=write"]).len(), 5);
    }

    #[test]
    fn a_sweep_goes_through_all_sizes_with_all_batches() {
        let tasks = tasks(&["--block-size=512..2KiB", "--batch=1..2", "--op=write"]);
        let sizes = tasks.iter().map(|task| (task.shape.block_bytes, task.shape.block_count()));
        let expected = [(512, 1), (512, 2), (1024, 1), (1024, 2), (2048, 1), (2048, 2)];
        assert!(sizes.eq(expected));
        assert!(tasks.iter().all(|task| task.workload == "sweep"));
        let line = ["run", "--batch=2", "--workload=large"];
        assert!(Line::try_parse_from(line).is_err(), "one of the two");
    }
}
