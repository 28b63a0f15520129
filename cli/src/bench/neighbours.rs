//! `kvx bench neighbours`: what a healthy peer loses by bad neighbours. One engine serves; this process
//! is its healthy peer, measured in turn alone, and beside a peer that was stopped in the middle of
//! its transfers and a hostile one that breaks the protocol's rules as fast as it is let.
//!
//! It measures with what `kvx bench run` measures with, and attacks with the crate `kvx-hostile`.

mod busy;
mod figures;
mod hostile;
mod key_file;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use kvx::transport::TransportKind;
use kvx::{Config, Engine, TransferOp};

use super::Problem;
use super::client::Client;
use super::local::loopback;
use super::measure::{Settings, measure};
use super::memory::Owner;
use super::options::Task;
use super::process::Process;
use super::progress::Progress;
use super::run::exit_code;
use super::shape::{Order, Shape};
use super::workload::Workload;
use crate::arguments::transport;
use figures::{Condition, Neighbours, Round};
use hostile::Report;
use key_file::KeyFile;

/// Between a change of neighbours and the next measurement.
const SETTLE: Duration = Duration::from_millis(300);

/// What a neighbour says once it does what it is for.
const BEGUN: &str = "begun";

/// Blocks of a bulk transfer: a quarter of the workload `paged`.
const BULK: Shape = Shape { pools: 32, blocks: 64, block_bytes: 16 << 10, order: Order::Scattered };

/// Measures what bad neighbours cost a healthy peer
///
/// A served engine has a healthy peer, which moves bulk and pings and checks every byte; then also
/// peers that were stopped in the middle of a WRITE and of a READ, and a hostile one. Prints the
/// healthy peer's figures alone and beside them, in turn, and their ratios.
///
/// All processes share this host's cores: what the hostile one burns itself is missing to the
/// others, whatever the engine does. Its rate is therefore bounded, and told with what it sent.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// How often to measure alone and beside.
    #[arg(long, default_value = "5")]
    rounds: NonZeroU32,

    /// Bulk WRITEs for each measurement, of 32 MiB in blocks of 16 KiB.
    #[arg(long, default_value = "40")]
    transfers: NonZeroU32,

    /// WRITEs of one block of 4 KiB for each measurement.
    #[arg(long, default_value = "20000")]
    pings: NonZeroU32,

    /// Frames, messages and connections that the hostile peer sends a second, at most.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(50..))]
    rate: u32,

    /// The transport.
    #[arg(long, default_value = "tcp", value_parser = transport())]
    transport: TransportKind,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,

    /// Be one of the neighbours, as a process of another `kvx bench neighbours`.
    #[arg(long, hide = true, requires = "peer")]
    role: Option<Role>,

    /// The engine that is served.
    #[arg(long, hide = true)]
    peer: Option<SocketAddr>,

    /// How many attacks hostile peers have played before this one.
    #[arg(long, hide = true, default_value_t = 0)]
    played: usize,
}

/// A neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Moves bytes without end, until it is stopped.
    Busy,
    /// Breaks the rules.
    Hostile,
}

/// Measures, and prints one row. Exit status 0: it was measured, whatever the figures; 1: a byte
/// differs or something failed.
pub(super) fn run(options: &Options) -> ExitCode {
    let config = config(options);
    let config = match config {
        Ok(config) => config,
        Err(error) => return super::refuse("neighbours", &error.to_string()),
    };
    exit_code(match (options.role, options.peer) {
        (Some(Role::Busy), Some(peer)) => busy::run(config, peer),
        (Some(Role::Hostile), Some(peer)) => hostile::run(peer, options.rate, options.played),
        _ => neighbours(options, config).and_then(|found| {
            let text = if options.json { found.json() } else { found.table() };
            Ok(Progress::new(0).print(&text)?)
        }),
    })
}

fn config(options: &Options) -> Result<Config, kvx::error::Invalid> {
    let config = Config::from_env()?.bind(loopback()).advertise([]);
    let config = config.transports([options.transport]);
    config.validate()?;
    Ok(config)
}

fn neighbours(options: &Options, config: Config) -> Result<Neighbours, Problem> {
    // A key of their own: the hostile peer is an insider, and must not learn the user's.
    let key = KeyFile::create()?;
    let config = config.insecure(false).auth_key_file(key.path());
    let neighbours = Neighbourhood { options, config: &config, environment: environment(&key) };
    let mut serve = Process::serve(&config, options.transport, &neighbours.environment)?;
    let engine = Engine::new(config.clone())?;
    let settings = Settings {
        transport: options.transport,
        lanes: engine.lanes(),
        reps: None,
        warmup: Some(1),
        seed: 1,
        owner: Owner::Engine,
        limit: false,
        corrupt: None,
    };
    let client = Client::connect(engine, &serve.address.to_string())?;
    let (transfers, pings) = (options.transfers, options.pings);
    let each = u64::from(transfers.get()) + u64::from(pings.get());
    let progress = Progress::new(each * (2 * u64::from(options.rounds.get()) + 1));
    let mut healthy = Healthy { client, settings, progress, transfers, pings };

    // Memory, caches and congestion windows warm up once for both conditions.
    healthy.measure("warm-up")?;
    let mut rounds = Vec::new();
    let mut played = 0;
    for _ in 0..options.rounds.get() {
        let alone = healthy.measure("alone")?;
        let mut stopped = neighbours.spawn(Role::Busy, serve.address, 0)?;
        stopped.stop()?;
        let begin = Instant::now();
        let hostile = neighbours.spawn(Role::Hostile, serve.address, played)?;
        thread::sleep(SETTLE);
        let beside = healthy.measure("beside")?;
        let report: Report = hostile.finish()?.parse()?;
        let attacked = begin.elapsed();
        played += report.attacks;
        stopped.kill()?;
        serve.check_alive()?;
        rounds.push(Round { alone, beside, report, attacked });
        thread::sleep(SETTLE);
    }
    healthy.progress.finish();
    serve.kill()?;
    Ok(Neighbours {
        transport: options.transport,
        lanes: settings.lanes,
        rate: options.rate,
        bulk: BULK,
        transfers: options.transfers.get(),
        pings: options.pings.get(),
        rounds,
    })
}

/// Options of the processes beside this one.
fn environment(key: &KeyFile) -> Vec<(&'static str, OsString)> {
    let mut environment =
        vec![("KVX_AUTH_KEY_FILE", key.path().into()), ("KVX_INSECURE", "0".into())];
    if std::env::var_os("KVX_LOG").is_none() {
        // That a hostile peer's lanes break, and a killed one's, is no news here.
        environment.push(("KVX_LOG", "error".into()));
    }
    environment
}

/// What all neighbours have in common.
struct Neighbourhood<'a> {
    options: &'a Options,
    config: &'a Config,
    environment: Vec<(&'static str, OsString)>,
}

impl Neighbourhood<'_> {
    /// A neighbour of the engine at this address, once it has begun. Attacks go on where those that
    /// were `played` ended.
    fn spawn(&self, role: Role, peer: SocketAddr, played: usize) -> Result<Process, Problem> {
        let (what, name) = match role {
            Role::Busy => ("the peer to be stopped", "busy"),
            Role::Hostile => ("the hostile peer", "hostile"),
        };
        let Options { rate, transport, .. } = self.options;
        let values =
            [peer.to_string(), rate.to_string(), transport.to_string(), played.to_string()];
        let [peer, rate, transport, played] = values.each_ref().map(String::as_str);
        let mut arguments = vec!["neighbours", "--role", name, "--peer", peer, "--rate", rate];
        arguments.extend(["--transport", transport, "--played", played]);
        let mut process = Process::spawn(what, self.config, &arguments, &self.environment)?;
        process.expect(BEGUN)?;
        Ok(process)
    }
}

/// The peer that is measured: this process.
struct Healthy {
    client: Client,
    settings: Settings,
    progress: Progress,
    transfers: NonZeroU32,
    pings: NonZeroU32,
}

impl Healthy {
    /// Bulk, then pings; every byte is looked at where it has arrived.
    fn measure(&mut self, workload: &'static str) -> Result<Condition, Problem> {
        let bulk =
            self.row(Task { workload, shape: BULK, op: TransferOp::Write }, self.transfers)?;
        let ping = Workload::Ping.shape();
        let ping = self.row(Task { workload, shape: ping, op: TransferOp::Write }, self.pings)?;
        Ok(Condition::new(&bulk, &ping))
    }

    fn row(&mut self, task: Task, reps: NonZeroU32) -> Result<super::figures::Row, Problem> {
        let Self { client, settings, progress, .. } = self;
        progress.begin(&task)?;
        let settings = Settings { reps: Some(reps), ..*settings };
        measure(client, &task, &settings, progress)
    }
}
