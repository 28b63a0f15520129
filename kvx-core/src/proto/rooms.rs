//! Where senders and grants meet: a grant may come before its Sender exists, and waits, bounded,
//! with a deadline.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::Resource;
use crate::id::SessionKey;
use crate::proto::deadlines::Deadlines;
use crate::time::Time;

/// Grants that wait for their Sender, and Senders that wait for their grant. `G` is what the
/// engine keeps of a grant, `S` what it keeps of a Sender.
#[derive(Debug)]
pub struct Rooms<G, S> {
    early: BTreeMap<SessionKey, (Time, G)>,
    /// When each of them has waited long enough.
    deadlines: Deadlines<SessionKey>,
    senders: BTreeMap<SessionKey, S>,
    limit: usize,
    patience: Duration,
}

/// What a new Sender finds.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim<G> {
    /// The receiver was here first.
    Granted(G),
    /// The Sender waits.
    Waiting,
    /// A Sender of this session exists.
    Taken,
}

impl<G, S: Clone> Rooms<G, S> {
    /// No rooms; at most `limit` early grants, each kept for `patience`.
    pub fn new(limit: usize, patience: Duration) -> Self {
        Self {
            early: BTreeMap::new(),
            deadlines: Deadlines::new(),
            senders: BTreeMap::new(),
            limit,
            patience,
        }
    }

    /// A Sender appears.
    pub fn claim(&mut self, session: SessionKey, sender: S) -> Claim<G> {
        if self.senders.contains_key(&session) {
            return Claim::Taken;
        }
        self.senders.insert(session, sender);
        self.withdraw(&session).map_or(Claim::Waiting, Claim::Granted)
    }

    /// A grant comes: returns its Sender, or keeps the grant for it.
    ///
    /// # Errors
    /// Gives the grant back where no more can wait, or one waits for the same session already.
    pub fn grant(
        &mut self,
        now: Time,
        session: SessionKey,
        grant: G,
    ) -> Result<Option<(S, G)>, (Resource, G)> {
        if let Some(sender) = self.senders.get(&session) {
            return Ok(Some((sender.clone(), grant)));
        }
        if self.early.len() >= self.limit || self.early.contains_key(&session) {
            return Err((Resource::Sessions, grant));
        }
        let deadline = now + self.patience;
        self.deadlines.insert(deadline, session);
        self.early.insert(session, (deadline, grant));
        Ok(None)
    }

    /// The Sender of a session.
    pub fn sender(&self, session: &SessionKey) -> Option<S> {
        self.senders.get(session).cloned()
    }

    /// A Sender ends.
    pub fn leave(&mut self, session: &SessionKey) -> Option<S> {
        self.senders.remove(session)
    }

    /// All Senders end.
    pub fn take_senders(&mut self) -> Vec<S> {
        std::mem::take(&mut self.senders).into_values().collect()
    }

    /// The grant that waits for the Sender of a session.
    pub fn early(&self, session: &SessionKey) -> Option<&G> {
        self.early.get(session).map(|(_, grant)| grant)
    }

    /// An early grant is taken back by its receiver.
    pub fn withdraw(&mut self, session: &SessionKey) -> Option<G> {
        let (deadline, grant) = self.early.remove(session)?;
        self.deadlines.remove(deadline, *session);
        Some(grant)
    }

    /// The early grants whose Sender did not come in time.
    pub fn handle_timeout(&mut self, now: Time) -> Vec<(SessionKey, G)> {
        let mut late = Vec::new();
        while let Some(session) = self.deadlines.pop(now) {
            late.extend(self.early.remove(&session).map(|(_, grant)| (session, grant)));
        }
        late
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn next_timeout(&self) -> Time {
        self.deadlines.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Room;

    fn session(room: u64) -> SessionKey {
        SessionKey { room: Room(room), attempt: 0, sender_rank: 0, receiver_rank: 0 }
    }

    fn at(seconds: u64) -> Time {
        Time::from_nanos(seconds * 1_000_000_000)
    }

    #[test]
    fn an_early_grant_waits_for_its_sender_until_its_deadline() {
        let mut rooms: Rooms<&str, u8> = Rooms::new(2, Duration::from_secs(10));
        assert_eq!(rooms.grant(at(0), session(1), "one"), Ok(None));
        assert_eq!(rooms.grant(at(5), session(2), "two"), Ok(None));
        assert_eq!(rooms.next_timeout(), at(10));
        assert_eq!(rooms.handle_timeout(at(10)), vec![(session(1), "one")]);
        assert_eq!(rooms.claim(session(2), 7), Claim::Granted("two"));
        assert_eq!(rooms.claim(session(2), 8), Claim::Taken);
        assert_eq!(rooms.claim(session(1), 9), Claim::Waiting);
        assert_eq!(rooms.grant(at(11), session(1), "again"), Ok(Some((9, "again"))));
    }

    #[test]
    fn waiting_grants_are_bounded() {
        let mut rooms: Rooms<u8, u8> = Rooms::new(1, Duration::from_secs(10));
        assert_eq!(rooms.grant(at(0), session(1), 1), Ok(None));
        assert_eq!(rooms.grant(at(0), session(1), 2), Err((Resource::Sessions, 2)));
        assert_eq!(rooms.grant(at(0), session(2), 3), Err((Resource::Sessions, 3)));
        assert_eq!(rooms.withdraw(&session(1)), Some(1));
        assert_eq!(rooms.grant(at(0), session(2), 3), Ok(None));
    }
}
