//! Control messages: what travels on the control connection once it is trusted.
//!
//! Not what they bring about: the peer state machine decides that. The bytes are those of
//! PROTOCOL 4.

mod codec;
mod header;

use std::net::SocketAddr;

use bytes::Bytes;

use crate::error::Refusal;
use crate::id::{Association, EngineId, GrantId, LaneId, RegionId, SessionKey, Slot, TransferId};
use crate::layout::{Layout, MAX_POOLS};
use crate::region::RegionKey;
use crate::time::Time;
use crate::wire::metadata::RegionDescription;
use crate::wire::{MAX_MESSAGE, WireError};

pub use header::{FIRST_SEQUENCED, MESSAGE_HEADER_LEN, MessageHeader};

/// A body's bytes at most.
pub const MAX_BODY: usize = MAX_MESSAGE - MESSAGE_HEADER_LEN;

/// Entries of [`Message::OpenRegions`], and of its answer, at most.
pub const MAX_OPEN_REGIONS: usize = 32_768;

/// Entries of [`Message::RegionsListed`] at most.
pub const MAX_LISTED_REGIONS: usize = 16_384;

/// Entries of [`Message::SlotsClosed`] at most.
pub const MAX_SLOTS_CLOSED: usize = 131_072;

/// Block ids of a [`Message::Grant`] or a [`Message::GrantBlocks`] at most.
pub const MAX_GRANT_BLOCKS: usize = 131_072;

/// Slots of a [`Message::Grant`] at most: as many as its layout can have pools.
pub const MAX_GRANT_SLOTS: usize = MAX_POOLS;

/// Bytes of a [`Message::Notify`] at most; longer notifications come in parts.
pub const MAX_NOTIFY_PART: usize = 512 << 10;

/// A session payload's bytes at most.
pub const MAX_PAYLOAD: usize = 256 << 10;

/// Bytes of an abort's reason at most.
pub const MAX_REASON: usize = 1024;

/// What a notification costs besides its bytes, in credit.
pub const NOTIFICATION_OVERHEAD: u64 = 64;

/// A control message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    // Outside the sequence: lost with the connection.
    /// The first message of each side: its header's `acknowledged` says where to go on.
    Resume {
        /// The speaker's side of the peer relation.
        own: Association,
        /// The other side's, as far as the speaker knows it: what the header acknowledges is of
        /// that one.
        peer: Option<Association>,
    },
    /// "Are you there?", with the speaker's clock.
    Heartbeat {
        /// The speaker's clock at the time of sending.
        time: Time,
    },
    /// The answer.
    HeartbeatReply {
        /// The time of the heartbeat that is answered.
        echo: Time,
        /// The speaker's clock at the time of sending.
        time: Time,
    },
    /// Nothing but the header's acknowledgement.
    Acknowledge,
    /// The speaker leaves in good order.
    Goodbye,

    // In sequence: sent again on the next connection until acknowledged.
    /// Shows region keys and asks for slots.
    OpenRegions(Vec<OpenRegion>),
    /// The answer: one entry for each asked, in order.
    RegionsOpened(Vec<RegionOpened>),
    /// These slots are gone: their regions were deregistered.
    SlotsClosed(Vec<Slot>),
    /// The speaker will neither send nor receive on this lane any more.
    LaneRetired {
        /// The lane.
        lane: LaneId,
        /// Frames (not ACKs) that the speaker has dealt with on it.
        processed: u64,
    },
    /// A frame of this lane was refused. The transfer has failed but for [`Refusal::Expired`].
    Refused {
        /// The lane on which the frame came.
        lane: LaneId,
        /// The refused frame, counted from 0 on its lane, ACKs not counted.
        frame: u64,
        /// Its transfer.
        transfer: TransferId,
        /// Whether it was a frame of the speaker's own READ (its data was refused) or of the
        /// other side's transfer.
        refusal: Refusal,
    },
    /// The owner cannot answer a READ request that it had accepted.
    ReadFailed {
        /// The reader's transfer.
        transfer: TransferId,
        /// Why.
        refusal: Refusal,
    },
    /// The initiator gives its transfer up: nothing of it may land or be read from here on.
    Cancel {
        /// The initiator's transfer.
        transfer: TransferId,
    },
    /// The answer to `Cancel`: nothing lands any more.
    Fenced {
        /// The initiator's transfer.
        transfer: TransferId,
    },
    /// A part of a notification.
    Notify {
        /// The transfer whose end makes it due; `None`: due at once.
        after: Option<TransferId>,
        /// Whether more parts follow. Parts of one notification follow each other.
        more: bool,
        /// The part's bytes.
        bytes: Bytes,
    },
    /// How much of the other side's notifications the user has taken.
    NotificationCredit {
        /// Bytes (and [`NOTIFICATION_OVERHEAD`] for each) since the association began.
        consumed: u64,
    },
    /// A receiver's permission to write blocks, with everything needed to do so.
    Grant(Box<Grant>),
    /// More block ids of the grant announced last under this id.
    GrantBlocks {
        /// The grant.
        grant: GrantId,
        /// The next block ids.
        blocks: Vec<u32>,
    },
    /// Layers that have arrived when the transfer has.
    Layers {
        /// The transfer that carries them.
        transfer: TransferId,
        /// The grant.
        grant: GrantId,
        /// The first layer, counted in the whole model.
        first: u32,
        /// The number of layers.
        count: u32,
    },
    /// The session ends well once `writes` transfers under its grant have arrived.
    SessionEnd {
        /// The grant.
        grant: GrantId,
        /// Transfers that the sender made under it.
        writes: u64,
        /// The small metadata that decode needs; at most [`MAX_PAYLOAD`] bytes.
        payload: Bytes,
    },
    /// The session is given up by the speaker.
    SessionAbort {
        /// The session.
        session: SessionKey,
        /// The grant, where the session has got one.
        grant: Option<GrantId>,
        /// Whether the speaker is the receiver.
        by_receiver: bool,
        /// Why, at most 1,024 bytes.
        reason: String,
    },
    /// Tells a directory where an engine is.
    DirectoryPut {
        /// The rank.
        rank: RankKey,
        /// The engine.
        entry: DirectoryEntry,
    },
    /// Asks a directory. It answers when it knows, or when `wait_ms` are over.
    DirectoryGet {
        /// Chosen by the asker.
        request: u64,
        /// The rank.
        rank: RankKey,
        /// How long the directory may wait for the rank to appear, in milliseconds.
        wait_ms: u32,
    },
    /// The directory's answer.
    DirectoryAnswer {
        /// The asker's number.
        request: u64,
        /// The engine; `None`: the rank has not appeared.
        entry: Option<DirectoryEntry>,
    },
    /// The owner did not come to answer a READ request, which it had accepted, before its expiry:
    /// it will not. The reader may ask again.
    ReadExpired {
        /// The reader's transfer.
        transfer: TransferId,
        /// The first of the request's runs.
        first: u32,
        /// The number of its runs.
        count: u32,
    },
    /// Asks which regions the other side publishes. Only where both have
    /// [`Features::PUBLISHED_REGIONS`](crate::wire::handshake::Features::PUBLISHED_REGIONS).
    ListRegions,
    /// A part of the answer: regions, and their keys.
    RegionsListed {
        /// Whether more parts follow. Parts of one answer follow each other.
        more: bool,
        /// The part's regions; not empty where more follow.
        regions: Vec<RegionDescription>,
    },
}

impl Message {
    /// The type's number on the wire: below [`FIRST_SEQUENCED`] outside the sequence.
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Resume { .. } => 1,
            Self::Heartbeat { .. } => 2,
            Self::HeartbeatReply { .. } => 3,
            Self::Acknowledge => 4,
            Self::Goodbye => 5,
            Self::OpenRegions(_) => 16,
            Self::RegionsOpened(_) => 17,
            Self::SlotsClosed(_) => 18,
            Self::LaneRetired { .. } => 19,
            Self::Refused { .. } => 20,
            Self::ReadFailed { .. } => 21,
            Self::Cancel { .. } => 22,
            Self::Fenced { .. } => 23,
            Self::Notify { .. } => 24,
            Self::NotificationCredit { .. } => 25,
            Self::Grant(_) => 26,
            Self::GrantBlocks { .. } => 27,
            Self::Layers { .. } => 28,
            Self::SessionEnd { .. } => 29,
            Self::SessionAbort { .. } => 30,
            Self::DirectoryPut { .. } => 31,
            Self::DirectoryGet { .. } => 32,
            Self::DirectoryAnswer { .. } => 33,
            Self::ReadExpired { .. } => 34,
            Self::ListRegions => 35,
            Self::RegionsListed { .. } => 36,
        }
    }

    /// The type's name, for errors and logs.
    pub const fn name(&self) -> &'static str {
        match Self::name_of(self.kind()) {
            Some(name) => name,
            None => "message",
        }
    }

    /// The name of the type of this number; `None` for one that this version does not know.
    pub const fn name_of(kind: u16) -> Option<&'static str> {
        Some(match kind {
            1 => "Resume",
            2 => "Heartbeat",
            3 => "HeartbeatReply",
            4 => "Acknowledge",
            5 => "Goodbye",
            16 => "OpenRegions",
            17 => "RegionsOpened",
            18 => "SlotsClosed",
            19 => "LaneRetired",
            20 => "Refused",
            21 => "ReadFailed",
            22 => "Cancel",
            23 => "Fenced",
            24 => "Notify",
            25 => "NotificationCredit",
            26 => "Grant",
            27 => "GrantBlocks",
            28 => "Layers",
            29 => "SessionEnd",
            30 => "SessionAbort",
            31 => "DirectoryPut",
            32 => "DirectoryGet",
            33 => "DirectoryAnswer",
            34 => "ReadExpired",
            35 => "ListRegions",
            36 => "RegionsListed",
            _ => return None,
        })
    }

    /// Whether the message has a number and is sent again until acknowledged.
    pub const fn is_sequenced(&self) -> bool {
        self.kind() >= FIRST_SEQUENCED
    }

    /// What the message takes in memory, if it is one that the peer makes this side say: a peer that
    /// does not acknowledge such messages must not make it keep more and more of them. 0 for those
    /// that the user asks for.
    pub(crate) fn answer_bytes(&self) -> u64 {
        let more = match self {
            Self::RegionsOpened(answers) => size_of_val(&answers[..]),
            Self::RegionsListed { regions, .. } => size_of_val(&regions[..]),
            Self::SessionAbort { reason, .. } => reason.len(),
            Self::DirectoryAnswer { entry, .. } => {
                entry.as_ref().map_or(0, |entry| size_of_val(&entry.addresses[..]))
            }
            Self::Fenced { .. }
            | Self::LaneRetired { .. }
            | Self::NotificationCredit { .. }
            | Self::ReadExpired { .. }
            | Self::ReadFailed { .. }
            | Self::Refused { .. } => 0,
            _ => return 0,
        };
        (size_of::<Self>() + more) as u64
    }

    /// Appends the body's bytes, at most [`MAX_BODY`].
    ///
    /// # Errors
    /// When a list or text is longer than its bound, or an id is 0 that counts from 1; `out` is
    /// then as it was.
    pub fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        codec::encode(self, out)
    }

    /// The message of these bytes. Notification parts and payloads are slices of `body`, not
    /// copies, unless much of it is neither.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn decode(kind: u16, body: Bytes) -> Result<Self, WireError> {
        codec::decode(kind, &body)
    }
}

/// Shows one region key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenRegion {
    /// The owner's region.
    pub region: RegionId,
    /// Its key.
    pub key: RegionKey,
}

/// What became of one [`OpenRegion`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionOpened {
    /// The region asked for.
    pub region: RegionId,
    /// Its slot, or why there is none.
    pub slot: Result<Slot, Refusal>,
}

/// A grant's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The grant's id.
    pub grant: GrantId,
    /// Whose session it is.
    pub session: SessionKey,
    /// How the receiver's KV pool lies in memory.
    pub layout: Layout,
    /// The slots of the layout's regions, by its region indices, with the offset of the layout's
    /// region in the slot's.
    pub slots: Vec<Slot>,
    /// Tokens that the blocks stand for.
    pub tokens: u32,
    /// All block ids together.
    pub total_blocks: u32,
    /// The first block ids.
    pub blocks: Vec<u32>,
}

/// One rank of a serving instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RankKey {
    /// The instance's name, at most 255 bytes.
    pub instance: String,
    /// Data-parallel rank.
    pub dp: u32,
    /// Pipeline-parallel rank.
    pub pp: u32,
    /// Tensor-parallel rank.
    pub tp: u32,
}

/// Where a rank's engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryEntry {
    /// The engine.
    pub engine: EngineId,
    /// Its addresses, at most 16.
    pub addresses: Vec<SocketAddr>,
}
