//! Names of things: engines, regions, transfers, lanes, rooms. Ids are numbers, never pointers.

use std::fmt;

/// The lasting identity of an engine: equal for every life of an engine that keeps its name.
///
/// Two engines that connect to each other must have different ids. Order decides which of two
/// simultaneous connections stays (PROTOCOL 3.5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(pub [u8; 16]);

/// One life of an engine: random, drawn at start. A restarted engine has another incarnation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub [u8; 16]);

/// One peer relation as one side keeps it: random and non-zero, drawn when the peer is created.
///
/// Two control connections that carry the same pair of associations continue each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Association(pub u64);

/// A registered region of one engine: table index in the low half, generation in the high half,
/// so that the id of a deregistered region is never mistaken for its successor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegionId(u64);

/// The short name under which frames address one of the owner's regions; valid for one pair of
/// associations. Given out by the owner against the region key, or with a grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

/// A transfer, counted upward from 1 by its initiator for each association.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransferId(pub u64);

/// A notification, counted upward from 1 by its sender for each association.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotificationId(pub u64);

/// A grant, counted upward by the receiver that gives it, from another point for each association.
/// On the wire 0 stands for no grant.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantId(pub u64);

/// A lane between two engines, named by the side that dials it: counted upward, even from the side
/// with the smaller association, odd from the other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneId(pub u32);

/// The id of one request: what serving engines call the bootstrap room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room(pub u64);

/// What a session is known by: one attempt at one room, between one pair of ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey {
    /// The request.
    pub room: Room,
    /// Counts retries of the same room, from 0.
    pub attempt: u32,
    /// Rank of the sender in its instance.
    pub sender_rank: u32,
    /// Rank of the receiver in its instance.
    pub receiver_rank: u32,
}

impl RegionId {
    /// The id of table entry `index` in its life number `generation`.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self((generation as u64) << 32 | index as u64)
    }

    /// The table entry.
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// The life of the table entry, from 1.
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The id as it stands on the wire.
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The id from its wire form. Any number is an id; whether it names a region, the registry says.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(f, &self.0[..6])
    }
}

impl fmt::Debug for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EngineId(")?;
        hex(f, &self.0)?;
        f.write_str(")")
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incarnation(")?;
        hex(f, &self.0)?;
        f.write_str(")")
    }
}

impl fmt::Debug for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RegionId({}.{})", self.index(), self.generation())
    }
}

macro_rules! number_names {
    ($($type:ident: $word:literal),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0)
            }
        }
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    )*};
}

number_names!(
    Association: "association",
    Slot: "slot",
    TransferId: "transfer",
    NotificationId: "notification",
    GrantId: "grant",
    LaneId: "lane",
    Room: "room"
);
