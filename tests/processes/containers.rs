//! Engines in pid, IPC and user namespaces of their own: together there, each other's memory is
//! within reach; apart, it is not, and they move everything over TCP. Skipped, and counted as such,
//! where the kernel refuses such namespaces.

use std::fs::{self, File};
use std::process::Command;

use kvx_workers::container::Container;
use kvx_workers::random::Random;
use kvx_workers::session::{LONG, Session, prefill_by};
use kvx_workers::skip::skip;
use kvx_workers::vitals::Vitals;
use kvx_workers::worker::Worker;

const LEN: u64 = 4 << 20;

#[test]
fn two_engines_in_one_container_reach_each_others_memory() {
    let name = "containers::two_engines_in_one_container_reach_each_others_memory";
    let Some(container) = container(name) else { return };
    let (mut near, mut far) =
        pair("together", container.command(), container.command(), "transports=shm");
    exchange(&mut near, &mut far);
    assert!(Vitals::of(near.pid()).unwrap().rings > 0, "no ring is mapped");
}

#[test]
fn an_engine_in_a_container_is_reached_over_tcp_and_the_log_says_why() {
    let name = "containers::an_engine_in_a_container_is_reached_over_tcp_and_the_log_says_why";
    let Some(container) = container(name) else { return };
    let path = std::env::temp_dir().join(format!("kvx-container-{}.log", std::process::id()));
    let mut outside = Command::new(std::env::current_exe().unwrap());
    outside.env("KVX_TEST_LOG", "1").stderr(File::create_new(&path).unwrap());
    let (mut near, mut far) = pair("apart", outside, container.command(), "transports=shm,tcp");
    exchange(&mut near, &mut far);
    assert_eq!(Vitals::of(near.pid()).unwrap().rings, 0, "a ring is kept");
    let log = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    let ruled_out = log.lines().find(|line| line.contains("transport is ruled out"));
    let line = ruled_out.unwrap_or_else(|| panic!("the log does not say so"));
    assert!(line.contains("shm") && line.contains("another pid namespace"), "{line}");
    assert!(line.contains("far-apart"), "{line} names no peer");
}

#[test]
fn without_tcp_an_engine_in_a_container_is_an_error_by_the_deadline() {
    let name = "containers::without_tcp_an_engine_in_a_container_is_an_error_by_the_deadline";
    let Some(container) = container(name) else { return };
    let outside = Command::new(std::env::current_exe().unwrap());
    let (mut near, far) = pair("alone", outside, container.command(), "transports=shm");
    let post = format!("post id=it op=write peer=far name=source region=0 len={LEN} deadline=2000");
    // It may be known already when the WRITE is posted.
    let failure = near.ask(&post).and_then(|_| near.ask("wait id=it")).unwrap_err();
    assert_eq!(failure.operation, "Write", "{failure:?}");
    assert_eq!(failure.peer.as_deref(), Some(far.id.as_str()), "{failure:?}");
    assert!(failure.is_one_of(&["NoTransport"]), "{failure:?}");
}

/// Namespaces; without them the test of this name is skipped.
fn container(test: &str) -> Option<Container> {
    Container::new().map_err(|reason| skip(test, &reason)).ok()
}

/// Two engines, one by each command. The first knows the second as `far`.
fn pair(case: &str, near: Command, far: Command, options: &str) -> (Worker, Worker) {
    let mut near = prefill_by(near, &format!("near-{case}"), 1, options);
    near.must(&format!("alloc name=source len={LEN} rights=none"));
    near.must("fill name=source seed=5");
    let mut far = Worker::start_by(far, &format!("far-{case}"), options);
    far.must("pool name=kv");
    far.must(&format!("alloc name=target len={LEN}"));
    let blob = far.must("blob names=target");
    near.must(&format!("add peer=far blob={}", blob.get("blob")));
    (near, far)
}

/// A write, a read and a session.
fn exchange(near: &mut Worker, far: &mut Worker) {
    for op in ["write", "read"] {
        near.must(&format!(
            "post id=it op={op} peer=far name=source region=0 len={LEN} runs=64 deadline={LONG}"
        ));
        near.must("wait id=it");
    }
    for (worker, name) in [(&mut *far, "target"), (&mut *near, "source")] {
        let found = worker.must(&format!("check name={name} seed=5"));
        assert_eq!(found.verb, "ok", "{found:?}");
    }
    Session::new(1, 1, &mut Random::new(9)).carry_out(near, far, "kv");
}
