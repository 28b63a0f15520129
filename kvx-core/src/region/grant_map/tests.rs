use proptest::prelude::*;

use super::*;

fn map(spans: &[(u32, u64, u64)]) -> GrantMap {
    GrantMap::build(spans.iter().map(|&(slot, offset, len)| (Slot(slot), offset, len))).unwrap()
}

#[test]
fn boundaries_are_exact() {
    let map = map(&[(3, 100, 10)]);
    assert!(map.covers(Slot(3), 100, 10));
    assert!(map.covers(Slot(3), 100, 1) && map.covers(Slot(3), 109, 1));
    assert!(!map.covers(Slot(3), 99, 1) && !map.covers(Slot(3), 99, 2));
    assert!(!map.covers(Slot(3), 110, 1) && !map.covers(Slot(3), 109, 2));
    assert!(!map.covers(Slot(3), 100, 11) && !map.covers(Slot(3), 99, 11));
    assert!(!map.covers(Slot(2), 100, 10) && !map.covers(Slot(4), 100, 10));
}

#[test]
fn a_span_over_adjacent_intervals_is_covered_and_over_a_gap_is_not() {
    let map = map(&[(0, 20, 10), (0, 10, 10), (0, 31, 9), (0, 0, 10)]);
    assert!(map.covers(Slot(0), 5, 20) && map.covers(Slot(0), 0, 30));
    assert!(!map.covers(Slot(0), 25, 10) && !map.covers(Slot(0), 0, 31));
    assert!(map.covers(Slot(0), 31, 9));
    assert_eq!(map.starts.len(), 2);
}

#[test]
fn the_end_of_one_slot_does_not_run_into_the_next() {
    let map = map(&[(0, 0, 10), (1, 10, 10)]);
    assert!(!map.covers(Slot(0), 5, 10) && !map.covers(Slot(1), 5, 10));
    assert!(!map.covers(Slot(0), 10, 1) && !map.covers(Slot(1), 9, 1));
}

#[test]
fn no_offset_and_length_overflow_their_way_in() {
    let top = map(&[(0, 0, 16), (0, u64::MAX - 16, 16)]);
    assert!(top.covers(Slot(0), u64::MAX - 16, 16));
    assert!(!top.covers(Slot(0), u64::MAX - 16, 17));
    assert!(!top.covers(Slot(0), u64::MAX - 15, u64::MAX));
    assert!(!top.covers(Slot(0), 8, u64::MAX) && !top.covers(Slot(0), u64::MAX, 1));
    assert!(map(&[(0, 0, u64::MAX)]).covers(Slot(0), 0, u64::MAX));
}

#[test]
fn a_span_that_wraps_around_is_refused() {
    let error = GrantMap::build([(Slot(0), 0, 1), (Slot(0), u64::MAX, 1)]).unwrap_err();
    assert!(matches!(error, Cause::Invalid(Invalid::Field { field: "grant", .. })));
}

#[test]
fn nothing_is_covered_by_an_empty_map_and_no_empty_span_by_any() {
    let empty = map(&[(0, 5, 0)]);
    assert!(!empty.covers(Slot(0), 5, 1) && !empty.covers(Slot(0), 5, 0));
    assert_eq!(empty.bytes(), 0);
    assert!(!map(&[(0, 5, 5)]).covers(Slot(0), 5, 0));
}

#[test]
fn bytes_of_overlapping_spans_count_once() {
    assert_eq!(map(&[(0, 0, 10), (0, 5, 10), (0, 2, 3), (1, 0, 7)]).bytes(), 22);
    assert_eq!(map(&[(0, 0, u64::MAX), (1, 0, u64::MAX)]).bytes(), u64::MAX);
}

#[test]
fn a_large_grant_takes_sixteen_bytes_an_interval_and_one_run_takes_one() {
    let count = 200_000_u64;
    let every_other = |block: u64| (Slot((block % 4) as u32), block * 8192, 4096);
    // Downward, so that nothing arrives in order.
    let scattered = GrantMap::build((0..count).rev().map(every_other)).unwrap();
    let of_its_own = size_of::<GrantMap>() + 4 * size_of::<Group>();
    assert_eq!(scattered.memory(), of_its_own + 16 * count as usize);
    assert_eq!(scattered.bytes(), count * 4096);
    assert!((0..count).map(every_other).all(|(slot, at, len)| scattered.covers(slot, at, len)));

    let in_a_row = GrantMap::build((0..count).rev().map(|block| (Slot(0), block * 4096, 4096)));
    assert_eq!(in_a_row.unwrap().starts.len(), 1);
}

proptest! {
    /// Against one bit a byte.
    #[test]
    fn the_map_agrees_with_a_bitmap(
        spans in prop::collection::vec((0_u32..3, 0_u64..120, 0_u64..12), 0..40),
        looks in prop::collection::vec((0_u32..4, 0_u64..140, 1_u64..30), 1..80),
    ) {
        let map = map(&spans);
        let mut bits = [[false; 256]; 4];
        for &(slot, offset, len) in &spans {
            bits[slot as usize][offset as usize..][..len as usize].fill(true);
        }
        let allowed = bits.iter().flatten().filter(|bit| **bit).count() as u64;
        prop_assert_eq!(map.bytes(), allowed);
        for (slot, offset, len) in looks {
            let expected = bits[slot as usize][offset as usize..][..len as usize].iter().all(|bit| *bit);
            prop_assert_eq!(map.covers(Slot(slot), offset, len), expected);
        }
    }
}
