use std::thread;

use proptest::prelude::*;

use super::*;
use crate::transport::HostMemory;

const RIGHTS: Rights = Rights::REMOTE_READ.union(Rights::REMOTE_WRITE);

fn memory(base: u64, len: u64) -> Arc<dyn MemoryProvider> {
    Arc::new(HostMemory::new(base, len).unwrap())
}

fn register(registry: &Registry, base: u64, len: u64) -> Result<Arc<Region>, Cause> {
    registry.register(memory(base, len), RIGHTS, RegionKey::new([7; 16]))
}

fn find(registry: &Registry, address: u64, len: u64) -> Option<(RegionId, u64)> {
    registry.find(MemoryKind::Host, address, len).map(|(region, offset)| (region.id, offset))
}

/// Memory whose numbers are anything at all.
#[derive(Debug)]
struct Claims {
    kind: MemoryKind,
    base: u64,
    len: u64,
}

impl MemoryProvider for Claims {
    fn kind(&self) -> MemoryKind {
        self.kind
    }
    fn len(&self) -> u64 {
        self.len
    }
    fn base(&self) -> u64 {
        self.base
    }
    fn host(&self, _span: crate::transport::LocalSpan) -> Option<crate::transport::HostSpan> {
        None
    }
}

#[test]
fn a_deregistered_id_is_never_mistaken_for_its_successor() {
    let registry = Registry::new();
    let first = register(&registry, 0x1000, 16).unwrap();
    assert_eq!((first.id.index(), first.id.generation()), (0, 1));
    registry.deregister(first.id).unwrap();
    let second = register(&registry, 0x1000, 16).unwrap();
    assert_eq!((second.id.index(), second.id.generation()), (0, 2));
    assert!(registry.get(first.id).is_none());
    assert_eq!(registry.deregister(first.id).unwrap_err(), Invalid::UnknownRegion);
    assert_eq!(registry.get(second.id).unwrap().id, second.id);
}

#[test]
fn what_is_published_stays_so_until_it_is_deregistered() {
    let registry = Registry::new();
    let regions = [0x3000, 0x1000, 0x2000].map(|base| register(&registry, base, 16).unwrap());
    assert!(registry.published().is_empty());
    for index in [2, 0, 2] {
        registry.publish(regions[index].id).unwrap();
    }
    let published = || registry.published().iter().map(|region| region.id).collect::<Vec<_>>();
    assert_eq!(published(), [regions[0].id, regions[2].id]);
    registry.deregister(regions[0].id).unwrap();
    assert_eq!(published(), [regions[2].id]);
    // The next one in its place is another, which an old name does not publish.
    let next = register(&registry, 0x3000, 16).unwrap();
    assert_eq!(next.id.index(), regions[0].id.index());
    assert_eq!(registry.publish(regions[0].id).unwrap_err(), Invalid::UnknownRegion);
    assert_eq!(published(), [regions[2].id]);
    registry.close_all();
    assert!(registry.published().is_empty() && registry.publish(next.id).is_err());
}

#[test]
fn ids_that_were_never_given_out_name_nothing() {
    let registry = Registry::new();
    register(&registry, 0x1000, 16).unwrap();
    for id in
        [RegionId::new(0, 0), RegionId::new(0, 2), RegionId::new(1, 1), RegionId::new(u32::MAX, 1)]
    {
        assert!(registry.get(id).is_none());
        assert_eq!(registry.deregister(id).unwrap_err(), Invalid::UnknownRegion);
    }
}

#[test]
fn deregistering_closes_the_gate_and_waits_for_held_leases_to_drain() {
    let registry = Registry::new();
    let region = register(&registry, 0x1000, 16).unwrap();
    let lease = region.gate.enter().unwrap();
    let closed = registry.deregister(region.id).unwrap();
    assert!(closed.gate.enter().is_none());
    assert!(!closed.gate.is_drained());
    assert_eq!(find(&registry, 0x1000, 16), None);
    drop(lease);
    assert!(closed.gate.is_drained());
}

#[test]
fn a_table_entry_whose_generations_are_used_up_is_retired() {
    let registry = Registry::new();
    let first = register(&registry, 0x1000, 16).unwrap();
    registry.deregister(first.id).unwrap();
    registry.write().entries[0].generation = u32::MAX;
    let last = register(&registry, 0x1000, 16).unwrap();
    assert_eq!(last.id, RegionId::new(0, u32::MAX));
    registry.deregister(last.id).unwrap();
    assert!(registry.get(last.id).is_none());
    assert_eq!(register(&registry, 0x1000, 16).unwrap().id, RegionId::new(1, 1));
}

#[test]
fn the_number_of_regions_is_bounded_and_deregistering_makes_room() {
    let registry = Registry::with_limit(2);
    let first = register(&registry, 0x1000, 16).unwrap();
    register(&registry, 0x1000, 16).unwrap();
    assert!(matches!(register(&registry, 0, 16), Err(Cause::Busy(Resource::Regions))));
    registry.deregister(first.id).unwrap();
    register(&registry, 0, 16).unwrap();
}

#[test]
fn memory_that_is_empty_or_wraps_around_is_refused() {
    let registry = Registry::new();
    let claim = |base, len| {
        let memory = Arc::new(Claims { kind: MemoryKind::Host, base, len });
        registry.register(memory, RIGHTS, RegionKey::new([7; 16]))
    };
    assert!(matches!(claim(0x1000, 0), Err(Cause::Invalid(Invalid::Empty(_)))));
    assert!(matches!(claim(u64::MAX, 2), Err(Cause::Invalid(Invalid::Field { .. }))));
    let top = claim(u64::MAX - 16, 16).unwrap();
    assert_eq!(find(&registry, u64::MAX - 1, 1), Some((top.id, 15)));
    assert_eq!(find(&registry, u64::MAX - 1, 2), None);
    assert_eq!(find(&registry, u64::MAX, u64::MAX), None);
    assert_eq!(registry.overlapping(MemoryKind::Host, 0, u64::MAX), [top.id]);
    assert_eq!(registry.overlapping(MemoryKind::Host, u64::MAX, u64::MAX), []);
}

#[test]
fn the_smallest_region_that_contains_a_range_wins_and_then_the_oldest() {
    let registry = Registry::new();
    let pool = register(&registry, 1000, 1000).unwrap().id;
    let piece = register(&registry, 1200, 100).unwrap().id;
    let twin = register(&registry, 1200, 100).unwrap().id;
    // As small as the others, and nearer to the end of what is looked for.
    let shifted = register(&registry, 1210, 100).unwrap().id;
    assert_eq!(find(&registry, 1220, 10), Some((piece, 20)));
    assert_eq!(find(&registry, 1290, 20), Some((shifted, 80)));
    assert_eq!(find(&registry, 1290, 21), Some((pool, 290)));
    assert_eq!(find(&registry, 1000, 1000), Some((pool, 0)));
    assert_eq!(find(&registry, 1000, 1001), None);
    assert_eq!(find(&registry, 999, 1), None);
    assert_eq!(find(&registry, 1220, 0), None);
    registry.deregister(piece).unwrap();
    assert_eq!(find(&registry, 1200, 100), Some((twin, 0)));
}

#[test]
fn equal_addresses_on_different_devices_are_different_memory() {
    let registry = Registry::new();
    let on = |kind| {
        let memory = Arc::new(Claims { kind, base: 4096, len: 64 });
        registry.register(memory, RIGHTS, RegionKey::new([7; 16])).unwrap().id
    };
    let (zero, one) = (on(MemoryKind::Cuda(0)), on(MemoryKind::Cuda(1)));
    let find = |kind| registry.find(kind, 4100, 4).map(|(region, _)| region.id);
    assert_eq!(find(MemoryKind::Cuda(0)), Some(zero));
    assert_eq!(find(MemoryKind::Cuda(1)), Some(one));
    assert_eq!(find(MemoryKind::Host), None);
    assert_eq!(registry.overlapping(MemoryKind::Cuda(1), 0, 5000), [one]);
}

#[test]
fn closing_all_closes_every_gate_and_ends_registration() {
    let registry = Registry::new();
    let ids: Vec<_> =
        (0..3).map(|i| register(&registry, 4096 * i + 4096, 64).unwrap().id).collect();
    let closed = registry.close_all();
    assert_eq!(closed.iter().map(|region| region.id).collect::<Vec<_>>(), ids);
    assert!(closed.iter().all(|region| region.gate.is_drained()));
    assert!(registry.snapshot().is_empty());
    assert!(registry.get(ids[0]).is_none());
    assert_eq!(find(&registry, 4096, 1), None);
    assert!(matches!(register(&registry, 4096, 64), Err(Cause::ShutDown)));
    assert!(registry.close_all().is_empty());
}

#[test]
fn a_snapshot_is_in_order_of_registration() {
    let registry = Registry::new();
    let [a, b, c] = [1, 2, 3].map(|i| register(&registry, 4096 * i, 64).unwrap().id);
    registry.deregister(a).unwrap();
    let d = register(&registry, 64, 64).unwrap().id;
    assert_eq!(d.index(), a.index());
    let ids: Vec<_> = registry.snapshot().iter().map(|region| region.id).collect();
    assert_eq!(ids, [b, c, d]);
}

#[test]
fn a_panic_under_the_lock_does_not_take_the_registry_along() {
    let registry = Registry::new();
    let region = register(&registry, 4096, 64).unwrap();
    thread::scope(|scope| {
        let poisoner = scope.spawn(|| {
            let _table = registry.write();
            panic!("on purpose");
        });
        assert!(poisoner.join().is_err());
    });
    assert_eq!(registry.get(region.id).unwrap().id, region.id);
    registry.deregister(region.id).unwrap();
}

#[test]
fn threads_that_register_and_deregister_at_once_leave_nothing_behind() {
    let registry = Registry::new();
    thread::scope(|scope| {
        for worker in 1..=4_u64 {
            let registry = &registry;
            scope.spawn(move || {
                for round in 0..200 {
                    let base = worker << 32 | round << 8;
                    let region = register(registry, base, 256).unwrap();
                    assert_eq!(find(registry, base + 3, 9), Some((region.id, 3)));
                    assert!(registry.deregister(region.id).unwrap().gate.is_drained());
                    assert!(registry.get(region.id).is_none());
                }
            });
        }
    });
    assert!(registry.snapshot().is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Register {
        cuda: bool,
        base: u64,
        len: u64,
    },
    /// The how-manieth of those alive.
    Deregister(usize),
    Look {
        cuda: bool,
        address: u64,
        len: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    // A small address space, so that regions nest, touch, overlap and coincide.
    let len = prop_oneof![1_u64..8, 1_u64..60];
    prop_oneof![
        4 => (any::<bool>(), 0_u64..100, len)
            .prop_map(|(cuda, base, len)| Step::Register { cuda, base, len }),
        2 => any::<usize>().prop_map(Step::Deregister),
        6 => (any::<bool>(), 0_u64..110, 0_u64..20)
            .prop_map(|(cuda, address, len)| Step::Look { cuda, address, len }),
    ]
}

fn kind(cuda: bool) -> MemoryKind {
    if cuda { MemoryKind::Cuda(0) } else { MemoryKind::Host }
}

proptest! {
    /// Against a list of everything registered, in order, and a look at each.
    #[test]
    fn the_registry_agrees_with_a_plain_list(steps in prop::collection::vec(step(), 1..120)) {
        let registry = Registry::new();
        let mut model: Vec<(RegionId, MemoryKind, u64, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Register { cuda, base, len } => {
                    let memory = Arc::new(Claims { kind: kind(cuda), base, len });
                    let region = registry.register(memory, RIGHTS, RegionKey::new([7; 16])).unwrap();
                    prop_assert!(model.iter().all(|(id, ..)| *id != region.id));
                    model.push((region.id, kind(cuda), base, len));
                }
                Step::Deregister(which) if !model.is_empty() => {
                    let (id, ..) = model.remove(which % model.len());
                    prop_assert_eq!(registry.deregister(id).unwrap().id, id);
                }
                Step::Deregister(_) => {}
                Step::Look { cuda, address, len } => {
                    let of_kind = || model.iter().filter(|(_, k, ..)| *k == kind(cuda));
                    // The first of the smallest: `min_by_key` keeps the first, which is the oldest.
                    let expected = of_kind()
                        .filter(|(_, _, base, size)| {
                            len > 0 && *base <= address && address + len <= base + size
                        })
                        .min_by_key(|(_, _, _, size)| *size)
                        .map(|(id, _, base, _)| (*id, address - base));
                    let found = registry
                        .find(kind(cuda), address, len)
                        .map(|(region, offset)| (region.id, offset));
                    prop_assert_eq!(found, expected);

                    let mut expected: Vec<_> = of_kind()
                        .filter(|(_, _, base, size)| {
                            len > 0 && *base < address + len && address < base + size
                        })
                        .map(|(id, _, base, _)| (*base, *id))
                        .collect();
                    expected.sort_by_key(|(base, _)| *base);
                    let expected: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
                    prop_assert_eq!(registry.overlapping(kind(cuda), address, len), expected);
                }
            }
        }
        let ids: Vec<_> = registry.snapshot().iter().map(|region| region.id).collect();
        prop_assert_eq!(ids, model.iter().map(|(id, ..)| *id).collect::<Vec<_>>());
    }
}
