//! Memory that may be mapped: what moves is the same as of all other memory, and so is the fence.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use kvx_core::error::Refusal;
use kvx_core::region::Region;
use kvx_core::wire::FrameKind;

use crate::pair::{Pair, whole};
use crate::scripted::*;

const PAGES: usize = 8;

/// A name that no other memory of this process has.
fn name() -> String {
    static LAST: AtomicU32 = AtomicU32::new(0);
    format!("kvx-test-{}-", LAST.fetch_add(1, Ordering::Relaxed))
}

/// Mappings of the memory of this name: to read only, and to write too.
fn mappings(name: &str) -> (usize, usize) {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let of = |rights: &str| {
        maps.lines().filter(|line| line.contains(name) && line.contains(rights)).count()
    };
    (of(" r--s "), of(" rw-s "))
}

fn imprinted(name: &str, seed: u8) -> Arc<Memory> {
    let memory = Memory::shared(name, PAGES * PAGE);
    memory.imprint(seed);
    memory
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    for _ in 0..HUNG.as_millis() {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("it never came to be");
}

fn drained(region: &Region) {
    wait_until(|| region.gate.is_drained());
}

#[test]
fn shared_memory_is_mapped_while_it_is_registered() {
    let name = name();
    let target = Memory::shared("kvx-test-target", PAGES * PAGE);
    let pair = Pair::new(&[], &[&target.region()]);
    for transfer in 1..=3 {
        let source = imprinted(&name, transfer as u8);
        let region = source.region();
        assert_eq!(mappings(&name), (0, 1));
        pair.near.send(whole(transfer, &region, 3));
        pair.far.host.wait_count(PAGES.div_ceil(3), |seen| *seen == done(transfer));
        assert_eq!(mappings(&name), (1, 1), "it was copied otherwise");
        assert!(target.all() == source.all());
        region.gate.close();
        drained(&region);
        // The other side has given it back, too, and nothing need be sent for that.
        wait_until(|| mappings(&name) == (0, 1));
    }
}

#[test]
fn memory_of_both_kinds_moves_to_memory_of_both_kinds() {
    let kinds: [fn() -> Arc<Memory>; 2] =
        [|| Memory::new(PAGES * PAGE), || Memory::shared("kvx-test-target", PAGES * PAGE)];
    for new in kinds {
        let target = new();
        let pair = Pair::new(&[], &[&target.region()]);
        let sources = [Memory::patterned(PAGES * PAGE, 1), imprinted(&name(), 2)];
        let regions = sources.each_ref().map(Memory::region);
        // Half of the pages of each frame from either.
        let moves: Vec<Move> =
            (0..PAGES).map(|page| (page as u32 % 2, page * PAGE, 0, page * PAGE, PAGE)).collect();
        pair.near.send(frames(FrameKind::Write, 1, &plan(&moves), &regions, PAGES));
        pair.far.host.wait(&done(1));
        for page in 0..PAGES {
            let wanted = sources[page % 2].read(page * PAGE, PAGE);
            assert!(target.read(page * PAGE, PAGE) == wanted, "page {page}");
        }
    }
}

#[test]
fn more_pools_than_there_are_slots_are_memory_like_all_other() {
    let target = Memory::shared("kvx-test-target", PAGE);
    let pair = Pair::new(&[], &[&target.region()]);
    let mut kept = Vec::new();
    for transfer in 1..=1100 {
        let source = Memory::shared("kvx-test-many", PAGE);
        source.imprint(transfer as u8);
        let region = source.region();
        pair.near.send(whole(transfer, &region, 1));
        pair.far.host.wait(&done(transfer));
        assert!(target.all() == source.all(), "of pool {transfer}");
        kept.push((source, region));
    }
    // A slot that comes free is another pool's.
    for (_, region) in kept.drain(..100) {
        region.gate.close();
        drained(&region);
    }
    let name = name();
    let source = Memory::shared(&name, PAGE);
    source.imprint(77);
    pair.near.send(whole(2000, &source.region(), 1));
    pair.far.host.wait(&done(2000));
    assert!(target.all() == source.all());
    assert_eq!(mappings(&name), (1, 1));
}

#[test]
fn nothing_lands_in_shared_memory_after_its_gate_closed() {
    let (source, target) = (imprinted(&name(), 1), Memory::shared("kvx-test-target", PAGES * PAGE));
    let region = target.region();
    let pair = Pair::new(&[], &[&region]);
    let gate = Arc::clone(&region);
    pair.far.host.on_event(move |event| {
        if let Event::Arrived(..) = event {
            gate.gate.close();
        }
        Ok(())
    });
    pair.near.send(whole(1, &source.region(), PAGES));
    pair.far.host.wait(&refused(1, Refusal::RegionClosed));
    assert!(target.all().iter().all(|byte| *byte == SENTINEL), "bytes landed after the fence");
}
