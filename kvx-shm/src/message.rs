//! What a message in a ring is: a word with its kind and its length in words; then, mostly, a frame's
//! header and table as PROTOCOL 5 has them, and in the place of the payload where it lies in the
//! sender's memory. Not its meaning.

use kvx_core::error::Violation;
use kvx_core::transport::HostSpan;
use kvx_core::wire::frame::{RawSpan, decode_table};
use kvx_core::wire::{FRAME_HEADER_LEN, FRAME_SPAN_LEN, FrameHeader, MAX_FRAME_SPANS, WireSpan};
use zerocopy::{FromBytes, IntoBytes};

use crate::pools::Pools;

/// Words of a message's length.
const LENGTH: usize = 1;
/// Words of a header.
const HEADER: usize = FRAME_HEADER_LEN / 8;
/// Words of a table's entry.
const ENTRY: usize = FRAME_SPAN_LEN / 8;
/// Words of a source: its address, and its length with 1 + the slot of its pool above it, if it is in
/// one. A payload is shorter than 2^32 bytes.
const SOURCE: usize = 2;
/// The half of a word with a source's length.
const LEN: u64 = u32::MAX as u64;

/// Words of the longest message: each of the spans lies apart.
pub(crate) const MAX_WORDS: usize = LENGTH + HEADER + MAX_FRAME_SPANS * (ENTRY + SOURCE);

/// Words of an offer.
pub(crate) const OFFER: usize = 5;
/// Words of what takes one back.
pub(crate) const TAKE_BACK: usize = 2;

/// What a message is: the upper half of its first word. The lower half has its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A frame.
    Frame,
    /// A pool that may be mapped.
    Offer,
    /// A pool that may not be read any more.
    TakeBack,
}

impl Kind {
    /// The kind and the length that a first word tells of.
    ///
    /// # Errors
    /// There is no such message.
    pub(crate) fn of(word: u64) -> Result<(Self, usize), Violation> {
        let words = word as u32 as usize;
        let frames = LENGTH + HEADER..=MAX_WORDS;
        match word >> 32 {
            0 if frames.contains(&words) => Ok((Self::Frame, words)),
            1 if words == OFFER => Ok((Self::Offer, words)),
            2 if words == TAKE_BACK => Ok((Self::TakeBack, words)),
            _ => Err(odd("a message's kind or length")),
        }
    }

    fn first_word(self, words: usize) -> u64 {
        let code = match self {
            Self::Frame => 0_u64,
            Self::Offer => 1,
            Self::TakeBack => 2,
        };
        code << 32 | words as u64
    }
}

/// A pool, as its owner offers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// What messages call it.
    pub(crate) slot: u32,
    /// The number of its descriptor in the owner's process.
    pub(crate) memfd: i32,
    /// The owner's address of its first byte.
    pub(crate) base: u64,
    /// Its length in bytes.
    pub(crate) len: u64,
}

impl Offer {
    /// Appends the message.
    pub(crate) fn write(&self, words: &mut Vec<u64>) {
        let first = Kind::Offer.first_word(OFFER);
        words.extend([first, self.slot.into(), self.memfd as u64, self.base, self.len]);
    }
}

/// Appends the message that takes back the pool of this slot.
pub(crate) fn take_back(words: &mut Vec<u64>, slot: u32) {
    words.extend([Kind::TakeBack.first_word(TAKE_BACK), slot.into()]);
}

/// Begins a frame's message in an empty buffer.
pub(crate) fn begin(words: &mut Vec<u64>) {
    words.clear();
    words.push(0);
}

/// Appends a header, or an entry of the table: whole words.
pub(crate) fn push(words: &mut Vec<u64>, bytes: &[u8]) {
    // Both sides run on one machine.
    words.extend(bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)));
}

/// Ends a message with where its payload lies, and in the pools of which slots; what lies side by side
/// is named once.
pub(crate) fn end(
    words: &mut Vec<u64>,
    sources: impl IntoIterator<Item = (HostSpan, Option<u32>)>,
) {
    let first = words.len();
    for (source, slot) in sources {
        let pool = slot.map_or(0, |slot| 1 + u64::from(slot));
        if words.len() > first
            && let [.., address, len] = &mut words[..]
            && *len >> 32 == pool
            && *address + (*len & LEN) == source.address
        {
            *len += source.len;
        } else {
            words.extend([source.address, pool << 32 | source.len]);
        }
    }
    words[0] = Kind::Frame.first_word(words.len());
}

/// A message, taken apart. Kept by a lane and filled anew for each.
#[derive(Debug, Default)]
pub(crate) struct Message {
    words: Vec<u64>,
    /// The table.
    pub(crate) table: Vec<WireSpan>,
    /// Where the payload lies.
    pub(crate) sources: Sources,
}

impl Message {
    /// Makes room for a message of so many words.
    pub(crate) fn room(&mut self, words: usize) -> &mut [u64] {
        self.words.clear();
        self.words.resize(words, 0);
        &mut self.words
    }

    /// The message as an offer.
    ///
    /// # Errors
    /// There is no such pool.
    pub(crate) fn offer(&self) -> Result<Offer, Violation> {
        let [_, slot, memfd, base, len] = self.words[..] else {
            return Err(odd("an offer"));
        };
        let (slot, memfd) = (u32::try_from(slot), i32::try_from(memfd));
        match (slot, memfd) {
            (Ok(slot), Ok(memfd)) => Ok(Offer { slot, memfd, base, len }),
            _ => Err(odd("an offer")),
        }
    }

    /// The slot that is taken back.
    ///
    /// # Errors
    /// There is no such slot.
    pub(crate) fn taken_back(&self) -> Result<u32, Violation> {
        let slot = self.words.last().and_then(|slot| u32::try_from(*slot).ok());
        slot.ok_or_else(|| odd("what is taken back"))
    }

    /// Takes the message apart.
    ///
    /// # Errors
    /// It does not parse.
    pub(crate) fn parse(&mut self) -> Result<FrameHeader, Violation> {
        let words = self.words.get(LENGTH..).unwrap_or_default();
        let (header, rest) = words.split_at_checked(HEADER).ok_or_else(|| odd("a header"))?;
        let bytes = header.as_bytes().first_chunk().ok_or_else(|| odd("a header"))?;
        let header = FrameHeader::decode(bytes)?;
        let entries = header.table_entries() * ENTRY;
        let (table, rest) = rest.split_at_checked(entries).ok_or_else(|| odd("a table"))?;
        let raw = <[RawSpan]>::ref_from_bytes(table.as_bytes()).map_err(|_| odd("a table"))?;
        decode_table(&header, raw, &mut self.table)?;
        self.sources.fill(rest, if header.kind.has_payload() { header.payload_len } else { 0 })?;
        Ok(header)
    }
}

/// Where the rest of a payload lies in the sender's memory, in order. Any addresses.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    spans: Vec<HostSpan>,
    /// For each, 1 + the slot of the pool that it is in, or 0.
    pools: Vec<u32>,
    /// Those before it are done.
    first: usize,
}

impl Sources {
    /// Of words, which must name so many bytes.
    fn fill(&mut self, words: &[u64], due: u32) -> Result<(), Violation> {
        self.clear();
        let (pairs, odd_word) = words.as_chunks::<SOURCE>();
        for &[address, len] in pairs {
            self.spans.push(HostSpan { address, len: len & LEN });
            self.pools.push((len >> 32) as u32);
        }
        let sum = |sum: u64, span: &HostSpan| sum.checked_add(span.len).filter(|_| span.len > 0);
        let named = self.spans.iter().try_fold(0, sum);
        let fits = odd_word.is_empty() && named == Some(u64::from(due));
        if fits { Ok(()) } else { Err(odd("what a message names")) }
    }

    /// What is not done.
    pub(crate) fn spans(&self) -> &[HostSpan] {
        self.spans.get(self.first..).unwrap_or_default()
    }

    /// What is not done, if all of it is in pools: the slot of each.
    pub(crate) fn in_pools(&self) -> impl Iterator<Item = (u32, HostSpan)> {
        let pools = self.pools.get(self.first..).unwrap_or_default();
        pools.iter().map_while(|pool| pool.checked_sub(1)).zip(self.spans().iter().copied())
    }

    /// Whether all of it can be read where it is mapped.
    ///
    /// # Errors
    /// Something is in a pool that was not offered, or is not inside of it.
    pub(crate) fn are_mapped(&self, pools: &Pools) -> Result<bool, Violation> {
        let mut mapped = true;
        for (pool, span) in self.pools.iter().zip(&self.spans) {
            mapped &= match pool.checked_sub(1) {
                Some(slot) => pools.find(slot, *span)?.is_some(),
                None => false,
            };
        }
        Ok(mapped)
    }

    /// The next `bytes` bytes are done.
    pub(crate) fn advance(&mut self, mut bytes: u64) {
        while let Some(span) = self.spans.get_mut(self.first) {
            if bytes < span.len {
                span.address = span.address.wrapping_add(bytes);
                span.len -= bytes;
                break;
            }
            bytes -= span.len;
            self.first += 1;
        }
    }

    /// Lets go of all.
    pub(crate) fn clear(&mut self) {
        self.spans.clear();
        self.pools.clear();
        self.first = 0;
    }
}

fn odd(message: &'static str) -> Violation {
    Violation::Unexpected { message, why: "it does not fit its message" }
}

/// Pieces of pools, each with its slot.
#[cfg(test)]
pub(crate) fn sources(pieces: &[(u32, HostSpan)]) -> Sources {
    let (pools, spans) = pieces.iter().map(|(slot, span)| (slot + 1, *span)).unzip();
    Sources { spans, pools, first: 0 }
}

#[cfg(test)]
mod tests {
    use kvx_core::id::{Slot, TransferId};
    use kvx_core::time::Time;
    use kvx_core::wire::frame::FrameRuns;

    use super::*;

    fn span(address: u64, len: u64) -> HostSpan {
        HostSpan { address, len }
    }

    fn write(runs: u32, payload: u32) -> FrameHeader {
        let runs = FrameRuns { first: 0, count: runs, total: runs };
        FrameHeader::write(TransferId(1), None, Time::from_nanos(9), runs, payload)
    }

    fn encoded(header: &FrameHeader, entries: &[WireSpan], sources: &[HostSpan]) -> Vec<u64> {
        let mut words = Vec::new();
        begin(&mut words);
        push(&mut words, &header.encode());
        entries.iter().for_each(|entry| push(&mut words, RawSpan::from(*entry).as_bytes()));
        end(&mut words, sources.iter().map(|source| (*source, None)));
        words
    }

    fn parsed(words: &[u64]) -> Result<(FrameHeader, Message), Violation> {
        let mut message = Message::default();
        message.room(words.len()).copy_from_slice(words);
        let header = message.parse()?;
        Ok((header, message))
    }

    fn entries() -> [WireSpan; 3] {
        [64, 32, 8].map(|len| WireSpan { slot: Slot(2), len, offset: u64::from(len) })
    }

    #[test]
    fn a_message_says_what_it_was_told_and_names_neighbours_once() {
        let header = write(3, 104);
        let sources = [span(100, 64), span(164, 32), span(500, 8)];
        let words = encoded(&header, &entries(), &sources);
        assert_eq!(words[0], words.len() as u64);
        let (found, message) = parsed(&words).unwrap();
        assert_eq!(found, header);
        assert_eq!(message.table, entries());
        assert_eq!(message.sources.spans(), [span(100, 96), span(500, 8)]);
    }

    #[test]
    fn the_longest_message_is_as_long_as_is_said() {
        let count = MAX_FRAME_SPANS as u32;
        let entry = WireSpan { slot: Slot(1), len: 1, offset: 0 };
        let table = vec![entry; MAX_FRAME_SPANS];
        let sources: Vec<_> = (0..u64::from(count)).map(|i| span(3 * i, 1)).collect();
        assert_eq!(encoded(&write(count, count), &table, &sources).len(), MAX_WORDS);
    }

    #[test]
    fn sources_that_do_not_add_up_are_violations() {
        let header = write(3, 104);
        for sources in [
            vec![span(100, 103)],
            vec![span(100, 105)],
            vec![span(100, 104), span(0, 0)],
            vec![span(100, u64::MAX), span(0, 105)],
            vec![],
        ] {
            // Not through `end`, which would merge.
            let mut words = encoded(&header, &entries(), &[]);
            words.extend(sources.iter().flat_map(|source| [source.address, source.len]));
            assert!(parsed(&words).is_err(), "{sources:?}");
        }
        let mut words = encoded(&header, &entries(), &[span(100, 104)]);
        words.push(7);
        assert!(parsed(&words).is_err(), "a word too many");
    }

    #[test]
    fn messages_that_are_cut_are_violations() {
        let words = encoded(&write(3, 104), &entries(), &[span(100, 104)]);
        for len in 0..words.len() {
            assert!(parsed(&words[..len]).is_err(), "{len} words");
        }
        for word in [0, 8, MAX_WORDS as u64 + 1, 1 << 32 | 4, 2 << 32 | 5, 3 << 32 | 20, u64::MAX] {
            assert!(Kind::of(word).is_err(), "{word:#x}");
        }
    }

    #[test]
    fn what_lies_side_by_side_in_two_pools_is_named_twice() {
        let header = write(3, 104);
        let sources = [(span(100, 64), Some(0)), (span(164, 32), Some(0)), (span(196, 8), Some(4))];
        let mut words = encoded(&header, &entries(), &[]);
        end(&mut words, sources);
        let (_, message) = parsed(&words).unwrap();
        assert_eq!(message.sources.spans(), [span(100, 96), span(196, 8)]);
        let pools: Vec<_> = message.sources.in_pools().collect();
        assert_eq!(pools, [(0, span(100, 96)), (4, span(196, 8))]);
    }

    #[test]
    fn an_offer_and_its_end_say_what_they_were_told() {
        let offered = Offer { slot: 1023, memfd: 7, base: 0x7f00_0000_0000, len: 1 << 40 };
        let mut words = Vec::new();
        offered.write(&mut words);
        take_back(&mut words, 1023);
        let mut message = Message::default();
        assert_eq!(Kind::of(words[0]).unwrap(), (Kind::Offer, OFFER));
        message.room(OFFER).copy_from_slice(&words[..OFFER]);
        assert_eq!(message.offer().unwrap(), offered);
        assert_eq!(Kind::of(words[OFFER]).unwrap(), (Kind::TakeBack, TAKE_BACK));
        message.room(TAKE_BACK).copy_from_slice(&words[OFFER..]);
        assert_eq!(message.taken_back().unwrap(), 1023);
        for (at, odd) in [(1, 1 << 32), (2, 1 << 31), (2, u64::MAX)] {
            let mut words = words.clone();
            words[at] = odd;
            message.room(OFFER).copy_from_slice(&words[..OFFER]);
            assert!(message.offer().is_err(), "{odd:#x}");
        }
    }

    #[test]
    fn sources_advance_by_bytes() {
        let mut sources = Sources::default();
        sources.fill(&[100, 10, 200, 20], 30).unwrap();
        sources.advance(4);
        assert_eq!(sources.spans(), [span(104, 6), span(200, 20)]);
        sources.advance(6);
        assert_eq!(sources.spans(), [span(200, 20)]);
        sources.advance(20);
        assert!(sources.spans().is_empty());
    }
}
