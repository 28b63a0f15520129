//! Grant maps, against a list of bytes.

use arbitrary::{Arbitrary, Result, Unstructured};
use kvx_core::id::Slot;
use kvx_core::region::GrantMap;

/// Bytes of a slot that the model keeps.
const LEN: u64 = 128;
const SLOTS: u32 = 4;

/// A span of a slot; mostly within what the model keeps.
#[derive(Clone, Copy, Debug)]
struct Piece(Slot, u64, u64);

impl<'a> Arbitrary<'a> for Piece {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Ok(match u8::arbitrary(u)? {
            255 => Self(Slot(u.arbitrary()?), u.arbitrary()?, u.arbitrary()?),
            slot => {
                let offset = u64::from(u8::arbitrary(u)?) % LEN;
                let len = u64::from(u8::arbitrary(u)?) % (LEN - offset + 1);
                Self(Slot(u32::from(slot) % SLOTS), offset, len)
            }
        })
    }
}

/// What is granted, and what is asked.
#[derive(Arbitrary, Debug)]
struct Request {
    granted: Vec<Piece>,
    asked: Vec<Piece>,
}

/// Builds a map and asks it.
pub fn run(bytes: &[u8]) {
    let Some(Request { granted, asked }) = crate::structured(bytes) else { return };
    let wraps = |piece: &Piece| piece.1.checked_add(piece.2).is_none();
    let map =
        GrantMap::build(granted.iter().map(|Piece(slot, offset, len)| (*slot, *offset, *len)));
    assert_eq!(map.is_err(), granted.iter().any(wraps));
    let Ok(map) = map else { return };
    // The model: byte by byte. The few spans beyond what it keeps are asked as wholes.
    let byte = |slot: Slot, offset: u64| {
        let holds =
            |piece: &&Piece| piece.0 == slot && (piece.1..piece.1 + piece.2).contains(&offset);
        granted.iter().any(|piece| holds(&piece))
    };
    for Piece(slot, offset, len) in asked.iter().chain(&granted).copied() {
        let end = offset.saturating_add(len);
        let covered = match end <= LEN {
            true => len > 0 && (offset..end).all(|at| byte(slot, at)),
            // Either it is one of those granted, or the ends decide what can be said.
            false
                if granted
                    .iter()
                    .any(|piece| (piece.0, piece.1, piece.2) == (slot, offset, len)) =>
            {
                len > 0
            }
            false => {
                let ends = len > 0 && byte(slot, offset) && byte(slot, end - 1);
                assert!(ends || !map.covers(slot, offset, len));
                continue;
            }
        };
        assert_eq!(map.covers(slot, offset, len), covered, "{slot:?} {offset} {len}");
    }
    if granted.iter().all(|piece| piece.1 + piece.2 <= LEN) {
        let slots = (0..SLOTS).chain(granted.iter().map(|piece| piece.0.0).filter(|s| *s >= SLOTS));
        let mut slots: Vec<u32> = slots.collect();
        slots.sort_unstable();
        slots.dedup();
        let count = |slot: u32| (0..LEN).filter(|at| byte(Slot(slot), *at)).count() as u64;
        assert_eq!(map.bytes(), slots.into_iter().map(count).sum::<u64>());
    }
}
