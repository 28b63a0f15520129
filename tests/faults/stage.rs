//! Where faults happen: a victim with an engine, and a healthy neighbour that it serves all the
//! time. Not what happens to the victim.

use std::net::SocketAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use kvx_workers::line::Line;
use kvx_workers::random::from_env;
use kvx_workers::vitals::Vitals;
use kvx_workers::worker::Worker;

/// Bytes that the neighbour writes and reads in each round, 16 spans.
const OPEN: u64 = 256 << 10;
/// Bytes of the region that a row's peer may be told of.
pub(crate) const EXPOSED: u64 = 256 << 10;
/// The option of a victim that lets in who holds its metadata, and nobody else.
pub(crate) const BY_METADATA: &str = "metadata_auth=true";
/// The option of engines that reach each other's memory.
pub(crate) const ON_ONE_HOST: &str = "transports=shm,tcp";
/// Bytes on either side of it that belong to no region.
pub(crate) const CANARY: u64 = 64 << 10;
/// How long anything is waited for: only a hang reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A victim and its neighbour.
///
/// The victim holds, all but `open` sealed (nothing may change it but what a row permits):
///
/// | name | what |
/// |---|---|
/// | `exposed` | registered with all rights, canaries around it, for whomever a row tells of it |
/// | `guard` | registered with all rights, told to nobody |
/// | `private` | registered with none |
/// | `granted` | a pool, for grants that a row gives |
/// | `give` | a pool that the neighbour's prompts come from |
/// | `open`, `take` | memory and a pool for the neighbour, which it and the victim check in each round |
pub(crate) struct Stage {
    executable: Box<dyn Fn() -> Command>,
    /// Who suffers. Rows may give it commands: the neighbour needs none.
    pub(crate) victim: Worker,
    neighbour: Worker,
}

/// What everything drawn at random follows from: `KVX_FAULT_SEED`.
pub(crate) fn seed() -> u64 {
    from_env("KVX_FAULT_SEED", 1)
}

/// What the neighbour has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Served {
    /// Rounds in which every byte was right.
    pub(crate) rounds: u64,
    /// Bytes they moved.
    pub(crate) bytes: u64,
    /// Operations that ended with an error.
    pub(crate) errors: u64,
}

impl Stage {
    /// `options`: of the victim's `engine` command.
    pub(crate) fn new(case: &str, options: &str) -> Self {
        let executable = || Command::new(std::env::current_exe().unwrap());
        Self::by(executable, case, options, "")
    }

    /// Like [`Self::new`], through commands that end by running the test binary, and with options
    /// for the neighbour's engine too.
    pub(crate) fn by(
        executable: impl Fn() -> Command + 'static,
        case: &str,
        options: &str,
        neighbours: &str,
    ) -> Self {
        let seed = seed();
        let mut victim = Worker::start_by(executable(), &format!("victim-{case}"), options);
        victim.must(&format!("alloc name=open len={OPEN}"));
        victim.must(&format!("alloc name=exposed len={EXPOSED} canary={CANARY}"));
        victim.must(&format!("alloc name=guard len={EXPOSED}"));
        victim.must(&format!("alloc name=private len={EXPOSED} rights=none"));
        for pool in ["granted", "give", "take"] {
            victim.must(&format!("pool name={pool}"));
        }
        victim.must(&format!("fill name=give seed={seed}"));
        let mut neighbour =
            Worker::start_by(executable(), &format!("neighbour-{case}"), neighbours);
        for memory in ["memory", "sink"] {
            neighbour.must(&format!("alloc name={memory} len={OPEN} rights=none"));
        }
        for pool in ["give", "take"] {
            neighbour.must(&format!("pool name={pool}"));
        }
        neighbour.must(&format!("fill name=give seed={seed}"));
        victim.must(&format!(
            "host visitor={} memory=open give=give take=take seed={seed}",
            neighbour.id
        ));
        // Directly, whatever road the victim tells of, unless its metadata is the only way in.
        if !options.contains(BY_METADATA) {
            neighbour.must(&format!("connect peer=victim address={}", victim.address));
        }
        let blob = victim.must("blob names=open");
        neighbour.must(&format!("add peer=victim blob={}", blob.get("blob")));
        neighbour.must(&format!(
            "visit peer=victim memory=memory sink=sink give=give take=take seed={seed}"
        ));
        victim.must("seal names=exposed,guard,private,granted,give");
        let mut stage = Self { executable: Box::new(executable), victim, neighbour };
        // Until everything has happened once: lanes, slots and buffers are there.
        stage.wait_served(2);
        stage
    }

    /// Another process, in the same place as the two.
    pub(crate) fn third(&self, name: &str, options: &str) -> Worker {
        Worker::start_by((self.executable)(), name, options)
    }

    /// Every port at which the victim listens.
    pub(crate) fn ports(&self) -> Vec<SocketAddr> {
        vec![self.victim.address]
    }

    /// What the neighbour has done so far, with no byte wrong on either side.
    pub(crate) fn served(&mut self) -> Served {
        let (host, told) = (self.victim.must("traffic"), self.neighbour.must("traffic"));
        let wrong = host.find("wrong").or(told.find("wrong"));
        assert_eq!(wrong, None, "host: {host:?}, neighbour: {told:?}");
        Served {
            rounds: told.number("rounds"),
            bytes: told.number("bytes"),
            errors: told.number("errors"),
        }
    }

    /// The last error of either side of the neighbourhood.
    pub(crate) fn last_error(&mut self) -> String {
        let told = [self.neighbour.must("traffic"), self.victim.must("traffic")];
        let find = |told: &Line| told.find("last-error").map(str::to_owned);
        told.iter().filter_map(find).collect::<Vec<_>>().join(" / ")
    }

    /// Waits until the neighbour has been served `rounds` times more, from begin to end.
    pub(crate) fn wait_served(&mut self, rounds: u64) {
        let begin = Instant::now();
        // The round that is under way began before.
        let target = self.served().rounds + rounds + 1;
        loop {
            let served = self.served();
            if served.rounds >= target {
                return;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "the neighbour is not served: {served:?}, {}",
                self.last_error()
            );
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lets the neighbour rest, or go on. While it rests nothing of it moves.
    pub(crate) fn pause_neighbour(&mut self, paused: bool) {
        self.neighbour.must(&format!("pause paused={paused}"));
    }

    /// What the victim holds now.
    pub(crate) fn vitals(&self) -> Vitals {
        Vitals::of(self.victim.pid()).expect("the victim is alive")
    }

    /// What the victim holds once it takes up nothing more: lanes that carry nothing yet may still be
    /// on their way when what others carry has arrived.
    pub(crate) fn vitals_at_rest(&self) -> Vitals {
        let mut before = self.vitals();
        let mut alike = 0;
        while alike < 10 {
            thread::sleep(Duration::from_millis(10));
            let now = self.vitals();
            let is_alike = (now.descriptors, now.threads) == (before.descriptors, before.threads);
            alike = if is_alike { alike + 1 } else { 0 };
            before = now;
        }
        before
    }
}
