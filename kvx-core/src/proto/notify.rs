//! Notifications: bytes for the peer's user, at most once, in the order in which they become due,
//! each after the data that it speaks of (promise 1; PROTOCOL 7).

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use crate::error::{Cause, Resource, Violation};
use crate::id::{NotificationId, TransferId};
use crate::proto::budget::Budget;
use crate::proto::inbound::Standing;
use crate::proto::stream::{ControlStream, Fate};
use crate::time::Time;
use crate::wire::message::{Message, NOTIFICATION_OVERHEAD};
use crate::wire::{MAX_MESSAGE, MAX_NOTIFICATION};

/// A notification's bytes in one message, at most: half a message, so that others get between.
const MAX_PART: usize = MAX_MESSAGE / 2;

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
    /// The WRITE that it was posted with.
    pub(crate) with: Option<TransferId>,
}

/// Notifications to the peer.
#[derive(Debug)]
pub(crate) struct NotifySender {
    /// Credit: bytes the peer keeps for us, as it said in the handshake; at least
    /// [`LEAST_WINDOW`].
    window: u64,
    /// Credit used since the association began.
    used: u64,
    /// Credit given back since.
    consumed: u64,
    last: u64,
    /// Those whose fate is not settled, oldest first.
    open: VecDeque<Open>,
}

#[derive(Debug)]
struct Open {
    id: NotificationId,
    /// Numbers of its first and last message on the control stream.
    first: u64,
    sequence: u64,
    /// Its bytes.
    len: usize,
    /// The WRITE that it was posted with, and whether that has yet to end.
    with: Option<TransferId>,
    waits: bool,
    deadline: Time,
}

impl NotifySender {
    pub(crate) fn new() -> Self {
        Self { window: LEAST_WINDOW, used: 0, consumed: 0, last: 0, open: VecDeque::new() }
    }

    /// The peer has told its window.
    pub(crate) fn set_window(&mut self, window: u64) {
        self.window = window.max(LEAST_WINDOW);
    }

    /// Whether `len` bytes may be sent now. Before the first connection the window is not known,
    /// and the least stands for it.
    pub(crate) fn check(&self, len: usize) -> Result<(), Cause> {
        if len > MAX_NOTIFICATION {
            return Err(Cause::Invalid(crate::error::Invalid::Field {
                field: "notification",
                why: format!("{len} bytes are above the bound of {MAX_NOTIFICATION}"),
            }));
        }
        let outstanding = self.used - self.consumed;
        if outstanding + cost(len) > self.window {
            return Err(Cause::Busy(Resource::NotificationCredit));
        }
        Ok(())
    }

    /// Sends a notification that was checked before.
    pub(crate) fn send(
        &mut self,
        stream: &mut ControlStream,
        bytes: Bytes,
        after: Option<TransferId>,
        deadline: Time,
    ) -> NotificationId {
        let len = bytes.len();
        self.used += cost(len);
        self.last += 1;
        let id = NotificationId(self.last);
        let mut rest = bytes;
        let mut part = rest.split_to(rest.len().min(MAX_PART));
        let mut more = !rest.is_empty();
        let first = stream.send(Message::Notify { after, more, bytes: part });
        let mut sequence = first;
        while more {
            part = rest.split_to(rest.len().min(MAX_PART));
            more = !rest.is_empty();
            sequence = stream.send(Message::Notify { after, more, bytes: part });
        }
        let waits = after.is_some();
        self.open.push_back(Open { id, first, sequence, len, with: after, waits, deadline });
        id
    }

    /// The peer's user has taken some.
    pub(crate) fn credit(&mut self, consumed: u64) -> Result<(), Violation> {
        if consumed > self.used || consumed < self.consumed {
            return Err(Violation::Acknowledged { sent: self.used, got: consumed });
        }
        self.consumed = consumed;
        Ok(())
    }

    /// An own WRITE has ended: its notification is due at the peer, where it must be known by
    /// `deadline`, or was dropped there.
    pub(crate) fn transfer_ended(
        &mut self,
        transfer: TransferId,
        stream: &mut ControlStream,
        failure: Option<&Cause>,
        deadline: Time,
        settled: &mut Vec<Settled>,
    ) {
        let Some(index) = self.open.iter().position(|open| open.with == Some(transfer)) else {
            return;
        };
        match failure {
            None => {
                let open = &mut self.open[index];
                (open.waits, open.deadline) = (false, deadline);
            }
            Some(cause) => {
                if let Some(open) = self.open.remove(index) {
                    self.give_up(&open, stream, cause, settled);
                }
            }
        }
    }

    /// Settles what the peer has acknowledged.
    pub(crate) fn settle(&mut self, stream: &ControlStream, settled: &mut Vec<Settled>) {
        let acknowledged = stream.acknowledged();
        self.open.retain(|open| {
            let delivered = open.sequence <= acknowledged && !open.waits;
            if delivered {
                let (id, delivery, with) = (open.id, Delivery::Delivered, open.with);
                settled.push(Settled { id, delivery, with });
            }
            !delivered
        });
    }

    /// Settles what is late. Those after a transfer follow its deadline instead.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Time,
        stream: &mut ControlStream,
        cause: &Cause,
        settled: &mut Vec<Settled>,
    ) {
        let is_late = |open: &Open| !open.waits && open.deadline <= now;
        let (late, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.open).into_iter().partition(is_late);
        self.open = rest;
        late.iter().for_each(|open| self.give_up(open, stream, cause, settled));
    }

    /// Notifications whose fate is open.
    pub(crate) fn unsettled(&self) -> u64 {
        self.open.len() as u64
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Time {
        let due = self.open.iter().filter(|open| !open.waits);
        due.map(|open| open.deadline).min().unwrap_or(Time::NEVER)
    }

    /// The peer is gone or knows nothing any more.
    pub(crate) fn fail_all(
        &mut self,
        stream: &mut ControlStream,
        cause: &Cause,
        settled: &mut Vec<Settled>,
    ) {
        for open in std::mem::take(&mut self.open) {
            self.give_up(&open, stream, cause, settled);
        }
        self.used = 0;
        self.consumed = 0;
    }
}

impl NotifySender {
    /// Says what can be said of a notification that is given up. One of which nothing was written
    /// is taken back, so that it is not delivered after it was said not to be, and costs nothing.
    fn give_up(
        &mut self,
        open: &Open,
        stream: &mut ControlStream,
        cause: &Cause,
        settled: &mut Vec<Settled>,
    ) {
        let delivery = match stream.fate(open.first) {
            Fate::Unsent => {
                (open.first..=open.sequence).for_each(|sequence| stream.retract(sequence));
                self.used -= cost(open.len);
                Delivery::NotDelivered(cause.clone())
            }
            // Of a WRITE that failed here, the last acknowledgement may just have been lost.
            Fate::Unknown | Fate::Acknowledged => Delivery::Unknown(cause.clone()),
        };
        settled.push(Settled { id: open.id, delivery, with: open.with });
    }
}

/// Notifications from the peer.
#[derive(Debug)]
pub(crate) struct NotifyReceiver {
    window: u64,
    /// Credit that the peer has used and the user has not yet given back.
    outstanding: u64,
    /// Credit given back since the association began.
    consumed: u64,
    /// `consumed` as the peer was told last.
    told: u64,
    /// Parts of a notification that is not whole yet.
    partial: Option<(Option<TransferId>, BytesMut)>,
    /// Whole ones that wait for their WRITE.
    waiting: BTreeMap<TransferId, Vec<Bytes>>,
}

impl NotifyReceiver {
    pub(crate) fn new(window: u64) -> Self {
        Self {
            window: window.max(LEAST_WINDOW),
            outstanding: 0,
            consumed: 0,
            told: 0,
            partial: None,
            waiting: BTreeMap::new(),
        }
    }

    /// A part has come. Returns the notification if it is whole and due.
    pub(crate) fn receive(
        &mut self,
        after: Option<TransferId>,
        more: bool,
        bytes: Bytes,
        standing: impl Fn(TransferId) -> Standing,
        budget: &mut Budget,
    ) -> Result<Option<Bytes>, Violation> {
        let whole = match self.partial.take() {
            None if !more => bytes,
            None => {
                let held = BytesMut::from(&bytes[..]);
                self.hold(after, held, budget)?;
                return Ok(None);
            }
            Some((first_after, mut held)) => {
                if first_after != after || bytes.is_empty() {
                    return Err(Violation::Unexpected {
                        message: "Notify",
                        why: "it does not continue the one begun",
                    });
                }
                budget.release(held.len() as u64);
                held.extend_from_slice(&bytes);
                if held.len() > MAX_NOTIFICATION {
                    return Err(Violation::Overrun(Resource::NotificationCredit));
                }
                if more {
                    self.hold(after, held, budget)?;
                    return Ok(None);
                }
                held.freeze()
            }
        };
        self.outstanding += cost(whole.len());
        if self.outstanding > self.window {
            return Err(Violation::Overrun(Resource::NotificationCredit));
        }
        let Some(transfer) = after else { return Ok(Some(whole)) };
        match standing(transfer) {
            Standing::Complete => Ok(Some(whole)),
            Standing::Fenced => {
                self.consume(whole.len());
                Ok(None)
            }
            Standing::Open => {
                self.waiting.entry(transfer).or_default().push(whole);
                Ok(None)
            }
        }
    }

    /// A WRITE is complete: what waited for it is due.
    pub(crate) fn completed(&mut self, transfer: TransferId) -> Vec<Bytes> {
        self.waiting.remove(&transfer).unwrap_or_default()
    }

    /// A WRITE was cancelled or refused: what waited for it is dropped.
    pub(crate) fn fenced(&mut self, transfer: TransferId) {
        for bytes in self.waiting.remove(&transfer).unwrap_or_default() {
            self.consume(bytes.len());
        }
    }

    /// Credit that the peer has used and the user has not given back.
    pub(crate) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    /// The user has taken a notification of `len` bytes.
    pub(crate) fn consume(&mut self, len: usize) {
        // One that came before both sides began anew is nobody's credit any more.
        let returned = cost(len).min(self.outstanding);
        self.outstanding -= returned;
        self.consumed += returned;
    }

    /// Credit to tell the peer: when a quarter of the window came back, or all of it.
    pub(crate) fn take_credit(&mut self) -> Option<Message> {
        let news = self.consumed - self.told;
        if news == 0 || (news < self.window / 4 && self.outstanding > 0) {
            return None;
        }
        self.told = self.consumed;
        Some(Message::NotificationCredit { consumed: self.consumed })
    }

    fn hold(
        &mut self,
        after: Option<TransferId>,
        held: BytesMut,
        budget: &mut Budget,
    ) -> Result<(), Violation> {
        budget.charge(held.len() as u64)?;
        self.partial = Some((after, held));
        Ok(())
    }

    /// The peer begins anew.
    pub(crate) fn restart(&mut self, budget: &mut Budget) {
        if let Some((_, held)) = self.partial.take() {
            budget.release(held.len() as u64);
        }
        *self = Self::new(self.window);
    }
}

fn cost(len: usize) -> u64 {
    len as u64 + NOTIFICATION_OVERHEAD
}
