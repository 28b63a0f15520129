//! What the blocks hold: numbers that follow from seed, round and place, so that a block of an
//! earlier round, or at another place, is noticed.

use crate::numbers::{Numbers, number_at};

/// The content of one round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    key: u64,
}

impl Content {
    pub(super) fn new(seed: u64, round: u64) -> Self {
        Self { key: Numbers::new(Numbers::new(seed).next() ^ round).next() }
    }

    /// Writes the content that begins at this word of all that moves.
    pub(super) fn fill(self, first_word: u64, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        let mut at = first_word;
        for word in words {
            *word = number_at(self.key, at).to_le_bytes();
            at = at.wrapping_add(1);
        }
        let last = number_at(self.key, at).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }

    /// Where these bytes first differ from the content that begins at this word.
    pub(super) fn first_difference(self, first_word: u64, bytes: &[u8]) -> Option<usize> {
        let (words, rest) = bytes.as_chunks::<8>();
        let expected =
            |index: usize| number_at(self.key, first_word.wrapping_add(index as u64)).to_le_bytes();
        let differing = words.iter().enumerate().find(|(index, word)| **word != expected(*index));
        let (begin, found, expected) = match differing {
            Some((index, word)) => (index * 8, &word[..], expected(index)),
            None => (words.len() * 8, rest, expected(words.len())),
        };
        let within = found.iter().zip(&expected).position(|(found, expected)| found != expected);
        within.map(|within| begin + within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(content: Content, first_word: u64) -> [u8; 21] {
        let mut bytes = [0; 21];
        content.fill(first_word, &mut bytes);
        bytes
    }

    #[test]
    fn content_differs_by_seed_round_and_place() {
        let content = Content::new(1, 1);
        let first = bytes(content, 0);
        assert_eq!(bytes(content, 0), first);
        for other in [(Content::new(2, 1), 0), (Content::new(1, 2), 0), (content, 1)] {
            assert_ne!(bytes(other.0, other.1), first);
        }
        assert_eq!(bytes(content, 1)[..8], first[8..16]);
    }

    #[test]
    fn each_single_byte_that_differs_is_found_where_it_is() {
        let content = Content::new(1, 1);
        let whole = bytes(content, 3);
        assert_eq!(content.first_difference(3, &whole), None);
        assert!(content.first_difference(4, &whole).is_some());
        for at in 0..whole.len() {
            let mut changed = whole;
            changed[at] ^= 1;
            assert_eq!(content.first_difference(3, &changed), Some(at));
        }
    }
}
