//! Roads that break: what was on its way goes on over the next connection, once, and nothing that
//! was ended lands with it.

use std::net::{Ipv4Addr, SocketAddr};

use kvx::config::Advertise;
use kvx::error::{Cause, Fence};
use kvx::{Config, Engine, PostOptions, Rights, Room, SessionKey, Span, TransferOp};
use kvx_workers::relay::{Fault, Kind, Relay, Way};

use crate::fabric::{Fabric, LONG, SOON};
use crate::layouts::{Pool, copy};
use crate::memory::{Memory, READ_WRITE, add, assert_same, pattern, prepare, span};

const LEN: u64 = 4 << 20;

pub(crate) fn transfers_go_on_over_the_next_connection(fabric: &dyn Fabric) {
    let (relay, a, b) = broken_pair(fabric);
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let sink = Memory::new(&a, LEN, Rights::empty());
    let (fixed, back) = (Memory::new(&b, LEN, READ_WRITE), Memory::new(&b, 8, READ_WRITE));
    let peer = add(&a, &b, &[&remote, &fixed, &back]);
    let pieces = |theirs| -> Vec<(Span, Span)> {
        (0..LEN / 1024)
            .map(|at| (span(0, at * 1024, 1000), span(theirs, at * 1024, 1000)))
            .collect()
    };
    let write = prepare(&peer, TransferOp::Write, &[&local], &pieces(0)).unwrap();
    let read = prepare(&peer, TransferOp::Read, &[&sink], &pieces(1)).unwrap();
    let expected = |source: &Memory, guards: &[u8]| {
        let mut bytes = guards.to_vec();
        let source = source.bytes();
        for at in (0..LEN as usize).step_by(1024) {
            bytes[at..at + 1000].copy_from_slice(&source[at..at + 1000]);
        }
        bytes
    };
    for round in 0..15_u32 {
        local.buffer.write(0, &pattern(LEN as usize)).unwrap();
        fixed.buffer.write(0, &pattern(LEN as usize)).unwrap();
        let (written, fetched) = (remote.bytes(), sink.bytes());
        let writing = write.post(PostOptions::new().notify(round.to_le_bytes().to_vec())).unwrap();
        let reading = read.post(PostOptions::new()).unwrap();
        let told = peer.notify(vec![0; 1000]);
        // At ever other moments of the transfers.
        (0..round * 200).for_each(|_| std::hint::spin_loop());
        relay.cut_all();
        writing.wait().unwrap();
        reading.wait().unwrap();
        told.wait().unwrap();
        assert_same(&remote.bytes(), &expected(&local, &written), "what was written");
        assert_same(&sink.bytes(), &expected(&fixed, &fetched), "what was read");
        let mut notes: Vec<_> = (0..2).map(|_| b.wait_notification(LONG).unwrap().bytes).collect();
        notes.sort_by_key(|note| note.len());
        assert_eq!((&notes[0][..], notes[1].len()), (&round.to_le_bytes()[..], 1000));
    }
    assert_eq!(b.poll_notification(), None, "a notification came twice");
}

pub(crate) fn sessions_go_on_over_the_next_connection(fabric: &dyn Fabric) {
    let (relay, a, b) = broken_pair(fabric);
    let (from, to) = (Pool::small(&a), Pool::small(&b));
    // The receiver dials; its way to the sender is whole, the way of lanes and control breaks.
    let back = Relay::new();
    back.serve(a.local_addr());
    let peer = b.connect(back.address).wait().unwrap();
    for room in 0..10 {
        let session = SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 };
        from.memory.iter().for_each(|memory| {
            memory.buffer.write(0, &pattern(memory.buffer.len() as usize)).unwrap();
        });
        let mut expected = to.bytes();
        copy((&from, &[3, 1, 2]), (&to, &[7, 0, 4]), &mut expected, 0..4, 40);
        let break_all = || {
            relay.cut_all();
            back.cut_all();
        };
        let receiver = peer.receiver(session, &to.pool, 40, &[7, 0, 4], None).unwrap();
        break_all();
        let sender = a.sender(session, &from.pool, None).unwrap();
        sender.granted().wait().unwrap();
        break_all();
        for layer in 0..4 {
            let write = sender.write(layer..layer + 1, &[3, 1, 2]).unwrap();
            if layer as u64 == room % 4 {
                break_all();
            }
            write.wait().unwrap();
        }
        let done = sender.finish("end");
        break_all();
        assert_eq!(&receiver.wait().unwrap().payload[..], b"end");
        to.assert_holds(&expected);
        assert_eq!(done.wait().unwrap().bytes, 40 * 2 * 16 * 2 * 2 * 4);
    }
}

pub(crate) fn a_peer_out_of_reach_fails_by_the_deadline_and_serves_when_back(fabric: &dyn Fabric) {
    // Nor does `b` reach `a` by itself.
    let nowhere = Relay::new();
    let (relay, a, b) = broken_pair_with(fabric, |config| nowhere.lead(config));
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let whole = [(span(0, 0, LEN), span(0, 0, LEN))];
    let write = prepare(&peer, TransferOp::Write, &[&local], &whole).unwrap();
    let read = prepare(&peer, TransferOp::Read, &[&local], &whole).unwrap();
    write.post(PostOptions::new()).unwrap().wait().unwrap();
    relay.down();
    for prepared in [&write, &read] {
        let transfer = prepared.post(PostOptions::new().deadline(SOON, None)).unwrap();
        let error = transfer.wait().unwrap_err();
        assert!(matches!(error.cause, Cause::Deadline { after: SOON, total: false }), "{error}");
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
        let transfer = prepared.post(PostOptions::new().deadline(LONG, Some(SOON))).unwrap();
        let error = transfer.wait().unwrap_err();
        assert!(matches!(error.cause, Cause::Deadline { after: SOON, total: true }), "{error}");
    }
    remote.poison();
    relay.serve(b.local_addr());
    // What has failed does not come after all.
    peer.notify("back").wait().unwrap();
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"back");
    let first = [(span(0, 0, 1), span(0, 0, 1))];
    let read_one = prepare(&peer, TransferOp::Read, &[&local], &first).unwrap();
    for _ in 0..8 {
        read_one.post(PostOptions::new()).unwrap().wait().unwrap();
    }
    remote.assert_poisoned();
    write.post(PostOptions::new()).unwrap().wait().unwrap();
    assert_same(&remote.bytes(), &local.bytes(), "what was written");
}

pub(crate) fn a_write_cancelled_while_the_road_breaks_is_fenced(fabric: &dyn Fabric) {
    let (relay, a, b) = broken_pair(fabric);
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let spare = Memory::new(&b, LEN, READ_WRITE);
    let peer = add(&a, &b, &[&remote, &spare]);
    let long: Vec<(Span, Span)> = vec![(span(0, 0, LEN), span(0, 0, LEN)); 64];
    let doomed = prepare(&peer, TransferOp::Write, &[&local], &long).unwrap();
    let other = prepare(&peer, TransferOp::Write, &[&local], &[(span(0, 0, LEN), span(1, 0, LEN))]);
    let other = other.unwrap();
    for round in 0..10 {
        let transfer = doomed.post(PostOptions::new()).unwrap();
        other.post(PostOptions::new()).unwrap().wait().unwrap();
        if round % 2 == 0 {
            relay.cut_all();
            transfer.cancel();
        } else {
            transfer.cancel();
            relay.cut_all();
        }
        if let Err(error) = transfer.wait() {
            assert!(matches!(error.cause, Cause::Cancelled(Fence::Fenced)), "{error}");
            remote.poison();
            for _ in 0..4 {
                other.post(PostOptions::new()).unwrap().wait().unwrap();
            }
            remote.assert_poisoned();
        }
    }
}

pub(crate) fn a_read_is_done_though_its_notification_finds_no_road(fabric: &dyn Fabric) {
    // Nobody is where this one says it is: the other cannot dial it, past the relay.
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let (relay, a, b) =
        broken_pair_with(fabric, |config| config.advertise([Advertise::Socket(nowhere)]));
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&b, LEN, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let read = prepare(&peer, TransferOp::Read, &[&local], &[(span(0, 0, LEN), span(0, 0, LEN))]);
    let read = read.unwrap();
    // Lanes and slots are there, so that nothing but the notification needs the control connection.
    read.post(PostOptions::new()).unwrap().wait().unwrap();
    for round in 0..5_u8 {
        remote.buffer.write(0, &pattern(LEN as usize)).unwrap();
        relay.arm(Kind::Control, Way::In, 0, Fault::Stall);
        read.post(PostOptions::new().notify([round].to_vec())).unwrap().wait().unwrap();
        assert_same(&local.bytes(), &remote.bytes(), "what was read");
        relay.wait_until_happened();
        assert_eq!(b.poll_notification(), None);
        // It comes by the next connection, or by this one when it goes on; once.
        if round % 2 == 0 {
            relay.cut_all()
        } else {
            relay.release()
        }
        assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], [round]);
    }
    peer.notify("last").wait().unwrap();
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"last");
    assert_eq!(b.poll_notification(), None);
}

/// `a` reaches `b` by a road that can be broken.
fn broken_pair(fabric: &dyn Fabric) -> (Relay, Engine, Engine) {
    broken_pair_with(fabric, |config| config)
}

fn broken_pair_with(
    fabric: &dyn Fabric,
    set: impl FnOnce(Config) -> Config,
) -> (Relay, Engine, Engine) {
    let relay = Relay::new();
    let a = fabric.engine_with("a", set);
    let b = fabric.engine_with("b", |config| relay.lead(config));
    relay.serve(b.local_addr());
    (relay, a, b)
}
