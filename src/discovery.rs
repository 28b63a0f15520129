//! The directory: which engine serves which rank of an instance. Any engine can hold one; by
//! custom the first rank's does, at the instance's bootstrap address.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kvx_core::error::{Cause, Error, Operation as Doing, Resource, Result};
use kvx_core::wire::message::{DirectoryEntry, RankKey};

use crate::completion::Operation;
use crate::engine::{Engine, Shared};
use crate::one_sided::Peer;
use crate::peer::Link;

/// Ranks that a directory knows at most.
const MAX_ENTRIES: usize = 65_536;
/// Questions that wait for their rank at most.
const MAX_WAITING: usize = 65_536;
/// How long a question may wait at most.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// An engine's directory.
#[derive(Debug)]
pub(crate) struct Directory {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    entries: HashMap<RankKey, Entry>,
    waiting: Vec<Question>,
    last: u64,
}

#[derive(Debug)]
struct Entry {
    entry: DirectoryEntry,
    /// Who said so; the entry goes when it does. `None`: this engine.
    owner: Option<Weak<Link>>,
}

#[derive(Debug)]
struct Question {
    number: u64,
    rank: RankKey,
    asker: Weak<Link>,
    request: u64,
}

impl Engine {
    /// Enters this engine into its own directory as `rank`.
    ///
    /// # Errors
    /// The engine has ended, or the directory is full.
    pub fn serve_rank(&self, rank: RankKey) -> Result<()> {
        let shared = self.shared();
        let failed = |cause: Cause| Error::new(Doing::Directory, cause);
        shared.check().map_err(failed)?;
        let entry = own_entry(shared);
        if !shared.directory.put(shared, rank, entry, None) {
            return Err(failed(Cause::Busy(Resource::DirectoryEntries)));
        }
        Ok(())
    }
}

impl Peer {
    /// Enters this engine into the peer's directory as `rank`, for as long as it is connected.
    ///
    /// # Errors
    /// The peer is over.
    pub fn register_rank(&self, rank: RankKey) -> Result<()> {
        let shared = self.engine().shared();
        let failed = |cause: Cause| Error::new(Doing::Directory, cause).with_peer(self.name());
        shared.check().map_err(failed)?;
        let Some(link) = self.link() else { return self.engine().serve_rank(rank) };
        let entry = own_entry(shared);
        link.with(|core| match core.protocol.cause_of_death().cloned() {
            Some(cause) => Err(failed(cause)),
            None => {
                core.protocol.directory_put(rank, entry);
                Ok(())
            }
        })
    }

    /// Asks the peer's directory where `rank` is. The directory waits up to `wait` for the rank to
    /// appear; `None`: it has not.
    ///
    /// # Errors
    /// No answer from the peer by then and the engine's deadline on top, or the peer is over.
    pub fn find_rank(&self, rank: RankKey, wait: Duration) -> Operation<Option<DirectoryEntry>> {
        let shared = self.engine().shared();
        let failed = |cause: Cause| Error::new(Doing::Directory, cause).with_peer(self.name());
        if let Err(cause) = shared.check() {
            return Operation::done(Err(failed(cause)));
        }
        let Some(link) = self.link() else {
            let entry = shared.directory.get(&rank);
            return Operation::done(Ok(entry));
        };
        let wait = wait.min(MAX_WAIT);
        let asked = link.with(|core| {
            if let Some(cause) = core.protocol.cause_of_death().cloned() {
                return Err(cause);
            }
            let (request, done) = core.expect_answer();
            core.protocol.directory_get(request, rank, wait.as_millis() as u32);
            Ok(done)
        });
        let done = match asked {
            Ok(done) => done,
            Err(cause) => return Operation::done(Err(failed(cause))),
        };
        let late = Arc::clone(&done);
        let after = wait + shared.deadline.progress;
        let error = failed(Cause::Deadline { after, total: true });
        shared.runtime.spawn(async move {
            tokio::time::sleep(after).await;
            late.set(Err(error));
        });
        Operation::new(done)
    }
}

impl Directory {
    pub(crate) fn new() -> Self {
        let state = State { entries: HashMap::new(), waiting: Vec::new(), last: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Enters a rank; whoever waits for it is answered. `false`: the directory is full.
    pub(crate) fn put(
        &self,
        shared: &Shared,
        rank: RankKey,
        entry: DirectoryEntry,
        owner: Option<&Link>,
    ) -> bool {
        let mut state = self.lock();
        if state.entries.len() >= MAX_ENTRIES && !state.entries.contains_key(&rank) {
            tracing::warn!(?rank, engine = %shared.identity.name, "directory is full");
            return false;
        }
        let owner = owner.map(|link| link.arc().map_or_else(Weak::new, |arc| Arc::downgrade(&arc)));
        state.entries.insert(rank.clone(), Entry { entry: entry.clone(), owner });
        let waiting = std::mem::take(&mut state.waiting);
        let (answered, waiting): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|question| question.rank == rank);
        state.waiting = waiting;
        drop(state);
        answered.iter().for_each(|question| question.answer(Some(entry.clone())));
        true
    }

    fn get(&self, rank: &RankKey) -> Option<DirectoryEntry> {
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
        let mut state = self.lock();
        let known = state.entries.get(&rank).map(|entry| entry.entry.clone());
        state.last += 1;
        let number = state.last;
        let question = Question { number, rank, asker, request };
        if known.is_some() || wait.is_zero() || state.waiting.len() >= MAX_WAITING {
            drop(state);
            question.answer(known);
            return;
        }
        state.waiting.push(question);
        drop(state);
        let guest = Arc::downgrade(shared);
        shared.runtime.spawn(async move {
            tokio::time::sleep(wait.min(MAX_WAIT)).await;
            let Some(shared) = guest.upgrade() else { return };
            let question = {
                let mut state = shared.directory.lock();
                let index = state.waiting.iter().position(|waiting| waiting.number == number);
                index.map(|index| state.waiting.swap_remove(index))
            };
            if let Some(question) = question {
                question.answer(None);
            }
        });
    }

    /// A peer is over: what it entered goes, and what it asked is not answered.
    pub(crate) fn forget(&self, link: &Link) {
        let is_it = |weak: &Weak<Link>| std::ptr::eq(weak.as_ptr(), link);
        let mut state = self.lock();
        state.entries.retain(|_, entry| !entry.owner.as_ref().is_some_and(is_it));
        state.waiting.retain(|question| !is_it(&question.asker));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Question {
    fn answer(&self, entry: Option<DirectoryEntry>) {
        if let Some(link) = self.asker.upgrade() {
            link.with(|core| core.protocol.directory_answer(self.request, entry));
        }
    }
}

fn own_entry(shared: &Shared) -> DirectoryEntry {
    DirectoryEntry { engine: shared.identity.engine, addresses: shared.identity.addresses.clone() }
}
