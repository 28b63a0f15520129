//! WRITE and READ of every shape: each byte in its place, and none beside it.

use std::num::NonZeroU16;
use std::sync::Barrier;

use kvx::error::{Cause, Invalid};
use kvx::{CallerMemory, PostOptions, Region, Rights, Span, Spans, TransferOp};

use crate::fabric::{Fabric, LONG};
use crate::memory::{
    Memory, Model, READ_WRITE, add, assert_same, ids, pattern, prepare, span, transfer_and_check,
};

const BOTH: [TransferOp; 2] = [TransferOp::Write, TransferOp::Read];

pub(crate) fn one_byte_and_nothing_beside_it_moves(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) = (Memory::new(&a, 64, Rights::empty()), Memory::new(&b, 64, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    for op in BOTH {
        for (ours, theirs) in [(0, 0), (63, 0), (0, 63), (31, 32)] {
            let pairs = [(span(0, ours, 1), span(0, theirs, 1))];
            transfer_and_check(&peer, op, &[&local], &[&remote], &pairs);
        }
    }
}

pub(crate) fn a_span_of_64_mib_moves_whole_over_one_lane_and_over_four(fabric: &dyn Fabric) {
    const LEN: u64 = 64 << 20;
    const GUARD: u64 = 4099;
    for lanes in [1, 4] {
        let lanes = NonZeroU16::new(lanes).unwrap();
        let a = fabric.engine_with("a", |config| config.lanes(lanes));
        let b = fabric.engine_with("b", |config| config.lanes(lanes));
        let local = Memory::new(&a, LEN, Rights::empty());
        let remote = Memory::new(&b, LEN + 2 * GUARD, READ_WRITE);
        let peer = add(&a, &b, &[&remote]);
        let pairs = [(span(0, 0, LEN), span(0, GUARD, LEN))];
        let source = local.bytes();
        let mut expected = remote.bytes();
        expected[GUARD as usize..][..LEN as usize].copy_from_slice(&source);
        let write = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
        assert_eq!(write.post(PostOptions::new()).unwrap().wait().unwrap().bytes, LEN);
        assert_same(&remote.bytes(), &expected, "what was written");
        local.poison();
        let read = prepare(&peer, TransferOp::Read, &[&local], &pairs).unwrap();
        assert_eq!(read.post(PostOptions::new()).unwrap().wait().unwrap().bytes, LEN);
        assert_same(&local.bytes(), &source, "what was read back");
    }
}

pub(crate) fn a_million_scattered_spans_move_to_their_places(fabric: &dyn Fabric) {
    const SPANS: u64 = 1_000_000;
    let (a, b) = fabric.pair();
    // Each span has a cell of its own of 32 bytes, at both ends of which something else lies.
    let local = Memory::new(&a, SPANS * 32, Rights::empty());
    let remote = Memory::new(&b, SPANS * 32, READ_WRITE);
    let peer = add(&a, &b, &[&remote]);
    let pairs: Vec<(Span, Span)> = (0..SPANS)
        .map(|index| {
            // 7,919 is prime and divides nothing here: every cell is met once, in no good order.
            let (len, place) = (1 + index % 29, index * 7919 % SPANS);
            (span(0, index * 32 + index % 3, len), span(0, place * 32 + index % 2, len))
        })
        .collect();
    // No two lie side by side, so that none can be merged.
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
    assert_eq!(prepared.runs() as u64, SPANS);
    for op in BOTH {
        transfer_and_check(&peer, op, &[&local], &[&remote], &pairs);
    }
}

pub(crate) fn spans_move_at_every_alignment(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let local = Memory::new(&a, 1 << 16, Rights::empty());
    let remote = Memory::new(&b, 1 << 16, READ_WRITE);
    let peer = add(&a, &b, &[&remote]);
    let mut pairs = Vec::new();
    for ours in 0..9 {
        for theirs in 0..9 {
            for len in [1, 7, 8, 9, 63, 64, 65] {
                let cell = pairs.len() as u64 * 96;
                pairs.push((span(0, cell + ours, len), span(0, cell + theirs, len)));
            }
        }
    }
    for op in BOTH {
        transfer_and_check(&peer, op, &[&local], &[&remote], &pairs);
    }
}

pub(crate) fn spans_move_between_many_regions(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let local: Vec<Memory> =
        (0..50).map(|index| Memory::new(&a, 4000 + index, Rights::empty())).collect();
    let remote: Vec<Memory> =
        (0..70).map(|index| Memory::new(&b, 4000 + index, READ_WRITE)).collect();
    let (local, remote): (Vec<_>, Vec<_>) = (local.iter().collect(), remote.iter().collect());
    let peer = add(&a, &b, &remote);
    let pairs: Vec<(Span, Span)> = (0..700)
        .map(|index| {
            let (ours, theirs) = (index * 13 % 50, index % 70);
            // Ten spans a remote region, seven times two local ones: apart on both sides.
            let (ours_at, theirs_at) = (u64::from(index / 50) * 250, u64::from(index / 70) * 399);
            (span(ours, ours_at, 249), span(theirs, theirs_at, 249))
        })
        .collect();
    for op in BOTH {
        transfer_and_check(&peer, op, &local, &remote, &pairs);
    }
}

pub(crate) fn overlapping_sources_move_to_each_of_their_targets(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let local = Memory::new(&a, 64 << 10, READ_WRITE);
    let remote = Memory::new(&b, 64 << 10, READ_WRITE);
    let peer = add(&a, &b, &[&remote]);
    let overlapping: Vec<(Span, Span)> =
        (0..64).map(|index| (span(0, index * 3, 1000), span(0, index * 1001, 1000))).collect();
    transfer_and_check(&peer, TransferOp::Write, &[&local], &[&remote], &overlapping);
    let reversed: Vec<(Span, Span)> = overlapping.iter().map(|pair| (pair.1, pair.0)).collect();
    transfer_and_check(&peer, TransferOp::Read, &[&local], &[&remote], &reversed);
}

pub(crate) fn a_transfer_of_nothing_is_done_at_once(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) = (Memory::new(&a, 64, Rights::empty()), Memory::new(&b, 64, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let model = Model::of(&[&local], &[&remote]);
    let empty_spans = [(span(0, 3, 0), span(0, 64, 0))];
    for pairs in [&[][..], &empty_spans] {
        for op in BOTH {
            let prepared = prepare(&peer, op, &[&local], pairs).unwrap();
            assert_eq!((prepared.bytes(), prepared.runs()), (0, 0));
            let outcome = prepared.post(PostOptions::new()).unwrap().poll();
            assert_eq!(outcome.expect("done at once").unwrap().bytes, 0);
        }
    }
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &[]).unwrap();
    prepared.post(PostOptions::new().notify("nothing")).unwrap().wait().unwrap();
    assert_eq!(&b.wait_notification(LONG).unwrap().bytes[..], b"nothing");
    model.check(&[&local], &[&remote]);
}

pub(crate) fn both_directions_move_at_once(fabric: &dyn Fabric) {
    const LEN: u64 = 4 << 20;
    let (a, b) = fabric.pair();
    let memory =
        |engine| -> Vec<Memory> { (0..4).map(|_| Memory::new(engine, LEN, READ_WRITE)).collect() };
    let (of_a, of_b) = (memory(&a), memory(&b));
    let (of_a, of_b): (Vec<_>, Vec<_>) = (of_a.iter().collect(), of_b.iter().collect());
    let (to_b, to_a) = (add(&a, &b, &of_b), add(&b, &a, &of_a));
    let whole = |ours, theirs| [(span(ours, 0, LEN), span(theirs, 0, LEN))];
    let begin = Barrier::new(4);
    let (before_a, before_b) = (Model::of(&of_a, &of_b), Model::of(&of_b, &of_a));
    let mut model_a = before_a;
    // Each of the four moves has memory of its own.
    model_a.copy(TransferOp::Write, &whole(0, 0));
    model_a.copy(TransferOp::Read, &whole(1, 1));
    drop(before_b);
    model_a.copy(TransferOp::Read, &whole(2, 2));
    model_a.copy(TransferOp::Write, &whole(3, 3));
    std::thread::scope(|scope| {
        let jobs = [
            (&to_b, &of_a, TransferOp::Write, 0),
            (&to_b, &of_a, TransferOp::Read, 1),
            (&to_a, &of_b, TransferOp::Write, 2),
            (&to_a, &of_b, TransferOp::Read, 3),
        ];
        for (peer, local, op, index) in jobs {
            let begin = &begin;
            let pairs = whole(index, index);
            scope.spawn(move || {
                let prepared = prepare(peer, op, local, &pairs).unwrap();
                begin.wait();
                prepared.post(PostOptions::new()).unwrap().wait().unwrap();
            });
        }
    });
    model_a.check(&of_a, &of_b);
}

pub(crate) fn many_threads_post_many_transfers_at_once(fabric: &dyn Fabric) {
    const THREADS: u64 = 8;
    const TRANSFERS: u64 = 50;
    const LEN: u64 = 3000;
    let (a, b) = fabric.pair();
    let len = THREADS * TRANSFERS * LEN;
    let (local, remote) = (Memory::new(&a, len, Rights::empty()), Memory::new(&b, len, READ_WRITE));
    let sink = Memory::new(&a, len, Rights::empty());
    let peer = add(&a, &b, &[&remote]);
    let begin = Barrier::new(THREADS as usize);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (peer, local, sink, begin) = (&peer, &local, &sink, &begin);
            scope.spawn(move || {
                begin.wait();
                let place = |index| span(0, (index * THREADS + thread) * LEN, LEN);
                let post = |op, memory: &Memory, index| {
                    let pairs = [(place(index), place(index))];
                    prepare(peer, op, &[memory], &pairs).unwrap().post(PostOptions::new()).unwrap()
                };
                let writes: Vec<_> =
                    (0..TRANSFERS).map(|index| post(TransferOp::Write, local, index)).collect();
                for (index, write) in (0..TRANSFERS).zip(writes) {
                    write.wait().unwrap();
                    post(TransferOp::Read, sink, index).wait().unwrap();
                }
            });
        }
    });
    assert_same(&remote.bytes(), &local.bytes(), "what was written");
    assert_same(&sink.bytes(), &local.bytes(), "what was read back");
}

pub(crate) fn a_prepared_transfer_moves_what_is_there_at_each_post(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let local = Memory::new(&a, 100_000, Rights::empty());
    let remote = Memory::new(&b, 100_000, READ_WRITE);
    let peer = add(&a, &b, &[&remote]);
    let pairs = [(span(0, 10, 90_000), span(0, 1000, 90_000)), (span(0, 0, 9), span(0, 7, 9))];
    let prepared = prepare(&peer, TransferOp::Write, &[&local], &pairs).unwrap();
    for _ in 0..50 {
        local.buffer.write(0, &pattern(100_000)).unwrap();
        let mut model = Model::of(&[&local], &[&remote]);
        model.copy(TransferOp::Write, &pairs);
        prepared.post(PostOptions::new()).unwrap().wait().unwrap();
        model.check(&[&local], &[&remote]);
    }
    // Several posts of it at once are as many transfers.
    let posts: Vec<_> = (0..20).map(|_| prepared.post(PostOptions::new()).unwrap()).collect();
    for post in posts {
        assert_eq!(post.wait().unwrap().bytes, 90_009);
    }
}

pub(crate) fn selected_spans_move_as_their_indices_pair_them(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let local = Memory::new(&a, 64 << 10, Rights::empty());
    let remote = Memory::new(&b, 64 << 10, READ_WRITE);
    let peer = add(&a, &b, &[&remote]);
    let all: Spans = (0..64).map(|index| span(0, index * 1000 + 5, 900)).collect();
    let regions: [&Region; 1] = [&local.region];
    for round in 0..10_u32 {
        let ours: Vec<u32> = (0..40).map(|index| (index * 5 + round) % 64).collect();
        let theirs: Vec<u32> = (0..40).map(|index| (index * 3 + 2 * round) % 64).collect();
        let pairs: Vec<(Span, Span)> = ours
            .iter()
            .zip(&theirs)
            .map(|(ours, theirs)| (all.get(*ours as usize), all.get(*theirs as usize)))
            .collect();
        let op = BOTH[round as usize % 2];
        // A READ into one place from two would leave open which stays: 5 and 3 are prime to 64.
        let mut model = Model::of(&[&local], &[&remote]);
        model.copy(op, &pairs);
        let prepared = peer
            .prepare_selected(op, (&regions, &all, &ours), (&ids(&peer), &all, &theirs))
            .unwrap();
        prepared.post(PostOptions::new()).unwrap().wait().unwrap();
        model.check(&[&local], &[&remote]);
    }
    let beyond = peer.prepare_selected(
        TransferOp::Write,
        (&regions, &all, &[64]),
        (&ids(&peer), &all, &[0]),
    );
    let error = beyond.unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::Index { index: 64, .. })), "{error}");
}

pub(crate) fn spans_that_do_not_fit_are_refused_before_anything_moves(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let (local, remote) = (Memory::new(&a, 100, Rights::empty()), Memory::new(&b, 100, READ_WRITE));
    let peer = add(&a, &b, &[&remote]);
    let bad = [
        (span(0, 0, 101), span(0, 0, 101)),
        (span(0, 50, 50), span(0, 51, 50)),
        (span(0, 51, 50), span(0, 50, 50)),
        (span(0, u64::MAX, 1), span(0, 0, 1)),
        (span(0, 0, 1), span(0, u64::MAX, 1)),
        (span(0, 0, u64::MAX), span(0, 1, u64::MAX)),
        (span(0, 0, 10), span(0, 0, 9)),
        (span(1, 0, 1), span(0, 0, 1)),
        (span(0, 0, 1), span(1, 0, 1)),
        (span(u32::MAX, 0, 1), span(u32::MAX, 0, 1)),
    ];
    for op in BOTH {
        for pair in bad {
            let error = prepare(&peer, op, &[&local], &[pair]).unwrap_err();
            assert!(matches!(error.cause, Cause::Invalid(_)), "{pair:?}: {error}");
            assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
        }
    }
    let foreign = prepare(&peer, TransferOp::Write, &[&remote], &[(span(0, 0, 1), span(0, 0, 1))]);
    let error = foreign.unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::UnknownRegion)), "{error}");
}

pub(crate) fn a_transfer_to_oneself_is_a_copy(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let local = Memory::new(&a, 300_000, Rights::empty());
    let remote = Memory::new(&a, 300_000, READ_WRITE);
    let myself = a.myself();
    let position = myself.regions().iter().position(|region| region.id == remote.region.id());
    let index = position.unwrap() as u32;
    let both =
        [(span(0, 5, 200_000), span(index, 70_000, 200_000)), (span(0, 1, 3), span(index, 9, 3))];
    for op in BOTH {
        let mut model = Model::of(&[&local], &[&remote]);
        model.copy(op, &both.map(|(ours, theirs)| (ours, Span { region: 0, ..theirs })));
        let prepared = prepare(&myself, op, &[&local], &both).unwrap();
        prepared.post(PostOptions::new()).unwrap().wait().unwrap();
        model.check(&[&local], &[&remote]);
    }
    for op in [TransferOp::Read, TransferOp::Write] {
        let prepared = prepare(&myself, op, &[&local], &both).unwrap();
        prepared.post(PostOptions::new().notify("to myself")).unwrap().wait().unwrap();
        let note = a.wait_notification(LONG).unwrap();
        assert_eq!((&note.bytes[..], note.engine()), (&b"to myself"[..], Some(a.id())));
    }
    let prepared = prepare(&myself, TransferOp::Write, &[&local], &both).unwrap();
    // Rights hold for oneself too, and so does deregistration.
    let closed = [(span(0, 0, 1), span(1 - index, 0, 1))];
    let refused = prepare(&myself, TransferOp::Write, &[&local], &closed).unwrap();
    let error = refused.post(PostOptions::new().notify("refused")).unwrap_err();
    assert!(matches!(error.cause, Cause::Refused(kvx::error::Refusal::NoRight)), "{error}");
    assert_eq!(a.poll_notification(), None);
    remote.region.deregister().unwrap();
    let error = prepared.post(PostOptions::new()).unwrap_err();
    assert!(matches!(error.cause, Cause::RegionClosed | Cause::Refused(_)), "{error}");
}

pub(crate) fn memory_of_the_caller_is_moved_like_the_engines_own(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let mut source = pattern(100_001);
    let mut target = vec![0_u8; 100_003];
    let expected = source.clone();
    // SAFETY: `source` outlives the region, which is deregistered below, and is not touched before.
    let memory = unsafe { CallerMemory::new(source.as_mut_ptr(), 100_001) }.unwrap();
    let local = a.register(memory, Rights::empty()).unwrap();
    // SAFETY: `target` outlives the region, which is deregistered below, and is not touched before.
    let memory = unsafe { CallerMemory::new(target.as_mut_ptr(), 100_003) }.unwrap();
    let remote = b.register(memory, Rights::REMOTE_WRITE).unwrap();
    let peer = a.add_peer(&b.metadata([&remote]).unwrap()).unwrap();
    let (ours, theirs): (Spans, Spans) =
        ([span(0, 0, 100_001)].into_iter().collect(), [span(0, 1, 100_001)].into_iter().collect());
    let prepared =
        peer.prepare(TransferOp::Write, (&[&local], &ours), (&ids(&peer), &theirs)).unwrap();
    prepared.post(PostOptions::new()).unwrap().wait().unwrap();
    local.deregister().unwrap();
    remote.deregister().unwrap();
    assert_same(&target[1..100_002], &expected, "what was written");
    assert_eq!((target[0], target[100_002]), (0, 0));
}
