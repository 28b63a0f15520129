//! Registered memory as its user holds it.

use std::sync::Arc;
use std::task::{Wake, Waker};
use std::thread::Thread;

use kvx_core::error::{Cause, Error, Invalid, Operation as Doing, Result};
use kvx_core::id::RegionId;
use kvx_core::region::{Gate, Region as CoreRegion, Rights};
use kvx_core::transport::MemoryKind;

use crate::engine::Engine;
#[cfg(doc)]
use crate::one_sided::Peer;

/// A registered region. Dropping it deregisters it.
#[derive(Debug)]
pub struct Region {
    engine: Engine,
    core: Arc<CoreRegion>,
}

impl Region {
    pub(crate) fn new(engine: Engine, core: Arc<CoreRegion>) -> Self {
        Self { engine, core }
    }

    pub(crate) fn core(&self) -> &Arc<CoreRegion> {
        &self.core
    }

    /// Its id in this engine.
    pub fn id(&self) -> RegionId {
        self.core.id
    }

    /// Length in bytes; never 0.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.core.len()
    }

    /// The address of its first byte.
    pub fn address(&self) -> u64 {
        self.core.base()
    }

    /// What memory it is.
    pub fn kind(&self) -> MemoryKind {
        self.core.memory.kind()
    }

    /// What peers may do with it.
    pub fn rights(&self) -> Rights {
        self.core.rights
    }

    /// Publishes it: from now on, and as long as it is registered, any peer that asks
    /// ([`Peer::published`]) is told of it and of its region key. Whoever may connect to the engine
    /// may then use the region, within its rights. Once more does nothing.
    ///
    /// # Errors
    /// It was deregistered, the engine has ended, or the process was forked.
    pub fn publish(&self) -> Result<()> {
        let shared = self.engine.shared();
        let published = shared.check().and_then(|()| Ok(shared.registry.publish(self.core.id)?));
        published.map_err(|cause| Error::new(Doing::Publish, cause))
    }

    /// Deregisters it. When this returns, no byte lands in it and none is read from it any more,
    /// whatever peers do; transfers that used it fail. Blocks for a system call in progress at
    /// most.
    ///
    /// # Errors
    /// It was deregistered before, or the engine has been shut down, which deregisters all; or the
    /// process was forked.
    pub fn deregister(&self) -> Result<()> {
        self.fence().map_err(|cause| Error::new(Doing::Deregister, cause))
    }

    fn fence(&self) -> Result<(), Cause> {
        let shared = self.engine.shared();
        if shared.is_forked() {
            return Err(Cause::Forked);
        }
        let id = self.core.id;
        if shared.registry.get(id).is_none() {
            // Another deregistration, or a shutdown, has taken it out and closes its gate.
            wait_drained(&self.core.gate);
            shared.check()?;
            return Err(Invalid::UnknownRegion.into());
        }
        let links: Vec<_> = shared.peers().values().cloned().collect();
        links.iter().for_each(|link| link.with(|core| core.protocol.close_region(id)));
        let removed = shared.registry.deregister(id);
        links.iter().for_each(|link| link.with(|core| core.protocol.close_region(id)));
        wait_drained(&self.core.gate);
        removed?;
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // After `deregister`, or a shutdown, there is nothing left to do.
        let _ = self.fence();
    }
}

/// Sleeps until the closed gate's last lease has left.
pub(crate) fn wait_drained(gate: &Gate) {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    gate.on_drained(&waker);
    while !gate.is_drained() {
        std::thread::park();
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
