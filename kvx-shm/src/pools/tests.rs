use std::os::fd::AsRawFd;

use kvx_core::region::Region;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::{PidfdFlags, geteuid, getpid, pidfd_open};

use super::*;
use crate::ring::Own;
use crate::scripted::{Memory, PAGE, unsealed};
use crate::sys::Token;

/// This process, as its own peer.
fn own_process() -> Attached {
    let token = Token { address: 0, value: [0; 16] };
    Attached {
        theirs: Own::new().unwrap().as_seen(),
        pid: getpid().as_raw_nonzero().get(),
        process: pidfd_open(getpid(), PidfdFlags::empty()).unwrap(),
        user: geteuid().as_raw(),
        token,
    }
}

fn offer(slot: u32, region: &Region) -> Offer {
    let memfd = region.memory.memfd().unwrap().as_raw_fd();
    Offer { slot, memfd, base: region.base(), len: region.len() }
}

/// A region's pool, in this slot.
pub(crate) fn mapped_pool(slot: u32, region: &Region) -> Pools {
    let mut pools = Pools::new(Arc::default());
    pools.accept(&offer(slot, region), &own_process()).unwrap();
    pools
}

pub(crate) fn span(address: u64, len: u64) -> HostSpan {
    HostSpan { address, len }
}

#[test]
fn a_pool_is_mapped_once_for_all_lanes_and_as_long_as_one_has_it() {
    let memory = Memory::shared("kvx-test", 4 * PAGE);
    let (region, from) = (memory.region(), own_process());
    let mapped = Arc::new(Mapped::default());
    let [mut one, mut other] = [0, 1].map(|_| Pools::new(Arc::clone(&mapped)));
    one.accept(&offer(0, &region), &from).unwrap();
    other.accept(&offer(7, &region), &from).unwrap();
    let base = region.base();
    let found = one.find(0, span(base, 4 * PAGE as u64)).unwrap().unwrap();
    assert_eq!(other.find(7, span(base, 1)).unwrap(), Some(found));
    assert_ne!(found.as_ptr() as u64, base);
    let inside = one.find(0, span(base + 100, 5)).unwrap().unwrap();
    assert_eq!(inside.as_ptr() as u64, found.as_ptr() as u64 + 100);
    let alive = || mapped.0.lock().unwrap().values().filter(|it| it.strong_count() > 0).count();
    one.give_back(0).unwrap();
    assert_eq!(alive(), 1);
    other.clear();
    assert_eq!(alive(), 0);
}

#[test]
fn what_is_not_inside_of_a_pool_is_a_violation() {
    let memory = Memory::shared("kvx-test", 2 * PAGE);
    let (region, from) = (memory.region(), own_process());
    let mut pools = Pools::new(Arc::default());
    pools.accept(&offer(3, &region), &from).unwrap();
    let (base, len) = (region.base(), region.len());
    for (address, len) in
        [(base - 1, 2), (base, len + 1), (base + len, 1), (base + 1, len), (base, u64::MAX), (0, 1)]
    {
        assert!(pools.find(3, span(address, len)).is_err(), "{len} bytes at {address:#x}");
    }
    for slot in [0, 2, 4, MAX_POOLS, u32::MAX] {
        assert!(pools.find(slot, span(base, 1)).is_err(), "slot {slot}");
        assert!(pools.give_back(slot).is_err(), "slot {slot}");
    }
}

#[test]
fn a_slot_is_offered_once_until_it_is_taken_back() {
    let memory = Memory::shared("kvx-test", PAGE);
    let (region, from) = (memory.region(), own_process());
    let mut pools = Pools::new(Arc::default());
    pools.accept(&offer(1, &region), &from).unwrap();
    assert!(pools.accept(&offer(1, &region), &from).is_err());
    assert!(pools.accept(&offer(MAX_POOLS, &region), &from).is_err());
    pools.give_back(1).unwrap();
    assert!(pools.give_back(1).is_err());
    pools.accept(&offer(1, &region), &from).unwrap();
}

#[test]
fn what_could_fault_is_not_mapped() {
    let from = own_process();
    let memory = Memory::shared("kvx-test", PAGE);
    let region = memory.region();
    let unsealed = unsealed("kvx-test", PAGE);
    let hollow = rustix::fs::memfd_create("kvx-test", MemfdFlags::ALLOW_SEALING);
    let hollow = hollow.unwrap();
    rustix::fs::ftruncate(&hollow, 64 * PAGE as u64).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
    rustix::fs::fcntl_add_seals(&hollow, seals).unwrap();
    let good = offer(0, &region);
    let odd = [
        ("not sealed", Offer { memfd: unsealed.as_raw_fd(), ..good }),
        ("with holes", Offer { memfd: hollow.as_raw_fd(), ..good }),
        ("shorter than was said", Offer { len: PAGE as u64 + 1, ..good }),
        ("no descriptor", Offer { memfd: i32::MAX, ..good }),
        ("no shared memory", Offer { memfd: 0, ..good }),
        ("below nothing", Offer { memfd: -1, ..good }),
    ];
    let mut pools = Pools::new(Arc::default());
    for (slot, (what, offer)) in (0..).zip(odd) {
        pools.accept(&Offer { slot, ..offer }, &from).unwrap();
        // Memory like all other: the kernel says whether it is there.
        assert_eq!(pools.find(slot, span(offer.base, 1)).unwrap(), None, "{what}");
    }
}

#[test]
fn another_users_memory_is_not_mapped() {
    let memory = Memory::shared("kvx-test", PAGE);
    let region = memory.region();
    let from = Attached { user: geteuid().as_raw() + 1, ..own_process() };
    let mut pools = Pools::new(Arc::default());
    pools.accept(&offer(0, &region), &from).unwrap();
    assert_eq!(pools.find(0, span(region.base(), 1)).unwrap(), None);
}

#[test]
fn there_are_so_many_slots_and_those_that_are_free_come_again() {
    let mut slots = Slots::default();
    let taken: Vec<_> = std::iter::from_fn(|| slots.take()).collect();
    assert_eq!(taken, (0..MAX_POOLS).collect::<Vec<_>>());
    slots.free(5);
    assert_eq!((slots.take(), slots.take()), (Some(5), None));
}
