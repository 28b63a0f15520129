//! Notifications: bytes for the peer's user, at most once, in the order in which they become due,
//! each after the data that it speaks of (promise 1; PROTOCOL 7).

mod receiver;
mod sender;

use crate::error::Cause;
use crate::id::{NotificationId, TransferId};
use crate::wire::message::NOTIFICATION_OVERHEAD;

pub(crate) use receiver::NotifyReceiver;
pub(crate) use sender::NotifySender;

/// Every engine keeps as many notification bytes for a peer at least, whatever it says: so many may
/// be sent before it could say anything.
const LEAST_WINDOW: u64 = 1 << 20;

/// What became of a notification.
#[derive(Clone, Debug)]
pub enum Delivery {
    /// The peer's user has it or will be given it next.
    Delivered,
    /// It never left this engine.
    NotDelivered(Cause),
    /// It left, and no answer came.
    Unknown(Cause),
}

/// A notification whose fate is known.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) id: NotificationId,
    pub(crate) delivery: Delivery,
    /// The transfer that it was posted with.
    pub(crate) with: Option<TransferId>,
}

/// The credit that a notification of `len` bytes takes.
fn cost(len: usize) -> u64 {
    len as u64 + NOTIFICATION_OVERHEAD
}
