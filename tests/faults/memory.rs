//! Memory that is not where its owner registered it, peers that come and go, and rings that cannot be
//! made: what is special to engines that reach each other's memory.

use std::process::Command;
use std::thread;
use std::time::Duration;

use kvx_workers::content::POISON;
use kvx_workers::line::Failure;
use kvx_workers::random::{Random, from_env};
use kvx_workers::session::LONG;
use kvx_workers::worker::Worker;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use crate::row::Row;
use crate::stage::{ON_ONE_HOST, Stage, seed};

const LEN: u64 = 8 << 20;
/// What is moved where the speed of it does not matter.
const LITTLE: u64 = 256 << 10;

fn stage(case: &str) -> Stage {
    let executable = || Command::new(std::env::current_exe().unwrap());
    let mut stage = Stage::by(executable, case, "transports=shm", "transports=shm");
    stage.victim.must(&format!("alloc name=target len={LEN}"));
    stage
}

/// A peer that knows the victim's memory of this name, with memory of its own.
fn peer(stage: &mut Stage, name: &str, options: &str, target: &str) -> Worker {
    let mut peer = stage.third(name, options);
    peer.must(&format!("alloc name=memory len={LEN} rights=none"));
    let blob = stage.victim.must(&format!("blob names={target}"));
    peer.must(&format!("add peer=victim blob={}", blob.get("blob")));
    peer
}

fn post(op: &str, len: u64, deadline: u64) -> String {
    format!(
        "post id=it op={op} peer=victim name=memory region=0 len={len} runs=64 deadline={deadline}"
    )
}

#[test]
fn memory_that_vanishes_under_either_side_is_an_error_and_harms_nobody() {
    let mut stage = stage("vanishing");
    let rounds = from_env("KVX_FAULT_ROUNDS", 16).div_ceil(4);
    let mut random = Random::new(seed());
    for (fault, op, operation) in [
        ("a peer's source unmapped under its WRITE", "write", "Write"),
        ("a peer's sink unmapped under its READ", "read", "Read"),
    ] {
        Row::new(fault, "an error by the deadline; peers served").play(&mut stage, |stage| {
            let mut failed = 0;
            for _ in 0..rounds {
                let mut peer = peer(stage, "careless", "transports=shm", "target");
                peer.must(&post(op, 64, LONG));
                peer.must("wait id=it");
                peer.must(&post(op, LEN, 400));
                thread::sleep(Duration::from_micros(random.below(3000)));
                peer.must("vanish name=memory");
                if let Err(failure) = peer.ask("wait id=it") {
                    assert_eq!(failure.operation, operation, "{failure:?}");
                    failed += 1;
                }
                // With other memory it goes on.
                peer.must(&format!("alloc name=memory len={LEN} rights=none"));
                peer.must(&post(op, LEN, LONG));
                peer.must("wait id=it");
                peer.must("shutdown");
            }
            stage.wait_served(1);
            failed
        });
    }
    for (fault, op, operation) in [
        ("the victim's target unmapped under a WRITE", "write", "Write"),
        ("the victim's source unmapped under a READ", "read", "Read"),
    ] {
        Row::new(fault, "an error by the deadline; peers served").play(&mut stage, |stage| {
            let mut failed = 0;
            for _ in 0..rounds {
                stage.victim.must(&format!("alloc name=lost len={LEN}"));
                let mut peer = peer(stage, "careful", "transports=shm", "lost");
                peer.must(&post(op, 64, LONG));
                peer.must("wait id=it");
                peer.must(&post(op, LEN, 400));
                thread::sleep(Duration::from_micros(random.below(3000)));
                stage.victim.must("vanish name=lost");
                if let Err(failure) = peer.ask("wait id=it") {
                    assert_eq!(failure.operation, operation, "{failure:?}");
                    failed += 1;
                }
                // All of it is gone by now.
                let failure = fail(&mut peer, op);
                assert_eq!(failure.operation, operation, "{failure:?}");
                peer.must("shutdown");
                stage.victim.must("free name=lost");
            }
            stage.wait_served(1);
            failed + rounds
        });
    }
}

/// A transfer with memory that is not there.
fn fail(peer: &mut Worker, op: &str) -> Failure {
    peer.must(&post(op, LEN, 400));
    peer.must_fail("wait id=it")
}

#[test]
fn many_peers_that_come_and_go_leave_no_ring_and_no_descriptor() {
    let mut stage = stage("guests");
    let rounds = from_env("KVX_FAULT_ROUNDS", 16);
    for (fault, leaves) in [("peers that come and leave", true), ("peers that come and die", false)]
    {
        let row = Row::new(fault, "nothing kept; peers served")
            // Dead peers are dialed again from time to time.
            .allows(|allows| allows.descriptors = if leaves { 0 } else { 2 });
        row.play(&mut stage, |stage| {
            for round in 0..rounds {
                let mut guest = peer(stage, &format!("guest-{round}"), "transports=shm", "target");
                for op in ["write", "read"] {
                    guest.must(&post(op, LEN, LONG));
                    guest.must("wait id=it");
                }
                match leaves {
                    true => drop(guest.must("shutdown")),
                    false => guest.kill(),
                }
            }
            stage.wait_served(1);
            rounds
        });
    }
}

/// A lane of the same host takes two descriptors at either side, and one more for a moment.
#[test]
fn a_peer_without_descriptors_for_rings_has_an_error_or_takes_another_way() {
    let executable = || Command::new(std::env::current_exe().unwrap());
    let mut stage = Stage::by(executable, "ringless", ON_ONE_HOST, ON_ONE_HOST);
    stage.victim.must(&format!("alloc name=target len={LITTLE}"));
    let row = Row::new("a peer with few descriptors left", "an error or whole; peers served")
        // TCP's threads start with its first lane.
        .allows(|allows| (allows.descriptors, allows.threads) = (4, 4));
    row.play(&mut stage, |stage| {
        for left in 0..8 {
            let name = format!("poor-{left}");
            let mut poor = stage.third(&name, ON_ONE_HOST);
            poor.must(&format!("alloc name=memory len={LITTLE} rights=none"));
            poor.must("fill name=memory seed=3");
            let maximum = getrlimit(Resource::Nofile).maximum;
            let limit = Rlimit { current: Some(256), maximum };
            prlimit(Some(poor.pid()), Resource::Nofile, limit).unwrap();
            poor.must(&format!("hoard leave={left}"));
            let blob = stage.victim.must("blob names=target");
            poor.must(&format!("add peer=victim blob={}", blob.get("blob")));
            stage.victim.must(&format!("fill name=target byte={POISON}"));
            let tried = poor.ask(&post("write", LITTLE, 1000)).and_then(|_| poor.ask("wait id=it"));
            match tried {
                Ok(_) => written(stage, 3),
                Err(failure) => {
                    assert_eq!(failure.operation, "Write", "{failure:?}");
                    let known = failure.is_one_of(&["Deadline", "Io{"]);
                    assert!(known, "{failure:?}");
                }
            }
            poor.must("unhoard");
            poor.must(&post("write", LITTLE, LONG));
            poor.must("wait id=it");
            written(stage, 3);
            poor.must("shutdown");
        }
        stage.wait_served(1);
        8
    });
}

fn written(stage: &mut Stage, seed: u64) {
    let found = stage.victim.must(&format!("check name=target seed={seed}"));
    assert_eq!(found.verb, "ok", "{found:?}");
}
