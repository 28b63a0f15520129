//! Promises of plans from span lists: the same bytes as the naive copy, in bounds, in order.

use proptest::prelude::*;

use super::*;
use crate::testing::oracle;
use crate::wire::MAX_RUNS;

fn spans(list: &[(u32, u64, u64)]) -> Spans {
    list.iter().map(|&(region, offset, len)| Span { region, offset, len }).collect()
}

fn runs(plan: &Plan) -> Vec<(u32, u64, u32, u64, u32)> {
    plan.runs(0..plan.len())
        .map(|run| (run.local, run.local_offset, run.remote, run.remote_offset, run.len))
        .collect()
}

fn plain(local: &[(u32, u64, u64)], remote: &[(u32, u64, u64)]) -> Result<Plan, Invalid> {
    Plan::pair(&spans(local), &spans(remote), &PlanOptions::default())
}

#[test]
fn runs_are_sorted_by_their_remote_place_and_merged_where_both_sides_continue() {
    let local = [(0, 100, 10), (1, 0, 5), (0, 0, 10), (0, 10, 10), (0, 20, 10)];
    let remote = [(2, 30, 10), (1, 0, 5), (2, 0, 10), (2, 10, 10), (2, 20, 10)];
    let plan = plain(&local, &remote).unwrap();
    assert_eq!(runs(&plan), [(1, 0, 1, 0, 5), (0, 0, 2, 0, 30), (0, 100, 2, 30, 10)]);
    assert_eq!((plan.len(), plan.bytes()), (3, 45));
    assert_eq!((plan.local_regions(), plan.remote_regions()), (2, 3));
    assert_eq!((plan.used_local(), plan.used_remote()), (vec![0, 1], vec![1, 2]));
}

#[test]
fn regions_come_before_offsets_in_the_order() {
    let remote = [(1, 0, 4), (0, 8, 4), (0, 20, 4)];
    let plan = plain(&[(0, 0, 4), (0, 8, 4), (0, 16, 4)], &remote).unwrap();
    assert_eq!(runs(&plan), [(0, 8, 0, 8, 4), (0, 16, 0, 20, 4), (0, 0, 1, 0, 4)]);
    assert_eq!(plan.remote_regions(), 2);
}

#[test]
fn spans_that_continue_on_one_side_only_stay_apart() {
    let one_side = plain(&[(0, 0, 8), (0, 9, 8)], &[(0, 0, 8), (0, 8, 8)]).unwrap();
    assert_eq!(one_side.len(), 2);
    let other_region = plain(&[(0, 0, 8), (1, 8, 8)], &[(0, 0, 8), (0, 8, 8)]).unwrap();
    assert_eq!(other_region.len(), 2);
    let other_remote = plain(&[(0, 0, 8), (0, 8, 8)], &[(0, 0, 8), (1, 8, 8)]).unwrap();
    assert_eq!(other_remote.len(), 2);
    let options = PlanOptions { merge: false, ..PlanOptions::default() };
    let list = spans(&[(0, 0, 8), (0, 8, 8)]);
    assert_eq!(Plan::pair(&list, &list, &options).unwrap().len(), 2);
}

#[test]
fn long_runs_are_cut() {
    let options = PlanOptions { max_run: 4, ..PlanOptions::default() };
    let list = spans(&[(0, 10, 5), (0, 15, 5)]);
    let plan = Plan::pair(&list, &list, &options).unwrap();
    assert_eq!(runs(&plan), [(0, 10, 0, 10, 4), (0, 14, 0, 14, 4), (0, 18, 0, 18, 2)]);
}

#[test]
fn empty_spans_are_skipped() {
    let plan = plain(&[(9, 7, 0), (0, 0, 4), (0, 4, 0)], &[(9, 1, 0), (0, 0, 4), (0, 4, 0)]);
    assert_eq!(runs(&plan.unwrap()), [(0, 0, 0, 0, 4)]);
    let nothing = plain(&[], &[]).unwrap();
    assert!(nothing.is_empty());
    assert_eq!((nothing.local_regions(), nothing.remote_regions()), (0, 0));
    nothing.check(&[], &[]).unwrap();
}

#[test]
fn lists_that_do_not_pair_up_are_refused() {
    let error = plain(&[(0, 0, 1)], &[]);
    assert!(matches!(error, Err(Invalid::Mismatch { left: 1, right: 0, .. })), "{error:?}");
    let error = plain(&[(0, 0, 1), (0, 1, 2)], &[(0, 0, 1), (0, 1, 3)]).unwrap_err();
    assert_eq!(error.to_string(), "spans: pair 1 has 2 bytes against 3");
    assert!(Spans::from_columns(&[1], &[2], &[]).is_err());
    assert!(Spans::from_columns(&[1], &[], &[2]).is_err());
}

#[test]
fn a_span_without_an_end_is_refused() {
    for (local, remote) in [(u64::MAX, 0), (0, u64::MAX)] {
        let error = plain(&[(0, 0, 4), (0, local, 4)], &[(0, 0, 4), (0, remote, 4)]);
        assert!(matches!(error, Err(Invalid::OutOfBounds { index: 1, .. })), "{error:?}");
    }
}

#[test]
fn too_many_runs_are_refused_before_they_are_made() {
    let options = PlanOptions { max_run: 1, ..PlanOptions::default() };
    let plan = |len: u64| {
        let list = spans(&[(0, 0, len)]);
        Plan::pair(&list, &list, &options)
    };
    assert!(plan(u64::from(MAX_RUNS) + 1).is_err());
    assert!(plan(u64::MAX).is_err());
    for max_run in [0, MAX_FRAME_PAYLOAD + 1, u32::MAX] {
        let options = PlanOptions { max_run, ..options };
        let error = Plan::pair(&Spans::new(), &Spans::new(), &options);
        assert!(matches!(error, Err(Invalid::Field { field: "max_run", .. })), "{error:?}");
    }
}

#[test]
fn an_index_beyond_its_list_is_refused() {
    let list = spans(&[(0, 0, 4), (0, 4, 4)]);
    let select = |left: &[u32], right: &[u32]| {
        Plan::select(&list, left, &list, right, &PlanOptions::default())
    };
    assert_eq!(select(&[1, 0], &[0, 1]).unwrap().len(), 2);
    let error = select(&[0, 2], &[0, 1]);
    assert!(matches!(error, Err(Invalid::Index { what: "local span", index: 2, len: 2 })));
    let error = select(&[0, 1], &[0, u32::MAX]);
    assert!(matches!(error, Err(Invalid::Index { what: "remote span", .. })));
    let error = select(&[0], &[0, 1]);
    assert!(matches!(error, Err(Invalid::Mismatch { left: 1, right: 2, .. })));
}

#[test]
fn a_run_outside_its_region_is_found() {
    let plan = plain(&[(0, 0, 8), (1, 8, 8)], &[(0, 0, 8), (1, 24, 8)]).unwrap();
    plan.check(&[8, 16], &[8, 32]).unwrap();
    let error = plan.check(&[8, 15], &[8, 32]);
    assert!(matches!(error, Err(Invalid::OutOfBounds { index: 1, region_len: 15, .. })));
    let error = plan.check(&[8, 16], &[8, 31]);
    assert!(matches!(error, Err(Invalid::OutOfBounds { index: 1, region_len: 31, .. })));
    let error = plan.check(&[8], &[8, 32]);
    assert!(matches!(error, Err(Invalid::Index { what: "local region", index: 1, len: 1 })));
    let error = plan.check(&[8, 16], &[]);
    assert!(matches!(error, Err(Invalid::Index { what: "remote region", index: 0, len: 0 })));
}

#[test]
fn regions_that_are_not_used_are_dropped_and_the_others_keep_their_order() {
    let local = [(7, 0, 4), (2, 0, 4), (7, 8, 4)];
    let remote = [(9, 0, 4), (3, 0, 4), (3, 8, 4)];
    let mut plan = plain(&local, &remote).unwrap();
    assert_eq!((plan.used_local(), plan.used_remote()), (vec![2, 7], vec![3, 9]));
    plan.drop_unused();
    assert_eq!(runs(&plan), [(0, 0, 0, 0, 4), (1, 8, 0, 8, 4), (1, 0, 1, 0, 4)]);
    let same = (plan.used_local(), plan.used_remote());
    assert_eq!(same, (vec![0, 1], vec![0, 1]));
    plan.drop_unused();
    assert_eq!((plan.used_local(), plan.used_remote()), same);
    let mut nothing = plain(&[], &[]).unwrap();
    nothing.drop_unused();
    assert!(nothing.is_empty());
}

#[test]
fn places_that_need_every_bit_are_sorted_too() {
    let remote = [(u32::MAX, 1, 1), (u32::MAX, 0, 1), (0, u64::MAX - 1, 1), (7, 1 << 63, 1)];
    let plan = plain(&[(0, 0, 1), (0, 10, 1), (0, 20, 1), (0, 30, 1)], &remote).unwrap();
    let remote: Vec<_> = runs(&plan).iter().map(|run| (run.2, run.3)).collect();
    assert_eq!(remote, [(0, u64::MAX - 1), (7, 1 << 63), (u32::MAX, 0), (u32::MAX, 1)]);
}

const REGIONS: usize = 3;
const REGION_LEN: usize = 400;

fn memory(seed: u8) -> Vec<Vec<u8>> {
    let byte = |region: usize, i: usize| (i * 31 + region * 101) as u8 ^ seed;
    (0..REGIONS).map(|region| (0..REGION_LEN).map(|i| byte(region, i)).collect()).collect()
}

/// Spans that cover parts of the regions without overlapping, in any order, and as many local spans
/// of the same lengths, which may overlap and often continue each other.
fn pairs() -> impl Strategy<Value = (Spans, Spans)> {
    let step = (0..12u64, prop_oneof![Just(0u64), 0..6u64], any::<u32>(), 0..4u8);
    prop::collection::vec(step, 0..80).prop_map(|steps| {
        let (mut at, mut next) = ((0u32, 0u64), (0u32, 0u64));
        let mut pairs = Vec::new();
        for (len, gap, anywhere, choice) in steps {
            if at.1 + gap + len > REGION_LEN as u64 {
                at = (at.0 + 1, 0);
            }
            if at.0 as usize == REGIONS {
                break;
            }
            let remote = Span { region: at.0, offset: at.1 + gap, len };
            at.1 = remote.offset + len;
            // Mostly the local side goes on where it was.
            if choice == 0 || next.1 + len > REGION_LEN as u64 {
                let room = REGION_LEN as u64 - len + 1;
                next = (anywhere % REGIONS as u32, u64::from(anywhere / 8) % room);
            }
            let local = Span { region: next.0, offset: next.1, len };
            next.1 += len;
            pairs.push((u64::from(anywhere), local, remote));
        }
        // A few moves out of place; about every second list stays in order.
        if pairs.first().is_some_and(|pair| pair.0 % 2 == 0) {
            let keys: Vec<_> = pairs.iter().map(|pair| pair.0 % 97).collect();
            let (a, b) =
                (keys[0] as usize % keys.len(), keys[keys.len() / 2] as usize % keys.len());
            pairs.swap(a, b);
            if keys[0] % 3 == 0 {
                pairs.sort_by_key(|pair| pair.0);
            }
        }
        pairs.into_iter().map(|(_, local, remote)| (local, remote)).unzip()
    })
}

fn options() -> impl Strategy<Value = PlanOptions> {
    let max_run = prop_oneof![Just(1 << 20), 1..30u32];
    (any::<bool>(), max_run).prop_map(|(merge, max_run)| PlanOptions { merge, max_run })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_plan_moves_the_same_bytes_as_the_naive_copy(
        (local, remote) in pairs(),
        options in options(),
    ) {
        let plan = Plan::pair(&local, &remote, &options).unwrap();
        let source = memory(0);
        let (mut planned, mut naive) = (memory(0xff), memory(0xff));
        oracle::write(&plan, &source, &mut planned);
        oracle::copy_spans(&local, &source, &remote, &mut naive);
        prop_assert_eq!(planned, naive);
        prop_assert_eq!(plan.bytes(), local.iter().map(|span| span.len).sum::<u64>());
        let lens = [REGION_LEN as u64; REGIONS];
        prop_assert_eq!(plan.check(&lens, &lens), Ok(()));
        for run in plan.runs(0..plan.len()) {
            prop_assert!((1..=options.max_run).contains(&run.len));
        }
        let place = |i| { let run: Run = plan.run(i); (run.remote, run.remote_offset) };
        prop_assert!((1..plan.len()).all(|i| place(i - 1) < place(i)));
    }

    #[test]
    fn merging_leaves_nothing_that_could_be_merged((local, remote) in pairs()) {
        let plan = Plan::pair(&local, &remote, &PlanOptions::default()).unwrap();
        for i in 1..plan.len() {
            let (before, after) = (plan.run(i - 1), plan.run(i));
            let continues = before.local == after.local
                && before.remote == after.remote
                && before.local_offset + u64::from(before.len) == after.local_offset
                && before.remote_offset + u64::from(before.len) == after.remote_offset;
            prop_assert!(!continues, "{before:?} and {after:?}");
        }
    }

    #[test]
    fn a_read_brings_back_what_a_write_of_the_same_plan_took(
        (local, remote) in pairs(),
        options in options(),
    ) {
        let plan = Plan::pair(&local, &remote, &options).unwrap();
        let mut there = memory(0xff);
        oracle::write(&plan, &memory(0), &mut there);
        let mut back = memory(0);
        oracle::read(&plan, &mut back, &there);
        prop_assert_eq!(back, memory(0));
    }

    #[test]
    fn selecting_is_pairing_what_was_selected(
        (local, remote) in pairs(),
        chosen in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        options in options(),
    ) {
        // Each remote span once at most.
        let mut indices: Vec<u32> = match local.len() {
            0 => Vec::new(),
            len => chosen.iter().map(|index| index.index(len) as u32).collect(),
        };
        let mut seen = std::collections::HashSet::new();
        indices.retain(|index| seen.insert(*index));
        let plan = Plan::select(&local, &indices, &remote, &indices, &options).unwrap();
        let picked =
            |list: &Spans| indices.iter().map(|&i| list.get(i as usize)).collect::<Spans>();
        let (local, remote) = (picked(&local), picked(&remote));
        prop_assert_eq!(&plan, &Plan::pair(&local, &remote, &options).unwrap());
        let (mut planned, mut naive) = (memory(0xff), memory(0xff));
        oracle::write(&plan, &memory(0), &mut planned);
        oracle::copy_spans(&local, &memory(0), &remote, &mut naive);
        prop_assert_eq!(planned, naive);
    }

    #[test]
    fn garbage_spans_never_panic(
        list in prop::collection::vec(
            (any::<[u32; 2]>(), any::<[u64; 2]>(), prop_oneof![0..100u64, any::<u64>()]),
            0..20,
        ),
        lens in prop::collection::vec(any::<u64>(), 0..4),
    ) {
        let side = |side: usize| {
            let span = |&(regions, offsets, len): &([u32; 2], [u64; 2], u64)| {
                Span { region: regions[side], offset: offsets[side], len }
            };
            list.iter().map(span).collect::<Spans>()
        };
        let (local, remote) = (side(0), side(1));
        let options = PlanOptions { max_run: MAX_FRAME_PAYLOAD, ..PlanOptions::default() };
        if let Ok(plan) = Plan::pair(&local, &remote, &options) {
            let _ = plan.check(&lens, &lens);
            let _ = (plan.used_local(), plan.used_remote(), plan.local_regions());
        }
    }
}
