//! The metadata blob: what an engine tells others of itself and its regions, over any channel the
//! user has.
//!
//! Not a live view: what is registered or deregistered later is told over control. PROTOCOL 9
//! describes the bytes.

mod codec;
mod secret;

use std::net::SocketAddr;
use std::sync::Arc;

use crate::id::{EngineId, Incarnation, RegionId};
use crate::region::{RegionKey, Rights};
use crate::transport::MemoryKind;
use crate::wire::WireError;

pub use secret::MetadataSecret;

/// Regions of a blob at most.
pub const MAX_REGIONS: usize = 65_536;

/// An engine as a blob describes it. Whoever holds the blob holds the region keys in it, and the
/// secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The engine.
    pub engine: EngineId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Its name.
    pub name: Arc<str>,
    /// Where it can be reached, at most 16.
    pub addresses: Vec<SocketAddr>,
    /// Its regions, at most 48 bytes each on the wire.
    pub regions: Vec<RegionDescription>,
    /// What lets whoever holds the blob connect; `None`: the engine lets nobody in for that.
    pub secret: Option<MetadataSecret>,
}

/// A remote region as its owner describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegionDescription {
    /// The owner's name for it.
    pub id: RegionId,
    /// The secret that opens it.
    pub key: RegionKey,
    /// The address under which the owner knows its first byte.
    pub base: u64,
    /// Length in bytes.
    pub len: u64,
    /// What others may do.
    pub rights: Rights,
    /// What memory it is.
    pub kind: MemoryKind,
}

impl Metadata {
    /// The blob's bytes.
    ///
    /// # Errors
    /// When a list or the name is longer than its bound.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        codec::encode(self)
    }

    /// The engine that `blob` describes. Regions are not empty and do not wrap around the end of
    /// the address space.
    ///
    /// # Errors
    /// [`WireError::Magic`] for bytes that are no blob, [`WireError::Unknown`] for another
    /// version's, [`WireError::Checksum`] for a damaged one; else the first rule that is broken.
    pub fn decode(blob: &[u8]) -> Result<Self, WireError> {
        codec::decode(blob)
    }
}
