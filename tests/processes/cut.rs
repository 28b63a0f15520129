//! Connections that are cut, stalled or corrupted at any byte, by relays between two engines.

use std::thread;
use std::time::Duration;

use kvx_workers::content::POISON;
use kvx_workers::random::{Random, from_env};
use kvx_workers::relay::{Fault, Kind, Relay, Way};
use kvx_workers::session::{LONG, Session, prefill};
use kvx_workers::worker::Worker;

/// Bytes of the one-sided transfers.
const LEN: u64 = 2 << 20;
/// The bytes must go through the relays.
const TCP: &str = "transports=tcp";

#[test]
fn transfers_complete_whole_and_notifications_come_once_over_lanes_that_are_cut() {
    let faults = [Fault::Close, Fault::Reset, Fault::HalfClose];
    // Most bytes go in at the target; on the way back there are acknowledgements only.
    survive("lane", Kind::Lane, &faults, (LEN, 512), 24);
}

#[test]
fn notifications_come_once_and_in_order_over_control_connections_that_are_cut() {
    survive(
        "control",
        Kind::Control,
        &[Fault::Close, Fault::Reset, Fault::HalfClose],
        (1200, 600),
        24,
    );
}

/// Rounds of transfers, one fault in each.
fn survive(case: &str, kind: Kind, faults: &[Fault], within: (u64, u64), rounds: u64) {
    let seed = from_env("KVX_CUT_SEED", 1);
    println!("repeat with KVX_CUT_SEED={seed}");
    let mut pair = Pair::new(case, LONG);
    let mut random = Random::new(seed);
    let mut missed = 0;
    for round in 0..rounds {
        let to_target = random.below(2) == 0;
        let within = if to_target { within.0 } else { within.1 };
        let fault = faults[random.below(faults.len() as u64) as usize];
        pair.arm(kind, to_target, random.below(within), fault);
        pair.exchange(round, &mut random);
        missed += u64::from(!pair.disarm());
    }
    pair.expect_notes(rounds);
    assert!(missed < rounds / 2, "{missed} of {rounds} faults did not happen");
}

#[test]
fn everything_goes_on_after_a_second_without_any_connection() {
    let mut pair = Pair::new("down", LONG);
    let mut random = Random::new(3);
    pair.exchange(0, &mut random);
    // In the middle of a transfer, a session, and while nothing moves.
    for round in 1..4 {
        let (relays, outage) = (&pair.relays, Duration::from_secs(1));
        if round < 3 {
            pair.relays.1.arm(Kind::Lane, Way::In, round * LEN / 3, Fault::Close);
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(10 * round));
                relays.0.down();
                relays.1.down();
                thread::sleep(outage);
                relays.0.up();
                relays.1.up();
            });
            exchange(&mut pair.writer, &mut pair.target, round, &mut random);
        });
        pair.disarm();
    }
    pair.expect_notes(4);
}

#[test]
fn what_waited_in_a_stalled_control_connection_counts_once() {
    let mut pair = Pair::new("stall-control", LONG);
    let mut random = Random::new(4);
    for round in 0..6 {
        pair.arm(Kind::Control, round % 2 == 0, random.below(500), Fault::Stall);
        let relays = &pair.relays;
        thread::scope(|scope| {
            scope.spawn(|| {
                thread::sleep(Duration::from_millis(300));
                relays.0.disarm();
                relays.1.disarm();
                relays.0.release();
                relays.1.release();
            });
            exchange(&mut pair.writer, &mut pair.target, round, &mut random);
        });
    }
    pair.expect_notes(6);
}

#[test]
fn a_lane_that_stalls_for_ever_fails_its_transfer_by_the_deadline_and_no_other_peers() {
    let mut pair = Pair::new("stall-lane", 1000);
    let mut random = Random::new(5);
    pair.exchange(0, &mut random);
    let mut third = Worker::start("third-stall", "");
    third.must("pool name=kv");
    // The writer has dialed. Its own relay is the third's as well.
    pair.relays.1.arm(Kind::Lane, Way::In, LEN / 2, Fault::Stall);
    pair.writer.must(&format!("post id=it op=write peer=t name=source region=0 len={LEN} runs=9"));
    Session::new(1 << 32, 1, &mut random).carry_out(&mut pair.writer, &mut third, "kv");
    let failure = pair.writer.must_fail("wait id=it");
    assert_eq!(failure.operation, "Write");
    assert_eq!(failure.peer.as_deref(), Some(pair.target.id.as_str()));
    assert!(failure.is_one_of(&["Deadline"]), "{failure:?}");
    assert_eq!(pair.relays.1.disarm(), 0);
    // Nothing of the stalled lane lands when it moves again.
    pair.target.must(&format!("fill name=target byte={POISON}"));
    pair.relays.0.release();
    pair.relays.1.release();
    let watched = pair.target.must(&format!("watch name=target byte={POISON} ms=1000"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
    pair.exchange(1, &mut random);
    pair.expect_notes(2);
}

/// `KVX_CORRUPT_ROUNDS` and `KVX_CUT_SEED` vary it.
#[test]
fn corrupted_bytes_end_in_errors_and_touch_no_memory_that_was_not_given() {
    let seed = from_env("KVX_CUT_SEED", 1);
    println!("repeat with KVX_CUT_SEED={seed}");
    let mut pair = Pair::new("corrupt", 500);
    let mut third = Worker::start("third-corrupt", "");
    third.must("pool name=kv");
    pair.target.must(&format!("alloc name=guard len={LEN}"));
    let mut random = Random::new(seed);
    let (rounds, mut missed) = (from_env("KVX_CORRUPT_ROUNDS", 40), 0);
    for round in 0..rounds {
        let to_target = random.below(2) == 0;
        let kind = if random.below(2) == 0 { Kind::Lane } else { Kind::Control };
        // The beginning of a connection is where most can go wrong.
        let within = match (kind, to_target, random.below(2)) {
            (Kind::Lane, true, 0) => LEN,
            (Kind::Control, _, 0) => 1000,
            _ => 300,
        };
        pair.arm(kind, to_target, random.below(within), Fault::Corrupt(1 << random.below(8)));
        if random.below(2) == 0 {
            pair.relays.0.cut_all();
            pair.relays.1.cut_all();
        }
        let post = format!("post id=it op=write peer=t name=source region=0 len={LEN} runs=99");
        let outcome = pair.writer.ask(&post).and_then(|_| pair.writer.ask("wait id=it"));
        if let Err(failure) = outcome {
            assert_eq!(failure.peer.as_deref(), Some(pair.target.id.as_str()), "{failure:?}");
        }
        let session = Session::new(round, 1, &mut random);
        pair.target.must(&format!("fill name=kv byte={POISON}"));
        pair.writer.must(&session.send(0, 500));
        pair.target.must(&session.receive(&pair.writer, "kv", 500));
        for worker in [&mut pair.writer, &mut pair.target] {
            if let Err(failure) = worker.ask("join job=it") {
                let known = ["Send", "Receive", "Connect"].contains(&failure.operation.as_str());
                assert!(known, "{failure:?}");
            }
        }
        session.expect_untouched_outside(&mut pair.target, "kv");
        missed += u64::from(!pair.disarm());
        pair.begin_anew();
    }
    assert!(missed < rounds / 2, "{missed} of {rounds} faults did not happen");
    let watched = pair.target.must(&format!("watch name=guard byte={POISON} ms=1"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
    Session::new(1 << 32, 1, &mut random).carry_out(&mut pair.writer, &mut third, "kv");
}

/// Two engines, each behind a relay: every connection between them goes through one, whoever
/// dials. The writer knows the target as `t`.
struct Pair {
    writer: Worker,
    target: Worker,
    relays: (Relay, Relay),
}

impl Pair {
    fn new(case: &str, deadline: u64) -> Self {
        let relays = (Relay::new(), Relay::new());
        let options = |relay: &Relay| {
            format!("{TCP} deadline={deadline} lanes=2 advertise={}", relay.address)
        };
        let mut writer = prefill(&format!("writer-{case}"), 1, &options(&relays.0));
        writer.must(&format!("alloc name=source len={LEN} rights=none"));
        writer.must("fill name=source seed=6");
        let mut target = Worker::start(&format!("target-{case}"), &options(&relays.1));
        target.must("pool name=kv");
        target.must(&format!("alloc name=target len={LEN}"));
        relays.0.serve(writer.address);
        relays.1.serve(target.address);
        writer.address = relays.0.address;
        target.address = relays.1.address;
        let mut pair = Self { writer, target, relays };
        pair.add();
        pair
    }

    fn add(&mut self) {
        let blob = self.target.must("blob names=target");
        self.writer.must(&format!("add peer=t blob={}", blob.get("blob")));
    }

    fn exchange(&mut self, round: u64, random: &mut Random) {
        exchange(&mut self.writer, &mut self.target, round, random);
    }

    /// Lets a fault happen after as many bytes of this kind to the target or to the writer,
    /// whichever relay they go through.
    fn arm(&self, kind: Kind, to_target: bool, after: u64, fault: Fault) {
        let (first, second) = if to_target { (Way::Out, Way::In) } else { (Way::In, Way::Out) };
        self.relays.0.arm(kind, first, after, fault);
        self.relays.1.arm(kind, second, after, fault);
    }

    /// Forgets faults that have not happened. Whether the last one armed has.
    fn disarm(&self) -> bool {
        self.relays.0.disarm() + self.relays.1.disarm() < 2
    }

    /// Forgets what the two knew of each other, and shows that nothing is left of it.
    fn begin_anew(&mut self) {
        self.writer.must("remove peer=t");
        self.relays.0.cut_all();
        self.relays.1.cut_all();
        self.add();
        self.target.must(&format!("fill name=target byte={POISON}"));
        self.writer.must(&format!(
            "post id=anew op=write peer=t name=source region=0 len={LEN} deadline={LONG}"
        ));
        self.writer.must("wait id=anew");
        let found = self.target.must("check name=target seed=6");
        assert_eq!(found.verb, "ok", "{found:?}");
    }

    /// The target's user was told of each round's notifications, once and in order.
    fn expect_notes(&mut self, rounds: u64) {
        let count = rounds * (1 + 2 * NOTES);
        let told = self.target.must(&format!("notes count={count} quiet=500"));
        let seen: Vec<u64> = told.numbers("seen");
        let expected = (0..rounds).flat_map(|round| {
            let own = round * 1000..round * 1000 + NOTES;
            own.chain([round * 1000 + 500]).chain(round * 1000 + 600..round * 1000 + 600 + NOTES)
        });
        assert_eq!(seen, expected.collect::<Vec<u64>>());
    }
}

/// Notifications before a round's transfer, and after.
const NOTES: u64 = 10;

/// One round: notifications, a write with one, a read, a session, more notifications.
fn exchange(writer: &mut Worker, target: &mut Worker, round: u64, random: &mut Random) {
    let first = round * 1000;
    target.must(&format!("fill name=target byte={POISON}"));
    writer.must(&format!("notify peer=t from={first} to={}", first + NOTES));
    writer.must(&format!(
        "post id=it op=write peer=t name=source region=0 len={LEN} runs=9 notify={}",
        first + 500
    ));
    writer.must("wait id=it");
    let found = target.must("check name=target seed=6");
    assert_eq!(found.verb, "ok", "{found:?}");
    writer.must(&format!("fill name=source byte={POISON}"));
    writer.must(&format!("post id=it op=read peer=t name=source region=0 len={LEN} runs=9"));
    writer.must("wait id=it");
    let found = writer.must("check name=source seed=6");
    assert_eq!(found.verb, "ok", "{found:?}");
    Session::new(round, 1, random).carry_out(writer, target, "kv");
    writer.must(&format!("notify peer=t from={} to={}", first + 600, first + 600 + NOTES));
}
