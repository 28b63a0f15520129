//! A stopped peer and a silent one cost a healthy one nothing.

use kvx_workers::over_each_transport;
use kvx_workers::random::Random;
use kvx_workers::relay::{Fault, Kind, Relay, Way};
use kvx_workers::session::{LONG, Session, prefill};
use kvx_workers::worker::Worker;

const LARGE: u64 = 32 << 20;

over_each_transport! {
    healthy_peers_are_served_while_others_are_stopped_or_silent,
}

fn healthy_peers_are_served_while_others_are_stopped_or_silent(over: &str) {
    let mut random = Random::new(1);
    let mut hub = prefill("hub", 1, over);
    hub.must(&format!("alloc name=source len={LARGE} rights=none"));
    hub.must("fill name=source seed=5");
    // Accepts connections, and never says a word.
    let relay = Relay::new();
    for _connection in 0..100 {
        relay.arm(Kind::Control, Way::Out, 0, Fault::Stall);
    }
    let mut silent = Worker::start("silent", &format!("{over} advertise={}", relay.address));
    relay.serve(silent.address);
    add(&mut hub, "silent", &mut silent);
    let mut stopped = Worker::start("stopped", over);
    stopped.must("pool name=kv");
    add(&mut hub, "stopped", &mut stopped);
    // A transfer and a session with the one that is about to stop.
    hub.must("post id=first op=write peer=stopped name=source region=0 len=64");
    hub.must("wait id=first");
    let session = Session::new(1, 1, &mut random);
    hub.must(&session.send(1000, LONG).replace("job=it", "job=stopped"));
    stopped.must(&session.receive(&hub, "kv", LONG));
    stopped.stop();
    for peer in ["silent", "stopped"] {
        hub.must(&format!(
            "post id={peer} op=write peer={peer} name=source region=0 len={LARGE} runs=64 \
             deadline={LONG}"
        ));
    }

    for (round, name) in (2..).zip(["healthy-1", "healthy-2", "healthy-3"]) {
        let mut healthy = Worker::start(name, over);
        healthy.must("pool name=kv");
        add(&mut hub, name, &mut healthy);
        hub.must(&format!(
            "post id={name} op=write peer={name} name=source region=0 len={LARGE} notify=1"
        ));
        hub.must(&format!("wait id={name}"));
        let found = healthy.must("check name=target seed=5");
        assert_eq!(found.verb, "ok", "{found:?}");
        healthy.must("notes count=1");
        Session::new(round, 1, &mut random).carry_out(&mut hub, &mut healthy, "kv");
    }
    for peer in ["silent", "stopped"] {
        assert_eq!(hub.must(&format!("poll id={peer}")).verb, "pending");
    }

    // Given up on one side, taken up again on the other.
    hub.must("remove peer=silent");
    let failure = hub.must_fail("wait id=silent");
    assert_eq!(failure.operation, "Write");
    assert_eq!(failure.peer.as_deref(), Some(silent.id.as_str()));
    assert!(failure.is_one_of(&["PeerRemoved"]), "{failure:?}");
    stopped.resume();
    hub.must("wait id=stopped");
    session.expect_sent(&hub.must("join job=stopped"));
    let received = stopped.must("join job=it");
    session.expect_received(&received, &mut stopped, "kv");
    let found = stopped.must("check name=target seed=5");
    assert_eq!(found.verb, "ok", "{found:?}");
}

fn add(hub: &mut Worker, name: &str, target: &mut Worker) {
    target.must(&format!("alloc name=target len={LARGE}"));
    let blob = target.must("blob names=target");
    hub.must(&format!("add peer={name} blob={}", blob.get("blob")));
}
