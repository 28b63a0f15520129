//! Memory that is looked at after a round: that each single byte which is not as it should be is
//! noticed.

use kvx::Config;

use super::super::shape::Order;
use super::*;

const SHAPE: Shape = Shape { pools: 2, blocks: 3, block_bytes: 72, order: Order::Scattered };

fn memory(shape: Shape) -> Memory {
    let engine = Engine::new(Config::default()).unwrap();
    Memory::new(&engine, shape, Side::Peer, TransferOp::Write, 7).unwrap()
}

fn difference(memory: &Memory, round: u64) -> Option<String> {
    memory.difference(round).unwrap()
}

#[test]
fn the_content_of_another_round_is_noticed() {
    let memory = memory(SHAPE);
    assert!(difference(&memory, 1).is_some(), "nothing was written yet");
    memory.fill(1).unwrap();
    assert_eq!(difference(&memory, 1), None);
    assert!(difference(&memory, 2).is_some());
    memory.fill(2).unwrap();
    assert_eq!(difference(&memory, 2), None);
}

#[test]
fn each_single_byte_that_differs_is_noticed_in_blocks_and_outside() {
    let memory = memory(SHAPE);
    memory.fill(1).unwrap();
    let (mut inside, mut outside) = (0, 0);
    for (pool, buffer) in memory.buffers.iter().enumerate() {
        for offset in 0..buffer.len() {
            let mut byte = [0];
            buffer.read(offset, &mut byte).unwrap();
            buffer.write(offset, &[byte[0] ^ 0x10]).unwrap();
            let difference = difference(&memory, 1).unwrap();
            assert!(difference.starts_with(&format!("pool {pool}, offset {offset}: ")));
            match difference.contains("outside of the blocks") {
                true => outside += 1,
                false => inside += 1,
            }
            buffer.write(offset, &byte).unwrap();
        }
    }
    assert_eq!(difference(&memory, 1), None);
    assert_eq!((inside, inside + outside), (SHAPE.bytes(), SHAPE.side_bytes()));
}

#[test]
fn blocks_that_changed_places_are_noticed() {
    let memory = memory(SHAPE);
    memory.fill(1).unwrap();
    let [(pool, first), (_, second)] = memory.places[..2] else { panic!("two blocks") };
    let buffer = &memory.buffers[pool as usize];
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
    let memory = memory(Shape { pools: 1, blocks: 1, block_bytes, order: Order::Sequential });
    memory.fill(1).unwrap();
    assert_eq!(difference(&memory, 1), None);
    let (_, begin) = memory.places[0];
    let last = begin + block_bytes - 1;
    let mut byte = [0];
    memory.buffers[0].read(last, &mut byte).unwrap();
    memory.buffers[0].write(last, &[!byte[0]]).unwrap();
    assert!(difference(&memory, 1).unwrap().starts_with(&format!("pool 0, offset {last}: ")));
}
