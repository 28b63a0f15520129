//! The directory: which engine serves which rank of an instance. Any engine can hold one; by
//! custom the first rank's does, at the instance's bootstrap address.

mod directory;

use std::sync::Arc;
use std::time::Duration;

use kvx_core::error::{Cause, Error, Operation as Doing, Resource, Result};
use kvx_core::wire::message::{DirectoryEntry, RankKey};

use crate::completion::Operation;
use crate::engine::{Engine, Shared};
use crate::one_sided::Peer;

pub(crate) use directory::Directory;

/// How long a question may wait at most.
const MAX_WAIT: Duration = Duration::from_secs(600);

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
        if !shared.directory.put(rank, entry, None) {
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

fn own_entry(shared: &Shared) -> DirectoryEntry {
    DirectoryEntry { engine: shared.identity.engine, addresses: shared.identity.addresses.clone() }
}
