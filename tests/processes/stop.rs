//! SIGSTOP in the middle of a transfer: the other side ends by its deadline, and when the process
//! goes on, nothing lands any more. These tests sleep to watch; none asserts on time.

use std::thread;
use std::time::Duration;

use kvx_workers::content::POISON;
use kvx_workers::line::Failure;
use kvx_workers::over_each_transport;
use kvx_workers::random::Random;
use kvx_workers::relay::{Fault, Kind, Relay, Way};
use kvx_workers::session::{LAYER_BYTES, LONG, Session, prefill};
use kvx_workers::worker::{Worker, watch_from_outside};

/// The deadline of what is interrupted, in milliseconds.
const SHORT: u64 = 1000;
/// More than two sockets' buffers hold.
const LARGE: u64 = 32 << 20;

over_each_transport! {
    nothing_lands_in_a_stopped_receiver_after_the_senders_deadline,
    nothing_of_a_write_that_ended_unfenced_lands_in_a_stopped_target,
    nothing_of_a_writer_stopped_inside_a_frame_lands_after_the_target_has_deregistered,
    nothing_of_a_read_lands_after_its_deadline_when_its_stopped_owner_goes_on,
}

#[test]
fn nothing_of_a_stopped_sender_lands_after_the_receivers_deadline() {
    stop_the_sender("late", |decode| decode.must_fail("await session=it"), "Deadline");
}

#[test]
fn nothing_of_a_stopped_sender_lands_after_the_receiver_has_aborted() {
    stop_the_sender("aborted", |decode| decode.must_fail("abort session=it"), "Aborted");
}

#[test]
fn nothing_of_a_stopped_sender_lands_after_it_was_removed() {
    stop_the_sender(
        "removed",
        |decode| {
            decode.must("remove peer=p");
            decode.must_fail("await session=it")
        },
        "PeerRemoved",
    );
}

/// `fence` ends the session at the receiver and gives the error it ended with.
fn stop_the_sender(case: &str, fence: impl FnOnce(&mut Worker) -> Failure, cause: &str) {
    let mut random = Random::new(7);
    // The rest of a frame waits in a relay, so that it comes after the fence.
    let relay = Relay::new();
    let options = format!("transports=tcp advertise={}", relay.address);
    let mut sender = prefill(&format!("sender-{case}"), 1, &options);
    relay.serve(sender.address);
    sender.address = relay.address;
    relay.arm(Kind::Lane, Way::Out, 2 * LAYER_BYTES + LAYER_BYTES / 2, Fault::Stall);
    let mut third = prefill(&format!("third-{case}"), 2, "");
    let mut decode = Worker::start(&format!("decode-{case}"), "lanes=1");
    decode.must("pool name=kv");
    decode.must("pool name=other");
    let session = Session::new(1, 1, &mut random);
    sender.must(&session.send(20_000, SHORT));
    decode.must(&format!("connect peer=p address={}", sender.address));
    decode.must(&session.grant("p", "kv", SHORT));
    decode.must("await session=it layer=1");
    relay.wait_until_happened();
    sender.stop();

    Session::new(2, 2, &mut random).carry_out(&mut third, &mut decode, "other");
    let failure = fence(&mut decode);
    expect(&failure, "Receive", &sender, cause);
    decode.must(&format!("fill name=kv byte={POISON}"));
    stays_poisoned(&mut decode, "kv");
    relay.release();
    sender.resume();
    stays_poisoned(&mut decode, "kv");

    let failure = sender.must_fail("join job=it");
    expect(&failure, "Send", &decode, "");
    // Nobody has died: the two can go on.
    Session::new(3, 1, &mut random).carry_out(&mut sender, &mut decode, "kv");
}

fn nothing_lands_in_a_stopped_receiver_after_the_senders_deadline(over: &str) {
    let mut random = Random::new(8);
    let mut sender = prefill("sender-1", 1, over);
    let mut decode = Worker::start("decode-1", over);
    let mut third = Worker::start("third-1", over);
    let pool = decode.must("pool name=kv");
    third.must("pool name=kv");
    let session = Session::new(1, 1, &mut random);
    sender.must(&session.send(20_000, SHORT));
    decode.must(&format!("connect peer=p address={}", sender.address));
    decode.must(&session.grant("p", "kv", SHORT));
    decode.must("await session=it layer=2");
    decode.stop();

    let failure = sender.must_fail("join job=it");
    expect(&failure, "Send", &decode, "Deadline");
    Session::new(2, 1, &mut random).carry_out(&mut sender, &mut third, "kv");
    let len = pool.number("len");
    let addresses: Vec<u64> = pool.numbers("addresses");
    addresses.iter().for_each(|address| decode.poke(*address, len, POISON));
    let memory: Vec<_> = addresses.iter().map(|address| (&decode, *address, len)).collect();
    watch_from_outside(&memory, POISON);
    decode.resume();
    watch_from_outside(&memory, POISON);

    let failure = decode.must_fail("await session=it");
    expect(&failure, "Receive", &sender, "");
    Session::new(3, 1, &mut random).carry_out(&mut sender, &mut decode, "kv");
}

fn nothing_of_a_write_that_ended_unfenced_lands_in_a_stopped_target(over: &str) {
    let mut writer = Worker::start("writer-1", over);
    writer.must(&format!("alloc name=source len={LARGE} rights=none"));
    writer.must("fill name=source seed=5");
    // How the target is stopped, and how the writer gives up.
    let cases = [("idle", true), ("idle", false), ("busy", true), ("busy", false)];
    let mut targets = Vec::new();
    for (number, (state, cancel)) in cases.into_iter().enumerate() {
        let mut target = Target::start(&format!("t{number}"), over);
        target.connect_from(&mut writer);
        let post = |id: &str, len: u64| {
            let name = &target.name;
            format!(
                "post id={id} op=write peer={name} name=source region=0 len={len} runs=64 \
                 deadline={SHORT}"
            )
        };
        // Opens the lanes and the region's slot.
        writer.must(&post("first", 64));
        writer.must("wait id=first");
        if state == "idle" {
            target.worker.stop();
            writer.must(&post(&target.name, LARGE));
        } else {
            stop_in_mid_transfer(
                &target.worker,
                &mut writer,
                &target.name,
                &post(&target.name, LARGE),
            );
        }
        if cancel {
            writer.must(&format!("cancel id={}", target.name));
        }
        targets.push((target, cancel));
    }
    let mut third = Target::start("third", over);
    third.connect_from(&mut writer);
    writer.must("post id=third op=write peer=third name=source region=0 len=1000000");
    writer.must("wait id=third");
    for (target, cancel) in &mut targets {
        let failure = writer.must_fail(&format!("wait id={}", target.name));
        let cause = if *cancel { "Cancelled(Unfenced)" } else { "Deadline" };
        expect(&failure, "Write", &target.worker, cause);
        target.worker.poke(target.address, LARGE, POISON);
    }
    let memory: Vec<_> =
        targets.iter().map(|(target, _)| (&target.worker, target.address, LARGE)).collect();
    watch_from_outside(&memory, POISON);
    targets.iter().for_each(|(target, _)| target.worker.resume());
    watch_from_outside(&memory, POISON);

    third.expect_written(5, 1_000_000);
    for (target, _) in &mut targets {
        let name = &target.name;
        writer.must(&format!(
            "post id=again op=write peer={name} name=source region=0 len={LARGE} deadline={LONG}"
        ));
        writer.must("wait id=again");
        target.expect_written(5, LARGE);
    }
}

fn nothing_of_a_writer_stopped_inside_a_frame_lands_after_the_target_has_deregistered(over: &str) {
    let mut writer = Worker::start("writer-2", over);
    writer.must(&format!("alloc name=source len={LARGE} rights=none"));
    let mut target = Target::start("target-2", over);
    target.connect_from(&mut writer);
    writer.must("post id=first op=write peer=target-2 name=source region=0 len=64");
    writer.must("wait id=first");
    target.worker.stop();
    writer.must(&format!(
        "post id=it op=write peer=target-2 name=source region=0 len={LARGE} deadline={LONG}"
    ));
    // Until the sockets are full, and their frames cut.
    thread::sleep(Duration::from_millis(200));
    writer.stop();
    target.worker.resume();
    target.worker.must("deregister name=target");
    target.worker.must(&format!("fill name=target byte={POISON}"));
    stays_poisoned(&mut target.worker, "target");
    writer.resume();
    stays_poisoned(&mut target.worker, "target");
    let failure = writer.must_fail("wait id=it");
    expect(&failure, "Write", &target.worker, "Refused(RegionClosed)");
}

fn nothing_of_a_read_lands_after_its_deadline_when_its_stopped_owner_goes_on(over: &str) {
    let mut reader = Worker::start("reader-3", over);
    reader.must(&format!("alloc name=sink len={LARGE} rights=none"));
    let mut owner = Target::start("owner-3", over);
    owner.connect_from(&mut reader);
    let post = |id: &str, len: u64| {
        format!(
            "post id={id} op=read peer=owner-3 name=sink region=0 len={len} runs=64 \
             deadline={SHORT}"
        )
    };
    reader.must(&post("first", 64));
    reader.must("wait id=first");
    stop_in_mid_transfer(&owner.worker, &mut reader, "it", &post("it", LARGE));
    let failure = reader.must_fail("wait id=it");
    expect(&failure, "Read", &owner.worker, "Deadline");
    reader.must(&format!("fill name=sink byte={POISON}"));
    stays_poisoned(&mut reader, "sink");
    owner.worker.resume();
    stays_poisoned(&mut reader, "sink");
}

/// Stops the owner of the memory while the transfer that `post` begins is under way.
fn stop_in_mid_transfer(owner: &Worker, initiator: &mut Worker, id: &str, post: &str) {
    loop {
        initiator.must(post);
        owner.stop();
        // What the owner said before it stopped is heard by then.
        thread::sleep(Duration::from_millis(50));
        // On a busy machine the deadline may have come already.
        if initiator.ask(&format!("poll id={id}")).is_ok_and(|told| told.verb != "pending") {
            owner.resume();
        } else {
            return;
        }
    }
}

/// A worker with memory that others may read and write.
struct Target {
    name: String,
    worker: Worker,
    address: u64,
}

impl Target {
    fn start(name: &str, over: &str) -> Self {
        let mut worker = Worker::start(name, over);
        let memory = worker.must(&format!("alloc name=target len={LARGE}"));
        let address = memory.number("address");
        Self { name: name.to_owned(), worker, address }
    }

    /// Makes it a peer of `other`, under its name.
    fn connect_from(&mut self, other: &mut Worker) {
        let blob = self.worker.must("blob names=target");
        other.must(&format!("add peer={} blob={}", self.name, blob.get("blob")));
    }

    fn expect_written(&mut self, seed: u64, len: u64) {
        let found = self.worker.must(&format!("check name=target seed={seed} len={len}"));
        assert_eq!(found.verb, "ok", "{found:?}");
    }
}

/// Watches from inside for 3 s.
fn stays_poisoned(worker: &mut Worker, name: &str) {
    let watched = worker.must(&format!("watch name={name} byte={POISON} ms=3000"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
}

fn expect(failure: &Failure, operation: &str, peer: &Worker, cause: &str) {
    assert_eq!(failure.operation, operation, "{failure:?}");
    assert_eq!(failure.peer.as_deref(), Some(peer.id.as_str()), "{failure:?}");
    assert!(failure.is_one_of(&[cause]), "{failure:?}");
}
