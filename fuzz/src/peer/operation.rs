//! What may happen to two peers. Numbers choose among what there is at that time.

use arbitrary::Arbitrary;

/// One thing that happens. Sides are told by a bit.
#[derive(Arbitrary, Debug)]
pub(super) enum Operation {
    // What users ask for.
    Post {
        side: bool,
        write: bool,
        shape: Shape,
        notify: bool,
        deadline: u8,
    },
    Cancel {
        side: bool,
        which: u8,
    },
    Notify {
        side: bool,
        len: u16,
    },
    Take {
        side: bool,
    },
    /// Asks which regions the other side publishes.
    List {
        side: bool,
    },
    /// Memory is deregistered, and other memory registered in its place.
    Renew {
        side: bool,
        role: u8,
    },
    Grant {
        receiver: bool,
        block: u8,
        tokens: u8,
    },
    Write {
        grant: u8,
        first: u8,
        count: u8,
    },
    EndSession {
        grant: u8,
    },
    AbortSession {
        grant: u8,
    },
    Revoke {
        grant: u8,
    },
    // What the network does.
    Deliver {
        to: bool,
        count: u8,
    },
    Transmit {
        from: bool,
        lane: u8,
    },
    Receive {
        to: bool,
        lane: u8,
        count: u8,
    },
    OpenLanes,
    HoldLanes {
        side: bool,
        hold: bool,
    },
    FailLane {
        side: bool,
    },
    CloseLane {
        side: bool,
        lane: u8,
    },
    Cut {
        to: bool,
        lane: u8,
        kept: u8,
    },
    Disconnect,
    Connect {
        dialer: bool,
        delay: u8,
    },
    Forget {
        side: bool,
    },
    Goodbye {
        side: bool,
    },
    Settle,
    // How time goes.
    Elapse {
        millis: u16,
    },
    Live {
        millis: u16,
    },
}

/// How the spans of a transfer lie.
#[derive(Arbitrary, Debug)]
pub(super) struct Shape {
    pub(super) count: u8,
    pub(super) len: u8,
    pub(super) local: u8,
    pub(super) local_gap: u8,
    pub(super) remote: u8,
    pub(super) remote_gap: u8,
}
