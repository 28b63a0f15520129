//! Published regions: what an engine tells to any peer that asks. Who has no other channel to learn
//! of a peer's memory connects, and asks.

use std::sync::Arc;

use kvx_core::error::{Cause, Error, Operation as Doing};

use crate::completion::{Completion, Operation, Promise};
use crate::one_sided::Peer;

#[cfg(doc)]
use crate::region::Region;

impl Peer {
    /// Asks the peer which regions it publishes ([`Region::publish`]). The operation ends with the
    /// same peer, whose [`Peer::regions`] are those, oldest first: a transfer may use any of them.
    /// A region that was deregistered since the last time is not among them, and cannot be named any
    /// more unless metadata told of it too.
    ///
    /// # Errors
    /// No answer by the engine's deadline; the peer is over; [`Cause::Unsupported`] where its version
    /// publishes nothing.
    pub fn published(&self) -> Operation<Self> {
        let engine = self.engine();
        let shared = engine.shared();
        let failed = |cause: Cause| Error::new(Doing::List, cause).with_peer(self.name());
        if let Err(cause) = shared.check() {
            return Operation::done(Err(failed(cause)));
        }
        let Some(link) = self.link() else {
            let published = shared.registry.published();
            return Operation::done(Ok(Self::local(engine.clone(), &published)));
        };
        let asked = link.with(|core| {
            let question = core.protocol.list_regions()?;
            Ok(core.expect_list(question))
        });
        let listed = match asked {
            Ok(listed) => Operation::new(listed),
            Err(cause) => return Operation::done(Err(failed(cause))),
        };
        let done = Completion::new();
        let answer = Promise::new(&done, failed(Cause::ShutDown));
        let after = shared.deadline.progress;
        let late = failed(Cause::Deadline { after, total: true });
        let (guest, link) = (engine.guest(), Arc::clone(link));
        shared.runtime.spawn(async move {
            let listed = tokio::select! {
                biased;
                listed = listed => listed,
                () = tokio::time::sleep(after) => Err(late),
            };
            // The engine is its users' to keep, not this task's. Without it the promise is broken.
            if let Some(engine) = guest.upgrade() {
                answer.keep(listed.map(|regions| Self::new(engine, link, regions)));
            }
        });
        Operation::new(done)
    }
}
