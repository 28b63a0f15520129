//! What may happen to a peer whose other side is a puppet. Numbers are names or choose among what
//! there is; small ones, so that they meet.

use arbitrary::Arbitrary;

/// One thing that happens.
#[derive(Arbitrary, Debug)]
pub(super) enum Operation<'a> {
    Connect { dialed: bool, skew: u64 },
    Disconnect,
    Resume { own: u8, knows: u8 },
    Say { what: What, number: Number, acknowledges: Option<u8> },
    SayBytes { kind: u8, body: &'a [u8], number: Number },
    OpenAsked { well: bool },
    OpenUnasked { lane: u8 },
    Close { lane: u8 },
    Frame { lane: u8, frame: Frame },
    Land { lane: u8, bytes: u8 },
    Ack { lane: u8, processed: u8, refused: u8 },
    Pull { lane: u8 },
    User(Wish),
    Elapse { millis: u16 },
}

/// The number of a control message in the sequence.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) enum Number {
    Next,
    AlsoNext,
    Again,
    Any(u8),
}

/// A control message that parses.
#[derive(Arbitrary, Debug)]
pub(super) enum What {
    Heartbeat,
    HeartbeatReply { back: u16, time: u64 },
    Acknowledge,
    Goodbye,
    OpenRegions(Vec<(u8, bool)>),
    RegionsOpened(Vec<(u8, Option<u8>)>),
    SlotsClosed(Vec<u8>),
    LaneRetired { lane: u8, processed: u8 },
    Refused { lane: u8, frame: u8, transfer: Id, refusal: u8 },
    ReadFailed { transfer: Id, refusal: u8 },
    ReadExpired { transfer: Id, first: u8, count: u8 },
    Cancel { transfer: Id },
    Fenced { transfer: Id },
    Notify { after: Option<Id>, more: bool, len: u16 },
    NotificationCredit { consumed: u16 },
    Grant { grant: u8, blocks: Vec<u8>, more: u8, slots: u8 },
    GrantBlocks { grant: u8, blocks: Vec<u8> },
    Layers { transfer: Id, grant: u8, first: u8, count: u8 },
    SessionEnd { grant: u8, writes: u8, len: u16 },
    SessionAbort { grant: Option<u8>, by_receiver: bool },
    DirectoryPut,
    DirectoryGet { wait: u16 },
    DirectoryAnswer { known: bool },
    ListRegions,
    RegionsListed { more: bool, regions: Vec<(u8, bool)> },
}

/// A transfer: a WRITE or a READ, of either side.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub(super) struct Id {
    pub(super) read: bool,
    pub(super) number: u8,
}

/// A frame, as far as its header parses.
#[derive(Arbitrary, Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) transfer: Id,
    pub(super) grant: Option<u8>,
    /// Milliseconds from now; 255 is long ago.
    pub(super) expiry: u8,
    pub(super) first_run: u8,
    pub(super) more_runs: u8,
    pub(super) flags: u8,
    /// For READ data, which has no table: the length as it must be, or one byte more.
    pub(super) too_long: bool,
    /// Slot, offset, length.
    pub(super) table: Vec<(u8, u8, u8)>,
}

/// What the user of the peer asks for.
#[derive(Arbitrary, Debug)]
pub(super) enum Wish {
    Post { write: bool, remote: u8, runs: u8, len: u8, notify: bool, deadline: u8 },
    PostUnderGrant { grant: u8, layer: u8, announced: bool },
    Cancel { which: u8 },
    Notify { len: u16 },
    Take,
    OpenRemote { region: u8 },
    Learn { region: u8 },
    Register { kind: u8 },
    Deregister { which: u8 },
    Grant { block: u8, tokens: u8 },
    Revoke { which: u8 },
    EndSession { grant: u8, writes: u8 },
    AbortSession { grant: u8 },
    Directory { which: u8 },
    Publish { which: u8 },
    ListRegions,
    Goodbye,
}
