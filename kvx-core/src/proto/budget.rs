//! The bound on memory that one peer can make this engine keep.

use crate::error::Resource;

/// Bytes kept for one peer, and their bound. Everything whose size or number the peer decides is
/// charged before it is allocated (256 MiB a peer).
#[derive(Debug)]
pub(crate) struct Budget {
    used: u64,
    limit: u64,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Self {
        Self { used: 0, limit }
    }

    /// Takes `bytes`, or nothing.
    pub(crate) fn charge(&mut self, bytes: u64) -> Result<(), Resource> {
        match self.used.checked_add(bytes) {
            Some(used) if used <= self.limit => {
                self.used = used;
                Ok(())
            }
            _ => Err(Resource::PeerBytes),
        }
    }

    /// Bytes that are charged now.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// Gives back what was charged.
    pub(crate) fn release(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.used, "released {bytes} of {}", self.used);
        self.used = self.used.saturating_sub(bytes);
    }
}
