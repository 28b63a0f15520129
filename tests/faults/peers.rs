//! A peer that dies or stops in the middle of what it does with the victim, and a victim that
//! stops itself.

use std::thread;
use std::time::Duration;

use kvx_workers::content::POISON;
use kvx_workers::line::Failure;
use kvx_workers::over_each_transport;
use kvx_workers::random::{Random, from_env};
use kvx_workers::service::MOMENTS;
use kvx_workers::session::{LONG, Session};
use kvx_workers::worker::Worker;

use crate::row::Row;
use crate::stage::{Stage, seed};

/// Bytes of the one-sided transfers that are interrupted: more than sockets hold.
const LARGE: u64 = 16 << 20;
/// Microseconds between two layers of an interrupted prefill.
const PACE: u64 = 1000;
/// The deadline of what is interrupted, in milliseconds.
const SHORT: u64 = 400;

over_each_transport! {
    a_peer_killed_or_stopped_at_any_point_costs_nobody_else_anything,
    a_victim_stopped_past_every_deadline_lets_nothing_land_late,
}

/// `KVX_FAULT_POINTS` (16) and `KVX_FAULT_SEED` vary it.
fn a_peer_killed_or_stopped_at_any_point_costs_nobody_else_anything(over: &str) {
    let executable = || std::process::Command::new(std::env::current_exe().unwrap());
    let options = format!("{over} deadline=4000");
    let mut stage = Stage::by(executable, "peers", &options, over);
    stage.victim.must(&format!("alloc name=target len={LARGE}"));
    stage.victim.must("pool name=kv");
    let points = from_env("KVX_FAULT_POINTS", 16);
    let mut random = Random::new(seed());
    let mut room = 0;
    let holds = "one error by the deadline; none lands late; peers served";
    for (fault, end) in [
        ("peers killed in mid-transfer", End::Kill),
        ("peers stopped in mid-transfer, then continued", End::Stop),
    ] {
        let row = Row::new(fault, holds).allows(|allows| {
            // Dead peers are dialed again from time to time.
            allows.descriptors = 2;
        });
        row.play(&mut stage, |stage| {
            let points = if end == End::Kill { points } else { points / 4 };
            let mut failed = 0;
            for point in 0..points {
                room += 2;
                let mut unlucky = Unlucky::start(stage, over, end, room, &mut random);
                failed += u64::from(unlucky.interrupt(stage, end, Deed::ALL[point as usize % 4]));
            }
            assert!(failed > 0, "everything was over before anything happened");
            stage.wait_served(1);
            failed
        });
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Kill,
    Stop,
}

/// What the unlucky one is doing with the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Send,
    Receive,
    Write,
    Read,
}

impl Deed {
    const ALL: [Self; 4] = [Self::Send, Self::Receive, Self::Write, Self::Read];
}

/// A peer to which something happens.
struct Unlucky {
    worker: Worker,
    room: u64,
    random: Random,
}

impl Unlucky {
    fn start(stage: &mut Stage, over: &str, end: End, room: u64, random: &mut Random) -> Self {
        // Half of them come back under a name that was known and died.
        let name = match random.below(2) {
            0 => format!("unlucky-{room}"),
            _ => "unlucky".to_owned(),
        };
        let mut worker = stage.third(&name, &format!("{over} deadline=2000"));
        worker.must("pool name=kv");
        worker.must(&format!("fill name=kv seed={}", seed()));
        let blob = stage.victim.must("blob names=target");
        worker.must(&format!("add peer=victim blob={}", blob.get("blob")));
        if end == End::Stop {
            // Else the victim's connect waits for it, and that has the engine's own deadline.
            worker.must("notify peer=victim from=0 to=1");
        }
        Self { worker, room, random: Random::new(random.word()) }
    }

    /// Whether it happened before the deed was done.
    fn interrupt(&mut self, stage: &mut Stage, end: End, deed: Deed) -> bool {
        match deed {
            Deed::Send => self.interrupt_sending(stage, end),
            Deed::Receive => self.interrupt_receiving(stage, end),
            Deed::Write => self.interrupt_one_sided(stage, end, "write"),
            Deed::Read => self.interrupt_one_sided(stage, end, "read"),
        }
    }

    fn interrupt_sending(&mut self, stage: &mut Stage, end: End) -> bool {
        let session = Session::new(self.room, seed(), &mut self.random);
        stage.victim.must(&format!("fill name=kv byte={POISON}"));
        let fate = self.fate(end);
        self.worker.tell(&format!("{} {fate}", session.send(PACE, SHORT)));
        stage.victim.must(&session.receive(&self.worker, "kv", SHORT));
        self.meet(end);
        let outcome = stage.victim.ask("join job=it");
        let victim = &mut stage.victim;
        match &outcome {
            Ok(received) => session.expect_received(received, victim, "kv"),
            Err(failure) => expect(failure, &["Receive", "Connect"], &self.worker),
        }
        session.expect_untouched_outside(victim, "kv");
        if end == End::Stop {
            // The session is over, and its memory someone else's.
            victim.must(&format!("fill name=kv byte={POISON}"));
            self.worker.resume();
            let _started = self.worker.answer();
            let _ended = self.worker.ask("join job=it");
            stays_poisoned(victim, "kv");
        }
        outcome.is_err()
    }

    fn interrupt_receiving(&mut self, stage: &mut Stage, end: End) -> bool {
        let session = Session::new(self.room, seed(), &mut self.random);
        let fate = self.fate(end);
        let send = session.send(PACE, SHORT).replace("pool=kv", "pool=give");
        stage.victim.must(&send);
        self.worker.must(&format!("fill name=kv byte={POISON}"));
        self.worker.tell(&format!("{} {fate}", session.receive(&stage.victim, "kv", SHORT)));
        self.meet(end);
        let outcome = stage.victim.ask("join job=it");
        match &outcome {
            Ok(sent) => session.expect_sent(sent),
            // It was never heard of.
            Err(failure) if failure.peer.is_none() => {
                assert!(failure.is_one_of(&["Deadline"]), "{failure:?}");
            }
            Err(failure) => expect(failure, &["Send"], &self.worker),
        }
        if end == End::Stop {
            self.worker.resume();
            let _started = self.worker.answer();
            let _ended = self.worker.ask("join job=it");
            session.expect_untouched_outside(&mut self.worker, "kv");
        }
        outcome.is_err()
    }

    /// The unlucky one is the initiator: the victim has no operation that could fail.
    fn interrupt_one_sided(&mut self, stage: &mut Stage, end: End, op: &str) -> bool {
        let victim = &mut stage.victim;
        victim.must(&format!("fill name=target byte={POISON}"));
        self.worker.must(&format!("alloc name=memory len={LARGE} rights=none"));
        self.worker.must("fill name=memory seed=3");
        // The road is there.
        let post = |id: &str, len: u64, deadline: u64| {
            format!(
                "post id={id} op={op} peer=victim name=memory region=0 len={len} runs=64 \
                 deadline={deadline}"
            )
        };
        self.worker.must(&post("first", 64, LONG));
        self.worker.must("wait id=first");
        self.worker.must(&post("it", LARGE, SHORT));
        thread::sleep(Duration::from_micros(self.random.below(10_000)));
        if end == End::Kill {
            self.worker.kill();
            return true;
        }
        self.worker.stop();
        thread::sleep(Duration::from_millis(2 * SHORT));
        self.worker.resume();
        let outcome = self.worker.ask("wait id=it");
        if let Err(failure) = &outcome {
            let operation = if op == "write" { "Write" } else { "Read" };
            assert_eq!(failure.operation, operation, "{failure:?}");
            assert!(failure.is_one_of(&["Deadline"]), "{failure:?}");
            victim.must(&format!("fill name=target byte={POISON}"));
            stays_poisoned(victim, "target");
        }
        // Nobody has died: the two go on.
        self.worker.must(&post("again", LARGE, LONG));
        self.worker.must("wait id=again");
        outcome.is_err()
    }

    /// When it dies, if it does so by itself.
    fn fate(&mut self, end: End) -> String {
        match end {
            End::Kill => {
                let after = self.random.below(2) * self.random.below(PACE);
                format!("die_at={} die_after={after}", self.random.below(MOMENTS))
            }
            End::Stop => String::new(),
        }
    }

    /// Waits until it has died, or stops it at a seeded time of its session.
    fn meet(&mut self, end: End) {
        match end {
            End::Kill => self.worker.wait_gone(),
            End::Stop => {
                thread::sleep(Duration::from_micros(self.random.below(MOMENTS * PACE)));
                self.worker.stop();
            }
        }
    }
}

/// A process stopped for longer than every deadline looks dead to others; when it goes on, it is
/// the one who is late.
fn a_victim_stopped_past_every_deadline_lets_nothing_land_late(over: &str) {
    let executable = || std::process::Command::new(std::env::current_exe().unwrap());
    let options = format!("{over} deadline=1000");
    let mut stage = Stage::by(executable, "stopped", &options, &options);
    let target = stage.victim.must(&format!("alloc name=target len={LARGE}"));
    let address: u64 = target.number("address");
    let blob = stage.victim.must("blob names=target").get("blob").to_owned();
    let mut writer = stage.third("writer", &options);
    writer.must(&format!("alloc name=memory len={LARGE} rights=none"));
    writer.must("fill name=memory seed=3");
    writer.must(&format!("add peer=victim blob={blob}"));
    let post = |len: u64, deadline: u64| {
        format!(
            "post id=it op=write peer=victim name=memory region=0 len={len} runs=64 \
             deadline={deadline}"
        )
    };
    // Its connections are no part of the fault.
    writer.must(&post(64, LONG));
    writer.must("wait id=it");
    let rounds = from_env("KVX_FAULT_POINTS", 16).div_ceil(8);
    let row = Row::new(
        "the victim stopped past every deadline, then continued",
        "others end with errors; nothing lands late; all go on",
    )
    .allows(|allows| {
        allows.errors = true;
        // What the writer allocated is mapped here, page by page as it is read.
        allows.resident_kib += LARGE >> 10;
    });
    let mut random = Random::new(seed());
    row.play(&mut stage, |stage| {
        for _ in 0..rounds {
            loop {
                writer.must(&post(LARGE, 1000));
                thread::sleep(Duration::from_micros(random.below(8000)));
                stage.victim.stop();
                thread::sleep(Duration::from_millis(50));
                if writer.must("poll id=it").verb == "pending" {
                    break;
                }
                stage.victim.resume();
            }
            let failure = writer.must_fail("wait id=it");
            assert_eq!(failure.operation, "Write", "{failure:?}");
            assert!(failure.is_one_of(&["Deadline"]), "{failure:?}");
            stage.victim.poke(address, LARGE, POISON);
            stage.victim.resume();
            stays_poisoned(&mut stage.victim, "target");
            stage.wait_served(1);
        }
        rounds
    });
}

/// Watches from inside for a while.
fn stays_poisoned(worker: &mut Worker, name: &str) {
    let watched = worker.must(&format!("watch name={name} byte={POISON} ms=300"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
}

/// Names one of these operations, the peer, and what one looks like that is gone or says nothing
/// any more.
fn expect(failure: &Failure, operations: &[&str], peer: &Worker) {
    assert!(operations.contains(&failure.operation.as_str()), "{failure:?}");
    let known = [peer.id.as_str(), &peer.address.to_string()];
    assert!(failure.peer.as_deref().is_some_and(|peer| known.contains(&peer)), "{failure:?}");
    let causes = ["Deadline", "PeerLost", "Aborted", "Io{", "PeerRestarted", "Handshake("];
    assert!(failure.is_one_of(&causes), "{failure:?}");
}
