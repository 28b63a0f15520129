//! What tests of other crates need of this one: shared memory that says whatever one likes, and what
//! is made of a message and of what is said on a socket. Not for engines.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use kvx_core::error::{LaneError, Violation};
use kvx_core::proto::LaneKey;
use kvx_core::transport::HostSpan;
use kvx_core::wire::{FrameHeader, WireSpan};

use crate::message::Message;
use crate::receive::Receiver;
use crate::setup::Channel;
use crate::shared::Words;

/// Memory as a ring lies in, sealed as it should be: of any size, and every word of it can be
/// written at any time.
#[derive(Debug)]
pub struct ForgedRing {
    memfd: OwnedFd,
    mapping: Words,
}

impl ForgedRing {
    /// So many words, all zero.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn new(words: usize) -> io::Result<Self> {
        let (memfd, mapping) = Words::create(words)?;
        Ok(Self { memfd, mapping })
    }

    /// The descriptor's number.
    pub fn number(&self) -> RawFd {
        self.memfd.as_raw_fd()
    }

    /// Its words, which others read at the same time.
    pub fn words(&self) -> &[AtomicU64] {
        self.mapping.words()
    }

    /// Where it is in this process's memory.
    pub fn address(&self) -> u64 {
        self.words().as_ptr().expose_provenance() as u64
    }
}

/// What these words are, taken for a message: its header, its table, and where its payload lies.
///
/// # Errors
/// They are none.
pub fn parse(words: &[u64]) -> Result<(FrameHeader, Vec<WireSpan>, Vec<HostSpan>), Violation> {
    let mut message = Message::default();
    message.room(words.len()).copy_from_slice(words);
    let header = message.parse()?;
    Ok((header, message.table.clone(), message.sources.spans().to_vec()))
}

/// One side of a lane until it is set up, which hears what it is told to.
#[derive(Debug)]
pub struct SettingUp {
    channel: Arc<Channel>,
    receiver: Receiver,
}

impl SettingUp {
    /// Greets on this socket.
    ///
    /// # Errors
    /// The kernel has no room, or the socket is over.
    pub fn new(socket: OwnedFd, key: LaneKey, dialed: bool) -> Result<Self, LaneError> {
        let channel = Arc::new(Channel::open(Arc::new(socket), key, dialed)?);
        let receiver = Receiver::new(Arc::clone(&channel), Arc::default());
        Ok(Self { channel, receiver })
    }

    /// Hears a byte.
    ///
    /// # Errors
    /// The lane ends.
    pub fn hear(&mut self, byte: u8) -> Result<(), LaneError> {
        self.receiver.hear(&self.channel, byte)
    }

    /// Whether both sides reach each other.
    pub fn is_done(&self) -> bool {
        self.channel.attached().is_some()
    }
}
