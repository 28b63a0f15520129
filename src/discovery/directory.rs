//! What a directory knows, and who waits for what. Every peer has a share, so that none leaves
//! nothing for the others; and what any of them does costs O(log n).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kvx_core::time::Time;
use kvx_core::wire::message::{DirectoryEntry, RankKey};
use tokio::sync::Notify;

use super::MAX_WAIT;
use crate::clock;
use crate::engine::Shared;
use crate::peer::Link;

/// Ranks that a directory knows at most.
const MAX_ENTRIES: usize = 65_536;
/// Questions that wait for their rank at most.
const MAX_WAITING: usize = 65_536;
/// A peer's share of either: more than an instance has ranks, and little enough to leave room.
const SHARE: usize = 4096;

/// An engine's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    state: Mutex<State>,
    /// Wakes the task that looks after the questions: one has come whose time is over first.
    sooner: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<RankKey, Entry>,
    /// Questions in the order of their ends.
    questions: BTreeMap<Place, Question>,
    /// The same by rank; never an empty set.
    by_rank: HashMap<RankKey, BTreeSet<Place>>,
    /// What each peer has here, while it has anything.
    shares: HashMap<Party, Share>,
    last: u64,
    /// Whether a task looks after the questions. One does for all, however many come and go.
    is_watched: bool,
}

/// When a question's time is over, and its number.
type Place = (Time, u64);

/// A link by its address, which no other has as long as its share refers to it.
type Party = usize;

#[derive(Debug)]
struct Entry {
    entry: DirectoryEntry,
    /// Who said so; the entry goes when it does. `None`: this engine.
    owner: Option<Party>,
}

#[derive(Debug)]
struct Question {
    rank: RankKey,
    party: Party,
    asker: Weak<Link>,
    request: u64,
}

#[derive(Debug, Default)]
struct Share {
    /// Keeps the address, not the link.
    _link: Weak<Link>,
    ranks: HashSet<RankKey>,
    questions: HashSet<Place>,
}

impl Directory {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), sooner: Arc::default() }
    }

    /// Enters a rank; whoever waits for it is answered. `false`: the directory is full, or the
    /// owner has its share.
    pub(crate) fn put(&self, rank: RankKey, entry: DirectoryEntry, owner: Option<&Link>) -> bool {
        let mut state = self.lock();
        if !state.enter(&rank, entry.clone(), owner) {
            return false;
        }
        let places = state.by_rank.remove(&rank).unwrap_or_default();
        let answered: Vec<_> = places.iter().filter_map(|place| state.take(place)).collect();
        drop(state);
        answered.iter().for_each(|question| question.answer(Some(entry.clone())));
        true
    }

    pub(crate) fn get(&self, rank: &RankKey) -> Option<DirectoryEntry> {
        self.lock().entries.get(rank).map(|entry| entry.entry.clone())
    }

    /// A peer asks: answers now, or when the rank appears, or when `wait` is over.
    pub(crate) fn asked(
        &self,
        shared: &Arc<Shared>,
        link: &Link,
        request: u64,
        rank: RankKey,
        wait: Duration,
    ) {
        let asker = link.arc().map_or_else(Weak::new, |link| Arc::downgrade(&link));
        let question = Question { rank, party: party(link), asker, request };
        let mut state = self.lock();
        let known = state.entries.get(&question.rank).map(|entry| entry.entry.clone());
        if known.is_some() || wait.is_zero() || !state.may_ask(question.party) {
            drop(state);
            question.answer(known);
            return;
        }
        state.last += 1;
        let place = (clock::now() + wait.min(MAX_WAIT), state.last);
        state.wait(place, question);
        let is_next = state.questions.first_key_value().is_some_and(|(first, _)| *first == place);
        let is_watched = std::mem::replace(&mut state.is_watched, true);
        drop(state);
        if !is_watched {
            shared.runtime.spawn(watch(Arc::downgrade(shared)));
        } else if is_next {
            self.sooner.notify_one();
        }
    }

    /// A peer is over: what it entered goes, and what it asked is not answered.
    pub(crate) fn forget(&self, link: &Link) {
        let mut state = self.lock();
        let Some(share) = state.shares.remove(&party(link)) else { return };
        for rank in &share.ranks {
            state.entries.remove(rank);
        }
        for place in &share.questions {
            if let Some(question) = state.questions.remove(place) {
                state.leave_rank(&question.rank, place);
            }
        }
    }

    /// The questions whose time is over, and when the next one's is. `None`: nobody needs to look
    /// until another comes.
    fn take_late(&self, now: Time) -> (Vec<Question>, Option<Time>) {
        let mut state = self.lock();
        let mut late = Vec::new();
        while let Some((&place, _)) = state.questions.first_key_value()
            && place.0 <= now
        {
            if let Some(question) = state.take(&place) {
                state.leave_rank(&question.rank, &place);
                late.push(question);
            }
        }
        let next = state.questions.first_key_value().map(|((end, _), _)| *end);
        state.is_watched = next.is_some();
        (late, next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers questions whose time is over, as long as any wait.
async fn watch(guest: Weak<Shared>) {
    loop {
        let Some(shared) = guest.upgrade() else { return };
        let now = clock::now();
        let (late, next) = shared.directory.take_late(now);
        late.iter().for_each(|question| question.answer(None));
        let Some(next) = next else { return };
        // The engine is not this task's to keep while it sleeps.
        let sooner = Arc::clone(&shared.directory.sooner);
        drop(shared);
        tokio::select! {
            () = tokio::time::sleep(next.saturating_since(now)) => {}
            () = sooner.notified() => {}
        }
    }
}

impl State {
    fn enter(&mut self, rank: &RankKey, entry: DirectoryEntry, owner: Option<&Link>) -> bool {
        let (party, known) = (owner.map(party), self.entries.get(rank));
        let is_new = known.is_none();
        let before = known.and_then(|entry| entry.owner);
        if is_new && self.entries.len() >= MAX_ENTRIES {
            return false;
        }
        if let Some((link, party)) = owner.zip(party)
            && before != Some(party)
        {
            let share = self.share(link);
            if share.ranks.len() >= SHARE {
                return false;
            }
            share.ranks.insert(rank.clone());
        }
        if let Some(before) = before.filter(|before| Some(*before) != party) {
            self.unshare(before, |share| {
                share.ranks.remove(rank);
            });
        }
        self.entries.insert(rank.clone(), Entry { entry, owner: party });
        true
    }

    fn may_ask(&self, party: Party) -> bool {
        let asks = self.shares.get(&party).map_or(0, |share| share.questions.len());
        self.questions.len() < MAX_WAITING && asks < SHARE
    }

    fn wait(&mut self, place: Place, question: Question) {
        if let Some(link) = question.asker.upgrade() {
            self.share(&link).questions.insert(place);
        }
        self.by_rank.entry(question.rank.clone()).or_default().insert(place);
        self.questions.insert(place, question);
    }

    /// Takes a question out, of its asker's share too; not of `by_rank`.
    fn take(&mut self, place: &Place) -> Option<Question> {
        let question = self.questions.remove(place)?;
        self.unshare(question.party, |share| {
            share.questions.remove(place);
        });
        Some(question)
    }

    fn leave_rank(&mut self, rank: &RankKey, place: &Place) {
        if let Some(places) = self.by_rank.get_mut(rank) {
            places.remove(place);
            if places.is_empty() {
                self.by_rank.remove(rank);
            }
        }
    }

    fn share(&mut self, link: &Link) -> &mut Share {
        self.shares.entry(party(link)).or_insert_with(|| Share {
            _link: link.arc().map_or_else(Weak::new, |link| Arc::downgrade(&link)),
            ..Share::default()
        })
    }

    fn unshare(&mut self, party: Party, change: impl FnOnce(&mut Share)) {
        let Some(share) = self.shares.get_mut(&party) else { return };
        change(share);
        if share.ranks.is_empty() && share.questions.is_empty() {
            self.shares.remove(&party);
        }
    }
}

impl Question {
    fn answer(&self, entry: Option<DirectoryEntry>) {
        if let Some(link) = self.asker.upgrade() {
            link.with(|core| core.protocol.directory_answer(self.request, entry));
        }
    }
}

fn party(link: &Link) -> Party {
    std::ptr::from_ref(link).addr()
}
