//! A process that dies and comes back under its name and at its address is a new peer.

use kvx_workers::content::POISON;
use kvx_workers::line::Failure;
use kvx_workers::over_each_transport;
use kvx_workers::random::Random;
use kvx_workers::session::{LONG, Session, prefill};
use kvx_workers::worker::Worker;

const LARGE: u64 = 32 << 20;

over_each_transport! {
    a_restarted_sender_is_a_new_peer_that_can_be_reached_again,
    nothing_meant_for_a_target_is_written_or_told_to_it_after_its_restart,
    nothing_that_a_writer_left_on_the_way_lands_once_its_new_life_is_known,
    nothing_of_a_stopped_writer_lands_after_another_life_has_taken_its_place,
}

fn a_restarted_sender_is_a_new_peer_that_can_be_reached_again(over: &str) {
    let mut random = Random::new(1);
    let mut sender = prefill("restarting-sender", 1, over);
    let mut decode = Worker::start("decode-restart", over);
    decode.must("pool name=kv");
    let session = Session::new(1, 1, &mut random);
    sender.must(&session.send(20_000, LONG));
    decode.must(&format!("connect peer=old address={}", sender.address));
    decode.must(&session.grant("old", "kv", LONG));
    decode.must("await session=it layer=2");
    sender.kill();
    let at_once = format!("{over} bind={}", sender.address);
    let mut again = prefill("restarting-sender", 2, &at_once);
    assert_eq!((&again.id, again.address), (&sender.id, sender.address));

    let failure = decode.must_fail("await session=it");
    expect(&failure, "Receive", &sender, "PeerRestarted");
    decode.must(&format!("fill name=kv byte={POISON}"));
    stays_poisoned(&mut decode, "kv");
    let other = Session::new(2, 1, &mut random);
    let failure = decode.must_fail(&other.grant("old", "kv", LONG));
    expect(&failure, "Receive", &sender, "PeerRestarted");
    // The same room, in the sender's new life.
    Session::new(1, 2, &mut random).carry_out(&mut again, &mut decode, "kv");
}

fn nothing_meant_for_a_target_is_written_or_told_to_it_after_its_restart(over: &str) {
    let mut writer = writer("writer-to-restarting", over);
    let mut target = Worker::start("restarting-target", over);
    add(&mut writer, "old", &mut target);
    writer.must("notify peer=old from=1 to=3");
    target.stop();
    writer.must(&post("it", "old", "notify=4"));
    target.kill();
    let mut again = Worker::start("restarting-target", &format!("{over} bind={}", target.address));
    again.must(&format!("alloc name=target len={LARGE}"));

    let failure = writer.must_fail("wait id=it");
    expect(&failure, "Write", &target, "PeerRestarted");
    let failure = writer.must_fail(&post("again", "old", ""));
    expect(&failure, "Write", &target, "PeerRestarted");
    let failure = writer.must_fail("notify peer=old from=5 to=6");
    expect(&failure, "Notify", &target, "PeerRestarted");
    stays_poisoned(&mut again, "target");
    write_all(&mut writer, &mut again, "new");
    let told = again.must("notes count=1 quiet=200");
    assert_eq!(told.numbers::<u64>("seen"), [9]);
}

fn nothing_that_a_writer_left_on_the_way_lands_once_its_new_life_is_known(over: &str) {
    let mut old = writer("restarting-writer", over);
    let mut target = Worker::start("target-of-restarting", over);
    add(&mut old, "t", &mut target);
    old.must("notify peer=t from=1 to=3");
    target.stop();
    // Frames and notifications wait in the target's sockets, and outlive their sender there.
    old.must(&post("it", "t", "notify=4"));
    old.kill();
    let mut again = Worker::start("restarting-writer", &format!("{over} bind={}", old.address));
    again.must(&format!("alloc name=source len={LARGE} rights=none"));
    again.must("fill name=source seed=6");
    target.resume();
    let blob = target.must("blob names=target");
    again.must(&format!("add peer=t blob={}", blob.get("blob")));
    again.must("notify peer=t from=7 to=8");

    target.must(&format!("fill name=target byte={POISON}"));
    stays_poisoned(&mut target, "target");
    write_all(&mut again, &mut target, "t");
    let told = target.must("notes count=4 quiet=200");
    assert_eq!(told.numbers::<u64>("seen"), [1, 2, 7, 9]);
}

fn nothing_of_a_stopped_writer_lands_after_another_life_has_taken_its_place(over: &str) {
    let mut old = writer("superseded", over);
    let mut target = Worker::start("target-of-superseded", over);
    add(&mut old, "t", &mut target);
    old.must("notify peer=t from=1 to=2");
    target.stop();
    old.must(&post("it", "t", "notify=4"));
    old.stop();
    target.resume();
    let mut new = writer("superseded", over);
    let blob = target.must("blob names=target");
    new.must(&format!("add peer=t blob={}", blob.get("blob")));
    new.must("notify peer=t from=7 to=8");
    target.must(&format!("fill name=target byte={POISON}"));
    stays_poisoned(&mut target, "target");
    old.resume();
    stays_poisoned(&mut target, "target");
    // Its place is taken: what it had begun is over.
    let failure = old.must_fail("wait id=it");
    expect(&failure, "Write", &target, "");
    old.kill();
    let blob = target.must("blob names=target");
    new.must("remove peer=t");
    new.must(&format!("add peer=t blob={}", blob.get("blob")));
    write_all(&mut new, &mut target, "t");
    let told = target.must("notes count=3 quiet=200");
    assert_eq!(told.numbers::<u64>("seen"), [1, 7, 9]);
}

fn writer(name: &str, over: &str) -> Worker {
    let mut writer = Worker::start(name, over);
    writer.must(&format!("alloc name=source len={LARGE} rights=none"));
    writer.must("fill name=source seed=5");
    writer
}

/// Gives the target memory, and makes it a peer of the writer with lanes and an open region.
fn add(writer: &mut Worker, peer: &str, target: &mut Worker) {
    target.must(&format!("alloc name=target len={LARGE}"));
    let blob = target.must("blob names=target");
    writer.must(&format!("add peer={peer} blob={}", blob.get("blob")));
    writer.must(&format!("post id=first op=write peer={peer} name=source region=0 len=64"));
    writer.must("wait id=first");
}

fn post(id: &str, peer: &str, more: &str) -> String {
    format!(
        "post id={id} op=write peer={peer} name=source region=0 len={LARGE} runs=64 \
         deadline={LONG} {more}"
    )
}

/// Writes all of the source to the target, with notification 9, and looks for it there.
fn write_all(writer: &mut Worker, target: &mut Worker, peer: &str) {
    let blob = target.must("blob names=target");
    writer.must(&format!("add peer={peer} blob={}", blob.get("blob")));
    writer.must("fill name=source seed=8");
    writer.must(&post("all", peer, "notify=9"));
    writer.must("wait id=all");
    let found = target.must("check name=target seed=8");
    assert_eq!(found.verb, "ok", "{found:?}");
}

fn stays_poisoned(worker: &mut Worker, name: &str) {
    let watched = worker.must(&format!("watch name={name} byte={POISON} ms=1000"));
    assert_eq!(watched.verb, "ok", "{watched:?}");
}

fn expect(failure: &Failure, operation: &str, peer: &Worker, cause: &str) {
    assert_eq!(failure.operation, operation, "{failure:?}");
    assert_eq!(failure.peer.as_deref(), Some(peer.id.as_str()), "{failure:?}");
    assert!(failure.is_one_of(&[cause]), "{failure:?}");
}
