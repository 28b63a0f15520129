//! One side's memory: its blocks as slices, what they hold, and whether that has arrived. Not how
//! it moves.

use std::io::{self, IoSlice, IoSliceMut};
use std::ops::Range;

use super::super::workload::Span;
use crate::numbers::number_at;

/// Pages of the machines that matter; kvx's own buffers are aligned to them.
const PAGE: usize = 4096;

/// What memory holds that nothing was received into.
const POISON: u8 = 0xa5;

/// Bytes compared at a time; a multiple of words.
const CHUNK: usize = 64 << 10;

/// The memory of one side and the blocks in it.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: Vec<u8>,
    /// Where the first page of `bytes` begins.
    base: usize,
    /// Bytes from there on that spans lie in.
    len: usize,
    /// In the order of the pairs. Each lies inside, none is empty, and where the side receives no
    /// two overlap.
    spans: Vec<Range<usize>>,
    /// The spans' indices by where they lie.
    by_offset: Vec<u32>,
}

impl Memory {
    /// Allocates `len` bytes and touches each of them.
    ///
    /// # Errors
    /// Spans outside of `len`, more than 2^32 of them, or not as much memory.
    pub(super) fn new(len: usize, spans: &[Span]) -> io::Result<Self> {
        let mut placed = Vec::new();
        placed.try_reserve_exact(spans.len())?;
        for span in spans {
            let end = span.offset.checked_add(span.len).filter(|end| *end <= len);
            let end = end.ok_or_else(|| invalid("a block outside of its side's memory"))?;
            placed.push(span.offset..end);
        }
        let count = u32::try_from(placed.len()).map_err(|_| invalid("too many blocks"))?;
        let mut by_offset: Vec<u32> = Vec::new();
        by_offset.try_reserve_exact(placed.len())?;
        by_offset.extend(0..count);
        by_offset.sort_unstable_by_key(|index| placed[*index as usize].start);
        let mut bytes = Vec::new();
        let whole = len.checked_add(PAGE).ok_or_else(|| invalid("too much memory"))?;
        bytes.try_reserve_exact(whole)?;
        bytes.resize(whole, POISON);
        let base = bytes.as_ptr().align_offset(PAGE).min(PAGE);
        Ok(Self { bytes, base, len, spans: placed, by_offset })
    }

    /// The address of the first byte that spans count from.
    pub(super) fn address(&self) -> u64 {
        self.bytes[self.base..].as_ptr().expose_provenance() as u64
    }

    pub(super) fn len(&self) -> u64 {
        self.len as u64
    }

    /// Fills everything with its content, as the side that sends does.
    pub(super) fn fill(&mut self) {
        let base = self.base;
        content(0, &mut self.bytes[base..]);
    }

    /// Makes every byte another than the content, as the side that receives does.
    pub(super) fn wipe(&mut self) {
        self.bytes.fill(POISON);
    }

    /// Whether each block holds the content of its source, and how many bytes do not.
    pub(super) fn count_wrong(&self, sources: &[Span]) -> u64 {
        let mut expected = vec![0; CHUNK + WORD];
        let mut wrong = 0;
        for (span, source) in self.spans.iter().zip(sources) {
            let found = &self.bytes[self.base..][span.clone()];
            for (at, found) in (source.offset..).step_by(CHUNK).zip(found.chunks(CHUNK)) {
                let skipped = at % WORD;
                let expected = &mut expected[..skipped + found.len()];
                content(at - skipped, expected);
                if expected[skipped..] != *found {
                    let pairs = expected[skipped..].iter().zip(found);
                    wrong += pairs.filter(|(expected, found)| expected != found).count() as u64;
                }
            }
        }
        wrong
    }

    /// The blocks to send from, shared out over connections.
    pub(super) fn sources(&self, shares: &[Range<usize>]) -> Vec<Vec<IoSlice<'_>>> {
        let bytes = &self.bytes[self.base..];
        let slices = |share: &Range<usize>| {
            self.spans[share.clone()].iter().map(|span| IoSlice::new(&bytes[span.clone()]))
        };
        shares.iter().map(|share| slices(share).collect()).collect()
    }

    /// The blocks to receive into, shared out over connections.
    ///
    /// # Errors
    /// Two of them overlap.
    pub(super) fn targets(
        &mut self,
        shares: &[Range<usize>],
    ) -> io::Result<Vec<Vec<IoSliceMut<'_>>>> {
        let mut slices = self.slices_mut()?.into_iter();
        let sizes = shares.iter().map(|share| share.len());
        Ok(sizes.map(|size| slices.by_ref().take(size).map(IoSliceMut::new).collect()).collect())
    }

    /// All blocks at once, in order: memory is cut from its beginning to its end, once.
    ///
    /// # Errors
    /// Two of them overlap.
    pub(super) fn slices_mut(&mut self) -> io::Result<Vec<&mut [u8]>> {
        let mut rest = self.bytes.get_mut(self.base..).unwrap_or_default();
        let mut cut: Vec<&mut [u8]> = Vec::new();
        cut.resize_with(self.spans.len(), Default::default);
        let mut done = 0;
        for index in &self.by_offset {
            let span = &self.spans[*index as usize];
            let skipped = span.start.checked_sub(done);
            let skipped = skipped.ok_or_else(|| invalid("two blocks that overlap"))?;
            let (slice, behind) = rest[skipped..].split_at_mut(span.len());
            cut[*index as usize] = slice;
            (rest, done) = (behind, span.end);
        }
        Ok(cut)
    }

    pub(super) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.spans.iter().map(|span| &self.bytes[self.base..][span.clone()])
    }
}

/// Whether the blocks of both sides pair up and none is empty: a vector of empty ones would read
/// nothing, which looks like the end of the stream.
pub(super) fn check_pairs(source: &[Span], target: &[Span]) -> io::Result<()> {
    if !source.iter().map(|span| span.len).eq(target.iter().map(|span| span.len)) {
        return Err(invalid("blocks that do not pair up"));
    }
    if source.is_empty() || source.iter().any(|span| span.len == 0) {
        return Err(invalid("no blocks, or an empty one"));
    }
    Ok(())
}

/// Cuts the pairs in `connections` shares of about as many bytes, in order. A pair stays whole.
pub(super) fn shares(spans: &[Span], connections: usize) -> Vec<Range<usize>> {
    let total: u128 = spans.iter().map(|span| span.len as u128).sum();
    let (mut begin, mut end, mut bytes) = (0, 0, 0u128);
    let parts = (1..=connections as u128).map(|part| {
        while end < spans.len() && bytes * (connections as u128) < total * part {
            bytes += spans[end].len as u128;
            end += 1;
        }
        std::mem::replace(&mut begin, end)..end
    });
    parts.collect()
}

const WORD: usize = size_of::<u64>();

/// Fills `bytes` with what lies from `offset` on in every side that sends: numbers that follow from
/// the place, so that a block at a wrong place has wrong content. `offset` is a multiple of words.
fn content(offset: usize, bytes: &mut [u8]) {
    for (word, bytes) in (offset / WORD..).zip(bytes.chunks_mut(WORD)) {
        bytes.copy_from_slice(&number_at(0, word as u64).to_le_bytes()[..bytes.len()]);
    }
}

pub(super) fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
