use std::collections::HashSet;

use super::*;
use crate::region::Rights;
use crate::transport::HostMemory;

const KEY: RegionKey = RegionKey::new([7; 16]);

fn register(registry: &Registry, rights: Rights) -> Arc<Region> {
    let memory = Arc::new(HostMemory::new(0x1000, 64).unwrap());
    registry.register(memory, rights, KEY).unwrap()
}

fn readable(registry: &Registry) -> Arc<Region> {
    register(registry, Rights::REMOTE_READ)
}

#[test]
fn a_shown_key_opens_one_slot_and_always_the_same() {
    let registry = Registry::new();
    let (first, second) = (readable(&registry), readable(&registry));
    let mut slots = Slots::new();
    assert_eq!(slots.open(&registry, first.id, &KEY), Ok(Slot(0)));
    assert_eq!(slots.open(&registry, second.id, &KEY), Ok(Slot(1)));
    assert_eq!(slots.open(&registry, first.id, &KEY), Ok(Slot(0)));
    assert_eq!(slots.resolve(Slot(1), true).unwrap().id, second.id);
    assert_eq!(slots.resolve(Slot(2), true).unwrap_err(), Refusal::UnknownSlot);
    assert_eq!(slots.resolve(Slot(u32::MAX), true).unwrap_err(), Refusal::UnknownSlot);
}

#[test]
fn an_unknown_region_and_a_wrong_key_are_the_same_refusal() {
    let registry = Registry::new();
    let (hidden, gone) = (register(&registry, Rights::empty()), readable(&registry));
    registry.deregister(gone.id).unwrap();
    let mut slots = Slots::new();
    let wrong = RegionKey::new([8; 16]);
    // Nor does a wrong key learn of the rights.
    for (id, key) in [(hidden.id, &wrong), (RegionId::new(9, 1), &KEY), (gone.id, &KEY)] {
        assert_eq!(slots.open(&registry, id, key), Err(Refusal::WrongKey));
    }
    assert_eq!(slots.resolve(Slot(0), true).unwrap_err(), Refusal::UnknownSlot);
}

#[test]
fn a_region_without_remote_rights_is_opened_by_no_key_but_can_be_granted() {
    let registry = Registry::new();
    let region = register(&registry, Rights::empty());
    let mut slots = Slots::new();
    assert_eq!(slots.open(&registry, region.id, &KEY), Err(Refusal::NoRight));
    let slot = slots.offer(Arc::clone(&region)).unwrap();
    assert_eq!(slots.open(&registry, region.id, &KEY), Err(Refusal::NoRight));
    assert_eq!(slots.resolve(slot, true).unwrap_err(), Refusal::NoRight);
    assert_eq!(slots.resolve(slot, false).unwrap().id, region.id);
}

#[test]
fn an_offered_slot_becomes_one_sided_only_by_the_key_and_stays_so() {
    let registry = Registry::new();
    let region = readable(&registry);
    let mut slots = Slots::new();
    let slot = slots.offer(Arc::clone(&region)).unwrap();
    assert_eq!(slots.resolve(slot, true).unwrap_err(), Refusal::NoRight);
    assert!(slots.open(&registry, region.id, &RegionKey::new([8; 16])).is_err());
    assert_eq!(slots.resolve(slot, true).unwrap_err(), Refusal::NoRight);
    assert_eq!(slots.open(&registry, region.id, &KEY), Ok(slot));
    assert_eq!(slots.offer(Arc::clone(&region)), Ok(slot));
    assert!(slots.resolve(slot, true).is_ok() && slots.resolve(slot, false).is_ok());
}

#[test]
fn a_deregistered_region_is_refused_before_and_after_its_slot_is_closed() {
    let registry = Registry::new();
    let region = readable(&registry);
    let mut slots = Slots::new();
    let slot = slots.open(&registry, region.id, &KEY).unwrap();
    registry.deregister(region.id).unwrap();
    assert_eq!(slots.resolve(slot, true).unwrap_err(), Refusal::RegionClosed);
    assert_eq!(slots.close(region.id), Some(slot));
    assert_eq!(slots.close(region.id), None);
    assert_eq!(slots.resolve(slot, true).unwrap_err(), Refusal::RegionClosed);
    assert_eq!(slots.resolve(slot, false).unwrap_err(), Refusal::RegionClosed);
    // Not held on to, so that the owner's memory provider can go.
    assert_eq!(Arc::strong_count(&region), 1);
}

#[test]
fn a_closed_region_is_not_offered_again() {
    let registry = Registry::new();
    let region = readable(&registry);
    registry.deregister(region.id).unwrap();
    let mut slots = Slots::new();
    assert_eq!(slots.offer(Arc::clone(&region)), Err(Refusal::RegionClosed));
    assert_eq!(Arc::strong_count(&region), 1);
}

#[test]
fn slots_are_never_used_again_however_many_regions_come_and_go() {
    let registry = Registry::new();
    let mut slots = Slots::new();
    for expected in 0..Slots::LIMIT as u32 + 10 {
        let region = readable(&registry);
        assert_eq!(slots.open(&registry, region.id, &KEY), Ok(Slot(expected)));
        registry.deregister(region.id).unwrap();
        slots.close(region.id).unwrap();
    }
    assert_eq!(slots.resolve(Slot(0), true).unwrap_err(), Refusal::RegionClosed);
}

#[test]
fn slots_in_use_are_bounded_and_closing_one_makes_room() {
    let memory = Arc::new(HostMemory::new(0x1000, 64).unwrap());
    let region = |index| {
        Arc::new(Region {
            id: RegionId::new(index, 1),
            memory: Arc::clone(&memory) as _,
            rights: Rights::REMOTE_READ,
            key: KEY,
            gate: Default::default(),
        })
    };
    let mut slots = Slots::new();
    for index in 0..Slots::LIMIT as u32 {
        assert_eq!(slots.offer(region(index)), Ok(Slot(index)));
    }
    let one_more = region(Slots::LIMIT as u32);
    assert_eq!(slots.offer(Arc::clone(&one_more)), Err(Refusal::Busy));
    assert_eq!(slots.offer(region(3)), Ok(Slot(3)));
    slots.close(RegionId::new(3, 1)).unwrap();
    assert_eq!(slots.offer(one_more), Ok(Slot(Slots::LIMIT as u32)));
}

#[test]
fn slot_numbers_that_run_out_are_busy_and_not_reused() {
    let registry = Registry::new();
    let mut slots = Slots { next: u32::MAX, ..Slots::new() };
    assert_eq!(slots.offer(readable(&registry)), Err(Refusal::Busy));
}

#[test]
fn slots_counted_upward_spread_over_a_table() {
    let hash = |slot| {
        let mut hasher = SlotHasher::default();
        hasher.write_u32(slot);
        hasher.finish()
    };
    // The two parts of a hash that the standard table uses: low bits for the bucket, the top
    // seven to tell neighbours apart.
    let buckets: HashSet<u64> = (0..4096).map(|slot| hash(slot) & 0x1fff).collect();
    let tags: HashSet<u64> = (0..4096).map(|slot| hash(slot) >> 57).collect();
    assert!(buckets.len() > 2500, "{} of 4096", buckets.len());
    assert!(tags.len() > 100, "{} of 128", tags.len());
}
