//! Who is next: those who have something to send take turns, so that a small one does not wait for
//! a large one's end.

use std::collections::BTreeMap;

use crate::id::TransferId;

/// Transfers in the order in which they came to wait. Every call takes O(log n), leaving from the
/// middle too.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    waiting: BTreeMap<Turn, TransferId>,
    last: Turn,
}

/// A place in the order, held by whoever waits.
pub(crate) type Turn = u64;

impl Turns {
    /// `id` waits from now on, behind all others.
    pub(crate) fn join(&mut self, id: TransferId) -> Turn {
        self.last += 1;
        self.waiting.insert(self.last, id);
        self.last
    }

    /// Whose turn it is. It waits no more.
    pub(crate) fn next(&mut self) -> Option<TransferId> {
        self.waiting.pop_first().map(|(_, id)| id)
    }

    /// Who holds this place waits no more.
    pub(crate) fn leave(&mut self, turn: Turn) {
        self.waiting.remove(&turn);
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_came_first_is_next_and_who_left_is_not() {
        let mut turns = Turns::default();
        let places = [1, 2, 3].map(|id| turns.join(TransferId(id)));
        turns.leave(places[1]);
        assert_eq!(turns.next(), Some(TransferId(1)));
        turns.join(TransferId(1));
        assert_eq!(turns.len(), 2);
        assert_eq!(
            [turns.next(), turns.next(), turns.next()],
            [Some(TransferId(3)), Some(TransferId(1)), None]
        );
        assert!(turns.is_empty());
    }
}
