use std::sync::Arc;

use kvx_core::region::Region;
use kvx_core::transport::LocalSpan;

use super::*;
use crate::message::sources;
use crate::pools::tests::{mapped_pool, span};
use crate::scripted::{Memory, PAGE, SENTINEL};

/// Copies pieces of a patterned pool, `(offset, len)`, to pieces of a target.
struct Scene {
    source: Arc<Memory>,
    target: Arc<Memory>,
    region: Arc<Region>,
    pools: Pools,
}

impl Scene {
    fn new(target: Arc<Memory>) -> Self {
        let source = Memory::shared("kvx-test", 4 * PAGE);
        source.imprint(1);
        let pools = mapped_pool(9, &source.region());
        let region = target.region();
        Self { source, target, region, pools }
    }

    fn copy(&self, from: &[(u64, u64)], to: &[(u64, u32)], limit: usize) -> usize {
        let base = self.source.address();
        let pieces: Vec<_> =
            from.iter().map(|(offset, len)| (9, span(base + offset, *len))).collect();
        let mut places = Places::default();
        let spans: Vec<_> =
            to.iter().map(|&(offset, len)| LocalSpan { region: 0, len, offset }).collect();
        let len = to.iter().map(|(_, len)| u64::from(*len)).sum();
        places.fill(&[Arc::clone(&self.region)], &spans, len).unwrap();
        let held = Leases::enter([&self.region.gate]).unwrap();
        copy(&held, &places, &sources(&pieces), &self.pools, limit)
    }
}

#[test]
fn bytes_land_in_order_however_both_sides_are_cut() {
    let scene = Scene::new(Memory::shared("kvx-test", 4 * PAGE));
    let copied = scene.copy(
        &[(100, 1), (5000, 3000), (0, 99), (7, 0x1000)],
        &[(1, 700), (8000, 4096), (4000, 2400)],
        usize::MAX >> 1,
    );
    assert_eq!(copied, 7196);
    let wanted = [
        scene.source.read(100, 1),
        scene.source.read(5000, 3000),
        scene.source.read(0, 99),
        scene.source.read(7, 0x1000),
    ]
    .concat();
    let landed =
        [scene.target.read(1, 700), scene.target.read(8000, 4096), scene.target.read(4000, 2400)];
    assert!(landed.concat() == wanted);
    let rest = [(0, 1), (701, 3299), (6400, 1600), (12096, 4288)];
    let untouched = |&(at, len): &(usize, usize)| {
        scene.target.read(at, len).iter().all(|byte| *byte == SENTINEL)
    };
    assert!(rest.iter().all(untouched));
}

#[test]
fn no_more_is_copied_than_the_limit() {
    let scene = Scene::new(Memory::shared("kvx-test", 4 * PAGE));
    assert_eq!(scene.copy(&[(0, 50), (60, 50)], &[(0, 100)], 70), 70);
    assert_eq!(scene.target.read(0, 50), scene.source.read(0, 50));
    assert_eq!(scene.target.read(50, 20), scene.source.read(60, 20));
    assert!(scene.target.read(70, 100).iter().all(|byte| *byte == SENTINEL));
    assert_eq!(scene.copy(&[(0, 50)], &[(0, 50)], 0), 0);
}

#[test]
fn memory_that_may_be_unmapped_is_not_stored_to() {
    let scene = Scene::new(Memory::new(4 * PAGE));
    assert_eq!(scene.copy(&[(0, 50)], &[(0, 50)], 50), 0);
    assert!(scene.target.all().iter().all(|byte| *byte == SENTINEL));
}

#[test]
fn what_is_in_no_pool_is_not_read() {
    let mut scene = Scene::new(Memory::shared("kvx-test", 4 * PAGE));
    assert_eq!(scene.copy(&[(0, 10), (4 * PAGE as u64 - 1, 2)], &[(0, 12)], 12), 10);
    scene.pools.give_back(9).unwrap();
    assert_eq!(scene.copy(&[(0, 10)], &[(0, 10)], 10), 0);
}
