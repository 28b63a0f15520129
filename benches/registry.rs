//! What finding a region costs, with 1, 1,000 and 100,000 of them registered.
//!
//! Workload: a region more is registered and deregistered again; a region is got by its id, found
//! by an address, resolved by its slot. Unit: time for one. To compare with: a slot is resolved
//! for every run that arrives, so that it must stay far below the microsecond that a system call
//! takes, whatever the number; `get` and `resolve` take the same time for all three, `find` grows
//! with the logarithm, registering with the number.

use std::cell::LazyCell;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kvx_core::id::Slot;
use kvx_core::region::{Region, Registry, Slots};
use kvx_core::testing::Random;
use kvx_core::transport::MemoryKind;

#[path = "workload/regions.rs"]
mod regions;

/// Regions registered.
const COUNTS: [usize; 3] = [1, 1_000, 100_000];

/// A registry with regions; those of them that have slots, which are [`Slots::LIMIT`] at most.
struct World {
    registry: Registry,
    regions: Vec<Arc<Region>>,
    slots: Slots,
    slot_count: usize,
}

impl World {
    fn new(count: usize) -> Self {
        let registry = Registry::with_limit(count + 1);
        let regions: Vec<Arc<Region>> =
            (0..count as u64).map(|index| regions::register(&registry, index)).collect();
        let slot_count = count.min(Slots::LIMIT);
        let mut slots = Slots::new();
        for region in &regions[..slot_count] {
            slots.open(&registry, region.id, &region.key).expect("room for a slot");
        }
        Self { registry, regions, slots, slot_count }
    }
}

fn by_count(c: &mut Criterion) {
    let mut group = c.benchmark_group("registry");
    for count in COUNTS {
        // Not made where no function is chosen that needs it: 100,000 regions take a while.
        let world = LazyCell::new(|| World::new(count));
        let mut random = Random::new(count as u64);
        group.bench_function(BenchmarkId::new("register and deregister", count), |b| {
            let (registry, middle) = (&world.registry, count as u64 / 2);
            b.iter(|| {
                let region = regions::register(registry, black_box(middle));
                registry.deregister(region.id)
            });
        });
        group.bench_function(BenchmarkId::new("get", count), |b| {
            let World { registry, regions, .. } = &*world;
            b.iter(|| registry.get(black_box(regions[random.index(count)].id)));
        });
        group.bench_function(BenchmarkId::new("find", count), |b| {
            let World { registry, regions, .. } = &*world;
            b.iter(|| {
                let address = regions[random.index(count)].base() + 4096;
                registry.find(MemoryKind::Host, black_box(address), 4096)
            });
        });
        group.bench_function(BenchmarkId::new("resolve", count), |b| {
            let World { slots, slot_count, .. } = &*world;
            b.iter(|| {
                let slot = Slot(random.index(*slot_count) as u32);
                slots.resolve(black_box(slot), true).is_ok()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, by_count);
criterion_main!(benches);
