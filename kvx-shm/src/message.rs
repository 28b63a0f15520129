//! What a message in a ring is: its length in words, a frame's header and table as PROTOCOL 5 has
//! them, and in the place of the payload where it lies in the sender's memory. Not its meaning.

use kvx_core::error::Violation;
use kvx_core::transport::HostSpan;
use kvx_core::wire::frame::{RawSpan, decode_table};
use kvx_core::wire::{FRAME_HEADER_LEN, FRAME_SPAN_LEN, FrameHeader, MAX_FRAME_SPANS, WireSpan};
use zerocopy::{FromBytes, IntoBytes};

/// Words of a message's length.
const LENGTH: usize = 1;
/// Words of a header.
const HEADER: usize = FRAME_HEADER_LEN / 8;
/// Words of a table's entry.
const ENTRY: usize = FRAME_SPAN_LEN / 8;
/// Words of a source: its address and its length.
const SOURCE: usize = 2;

/// Words of the longest message: each of the spans lies apart.
pub(crate) const MAX_WORDS: usize = LENGTH + HEADER + MAX_FRAME_SPANS * (ENTRY + SOURCE);

/// Begins a message in an empty buffer.
pub(crate) fn begin(words: &mut Vec<u64>) {
    words.clear();
    words.push(0);
}

/// Appends a header, or an entry of the table: whole words.
pub(crate) fn push(words: &mut Vec<u64>, bytes: &[u8]) {
    // Both sides run on one machine.
    words.extend(bytes.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)));
}

/// Ends a message with where its payload lies; what lies side by side is named once.
pub(crate) fn end(words: &mut Vec<u64>, sources: &[HostSpan]) {
    let first = words.len();
    for source in sources {
        if words.len() > first
            && let [.., address, len] = &mut words[..]
            && *address + *len == source.address
        {
            *len += source.len;
        } else {
            words.extend([source.address, source.len]);
        }
    }
    words[0] = words.len() as u64;
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
    ///
    /// # Errors
    /// There is no such message.
    pub(crate) fn room(&mut self, words: u64) -> Result<&mut [u64], Violation> {
        let allowed = (LENGTH + HEADER) as u64..=MAX_WORDS as u64;
        if !allowed.contains(&words) {
            return Err(odd("a message's length"));
        }
        self.words.clear();
        self.words.resize(words as usize, 0);
        Ok(&mut self.words)
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
    /// Those before it are done.
    first: usize,
}

impl Sources {
    /// Of words, which must name so many bytes.
    fn fill(&mut self, words: &[u64], due: u32) -> Result<(), Violation> {
        self.clear();
        let (pairs, odd_word) = words.as_chunks::<SOURCE>();
        self.spans.extend(pairs.iter().map(|&[address, len]| HostSpan { address, len }));
        let sum = |sum: u64, span: &HostSpan| sum.checked_add(span.len).filter(|_| span.len > 0);
        let named = self.spans.iter().try_fold(0, sum);
        let fits = odd_word.is_empty() && named == Some(u64::from(due));
        if fits { Ok(()) } else { Err(odd("what a message names")) }
    }

    /// What is not done.
    pub(crate) fn rest(&self) -> &[HostSpan] {
        self.spans.get(self.first..).unwrap_or_default()
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
        self.first = 0;
    }
}

fn odd(message: &'static str) -> Violation {
    Violation::Unexpected { message, why: "it does not fit its message" }
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
        end(&mut words, sources);
        words
    }

    fn parsed(words: &[u64]) -> Result<(FrameHeader, Message), Violation> {
        let mut message = Message::default();
        message.room(words.len() as u64)?.copy_from_slice(words);
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
        assert_eq!(message.sources.rest(), [span(100, 96), span(500, 8)]);
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
        assert!(Message::default().room(MAX_WORDS as u64 + 1).is_err());
    }

    #[test]
    fn sources_advance_by_bytes() {
        let mut sources = Sources::default();
        sources.fill(&[100, 10, 200, 20], 30).unwrap();
        sources.advance(4);
        assert_eq!(sources.rest(), [span(104, 6), span(200, 20)]);
        sources.advance(6);
        assert_eq!(sources.rest(), [span(200, 20)]);
        sources.advance(20);
        assert!(sources.rest().is_empty());
    }
}
