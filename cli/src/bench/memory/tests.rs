//! Memory that is looked at after a round: that each single byte which is not as it should be is
//! noticed.

use kvx::Config;

use super::super::shape::Order;
use super::*;

const SHAPE: Shape = Shape { pools: 2, blocks: 3, block_bytes: 72, order: Order::Scattered };

const OWNERS: [Owner; 2] = [Owner::Engine, Owner::Caller];

fn memory(owner: Owner, shape: Shape) -> Memory {
    let engine = Engine::new(Config::default()).unwrap();
    Memory::new(&engine, owner, shape, Side::Peer, TransferOp::Write, 7).unwrap()
}

fn difference(memory: &Memory, round: u64) -> Option<String> {
    memory.difference(round).unwrap()
}

#[test]
fn the_content_of_another_round_is_noticed() {
    let memory = memory(Owner::Engine, SHAPE);
    assert!(difference(&memory, 1).is_some(), "nothing was written yet");
    memory.fill(1).unwrap();
    assert_eq!(difference(&memory, 1), None);
    assert!(difference(&memory, 2).is_some());
    memory.fill(2).unwrap();
    assert_eq!(difference(&memory, 2), None);
}

#[test]
fn each_single_byte_that_differs_is_noticed_in_blocks_and_outside() {
    OWNERS.map(|owner| memory(owner, SHAPE)).iter().for_each(check_each_byte);
}

fn check_each_byte(memory: &Memory) {
    memory.fill(1).unwrap();
    let (mut inside, mut outside) = (0, 0);
    for (pool, buffer) in memory.pools.iter().enumerate() {
        for offset in 0..buffer.len() {
            let mut byte = [0];
            buffer.read(offset, &mut byte).unwrap();
            buffer.write(offset, &[byte[0] ^ 0x10]).unwrap();
            let difference = difference(memory, 1).unwrap();
            assert!(difference.starts_with(&format!("pool {pool}, offset {offset}: ")));
            match difference.contains("outside of the blocks") {
                true => outside += 1,
                false => inside += 1,
            }
            buffer.write(offset, &byte).unwrap();
        }
    }
    assert_eq!(difference(memory, 1), None);
    assert_eq!((inside, inside + outside), (SHAPE.bytes(), SHAPE.side_bytes()));
}

#[test]
fn blocks_that_changed_places_are_noticed() {
    let memory = memory(Owner::Engine, SHAPE);
    memory.fill(1).unwrap();
    let [(pool, first), (_, second)] = memory.places[..2] else { panic!("two blocks") };
    let buffer = &memory.pools[pool as usize];
    let [mut a, mut b] = [[0; 72]; 2];
    buffer.read(first, &mut a).unwrap();
    buffer.read(second, &mut b).unwrap();
    buffer.write(first, &b).unwrap();
    buffer.write(second, &a).unwrap();
    assert!(difference(&memory, 1).is_some());
}

#[test]
fn blocks_larger_than_a_chunk_are_looked_at_to_their_end() {
    let block_bytes = 2 * CHUNK as u64 + 12;
    let shape = Shape { pools: 1, blocks: 1, block_bytes, order: Order::Sequential };
    for owner in OWNERS {
        check_last_byte(&memory(owner, shape));
    }
}

fn check_last_byte(memory: &Memory) {
    let block_bytes = memory.shape.block_bytes;
    memory.fill(1).unwrap();
    assert_eq!(difference(memory, 1), None);
    let (_, begin) = memory.places[0];
    let last = begin + block_bytes - 1;
    let mut byte = [0];
    memory.pools[0].read(last, &mut byte).unwrap();
    memory.pools[0].write(last, &[!byte[0]]).unwrap();
    assert!(difference(memory, 1).unwrap().starts_with(&format!("pool 0, offset {last}: ")));
}

#[test]
fn a_callers_pools_lie_on_pages_of_their_own_and_are_read_and_written_at_any_byte() {
    let engine = Engine::new(Config::default()).unwrap();
    let (pools, regions) =
        Pool::allocate(&engine, Owner::Caller, (3, 4097), Rights::empty()).unwrap();
    let mut addresses: Vec<u64> = regions.iter().map(Region::address).collect();
    assert!(addresses.iter().all(|address| address % 4096 == 0));
    addresses.dedup_by_key(|address| *address / 8192);
    assert_eq!(addresses.len(), 3);
    let mut model = [0; 4097];
    for (offset, len) in [(0, 1), (1, 6), (7, 1), (5, 3), (3, 18), (4090, 7), (8, 16), (17, 0)] {
        let bytes: Vec<u8> = (1..=len as u8).collect();
        pools[1].write(offset, &bytes).unwrap();
        model[offset as usize..][..len].copy_from_slice(&bytes);
        let mut found = vec![0; len];
        pools[1].read(offset, &mut found).unwrap();
        assert_eq!(found, bytes);
        let mut all = [1; 4097];
        pools[1].read(0, &mut all).unwrap();
        assert_eq!(all, model);
    }
    assert!(pools[1].write(4097, &[1]).is_err());
    assert!(pools[1].read(u64::MAX, &mut [0]).is_err());
    for neighbour in [&pools[0], &pools[2]] {
        let mut all = [1; 4097];
        neighbour.read(0, &mut all).unwrap();
        assert_eq!(all, [0; 4097]);
    }
}
