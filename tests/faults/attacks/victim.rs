//! The victim of an attack: what it gives away and what it keeps back, and its user, who does in
//! good faith what an attack asks for.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use kvx::transport::TransportKind;
use kvx::{EngineId, Incarnation, RegionId};
use kvx_core::wire::metadata::Metadata;
use kvx_hostile::{Ask, Attack, Limits, Outcome, Target, run};
use kvx_workers::line::{hex, unhex};
use kvx_workers::worker::Worker;

use crate::stage::{BY_METADATA, CANARY, EXPOSED, ON_ONE_HOST, Stage};

/// What attacks may write: the first 4 KiB of `yard`, which canaries surround.
pub(super) const YARD: (&str, u64, u64) = ("yard", CANARY, CANARY + 4096);

/// Blocks of the pool that one receiver gets.
const GRANTED: u32 = 4;

/// Makes glibc's allocator give back what is freed, as far as it can: what a process has resident
/// is then what it keeps. By default arenas stay as large as they once were.
const GIVES_BACK: [(&str, &str); 4] = [
    ("MALLOC_ARENA_MAX", "1"),
    ("MALLOC_MMAP_MAX_", "1000000"),
    ("MALLOC_MMAP_THRESHOLD_", "8192"),
    ("MALLOC_TRIM_THRESHOLD_", "65536"),
];

/// A stage whose victim has more to be attacked at:
///
/// | name | what |
/// |---|---|
/// | `yard` | all rights, canaries around it, given away, published: its first 4 KiB may be written |
/// | `shop`, `letterbox` | for READ only, for WRITE only, given away, published |
/// | `brief` | all rights, given away, and deregistered when an attack asks for it |
/// | `rooms` | a pool, of which receivers get blocks |
pub(super) struct Victim {
    pub(super) stage: Stage,
    /// The regions given away, by their ids.
    pub(super) names: HashMap<RegionId, &'static str>,
    /// What is attacked.
    transport: TransportKind,
    key: Vec<u8>,
    shown: Vec<u8>,
    hidden: Vec<u8>,
    /// Another engine that the victim knows, in whose name attackers may speak.
    other: Worker,
}

impl Victim {
    pub(super) fn new(case: &str, options: &str) -> Self {
        let runtime = runtime_directory(case);
        let place = runtime.clone();
        let executable = move || {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.env("XDG_RUNTIME_DIR", &place).envs(GIVES_BACK);
            command
        };
        // The neighbour is served the way that is attacked.
        let (neighbours, transport) = match options {
            ON_ONE_HOST => (ON_ONE_HOST, TransportKind::Shm),
            _ => ("", TransportKind::Tcp),
        };
        let mut stage = Stage::by(executable, case, options, neighbours);
        let victim = &mut stage.victim;
        victim.must(&format!("alloc name=yard len={EXPOSED} canary={CANARY}"));
        victim.must(&format!("alloc name=shop len={EXPOSED} rights=read"));
        victim.must(&format!("alloc name=letterbox len={EXPOSED} rights=write"));
        victim.must(&format!("alloc name=brief len={EXPOSED}"));
        victim.must("pool name=rooms");
        victim.must("seal names=exposed,guard,private,granted,give,yard,shop,letterbox");
        for name in ["yard", "shop", "letterbox"] {
            victim.must(&format!("publish name={name}"));
        }
        let mut blob = |names: &str| unhex(victim.must(&format!("blob names={names}")).get("blob"));
        let given_away = ["yard", "shop", "letterbox", "brief"];
        let (shown, hidden) = (blob(&given_away.join(",")), blob("guard,private,exposed"));
        let regions = Metadata::decode(&shown).unwrap().regions;
        let names = regions.iter().map(|region| region.id).zip(given_away).collect();
        // The attacker's lanes are TCP's, whose threads start with the first of them.
        let mut other = stage.third(&format!("other-{case}"), "transports=tcp");
        if options == BY_METADATA {
            let blob = stage.victim.must("blob names=");
            other.must(&format!("add peer=victim blob={}", blob.get("blob")));
            other.must("notify peer=victim from=0 to=1");
        } else {
            other.must(&format!("connect peer=victim address={}", stage.victim.address));
        }
        // Hexadecimal, with a newline that does not belong to it.
        let key = fs::read(runtime.join("kvx/auth.key")).unwrap().trim_ascii_end().to_vec();
        fs::remove_dir_all(runtime).unwrap();
        settle(&stage);
        Self { stage, names, transport, key, shown, hidden, other }
    }

    /// As an attacker sees it who was given what is given away.
    pub(super) fn target(&mut self) -> Target {
        let blob = self.other.must("blob names=");
        let other = Metadata::decode(&unhex(blob.get("blob"))).unwrap();
        let (engine, incarnation): (EngineId, Incarnation) = (other.engine, other.incarnation);
        Target::new(self.stage.victim.address, self.key.clone())
            .with_metadata(&self.shown)
            .unwrap()
            .with_hidden(&self.hidden)
            .unwrap()
            .with_other(engine, incarnation)
            .over(self.transport)
    }

    /// The other engine is a peer as it was.
    pub(super) fn check_other(&mut self) {
        self.other.must("notify peer=victim from=0 to=10");
    }

    /// What was fenced, and poisoned once it was, is as it was then.
    pub(super) fn check_fences(&mut self) {
        for name in ["brief", "rooms"] {
            let seen = self.stage.victim.must(&format!("watch name={name} byte=165 ms=50"));
            assert_eq!(seen.verb, "ok", "{name}: {seen:?}");
        }
    }
}

/// Waits until the victim's lanes to its peers are all there.
fn settle(stage: &Stage) {
    let mut known = stage.vitals().descriptors;
    let mut unchanged = 0;
    while unchanged < 20 {
        thread::sleep(Duration::from_millis(10));
        let now = stage.vitals().descriptors;
        unchanged = if now == known { unchanged + 1 } else { 0 };
        known = now;
    }
}

/// A directory of this test's own, so that its engines share a key of their own, which the
/// attacker is given.
fn runtime_directory(case: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("kvx-attack-{}-{case}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
    path
}

/// An attack, done.
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// The victim's memory at its height meanwhile.
    pub(super) peak_kib: u64,
}

/// Does an attack, and meanwhile what it asks the victim's user for.
pub(super) fn strike(
    stage: &mut Stage,
    names: &HashMap<RegionId, &'static str>,
    target: Target,
    attack: &'static Attack,
    seed: u64,
    limits: Limits,
) -> Done {
    let (asks, asked) = mpsc::channel();
    let target = target.with_user(move |ask| {
        let (done, is_done) = mpsc::channel();
        asks.send((ask, done)).unwrap();
        // The test that would do it may have failed.
        let _ = is_done.recv();
    });
    let attacker = thread::spawn(move || run(attack, &target, seed, limits));
    let mut user = User::default();
    let mut peak_kib = 0;
    loop {
        peak_kib = peak_kib.max(stage.vitals().resident_kib);
        match asked.recv_timeout(Duration::from_millis(2)) {
            Ok((ask, done)) => {
                user.oblige(&mut stage.victim, names, ask);
                done.send(()).unwrap();
            }
            Err(RecvTimeoutError::Timeout) => {}
            // The attacker's end of it is gone: it has ended.
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Done { outcome: attacker.join().unwrap(), peak_kib }
}

/// The victim's user.
#[derive(Default)]
struct User {
    receivers: u32,
}

impl User {
    fn oblige(&mut self, victim: &mut Worker, names: &HashMap<RegionId, &'static str>, ask: Ask) {
        match ask {
            Ask::Dial(address) => {
                victim.must(&format!("dial address={address}"));
            }
            Ask::List(address) => {
                victim.must(&format!("list address={address}"));
            }
            Ask::Deregister(region) => {
                let name = names[&region];
                victim.must(&format!("deregister name={name}"));
                // From here on nothing lands: what does is seen.
                victim.must(&format!("fill name={name} byte=165"));
            }
            Ask::Receive(engine, session) => {
                let room = session.room.0;
                victim.must(&format!("meet peer=hostile-{room} id={}", hex(&engine.0)));
                let first = self.receivers * GRANTED % 16;
                self.receivers += 1;
                let blocks: Vec<String> =
                    (first..first + GRANTED).map(|block| block.to_string()).collect();
                victim.must(&format!(
                    "grant session={room} peer=hostile-{room} pool=rooms room={room} blocks={} \
                     deadline=60000",
                    blocks.join(",")
                ));
            }
            Ask::Drop(session) => {
                // Its outcome is whatever the attack made of it.
                let _ = victim.ask(&format!("abort session={}", session.room.0));
                victim.must("fill name=rooms byte=165");
            }
        }
    }
}
