//! What a run came to: how much happened, how often each kind of fault fired, and a digest by
//! which two runs of one seed are seen to be the same.

use std::collections::BTreeMap;

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident = $name:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $fault,)*
        }

        impl Fault {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$fault,)*];

            /// What it is called in tables.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fault => $name,)*
                }
            }
        }
    };
}

faults! {
    /// A control connection is cut.
    ControlCut = "network: control connection cut",
    /// A lane is cut.
    LaneCut = "network: lane cut",
    /// A connection is cut in its handshake.
    HandshakeCut = "network: cut in a handshake",
    /// A lane ended in the middle of a frame.
    HalfFrame = "network: half a frame at a cut",
    /// Nothing passes between two engines.
    Partition = "network: partition, both ways",
    /// Nothing passes from one engine to another.
    OneWayPartition = "network: partition, one way",
    /// Nothing passes on the lanes of two engines; control does.
    LanesPartition = "network: partition of the lanes",
    /// Nothing passes on one lane.
    OneLanePartition = "network: partition of one lane",
    /// Everything between two engines takes long.
    Delay = "network: delay",
    /// A packet is lost and sent again by TCP.
    Loss = "network: packet lost",
    /// Bytes of one lane overtook older ones of another.
    Reordering = "network: lanes overtook each other",
    /// Two engines dial each other at once.
    CrossingDials = "network: crossing dials",
    /// A control message's header is damaged.
    GarbledControl = "network: garbled control",
    /// A frame's header is damaged.
    GarbledFrame = "network: garbled frame",
    /// A byte of a handshake is damaged.
    GarbledHandshake = "network: garbled handshake",
    /// One end of a connection acknowledges and does not read.
    Stall = "engine: stalled reader",
    /// A process is stopped, and goes on later; its kernel still acknowledges.
    Stop = "engine: stopped and continued",
    /// Everything takes a process long.
    Slow = "engine: slow",
    /// A process is killed; it comes back as a new incarnation of the same name and address.
    Crash = "engine: crashed and restarted",
    /// A machine loses power: nobody is told, and its clock begins anew.
    HostLost = "engine: host lost and rebooted",
    /// An engine is shut down in good order.
    Shutdown = "engine: shut down",
    /// A clock jumps ahead under a running engine.
    ClockJump = "engine: clock jumped",
    /// Two engines' clocks drift apart by a tenth of a millisecond in a second at least.
    Drift = "engine: met a peer whose clock drifts",
    /// A transfer is cancelled before anything of it has landed.
    CancelEarly = "user: cancel before any byte landed",
    /// A transfer is cancelled while its bytes land.
    CancelMidway = "user: cancel with bytes landed",
    /// A transfer is cancelled that has ended.
    CancelLate = "user: cancel after the end",
    /// A region is deregistered that nobody uses.
    DeregisterIdle = "user: deregister an idle region",
    /// A region is deregistered that transfers use.
    DeregisterBusy = "user: deregister a region in use",
    /// The regions of a KV pool are deregistered.
    DeregisterPool = "user: deregister a KV pool",
    /// A receiver takes its grant back before anything came.
    RevokeEarly = "user: receiver dropped before data",
    /// A receiver takes its grant back in the middle.
    RevokeMidway = "user: receiver dropped with data under way",
    /// A receiver is dropped whose session has ended.
    RevokeLate = "user: receiver dropped after the end",
    /// A sender gives its session up.
    AbortSender = "user: sender gave up",
    /// A user removes a peer.
    PeerRemoved = "user: peer removed",
    /// A region is deregistered that hostile engines know.
    DeregisterBait = "user: deregister a region hostile engines use",
    /// No notification credit is left.
    NoCredit = "limit: notification credit used up",
    /// A transfer's deadline came.
    Deadline = "limit: deadline of a transfer",
    /// A frame came at or after its expiry.
    LateFrame = "limit: frame came after its expiry",
    /// A gate was closed while bytes were landing behind it.
    GateClosed = "memory: gate closed in the middle of a copy",
    /// Memory could not be reached.
    MemoryFault = "memory: fault in the middle of a copy",
    /// A frame names a slot that was not given.
    ForgedSlot = "hostile: frame with a forged slot",
    /// A frame reaches beyond its region.
    ForgedSpan = "hostile: frame beyond its region",
    /// A frame names a grant that nobody gave, or another's.
    ForgedGrant = "hostile: frame under a forged or another's grant",
    /// A frame leaves the blocks of its grant.
    BeyondGrant = "hostile: frame beyond its grant",
    /// A frame names a grant that is gone.
    StaleGrant = "hostile: frame under a grant that is gone",
    /// A frame uses a grant's slot without the grant.
    BareGrantSlot = "hostile: frame with a grant's slot alone",
    /// A frame comes again.
    Replay = "hostile: frame replayed",
    /// Frames of a transfer that was cancelled.
    AfterFence = "hostile: frames after the fence",
    /// A frame comes after its own expiry.
    PastExpiry = "hostile: frame that has expired",
    /// An ACK of what was not sent.
    FalseAck = "hostile: false ACK",
    /// READ data that nobody asked for.
    UnaskedData = "hostile: READ data not asked for",
    /// A READ of what may not be read.
    ForbiddenRead = "hostile: READ of what it may not read",
    /// Frames of one transfer that contradict each other.
    Contradiction = "hostile: frames that contradict each other",
    /// A frame that never ends.
    EndlessFrame = "hostile: frame that never ends",
    /// Bytes on a lane that are no frame.
    GarbageFrame = "hostile: garbage on a lane",
    /// WRITEs begun and never ended.
    TransferFlood = "hostile: flood of transfers",
    /// More READs than are answered at once.
    ReadFlood = "hostile: flood of READs",
    /// Region keys that are guessed.
    ForgedKey = "hostile: guessed region keys",
    /// False word of lanes and their frames.
    FalseLane = "hostile: false word of lanes",
    /// Ends of transfers that were not asked for.
    FalseEnd = "hostile: false ends of transfers",
    /// Credit that was not used.
    FalseCredit = "hostile: false credit",
    /// Grants that make no sense.
    ForgedGrants = "hostile: forged grants",
    /// False word of sessions.
    FalseSession = "hostile: false word of sessions",
    /// Slots that were never given or asked for.
    FalseSlots = "hostile: false slots",
    /// Lists of regions that nobody asked for, and questions for them out of turn.
    FalseList = "hostile: false lists of regions",
    /// Parts of notifications that do not fit.
    BrokenNotification = "hostile: broken notifications",
    /// Answers of a directory that nobody asked.
    FalseDirectory = "hostile: answers not asked for",
    /// A clock that shows anything.
    ClockLie = "hostile: lies about its clock",
    /// A message comes again.
    OldMessage = "hostile: message replayed",
    /// A message that is not due.
    SequenceGap = "hostile: gap in the sequence",
    /// An acknowledgement of what was not said.
    FutureAcknowledgement = "hostile: false acknowledgement",
    /// A message of no known type.
    UnknownMessage = "hostile: unknown message",
    /// A message longer than any may be.
    HugeMessage = "hostile: huge message",
    /// A second Resume on a connection.
    SecondResume = "hostile: second Resume",
    /// More notifications than there is credit for.
    NotificationFlood = "hostile: flood of notifications",
    /// Many questions.
    RequestFlood = "hostile: flood of questions",
    /// Many cancellations of nothing.
    CancelFlood = "hostile: flood of cancellations",
    /// Many announcements of layers.
    AnnouncementFlood = "hostile: flood of announced layers",
    /// A connection on which nothing is said.
    SilentConnection = "hostile: silent connection",
    /// Half a Hello.
    HalfGreeting = "hostile: half a greeting",
    /// Another's name, and a wrong auth key.
    StolenName = "hostile: stolen name, wrong auth key",
    /// Bytes that are no handshake.
    GarbageConnection = "hostile: garbage at the door",
    /// A handshake message that is no beginning.
    WrongGreeting = "hostile: wrong greeting",
    /// A lane that is another's, or not proved.
    ForgedLane = "hostile: forged lane",
    /// More lanes than a pair may have.
    LaneFlood = "hostile: flood of lanes",
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Engines in the run.
    pub engines: usize,
    /// Things that happened.
    pub happenings: u64,
    /// Transfers posted.
    pub transfers: u64,
    /// Bytes that landed.
    pub bytes: u64,
    /// Simulated nanoseconds.
    pub nanos: u64,
    /// How often each kind of fault fired.
    pub faults: BTreeMap<Fault, u64>,
    /// How often each kind of end was reached.
    pub ends: BTreeMap<String, u64>,
    /// Of every happening and every byte sent, in order.
    pub digest: u64,
}

impl Report {
    /// Adds another run's counts; the digests add up to one of all runs, whatever their order.
    pub fn merge(&mut self, other: Self) {
        self.engines += other.engines;
        self.happenings += other.happenings;
        self.transfers += other.transfers;
        self.bytes += other.bytes;
        self.nanos += other.nanos;
        self.digest = self.digest.wrapping_add(other.digest);
        for (fault, count) in other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
        for (end, count) in other.ends {
            *self.ends.entry(end).or_default() += count;
        }
    }

    /// How often this kind of fault fired.
    pub fn count(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    pub(crate) fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
