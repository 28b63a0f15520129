//! The directory: ranks are found, waited for, and gone with their engine.

use std::time::Duration;

use kvx::{Engine, Peer, RankKey};

use crate::fabric::{Fabric, LONG, SOON};
use crate::probe::Probe;

pub(crate) fn a_registered_rank_is_found(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    for tp in 0..4 {
        case.of_rank.register_rank(rank(tp)).unwrap();
    }
    for tp in 0..4 {
        let entry = case.of_seeker.find_rank(rank(tp), LONG).wait().unwrap().unwrap();
        assert_eq!(entry.engine, case.rank.id());
        assert_eq!(entry.addresses, case.rank.addresses());
    }
    // The entry is good for reaching the engine.
    let entry = case.of_seeker.find_rank(rank(0), LONG).wait().unwrap().unwrap();
    let peer = case.seeker.connect(entry.addresses[0]).wait().unwrap();
    assert_eq!(peer.identity().map(|(engine, _)| engine), Some(entry.engine));
    let other = RankKey { instance: "other".to_owned(), ..rank(0) };
    assert_eq!(case.of_seeker.find_rank(other, Duration::ZERO).wait().unwrap(), None);
}

pub(crate) fn a_question_waits_for_its_rank(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    let asked: Vec<_> = (0..4).map(|tp| case.of_seeker.find_rank(rank(tp), LONG)).collect();
    // The questions are there: control keeps its order.
    case.of_seeker.notify("asked").wait().unwrap();
    assert!(asked.iter().all(|asked| asked.poll().is_none()));
    for tp in [2, 0, 3, 1] {
        case.of_rank.register_rank(rank(tp)).unwrap();
        let entry = asked[tp as usize].wait().unwrap().unwrap();
        assert_eq!(entry.engine, case.rank.id());
    }
}

pub(crate) fn a_rank_that_does_not_appear_is_told_so(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    assert_eq!(case.of_seeker.find_rank(rank(0), Duration::ZERO).wait().unwrap(), None);
    assert_eq!(case.of_seeker.find_rank(rank(0), SOON).wait().unwrap(), None);
    Probe::new(&case.seeker, &case.holder).rounds(1);
}

pub(crate) fn a_rank_goes_with_its_engine(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    case.of_rank.register_rank(rank(0)).unwrap();
    assert!(case.of_seeker.find_rank(rank(0), LONG).wait().unwrap().is_some());
    case.rank.shutdown();
    while case.of_seeker.find_rank(rank(0), Duration::ZERO).wait().unwrap().is_some() {
        std::thread::yield_now();
    }
    // Another one takes its place.
    let next = fabric.engine("next");
    next.connect(case.holder.local_addr()).wait().unwrap().register_rank(rank(0)).unwrap();
    let entry = case.of_seeker.find_rank(rank(0), LONG).wait().unwrap().unwrap();
    assert_eq!(entry.engine, next.id());
}

pub(crate) fn an_engine_finds_ranks_in_its_own_directory(fabric: &dyn Fabric) {
    let case = Case::new(fabric);
    case.holder.serve_rank(rank(7)).unwrap();
    let own = case.holder.myself();
    let entry = own.find_rank(rank(7), Duration::ZERO).wait().unwrap().unwrap();
    assert_eq!(entry.engine, case.holder.id());
    let entry = case.of_seeker.find_rank(rank(7), LONG).wait().unwrap().unwrap();
    assert_eq!((entry.engine, &entry.addresses[..]), (case.holder.id(), case.holder.addresses()));
    own.register_rank(rank(8)).unwrap();
    assert!(case.of_seeker.find_rank(rank(8), LONG).wait().unwrap().is_some());
}

fn rank(tp: u32) -> RankKey {
    RankKey { instance: "prefill".to_owned(), dp: 0, pp: 0, tp }
}

/// An engine that holds the directory, one that is in it, and one that asks.
struct Case {
    holder: Engine,
    rank: Engine,
    seeker: Engine,
    /// The holder, as the rank knows it.
    of_rank: Peer,
    /// The holder, as the seeker knows it.
    of_seeker: Peer,
}

impl Case {
    fn new(fabric: &dyn Fabric) -> Self {
        let (holder, rank) = fabric.pair();
        let seeker = fabric.engine("seeker");
        let of_rank = rank.connect(holder.local_addr()).wait().unwrap();
        let of_seeker = seeker.connect(holder.local_addr()).wait().unwrap();
        Self { holder, rank, seeker, of_rank, of_seeker }
    }
}
