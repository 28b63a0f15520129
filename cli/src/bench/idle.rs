//! `kvx bench idle`: what peers cost that are connected and do nothing. The figure is the CPU time of
//! this process alone; each peer is an engine in a process of its own.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
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
use crate::arguments::transport;
use crate::clock;

/// A core's share that the peers together must stay below.
const BAR: f64 = 0.001;

/// Between the last transfer and the measurement: handshakes and first heartbeats are over then.
const SETTLE: Duration = Duration::from_secs(1);

/// Measures what idle peers cost
///
/// Connects one engine to engines in other processes, moves and checks some bytes with each, and
/// then counts the CPU time of all its threads while nothing moves.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Peers.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    peers: u32,

    /// Seconds to measure.
    #[arg(long, default_value = "10", value_parser = seconds)]
    seconds: Duration,

    /// The transport.
    #[arg(long, default_value = "tcp", value_parser = transport())]
    transport: TransportKind,

    /// Print a JSON object.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Clone, Copy, Debug)]
struct Idle {
    peers: u32,
    transport: TransportKind,
    lanes: u16,
    /// Compared by all peers together before.
    bytes: u64,
    elapsed: Duration,
    /// Of all threads of this process meanwhile.
    cpu: Duration,
    /// How often a thread went to sleep meanwhile; once for each time that it was woken.
    wakeups: u64,
}

/// Measures, and prints one row. Exit status 0: it was measured, whatever the figure; 1: a byte
/// differs or something failed.
pub(super) fn run(options: &Options) -> ExitCode {
    let config = Config::from_env()
        .map(|config| config.bind(loopback()).advertise([]).transports([options.transport]));
    let config = config.and_then(|config| config.validate().map(|()| config));
    let config = match config {
        Ok(config) => config,
        Err(error) => return super::refuse("idle", &error.to_string()),
    };
    exit_code(idle(options, config).and_then(|idle| {
        let line = if options.json { idle.json() } else { idle.text() };
        Ok(Progress::new(0).print(&line)?)
    }))
}

fn idle(options: &Options, config: Config) -> Result<Idle, Problem> {
    let processes = (0..options.peers).map(|_| Process::serve(&config, options.transport, &[]));
    let processes = processes.collect::<Result<Vec<_>, _>>()?;
    let engine = Engine::new(config)?;
    let settings = Settings {
        transport: options.transport,
        lanes: engine.lanes(),
        reps: None,
        warmup: Some(0),
        seed: 1,
        owner: Owner::Engine,
        limit: false,
        corrupt: None,
    };
    let mut bytes = 0;
    let mut clients = Vec::new();
    for process in &processes {
        let mut client = Client::connect(engine.clone(), &process.address.to_string())?;
        bytes += introduce(&mut client, &settings)?;
        clients.push(client);
    }
    thread::sleep(SETTLE);
    let (wakeups, cpu, begin) = (sleeps()?, clock::process_cpu(), Instant::now());
    thread::sleep(options.seconds);
    let (cpu, elapsed) = (clock::process_cpu().saturating_sub(cpu), begin.elapsed());
    let wakeups = sleeps()?.saturating_sub(wakeups);
    // Each is still there: what was measured were live connections.
    for client in &mut clients {
        client.cpu()?;
    }
    drop((clients, engine));
    processes.into_iter().try_for_each(Process::dismiss)?;
    let &Options { peers, transport, .. } = options;
    Ok(Idle { peers, transport, lanes: settings.lanes, bytes, elapsed, cpu, wakeups })
}

/// Moves some blocks to a peer, and lets it look at each byte. Gives how many it
/// looked at.
fn introduce(client: &mut Client, settings: &Settings) -> Result<u64, Problem> {
    let shape = Shape { pools: 1, blocks: 64, block_bytes: 64 << 10, order: Order::Scattered };
    let task = Task { workload: "idle", shape, op: TransferOp::Write };
    let settings = Settings { reps: std::num::NonZeroU32::new(2), ..*settings };
    let row = measure(client, &task, &settings, &mut Progress::new(2))?;
    Ok(row.rounds * shape.bytes())
}

/// How often threads of this process have gone to sleep so far: proc(5), status.
fn sleeps() -> Result<u64, Problem> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread that ends meanwhile counts no more.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += count.map_or(Ok(0), |count| count.trim().parse::<u64>())?;
    }
    Ok(sum)
}

impl Idle {
    /// The part of a core that was busy.
    fn share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.elapsed.as_secs_f64()
    }

    fn wakeups_a_second(&self) -> f64 {
        self.wakeups as f64 / self.elapsed.as_secs_f64()
    }

    fn text(&self) -> String {
        let Self { peers, lanes, elapsed, .. } = self;
        let plural = if *peers == 1 { "" } else { "s" };
        format!(
            "{peers} idle peer{plural}, {lanes} lanes each: {:.4} % of a core over {:.1} s, {:.1} wakeups \
             a second; the bar is {:.1} %",
            self.share() * 100.0,
            elapsed.as_secs_f64(),
            self.wakeups_a_second(),
            BAR * 100.0,
        )
    }

    fn json(&self) -> String {
        let Self { peers, transport, lanes, bytes, elapsed, cpu, .. } = self;
        format!(
            "{{\"workload\":\"idle\",\"transport\":\"{transport}\",\"peers\":{peers},\
             \"lanes\":{lanes},\"bytes_checked\":{bytes},\"seconds\":{},\"cpu_s\":{},\
             \"core_share\":{},\"bar_core_share\":{BAR},\"wakeups_per_s\":{}}}",
            elapsed.as_secs_f64(),
            cpu.as_secs_f64(),
            self.share(),
            self.wakeups_a_second(),
        )
    }
}

/// Takes a time that can be waited for.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    let time = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.ok_or_else(|| "expected 0.1 to 3600 seconds".to_owned())
}
