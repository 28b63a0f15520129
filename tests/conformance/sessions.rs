//! Sessions: the granted blocks get their bytes and nothing else does, whoever comes first and
//! however the layouts differ; and every way in which a session ends badly is told to both sides.

use kvx::error::{Cause, Error, Invalid, Operation, Side};
use kvx::layout::{Dtype, HeadWindow, LayoutBuilder, Order, Placement};
use kvx::{Engine, Peer, Receiver, Room, Sender, SessionKey};
use std::ops::Range;

use crate::fabric::{Fabric, LONG, SOON};
use crate::layouts::{Pool, copy, small};
use crate::memory::pattern;
use crate::probe::Probe;

pub(crate) fn a_receiver_that_comes_early_is_served(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let receiver = case.receiver(1);
    // The grant is there before its sender: control keeps its order.
    case.peer.notify("granted").wait().unwrap();
    let sender = case.sender(1);
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

pub(crate) fn a_sender_that_comes_early_is_served(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let sender = case.sender(1);
    assert!(sender.granted().poll().is_none());
    let receiver = case.receiver(1);
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

pub(crate) fn layers_arrive_in_any_order_and_in_groups(fabric: &dyn Fabric) {
    let orders: [&[Range<u32>]; 5] = [
        &[0..1, 1..2, 2..3, 3..4],
        &[3..4, 1..2, 0..1, 2..3],
        &[2..4, 0..2],
        std::slice::from_ref(&(0..4)),
        &[3..4, 0..3],
    ];
    for groups in orders {
        let case = Case::new(fabric);
        let mut expected = case.to.bytes();
        let (sender, receiver) = case.open(1);
        assert_eq!(receiver.layers(), 0..4);
        let mut arrived = 0;
        for group in groups.iter().cloned() {
            assert!(group.clone().all(|layer| !receiver.has_layer(layer)));
            sender.write(group.clone(), &BLOCKS_FROM).unwrap().wait().unwrap();
            group.clone().for_each(|layer| receiver.layer(layer).wait().unwrap());
            arrived += group.len() as u32;
            assert_eq!(receiver.arrived(), arrived);
            copy((&case.from, &BLOCKS_FROM), (&case.to, &BLOCKS_TO), &mut expected, group, TOKENS);
            case.to.assert_holds(&expected);
        }
        assert!(receiver.done().poll().is_none(), "complete before the sender has finished");
        case.complete(sender, receiver);
    }
}

pub(crate) fn block_sizes_orders_and_placements_may_differ(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let placements = [
        Placement::RegionPerPool,
        Placement::RegionPerLayer,
        Placement::RegionPerLayerInterleaved,
        Placement::OneRegion,
        Placement::OneRegionInterleaved,
    ];
    let shapes = [(16, Order::Nhd), (8, Order::Hnd), (24, Order::Nhd)];
    for (index, placement) in placements.into_iter().enumerate() {
        let (tokens_from, order_from) = shapes[index % 3];
        let (tokens_to, order_to) = shapes[(index + 1) % 3];
        let from = small().block_tokens(tokens_from).order(order_from).placement(placement);
        let to =
            small().block_tokens(tokens_to).order(order_to).placement(placements[(index + 2) % 5]);
        let (from, to) = (Pool::new(&a, from.build().unwrap()), Pool::new(&b, to.build().unwrap()));
        moves(&a, &b, (&from, &[6, 1, 4, 0, 2, 7]), (&to, &[5, 0, 7, 2, 1, 3]), 45);
    }
}

pub(crate) fn tensor_parallel_windows_may_differ(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let layout = |(first, count), order, first_layer| {
        let heads = HeadWindow { first, count, total: 8 };
        LayoutBuilder::key_value(3, 6, heads, 24, Dtype::Fp16)
            .order(order)
            .first_layer(first_layer)
            .build()
            .unwrap()
    };
    let windows = [((0, 8), (2, 2)), ((4, 4), (0, 8)), ((0, 4), (2, 4)), ((3, 1), (3, 1))];
    for (index, (window_from, window_to)) in windows.into_iter().enumerate() {
        let orders = [Order::Nhd, Order::Hnd];
        // Pipeline stages may be cut differently as well: layers 0..3 against 1..4.
        let from = Pool::new(&a, layout(window_from, orders[index % 2], 0));
        let to = Pool::new(&b, layout(window_to, orders[index / 2], index as u32 % 2));
        moves(&a, &b, (&from, &[5, 3, 1]), (&to, &[0, 4, 2]), 41);
    }
}

pub(crate) fn a_latent_cache_moves(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let latent = |block_tokens| {
        let layout = LayoutBuilder::latent(3, 5, 72, Dtype::Bf16).block_tokens(block_tokens);
        layout.build().unwrap()
    };
    let (from, to) = (Pool::new(&a, latent(16)), Pool::new(&b, latent(64)));
    moves(&a, &b, (&from, &[4, 0, 2, 1]), (&to, &[3]), 59);
}

pub(crate) fn a_payload_arrives_empty_or_as_long_as_allowed(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for (room, len) in [(1, 0), (2, 1), (3, 256 << 10)] {
        let (sender, receiver) = case.open(room);
        sender.write(0..4, &BLOCKS_FROM).unwrap().wait().unwrap();
        let payload = pattern(len);
        sender.finish(payload.clone()).wait().unwrap();
        assert!(receiver.wait().unwrap().payload == payload);
    }
}

pub(crate) fn a_payload_too_long_fails_both_sides(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (sender, receiver) = case.open(1);
    sender.write(0..4, &BLOCKS_FROM).unwrap().wait().unwrap();
    let error = sender.finish(vec![0; (256 << 10) + 1]).wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::Field { .. })), "{error}");
    case.assert_send_error(&error);
    let error = receiver.wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Aborted { by: Side::Sender, .. }), "{error}");
    case.assert_receive_error(&error);
    case.still_serves();
}

pub(crate) fn a_finish_without_a_write_completes(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let before = case.to.bytes();
    let (sender, receiver) = case.open(1);
    let sent = sender.finish("nothing").wait().unwrap();
    assert_eq!((sent.bytes, sent.runs), (0, 0));
    assert_eq!(&receiver.wait().unwrap().payload[..], b"nothing");
    assert_eq!(receiver.arrived(), 0);
    case.to.assert_holds(&before);
}

pub(crate) fn many_sessions_run_side_by_side(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let layout = || small().build().unwrap();
    let peer = b.connect(a.local_addr()).wait().unwrap();
    let pools: Vec<(Pool, Pool)> =
        (0..16).map(|_| (Pool::new(&a, layout()), Pool::new(&b, layout()))).collect();
    std::thread::scope(|scope| {
        for (room, (from, to)) in pools.iter().enumerate() {
            let (a, peer) = (&a, &peer);
            scope.spawn(move || {
                let mut expected = to.bytes();
                copy((from, &BLOCKS_FROM), (to, &BLOCKS_TO), &mut expected, 0..4, TOKENS);
                let session = key(room as u64, 0);
                // Half of the receivers come first.
                let receive =
                    || peer.receiver(session, &to.pool, TOKENS, &BLOCKS_TO, None).unwrap();
                let send = || a.sender(session, &from.pool, None).unwrap();
                let (sender, receiver) = if room % 2 == 0 {
                    let receiver = receive();
                    (send(), receiver)
                } else {
                    (send(), receive())
                };
                sender.granted().wait().unwrap();
                let writes: Vec<_> =
                    (0..4).map(|layer| sender.write(layer..layer + 1, &BLOCKS_FROM)).collect();
                let payload = vec![room as u8];
                let done = sender.finish(payload.clone());
                assert!(receiver.wait().unwrap().payload == payload);
                to.assert_holds(&expected);
                done.wait().unwrap();
                writes.into_iter().for_each(|write| assert!(write.unwrap().wait().is_ok()));
            });
        }
    });
}

pub(crate) fn an_abort_by_the_receiver_reaches_the_sender(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (sender, receiver) = case.open(1);
    sender.write(0..1, &BLOCKS_FROM).unwrap().wait().unwrap();
    let done = receiver.done();
    receiver.abort("no need");
    let told = done.wait().unwrap_err();
    case.assert_receive_error(&told);
    assert_aborted(&told, Side::Receiver, "no need");
    let error = case.until_write_fails(&sender);
    case.assert_send_error(&error);
    assert_aborted(&error, Side::Receiver, "no need");
    let error = sender.finish("").wait().unwrap_err();
    assert_aborted(&error, Side::Receiver, "no need");
    case.still_serves();
}

pub(crate) fn an_abort_by_the_sender_reaches_the_receiver(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (sender, receiver) = case.open(1);
    sender.write(0..1, &BLOCKS_FROM).unwrap().wait().unwrap();
    let layer = receiver.layer(3);
    sender.abort("the prompt was withdrawn");
    for error in [receiver.wait().unwrap_err(), layer.wait().unwrap_err()] {
        case.assert_receive_error(&error);
        assert_aborted(&error, Side::Sender, "the prompt was withdrawn");
    }
    assert!(receiver.layer(2).wait().is_err());
    case.still_serves();
}

pub(crate) fn a_dropped_receiver_aborts(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (sender, receiver) = case.open(1);
    drop(receiver);
    let error = case.until_write_fails(&sender);
    case.assert_send_error(&error);
    assert_aborted(&error, Side::Receiver, "the receiver was dropped");
    // A grant that nobody has taken up goes as well: its session can be opened anew.
    let early = case.receiver(2);
    case.peer.notify("granted").wait().unwrap();
    drop(early);
    case.peer.notify("withdrawn").wait().unwrap();
    let receiver = case.receiver(2);
    let sender = case.sender(2);
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

pub(crate) fn a_dropped_sender_aborts(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (sender, receiver) = case.open(1);
    drop(sender);
    let error = receiver.wait().unwrap_err();
    case.assert_receive_error(&error);
    assert_aborted(&error, Side::Sender, "the sender was dropped");
    // One that waited for its receiver leaves its session free.
    drop(case.sender(2));
    let (sender, receiver) = case.open(2);
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

pub(crate) fn a_sender_without_a_receiver_ends_by_its_deadline(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let sender = case.a.sender(key(1, 0), &case.from.pool, Some(SOON)).unwrap();
    let error = sender.granted().wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { after: SOON, .. }), "{error}");
    assert_eq!(error.operation, Operation::Send);
    assert!(sender.write(0..1, &BLOCKS_FROM).is_err());
    // Its session is free.
    let (sender, receiver) = case.open(1);
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

pub(crate) fn a_receiver_without_a_sender_ends_by_its_deadline(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let receiver =
        case.peer.receiver(key(1, 0), &case.to.pool, TOKENS, &BLOCKS_TO, Some(SOON)).unwrap();
    let error = receiver.wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { after: SOON, .. }), "{error}");
    case.assert_receive_error(&error);
    case.peer.notify("withdrawn").wait().unwrap();
    let (sender, receiver) = case.open(1);
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

pub(crate) fn a_receiver_whose_sender_falls_silent_ends_by_its_deadline(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let receiver =
        case.peer.receiver(key(1, 0), &case.to.pool, TOKENS, &BLOCKS_TO, Some(SOON)).unwrap();
    let sender = case.sender(1);
    sender.granted().wait().unwrap();
    sender.write(0..2, &BLOCKS_FROM).unwrap().wait().unwrap();
    let error = receiver.wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { after: SOON, .. }), "{error}");
    assert_eq!(receiver.arrived(), 2);
    let error = case.until_write_fails(&sender);
    assert!(matches!(error.cause, Cause::Aborted { by: Side::Receiver, .. }), "{error}");
    case.still_serves();
}

pub(crate) fn a_second_sender_of_a_session_is_refused(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let first = case.sender(1);
    let error = case.a.sender(key(1, 0), &case.from.pool, None).unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::Field { .. })), "{error}");
    let receiver = case.receiver(1);
    let error = case.a.sender(key(1, 0), &case.from.pool, None).unwrap_err();
    assert_eq!(error.operation, Operation::Send);
    case.run(&first, &receiver);
    case.complete(first, receiver);
}

pub(crate) fn a_second_receiver_of_a_session_is_refused(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let (sender, first) = case.open(1);
    let second = case.receiver(1);
    let error = second.wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Aborted { by: Side::Sender, .. }), "{error}");
    case.run(&sender, &first);
    case.complete(sender, first);
    // The same while both wait for their sender.
    let first = case.receiver(2);
    let error = case.receiver(2).wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Aborted { by: Side::Sender, .. }), "{error}");
    let sender = case.sender(2);
    case.run(&sender, &first);
    case.complete(sender, first);
}

pub(crate) fn a_second_receiver_that_ends_at_once_takes_nothing_from_the_first(
    fabric: &dyn Fabric,
) {
    let case = Case::new(fabric);
    for room in 0..20 {
        let first = case.receiver(room);
        // Its word and the refusal cross, or do not.
        drop(case.receiver(room));
        case.peer.notify("there and gone").wait().unwrap();
        let sender = case.sender(room);
        case.run(&sender, &first);
        case.complete(sender, first);
    }
}

pub(crate) fn a_pool_of_another_engine_is_refused(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let error = case.a.sender(key(1, 0), &case.to.pool, None).unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::UnknownRegion)), "{error}");
    let refused = case.peer.receiver(key(1, 0), &case.from.pool, TOKENS, &BLOCKS_TO, None);
    let error = refused.unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::UnknownRegion)), "{error}");
    case.still_serves();
}

pub(crate) fn a_room_is_tried_again_under_the_next_attempt(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let mut attempts = Vec::new();
    for attempt in 0..3 {
        let receiver =
            case.peer.receiver(key(1, attempt), &case.to.pool, TOKENS, &BLOCKS_TO, None).unwrap();
        let sender = case.a.sender(key(1, attempt), &case.from.pool, None).unwrap();
        sender.granted().wait().unwrap();
        sender.write(0..1, &BLOCKS_FROM).unwrap().wait().unwrap();
        if attempt < 2 {
            receiver.abort("again");
            // The sender of the old attempt is still there when the new one begins.
            attempts.push(sender);
        } else {
            case.run_layers(&sender, &receiver, 1..4);
            case.complete(sender, receiver);
        }
    }
    for sender in attempts {
        assert_aborted(&case.until_write_fails(&sender), Side::Receiver, "again");
    }
}

pub(crate) fn layouts_that_share_nothing_fail_both_sides(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let heads = |first| HeadWindow { first, count: 1, total: 2 };
    let layout =
        |first, dtype| LayoutBuilder::key_value(2, 4, heads(first), 16, dtype).build().unwrap();
    let from = Pool::new(&a, layout(0, Dtype::Bf16));
    let peer = b.connect(a.local_addr()).wait().unwrap();
    for (room, to) in [layout(1, Dtype::Bf16), layout(0, Dtype::Fp8)].into_iter().enumerate() {
        let to = Pool::new(&b, to);
        let session = key(room as u64, 0);
        let sender = a.sender(session, &from.pool, None).unwrap();
        let receiver = peer.receiver(session, &to.pool, 16, &[0], None).unwrap();
        let error = sender.granted().wait().unwrap_err();
        assert!(matches!(error.cause, Cause::Invalid(_)), "{error}");
        assert_eq!(error.operation, Operation::Send);
        assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
        let error = receiver.wait().unwrap_err();
        assert!(matches!(error.cause, Cause::Aborted { by: Side::Sender, .. }), "{error}");
    }
}

pub(crate) fn a_write_before_the_grant_is_an_error(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let sender = case.sender(1);
    let error = sender.write(0..1, &BLOCKS_FROM).unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::Field { .. })), "{error}");
    let receiver = case.receiver(1);
    sender.granted().wait().unwrap();
    // Layers and blocks that there are not, too few blocks, a block twice at the receiver.
    assert!(sender.write(0..5, &BLOCKS_FROM).is_err());
    assert!(sender.write(4..5, &BLOCKS_FROM).is_err());
    assert!(sender.write(1..1, &BLOCKS_FROM).is_err());
    assert!(sender.write(0..1, &[0, 1, 8]).is_err());
    assert!(sender.write(0..1, &[0, 1]).is_err());
    for blocks in [&[0, 0, 1][..], &[0, 1], &[0, 1, 8]] {
        let error = case.peer.receiver(key(9, 0), &case.to.pool, TOKENS, blocks, None).unwrap_err();
        assert!(matches!(error.cause, Cause::Invalid(_)), "{error}");
    }
    assert!(case.peer.receiver(key(9, 0), &case.to.pool, 0, &BLOCKS_TO, None).is_err());
    // None of that has harmed the session.
    case.run(&sender, &receiver);
    case.complete(sender, receiver);
}

const TOKENS: u32 = 39;
const BLOCKS_FROM: [u32; 3] = [7, 0, 3];
const BLOCKS_TO: [u32; 3] = [2, 6, 1];

fn key(room: u64, attempt: u32) -> SessionKey {
    SessionKey { room: Room(room), attempt, sender_rank: 0, receiver_rank: 0 }
}

#[track_caller]
fn assert_aborted(error: &Error, side: Side, words: &str) {
    match &error.cause {
        Cause::Aborted { by, reason } => assert_eq!((*by, &**reason), (side, words)),
        _ => panic!("{error}"),
    }
}

/// One session from `a` to `b`, layer by layer; all memory is compared with the naive copy.
#[track_caller]
fn moves(
    a: &Engine,
    b: &Engine,
    (from, from_blocks): (&Pool, &[u32]),
    (to, to_blocks): (&Pool, &[u32]),
    tokens: u32,
) {
    let peer = b.connect(a.local_addr()).wait().unwrap();
    let before = from.bytes();
    let mut expected = to.bytes();
    let receiver = peer.receiver(key(1, 0), &to.pool, tokens, to_blocks, None).unwrap();
    let sender = a.sender(key(1, 0), &from.pool, None).unwrap();
    let granted = sender.granted().wait().unwrap();
    assert_eq!((granted.tokens, &granted.layout), (tokens, to.layout()));
    for layer in granted.layers.clone() {
        let _detached = sender.write(layer..layer + 1, from_blocks).unwrap();
        receiver.layer(layer).wait().unwrap();
    }
    copy((from, from_blocks), (to, to_blocks), &mut expected, granted.layers, tokens);
    let sent = sender.finish("end").wait().unwrap();
    assert!(sent.bytes > 0);
    receiver.wait().unwrap();
    to.assert_holds(&expected);
    from.assert_holds(&before);
}

/// A sending engine and a receiving one, with a small pool each.
struct Case {
    a: Engine,
    b: Engine,
    from: Pool,
    to: Pool,
    /// `a`, as `b` knows it.
    peer: Peer,
}

impl Case {
    fn new(fabric: &dyn Fabric) -> Self {
        let (a, b) = fabric.pair();
        let (from, to) = (Pool::small(&a), Pool::small(&b));
        let peer = b.connect(a.local_addr()).wait().unwrap();
        Self { a, b, from, to, peer }
    }

    fn sender(&self, room: u64) -> Sender {
        self.a.sender(key(room, 0), &self.from.pool, Some(LONG)).unwrap()
    }

    fn receiver(&self, room: u64) -> Receiver {
        self.peer.receiver(key(room, 0), &self.to.pool, TOKENS, &BLOCKS_TO, Some(LONG)).unwrap()
    }

    fn open(&self, room: u64) -> (Sender, Receiver) {
        let (receiver, sender) = (self.receiver(room), self.sender(room));
        sender.granted().wait().unwrap();
        (sender, receiver)
    }

    fn run(&self, sender: &Sender, receiver: &Receiver) {
        let granted = sender.granted().wait().unwrap();
        assert_eq!((granted.tokens, granted.layers), (TOKENS, 0..4));
        self.run_layers(sender, receiver, 0..4);
    }

    fn run_layers(&self, sender: &Sender, receiver: &Receiver, layers: std::ops::Range<u32>) {
        for layer in layers {
            sender.write(layer..layer + 1, &BLOCKS_FROM).unwrap().wait().unwrap();
            receiver.layer(layer).wait().unwrap();
        }
    }

    /// All layers were written: ends the session and compares the pool.
    #[track_caller]
    fn complete(&self, sender: Sender, receiver: Receiver) {
        // Two heads of 16 elements of 2 bytes, K and V, four layers.
        const BYTES: u64 = TOKENS as u64 * 2 * 16 * 2 * 2 * 4;
        assert_eq!(sender.finish("payload").wait().unwrap().bytes, BYTES);
        assert_eq!(&receiver.wait().unwrap().payload[..], b"payload");
        assert_eq!(receiver.arrived(), 4);
        let mut expected = self.to.bytes();
        let layers = 0..4;
        copy((&self.from, &BLOCKS_FROM), (&self.to, &BLOCKS_TO), &mut expected, layers, TOKENS);
        self.to.assert_holds(&expected);
    }

    /// The other side's abort is on its way: sooner or later no layer can be written.
    fn until_write_fails(&self, sender: &Sender) -> Error {
        loop {
            match sender.write(1..2, &BLOCKS_FROM).and_then(|write| write.wait()) {
                Ok(_) => {}
                Err(error) if matches!(error.cause, Cause::Refused(_)) => {
                    // The blocks' owner was faster with its refusal than with its word.
                    return sender.write(1..2, &BLOCKS_FROM).unwrap_err();
                }
                Err(error) => return error,
            }
        }
    }

    fn still_serves(&self) {
        Probe::new(&self.a, &self.b).rounds(2);
        let (sender, receiver) = self.open(99);
        self.run(&sender, &receiver);
        self.complete(sender, receiver);
    }

    #[track_caller]
    fn assert_send_error(&self, error: &Error) {
        assert_eq!(error.operation, Operation::Send, "{error}");
        assert_eq!(error.peer.as_ref().and_then(|peer| peer.id()), Some(self.b.id()), "{error}");
    }

    #[track_caller]
    fn assert_receive_error(&self, error: &Error) {
        assert_eq!(error.operation, Operation::Receive, "{error}");
        assert_eq!(error.peer.as_ref().and_then(|peer| peer.id()), Some(self.a.id()), "{error}");
    }
}
