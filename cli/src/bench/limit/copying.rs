//! The other limit: memcpy of the same blocks within this process, by one thread.

use std::io;
use std::time::{Duration, Instant};

use super::super::workload::Blocks;
use super::memory::{Memory, check_pairs};

/// Reps that count, of which the best is the limit. One goes before them.
const REPS: usize = 3;

/// Copies the blocks from one side's memory to the other's. Both are touched before; every byte is
/// compared afterwards. Gives the best rep's time.
///
/// # Errors
/// Blocks that do not pair up, overlap at the target or lie outside of their memory; not enough
/// memory.
pub(crate) fn memcpy(blocks: &Blocks) -> io::Result<Duration> {
    let Blocks { source, target, source_len, target_len } = blocks;
    check_pairs(source, target)?;
    let mut from = Memory::new(*source_len, source)?;
    let mut to = Memory::new(*target_len, target)?;
    from.fill();
    to.wipe();
    let mut targets = to.slices_mut()?;
    let mut copy = || {
        let begin = Instant::now();
        for (target, source) in targets.iter_mut().zip(from.slices()) {
            target.copy_from_slice(source);
        }
        begin.elapsed()
    };
    copy();
    let best = (0..REPS).map(|_| copy()).min().unwrap_or_default();
    match to.count_wrong(source) {
        0 => Ok(best),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "memcpy copied wrong bytes")),
    }
}
