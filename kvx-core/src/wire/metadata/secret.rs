//! What lets whoever holds an engine's metadata connect to it. How it is proved, the handshake knows.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The secret of one life of an engine, which its metadata carries. Wiped when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MetadataSecret([u8; Self::LEN]);

impl MetadataSecret {
    /// Its bytes.
    pub const LEN: usize = 32;

    /// The secret of these bytes, which must come from the system's random source.
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The bytes, for the wire and for proofs.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

/// Takes the same time wherever the secrets differ.
impl PartialEq for MetadataSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for MetadataSecret {}

/// Keeps the secret.
impl fmt::Debug for MetadataSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MetadataSecret(..)")
    }
}
