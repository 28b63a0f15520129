//! Published regions: who knows an engine's address alone asks it for its memory.

use kvx::error::{Cause, Invalid, Operation, Refusal};
use kvx::{
    CallerMemory, Engine, Peer, PostOptions, Region, RegionId, Rights, Span, Spans, TransferOp,
};
use kvx_workers::relay::Relay;

use crate::fabric::{Fabric, SOON};
use crate::memory::{
    Memory, READ_WRITE, assert_same, ids, pattern, prepare, span, transfer_and_check,
};
use crate::probe::Probe;

const LEN: u64 = 5000;

pub(crate) fn a_published_region_is_used_by_who_only_knows_the_address(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let memory = [(); 3].map(|()| Memory::new(&b, LEN, READ_WRITE));
    let read_only = Memory::new(&b, LEN, Rights::REMOTE_READ);
    for memory in memory.iter().chain([&read_only]) {
        memory.region.publish().unwrap();
        memory.region.publish().unwrap();
    }
    let local = Memory::new(&a, LEN, Rights::empty());
    let connected = a.connect(b.local_addr()).wait().unwrap();
    assert!(connected.regions().is_empty());
    let peer = connected.published().wait().unwrap();
    assert_eq!(peer.identity(), connected.identity());
    let told: Vec<_> = peer.regions().iter().map(|r| (r.id, r.base, r.len, r.rights)).collect();
    let owned = memory.iter().chain([&read_only]).map(|memory| &memory.region);
    let owned: Vec<_> = owned.map(|r| (r.id(), r.address(), r.len(), r.rights())).collect();
    assert_eq!(told, owned);
    let remote: Vec<&Memory> = memory.iter().collect();
    let pairs = [
        (span(0, 0, 1000), span(2, 3000, 1000)),
        (span(0, 1500, 2000), span(0, 7, 2000)),
        (span(0, 4000, 1000), span(1, 0, 1000)),
    ];
    for op in [TransferOp::Write, TransferOp::Read] {
        transfer_and_check(&peer, op, &[&local], &remote, &pairs);
    }
    // Its rights are what they are.
    let write = [(span(0, 0, 1), span(3, 0, 1))];
    let write = prepare(&peer, TransferOp::Write, &[&local], &write).unwrap();
    let error = write.post(PostOptions::new()).and_then(|transfer| transfer.wait()).unwrap_err();
    assert!(matches!(error.cause, Cause::Refused(Refusal::NoRight)), "{error}");
    // And who was dialed asks as well as who dialed.
    let own = Memory::new(&a, LEN, READ_WRITE);
    own.region.publish().unwrap();
    let dialed = b.peers().remove(0).published().wait().unwrap();
    assert_eq!(ids(&dialed), [own.region.id()]);
    transfer_and_check(&dialed, TransferOp::Write, &[&memory[0]], &[&own], &[pairs[1]]);
}

pub(crate) fn what_is_not_published_or_not_any_more_is_not_told(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let [first, second] = [(); 2].map(|()| Memory::new(&b, LEN, READ_WRITE));
    let _secret = Memory::new(&b, LEN, READ_WRITE);
    let connected = a.connect(b.local_addr()).wait().unwrap();
    let listed = || ids(&connected.published().wait().unwrap());
    assert_eq!(listed(), []);
    first.region.publish().unwrap();
    assert_eq!(listed(), [first.region.id()]);
    second.region.publish().unwrap();
    let both = connected.published().wait().unwrap();
    assert_eq!(ids(&both), [first.region.id(), second.region.id()]);
    first.region.deregister().unwrap();
    assert_eq!(listed(), [second.region.id()]);
    let error = first.region.publish().unwrap_err();
    assert!(matches!(error.cause, Cause::Invalid(Invalid::UnknownRegion)), "{error}");
    assert_eq!(error.operation, Operation::Publish);
    // Who still holds the older list cannot use what is gone.
    let local = Memory::new(&a, LEN, Rights::empty());
    for (region, gone) in [(0, true), (1, false)] {
        let pairs = [(span(0, 0, LEN), span(region, 0, LEN))];
        let write = prepare(&both, TransferOp::Write, &[&local], &pairs).unwrap();
        let outcome = write.post(PostOptions::new()).and_then(|transfer| transfer.wait());
        assert_eq!(outcome.is_err(), gone, "{outcome:?}");
    }
}

pub(crate) fn twenty_thousand_regions_are_told_and_used(fabric: &dyn Fabric) {
    const COUNT: usize = 20_000;
    const PIECE: usize = 64;
    let (a, b) = fabric.pair();
    let mut there = vec![0_u8; COUNT * PIECE];
    let regions: Vec<Region> = (0..COUNT)
        .map(|number| {
            let base = there.as_mut_ptr().wrapping_add(number * PIECE);
            // SAFETY: `there` outlives the regions, which are dropped below, and is not touched before.
            let memory = unsafe { CallerMemory::new(base, PIECE as u64) };
            let region = b.register(memory.unwrap(), READ_WRITE).unwrap();
            region.publish().unwrap();
            region
        })
        .collect();
    let local = Memory::new(&a, (COUNT * PIECE) as u64, Rights::empty());
    let connected = a.connect(b.local_addr()).wait().unwrap();
    let peer = connected.published().wait().unwrap();
    assert!(ids(&peer).into_iter().eq(regions.iter().map(Region::id)));
    let piece = PIECE as u64;
    let ours: Spans = (0..COUNT as u64).map(|at| span(0, at * piece, piece)).collect();
    let theirs: Spans = (0..COUNT as u32).map(|region| span(region, 0, piece)).collect();
    let sides = ((&[&local.region][..], &ours), (&ids(&peer)[..], &theirs));
    let write = peer.prepare(TransferOp::Write, sides.0, sides.1).unwrap();
    write.post(PostOptions::new()).unwrap().wait().unwrap();
    let read = peer.prepare(TransferOp::Read, sides.0, sides.1).unwrap();
    let expected = local.bytes();
    local.poison();
    read.post(PostOptions::new()).unwrap().wait().unwrap();
    assert_same(&local.bytes(), &expected, "what came back");
    drop(regions);
    assert_same(&there, &expected, "what was written");
    assert_eq!(ids(&connected.published().wait().unwrap()), []);
}

pub(crate) fn many_who_ask_at_once_are_all_answered(fabric: &dyn Fabric) {
    let (a, b) = fabric.pair();
    let memory = Memory::new(&b, LEN, READ_WRITE);
    memory.region.publish().unwrap();
    let connected = a.connect(b.local_addr()).wait().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let asked = [connected.published(), connected.published()];
                    for asked in asked {
                        assert_eq!(ids(&asked.wait().unwrap()), [memory.region.id()]);
                    }
                }
            });
        }
    });
    // Many engines ask one.
    let engines: Vec<Engine> = (0..8).map(|_| fabric.engine("c")).collect();
    let peers: Vec<Peer> =
        engines.iter().map(|c| c.connect(b.local_addr()).wait().unwrap()).collect();
    let asked: Vec<_> = peers.iter().map(Peer::published).collect();
    for asked in asked {
        assert_eq!(ids(&asked.wait().unwrap()), [memory.region.id()]);
    }
}

pub(crate) fn an_engine_tells_itself_what_it_publishes(fabric: &dyn Fabric) {
    let a = fabric.engine("a");
    let (local, remote) = (Memory::new(&a, LEN, Rights::empty()), Memory::new(&a, LEN, READ_WRITE));
    remote.region.publish().unwrap();
    assert_eq!(a.myself().regions().len(), 2);
    let myself = a.myself().published().wait().unwrap();
    assert_eq!(ids(&myself), [remote.region.id()]);
    let pairs = [(span(0, 9, 3000), span(0, 1000, 3000))];
    transfer_and_check(&myself, TransferOp::Write, &[&local], &[&remote], &pairs);
}

pub(crate) fn a_question_that_nobody_answers_ends_by_the_deadline(fabric: &dyn Fabric) {
    let road = Relay::new();
    let a = fabric.engine_with("a", |config| config.deadline(SOON));
    let b = fabric.engine_with("b", |config| road.lead(config));
    road.serve(b.local_addr());
    let peer = a.add_peer(&b.metadata([]).unwrap()).unwrap();
    peer.ready().wait().unwrap();
    road.down();
    let error = peer.published().wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { after: SOON, .. }), "{error}");
    assert_eq!(error.operation, Operation::List);
    assert_eq!(error.peer.and_then(|peer| peer.id()), Some(b.id()));
    // Nor does one who was never reached answer.
    let nobody = fabric.engine("nobody");
    let blob = nobody.metadata([]).unwrap();
    nobody.shutdown();
    let error = a.add_peer(&blob).unwrap().published().wait().unwrap_err();
    assert!(matches!(error.cause, Cause::Deadline { .. }), "{error}");
    Probe::new(&a, &fabric.engine("c")).rounds(1);
}

pub(crate) fn a_question_goes_on_over_the_next_connection(fabric: &dyn Fabric) {
    let relay = Relay::new();
    let a = fabric.engine("a");
    let b = fabric.engine_with("b", |config| relay.lead(config));
    relay.serve(b.local_addr());
    let memory = Memory::new(&b, LEN, READ_WRITE);
    memory.region.publish().unwrap();
    let peer = a.add_peer(&b.metadata([]).unwrap()).unwrap();
    peer.ready().wait().unwrap();
    for round in 0..20 {
        let asked = peer.published();
        (0..round * 100).for_each(|_| std::hint::spin_loop());
        relay.cut_all();
        let listed: Vec<RegionId> = ids(&asked.wait().unwrap());
        assert_eq!(listed, [memory.region.id()]);
    }
    let whole: [(Span, Span); 1] = [(span(0, 0, LEN), span(0, 0, LEN))];
    let local = Memory::new(&a, LEN, Rights::empty());
    local.buffer.write(0, &pattern(LEN as usize)).unwrap();
    let peer = peer.published().wait().unwrap();
    transfer_and_check(&peer, TransferOp::Write, &[&local], &[&memory], &whole);
}
