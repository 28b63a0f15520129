//! Sessions in numbers: rooms one after another leave nothing behind that the next would meet, and
//! rooms at the same time keep their blocks apart.

use kvx::{Engine, KvPool, Peer, Receiver, Room, Sender, SessionKey};

use crate::fabric::{Fabric, LONG};
use crate::layouts::{Pool, copy, of_blocks};
use crate::probe::Probe;

/// Tokens of a room: one block.
const TOKENS: u32 = 16;

pub(crate) fn ten_thousand_rooms_come_and_go_one_after_another(fabric: &dyn Fabric) {
    const ROOMS: u32 = 10_000;
    let (a, b) = fabric.pair();
    let (from, to) = (Pool::small(&a), Pool::small(&b));
    let peer = b.connect(a.local_addr()).wait().unwrap();
    for room in 0..ROOMS {
        let (block_from, block_to) = ([room % 8], [room / 8 % 8]);
        let checked = room % 64 == 0 || room + 1 == ROOMS;
        let mut expected = Vec::new();
        if checked {
            to.poison();
            expected = to.bytes();
        }
        let (sender, receiver) = open(&a, &from.pool, &peer, &to.pool, room, &block_to);
        sender.granted().wait().unwrap();
        sender.write(0..4, &block_from).unwrap().wait().unwrap();
        complete(sender, &receiver, room);
        if checked {
            copy((&from, &block_from), (&to, &block_to), &mut expected, 0..4, TOKENS);
            to.assert_holds(&expected);
        }
    }
    Probe::new(&a, &b).rounds(2);
}

pub(crate) fn a_thousand_rooms_are_open_at_once(fabric: &dyn Fabric) {
    const ROOMS: u32 = 1000;
    let (a, b) = fabric.pair();
    let layout = || of_blocks(ROOMS).build().unwrap();
    let (from, to) = (Pool::new(&a, layout()), Pool::new(&b, layout()));
    let peer = b.connect(a.local_addr()).wait().unwrap();
    let mut expected = to.bytes();
    // Prime to a thousand: each block is one room's.
    let block_to = |room: u32| room * 7 % ROOMS;
    let rooms: Vec<(Sender, Receiver)> = (0..ROOMS)
        .map(|room| open(&a, &from.pool, &peer, &to.pool, room, &[block_to(room)]))
        .collect();
    for (sender, _) in &rooms {
        sender.granted().wait().unwrap();
    }
    for layer in 0..4 {
        let writes: Vec<_> = rooms
            .iter()
            .zip(0..)
            .map(|((sender, _), room)| sender.write(layer..layer + 1, &[room]).unwrap())
            .collect();
        for write in writes {
            write.wait().unwrap();
        }
        rooms.iter().for_each(|(_, receiver)| receiver.layer(layer).wait().unwrap());
    }
    for ((sender, receiver), room) in rooms.into_iter().zip(0..) {
        complete(sender, &receiver, room);
    }
    let (all_from, all_to): (Vec<u32>, Vec<u32>) =
        (0..ROOMS).map(|room| (room, block_to(room))).unzip();
    copy((&from, &all_from), (&to, &all_to), &mut expected, 0..4, TOKENS * ROOMS);
    to.assert_holds(&expected);
    Probe::new(&a, &b).rounds(2);
}

fn open(
    a: &Engine,
    from: &KvPool,
    peer: &Peer,
    to: &KvPool,
    room: u32,
    blocks: &[u32],
) -> (Sender, Receiver) {
    let key = SessionKey { room: Room(room.into()), attempt: 0, sender_rank: 0, receiver_rank: 0 };
    let receiver = peer.receiver(key, to, TOKENS, blocks, Some(LONG)).unwrap();
    (a.sender(key, from, Some(LONG)).unwrap(), receiver)
}

/// Ends a session whose layers were written. Each has a payload of its own.
fn complete(sender: Sender, receiver: &Receiver, room: u32) {
    let payload = room.to_le_bytes();
    sender.finish(payload.to_vec()).wait().unwrap();
    assert_eq!(receiver.wait().unwrap().payload[..], payload);
}
