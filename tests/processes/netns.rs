//! Packets that are dropped without a word, in a network namespace of the test's own. Needs root,
//! `ip`, `ss` and `nft`; skipped, and counted as such, without them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kvx_workers::content::POISON;
use kvx_workers::namespace::Namespace;
use kvx_workers::random::Random;
use kvx_workers::session::{LONG, Session, prefill_by};
use kvx_workers::skip::skip;
use kvx_workers::worker::Worker;

const LEN: u64 = 4 << 20;

/// The lanes' own timeout is a second here, so that the test need not wait for thirty.
#[test]
fn a_lane_whose_packets_are_dropped_is_rebuilt_and_its_transfers_complete() {
    let name = "netns::a_lane_whose_packets_are_dropped_is_rebuilt_and_its_transfers_complete";
    let Some(mut pair) = Pair::new("lane", name) else { return };
    pair.exchange(0);
    let lane = pair.namespace.busiest_connection(pair.target_port);
    pair.namespace.filter_port(lane, "drop");
    // Enough of them that each lane gets a part.
    for round in 1..4 {
        pair.exchange(round);
    }
    // What waits in the dropped lane does not come back.
    pair.namespace.filter_nothing();
    pair.writer.must("remove peer=t");
    pair.target.must(&format!("fill name=target byte={POISON}"));
    let watched = pair.target.must(&format!("watch name=target byte={POISON} ms=1000"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
}

#[test]
fn everything_goes_on_after_seconds_of_dropped_packets() {
    let name = "netns::everything_goes_on_after_seconds_of_dropped_packets";
    let Some(mut pair) = Pair::new("all", name) else { return };
    pair.exchange(0);
    for round in 1..3 {
        let namespace = Arc::clone(&pair.namespace);
        let port = pair.target_port;
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(Duration::from_millis(5 * round));
                namespace.filter_port(port, "drop");
                thread::sleep(Duration::from_millis(2500));
                namespace.filter_nothing();
            });
            pair.exchange(round);
        });
    }
    let told = pair.target.must("notes count=3 quiet=500");
    assert_eq!(told.numbers::<u64>("seen"), [0, 1, 2]);
}

/// A writer and a target in a namespace with nothing but loopback.
struct Pair {
    writer: Worker,
    target: Worker,
    target_port: u16,
    random: Random,
    // Last: it can only go once the processes have.
    namespace: Arc<Namespace>,
}

impl Pair {
    fn new(case: &str, test: &str) -> Option<Self> {
        let namespace = match Namespace::new(case) {
            Ok(namespace) => Arc::new(namespace),
            Err(reason) => {
                skip(test, &reason);
                return None;
            }
        };
        let options = "transports=tcp lanes=2 peer_timeout=1000";
        let mut writer = prefill_by(namespace.command(), &format!("writer-{case}"), 1, options);
        writer.must(&format!("alloc name=source len={LEN} rights=none"));
        writer.must("fill name=source seed=5");
        let executable = namespace.command();
        let mut target = Worker::start_by(executable, &format!("target-{case}"), options);
        target.must("pool name=kv");
        target.must(&format!("alloc name=target len={LEN}"));
        let blob = target.must("blob names=target");
        writer.must(&format!("add peer=t blob={}", blob.get("blob")));
        let target_port = target.address.port();
        Some(Self { writer, target, target_port, random: Random::new(9), namespace })
    }

    fn exchange(&mut self, round: u64) {
        self.target.must(&format!("fill name=target byte={POISON}"));
        self.writer.must(&format!(
            "post id=it op=write peer=t name=source region=0 len={LEN} runs=64 notify={round} \
             deadline={LONG}"
        ));
        self.writer.must("wait id=it");
        let found = self.target.must("check name=target seed=5");
        assert_eq!(found.verb, "ok", "{found:?}");
        let session = Session::new(round, 1, &mut self.random);
        session.carry_out(&mut self.writer, &mut self.target, "kv");
    }
}
