//! Which transport a pair of engines uses.

use std::fmt;
use std::str::FromStr;

use bitflags::bitflags;

use crate::error::Invalid;

/// A transport by name. The numbers are the wire's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[non_exhaustive]
pub enum TransportKind {
    /// Memory reached over TCP.
    Tcp = 1,
    /// Memory of a process on the same host.
    Shm = 2,
}

impl TransportKind {
    /// The transport of this wire number; `None` for one that this version does not know.
    pub const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Tcp),
            2 => Some(Self::Shm),
            _ => None,
        }
    }

    /// The wire number.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Shm => "shm",
        })
    }
}

impl FromStr for TransportKind {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        match name {
            "tcp" => Ok(Self::Tcp),
            "shm" => Ok(Self::Shm),
            _ => Err(Invalid::Setting {
                name: "KVX_TRANSPORTS",
                value: name.to_owned(),
                why: "expected a list of: shm, tcp".to_owned(),
            }),
        }
    }
}

bitflags! {
    /// What a transport can do between two engines.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Operations: u16 {
        /// One-sided writes.
        const WRITE = 1;
        /// One-sided reads.
        const READ = 2;
        /// The owner of the memory checks every access in software, grants included.
        const OWNER_CHECKS = 4;
        /// Device memory without staging through the host.
        const DEVICE_MEMORY = 8;
    }
}

/// What a transport of this engine can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// The operations.
    pub operations: Operations,
    /// Lanes that serve a peer best, where the user names no number; at least 1.
    pub lanes: u16,
}

/// What one side tells the other of a transport in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportOffer {
    /// Wire number of the transport; numbers not known here are kept, never chosen.
    pub code: u8,
    /// The operations.
    pub operations: Operations,
}

/// The transport a pair uses: the first of `preferred` that `offered` has too and that has not
/// failed (`usable`). The dialing side's order of preference decides.
pub fn choose(
    preferred: &[TransportKind],
    offered: &[TransportOffer],
    usable: impl Fn(TransportKind) -> bool,
) -> Option<TransportKind> {
    preferred
        .iter()
        .copied()
        .find(|kind| offered.iter().any(|offer| offer.code == kind.code()) && usable(*kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(code: u8) -> TransportOffer {
        TransportOffer { code, operations: Operations::WRITE | Operations::READ }
    }

    #[test]
    fn the_first_common_usable_transport_is_chosen() {
        let tcp = TransportKind::Tcp;
        assert_eq!(choose(&[tcp], &[offer(200), offer(1)], |_| true), Some(tcp));
        assert_eq!(choose(&[tcp], &[offer(1)], |_| false), None);
        assert_eq!(choose(&[tcp], &[offer(200)], |_| true), None);
        assert_eq!(choose(&[], &[offer(1)], |_| true), None);
    }

    #[test]
    fn an_unknown_name_says_what_was_expected() {
        let error = "carrier-pigeon".parse::<TransportKind>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "KVX_TRANSPORTS=\"carrier-pigeon\": expected a list of: shm, tcp"
        );
    }
}
