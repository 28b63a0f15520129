//! Memory is deregistered in the middle of a transfer, on either side: nothing lands in it and
//! nothing is read from it any more, the transfer fails with its cause on both sides, and the
//! engines go on.

use kvx_workers::line::{Failure, Line};
use kvx_workers::over_each_transport;
use kvx_workers::random::Random;
use kvx_workers::session::{LONG, Session, prefill};
use kvx_workers::worker::Worker;

const LARGE: u64 = 32 << 20;
/// What the memory is filled with once it is fenced.
const AFTER: u8 = 0xee;

over_each_transport! {
    a_target_deregistered_in_mid_write_takes_nothing_more,
    a_source_deregistered_in_mid_write_gives_nothing_more,
    a_sink_deregistered_in_mid_read_takes_nothing_more,
    an_owner_that_deregisters_in_mid_read_gives_nothing_more,
    a_pool_deregistered_in_mid_session_ends_it_on_both_sides,
}

fn a_target_deregistered_in_mid_write_takes_nothing_more(over: &str) {
    let mut pair = Pair::new("write-target", over);
    let failure = pair.interrupt("write", Side::Target);
    pair.expect(&failure, "Write", "Refused(RegionClosed)");
    pair.go_on();
}

fn a_source_deregistered_in_mid_write_gives_nothing_more(over: &str) {
    let mut pair = Pair::new("write-source", over);
    let failure = pair.interrupt("write", Side::Initiator);
    pair.expect(&failure, "Write", "RegionClosed");
    // What is in the source now was not to leave it.
    let leaked = pair.target.must(&format!("check-no name=memory seed=2 byte={AFTER}"));
    assert_eq!(leaked.verb, "ok", "{leaked:?}");
    pair.go_on();
}

fn a_sink_deregistered_in_mid_read_takes_nothing_more(over: &str) {
    let mut pair = Pair::new("read-sink", over);
    let failure = pair.interrupt("read", Side::Initiator);
    pair.expect(&failure, "Read", "RegionClosed");
    pair.go_on();
}

fn an_owner_that_deregisters_in_mid_read_gives_nothing_more(over: &str) {
    let mut pair = Pair::new("read-owner", over);
    let failure = pair.interrupt("read", Side::Target);
    pair.expect(&failure, "Read", "Refused(RegionClosed)");
    let leaked = pair.initiator.must(&format!("check-no name=memory seed=2 byte={AFTER}"));
    assert_eq!(leaked.verb, "ok", "{leaked:?}");
    pair.go_on();
}

fn a_pool_deregistered_in_mid_session_ends_it_on_both_sides(over: &str) {
    let mut random = Random::new(1);
    for of_receiver in [true, false] {
        let mut sender = prefill(&format!("sender-dereg-{of_receiver}"), 1, over);
        let mut decode = Worker::start(&format!("decode-dereg-{of_receiver}"), over);
        decode.must("pool name=kv");
        let session = Session::new(1, 1, &mut random);
        sender.must(&session.send(100_000, 1000));
        decode.must(&format!("connect peer=p address={}", sender.address));
        decode.must(&session.grant("p", "kv", 1000));
        decode.must("await session=it layer=0");
        let side = if of_receiver { &mut decode } else { &mut sender };
        side.must("deregister name=kv");
        side.must(&format!("fill name=kv byte={AFTER}"));
        let sent = sender.must_fail("join job=it");
        let received = decode.must_fail("await session=it");
        assert_eq!((sent.operation.as_str(), received.operation.as_str()), ("Send", "Receive"));
        assert_eq!(sent.peer.as_deref(), Some(decode.id.as_str()));
        assert_eq!(received.peer.as_deref(), Some(sender.id.as_str()));
        if of_receiver {
            assert!(sent.is_one_of(&["Refused(RegionClosed)"]), "{sent:?}");
            stays(&decode.must(&format!("watch name=kv byte={AFTER} ms=500")));
        } else {
            assert!(sent.is_one_of(&["RegionClosed"]), "{sent:?}");
            assert!(received.is_one_of(&["Aborted"]), "{received:?}");
        }
        // With another pool each, the two go on.
        sender.must("pool name=kv");
        sender.must("fill name=kv seed=1");
        decode.must("pool name=kv");
        Session::new(2, 1, &mut random).carry_out(&mut sender, &mut decode, "kv");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Initiator,
    Target,
}

struct Pair {
    initiator: Worker,
    target: Worker,
}

impl Pair {
    fn new(case: &str, over: &str) -> Self {
        let initiator = Worker::start(&format!("initiator-{case}"), over);
        let target = Worker::start(&format!("target-{case}"), over);
        Self { initiator, target }
    }

    /// Fresh memory on both sides, content in the one that is read from, and an open road.
    fn renew(&mut self, op: &str) {
        for worker in [&mut self.initiator, &mut self.target] {
            worker.must(&format!("alloc name=memory len={LARGE}"));
        }
        let source = if op == "write" { &mut self.initiator } else { &mut self.target };
        source.must("fill name=memory seed=2");
        let blob = self.target.must("blob names=memory");
        self.initiator.must(&format!("add peer=t blob={}", blob.get("blob")));
        let post = format!("post id=first op={op} peer=t name=memory region=0 len=64");
        self.initiator.must(&post);
        self.initiator.must("wait id=first");
    }

    /// Deregisters the memory of one side while a transfer is under way, fills it, and watches:
    /// the transfer's failure.
    fn interrupt(&mut self, op: &str, side: Side) -> Failure {
        let post = format!(
            "post id=it op={op} peer=t name=memory region=0 len={LARGE} runs=64 deadline={LONG}"
        );
        // Until it is not done before.
        loop {
            self.renew(op);
            self.initiator.must(&post);
            let owner = match side {
                Side::Initiator => &mut self.initiator,
                Side::Target => &mut self.target,
            };
            owner.must("deregister name=memory");
            owner.must(&format!("fill name=memory byte={AFTER}"));
            stays(&owner.must(&format!("watch name=memory byte={AFTER} ms=500")));
            if let Err(failure) = self.initiator.ask("wait id=it") {
                return failure;
            }
        }
    }

    fn expect(&self, failure: &Failure, operation: &str, cause: &str) {
        assert_eq!(failure.operation, operation, "{failure:?}");
        assert_eq!(failure.peer.as_deref(), Some(self.target.id.as_str()), "{failure:?}");
        assert!(failure.is_one_of(&[cause]), "{failure:?}");
    }

    /// Other memory of the two moves as ever.
    fn go_on(&mut self) {
        self.renew("write");
        self.initiator.must(&format!(
            "post id=more op=write peer=t name=memory region=0 len={LARGE} deadline={LONG}"
        ));
        self.initiator.must("wait id=more");
        stays(&self.target.must("check name=memory seed=2"));
    }
}

fn stays(found: &Line) {
    assert_eq!(found.verb, "ok", "{found:?}");
}
