//! Notifications to the peer: their credit, and what becomes of each.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Delivery, LEAST_WINDOW, Settled, cost};
use crate::error::{Cause, Invalid, Resource, Violation};
use crate::id::{NotificationId, TransferId};
use crate::proto::deadlines::Deadlines;
use crate::proto::stream::{ControlStream, Fate};
use crate::time::Time;
use crate::wire::message::Message;
use crate::wire::{MAX_MESSAGE, MAX_NOTIFICATION};

/// A notification's bytes in one message, at most: half a message, so that others get between.
const MAX_PART: usize = MAX_MESSAGE / 2;

/// Notifications to the peer.
///
/// A notification is settled when two things have happened, in either order: the peer has
/// acknowledged its last message, and the transfer that it was posted with, if any, has ended. Each
/// of them looks at those concerned only. That of a WRITE goes out with it, and the peer keeps it
/// until it is due; that of a READ, whose end the peer does not know, is held here until then.
#[derive(Debug, Default)]
pub(crate) struct NotifySender {
    /// Credit: bytes the peer keeps for us, as it said in the handshake; at least
    /// [`LEAST_WINDOW`].
    window: Option<u64>,
    /// Credit used since the association began.
    used: u64,
    /// Credit given back since.
    consumed: u64,
    /// Credit that those in `held` will take.
    reserved: u64,
    last: u64,
    /// Those whose READ has yet to end, by that.
    held: BTreeMap<TransferId, (NotificationId, Bytes)>,
    /// Those whose fate is not settled.
    open: BTreeMap<NotificationId, Open>,
    /// Those of them that are not acknowledged, by the number of their last message.
    unacknowledged: BTreeMap<u64, NotificationId>,
    /// Those of them whose WRITE has yet to end, by that.
    waiting: BTreeMap<TransferId, NotificationId>,
    /// The others, by when they are late.
    deadlines: Deadlines<NotificationId>,
}

#[derive(Debug)]
struct Open {
    /// Numbers of its first and last message on the control stream.
    first: u64,
    sequence: u64,
    /// Its bytes.
    len: usize,
    /// The transfer that it was posted with, and whether that is a WRITE that has yet to end.
    with: Option<TransferId>,
    waits: bool,
    /// While it waits for nothing but the peer's word.
    deadline: Time,
}

impl NotifySender {
    /// The peer has told its window.
    pub(crate) fn set_window(&mut self, window: u64) {
        self.window = Some(window.max(LEAST_WINDOW));
    }

    /// Whether `len` bytes may be sent now. Before the first connection the window is not known,
    /// and the least stands for it.
    pub(crate) fn check(&self, len: usize) -> Result<(), Cause> {
        let too_long = |why| Err(Invalid::Field { field: "notification", why }.into());
        if len > MAX_NOTIFICATION {
            return too_long(format!("{len} bytes are above the bound of {MAX_NOTIFICATION}"));
        }
        // It would wait for ever for credit that there is not: being busy passes, this does not.
        if let Some(window) = self.window.filter(|window| cost(len) > *window) {
            let overhead = cost(0);
            return too_long(format!(
                "{len} bytes and {overhead} more are above the {window} that the peer keeps"
            ));
        }
        // A peer may give credit back for what it never got, and what is taken back later then
        // counts twice.
        let outstanding = self.used.saturating_sub(self.consumed) + self.reserved;
        if outstanding + cost(len) > self.window.unwrap_or(LEAST_WINDOW) {
            return Err(Cause::Busy(Resource::NotificationCredit));
        }
        Ok(())
    }

    /// Sends a notification that was checked before; `after` a WRITE of ours, where it waits for one.
    pub(crate) fn send(
        &mut self,
        stream: &mut ControlStream,
        bytes: Bytes,
        after: Option<TransferId>,
        deadline: Time,
    ) -> NotificationId {
        let id = self.next_id();
        self.put(id, stream, bytes, after, deadline);
        id
    }

    /// Keeps a notification that was checked before until this READ of ours ends. Its credit is set
    /// aside, so that it is not lacking then.
    pub(crate) fn hold(&mut self, read: TransferId, bytes: Bytes) {
        self.reserved += cost(bytes.len());
        let id = self.next_id();
        self.held.insert(read, (id, bytes));
    }

    fn next_id(&mut self) -> NotificationId {
        self.last += 1;
        NotificationId(self.last)
    }

    fn put(
        &mut self,
        id: NotificationId,
        stream: &mut ControlStream,
        bytes: Bytes,
        with: Option<TransferId>,
        deadline: Time,
    ) {
        // To the peer a READ's is like any other: it became due when the data was here.
        let after = with.filter(|transfer| !transfer.is_read());
        let len = bytes.len();
        self.used += cost(len);
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
        let open = Open { first, sequence, len, with, waits: after.is_some(), deadline };
        self.unacknowledged.insert(sequence, id);
        match after {
            Some(transfer) => {
                self.waiting.insert(transfer, id);
            }
            None => self.deadlines.insert(deadline, id),
        }
        self.open.insert(id, open);
    }

    /// The peer's user has taken some.
    pub(crate) fn credit(&mut self, consumed: u64) -> Result<(), Violation> {
        if consumed > self.used || consumed < self.consumed {
            return Err(Violation::Acknowledged { sent: self.used, got: consumed });
        }
        self.consumed = consumed;
        Ok(())
    }

    /// An own transfer has ended: its notification is due at the peer, where it must be known by
    /// `deadline`, or dropped; that of a READ leaves now.
    pub(crate) fn transfer_ended(
        &mut self,
        transfer: TransferId,
        stream: &mut ControlStream,
        failure: Option<&Cause>,
        deadline: Time,
    ) -> Option<Settled> {
        if let Some((id, bytes)) = self.held.remove(&transfer) {
            self.reserved -= cost(bytes.len());
            let Some(cause) = failure else {
                self.put(id, stream, bytes, Some(transfer), deadline);
                return None;
            };
            let delivery = Delivery::NotDelivered(cause.clone());
            return Some(Settled { id, delivery, with: Some(transfer) });
        }
        let id = self.waiting.remove(&transfer)?;
        if let Some(cause) = failure {
            return self.give_up(id, stream, cause);
        }
        let open = self.open.get_mut(&id)?;
        (open.waits, open.deadline) = (false, deadline);
        if open.sequence <= stream.acknowledged() {
            return self.delivered(id);
        }
        self.deadlines.insert(deadline, id);
        None
    }

    /// Settles what the peer has acknowledged.
    pub(crate) fn settle(&mut self, stream: &ControlStream) -> Vec<Settled> {
        let acknowledged = stream.acknowledged();
        let mut settled = Vec::new();
        while let Some(entry) = self.unacknowledged.first_entry()
            && *entry.key() <= acknowledged
        {
            let id = entry.remove();
            if self.open.get(&id).is_some_and(|open| !open.waits) {
                settled.extend(self.delivered(id));
            }
        }
        settled
    }

    /// Settles what is late. Those after a transfer follow its deadline instead.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Time,
        stream: &mut ControlStream,
        cause: &Cause,
    ) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some(id) = self.deadlines.pop(now) {
            settled.extend(self.give_up(id, stream, cause));
        }
        settled
    }

    /// Notifications whose fate is open.
    pub(crate) fn unsettled(&self) -> u64 {
        (self.open.len() + self.held.len()) as u64
    }

    /// When [`Self::handle_timeout`] is due.
    pub(crate) fn next_timeout(&self) -> Time {
        self.deadlines.next()
    }

    /// The peer is gone or knows nothing any more.
    pub(crate) fn fail_all(&mut self, stream: &mut ControlStream, cause: &Cause) -> Vec<Settled> {
        let mut settled = Vec::new();
        while let Some((&id, _)) = self.open.first_key_value() {
            settled.extend(self.give_up(id, stream, cause));
        }
        self.waiting.clear();
        self.used = 0;
        self.consumed = 0;
        settled
    }

    fn delivered(&mut self, id: NotificationId) -> Option<Settled> {
        let open = self.close(id)?;
        Some(Settled { id, delivery: Delivery::Delivered, with: open.with })
    }

    /// Says what can be said of a notification that is given up. One of which nothing was written
    /// is taken back, so that it is not delivered after it was said not to be, and costs nothing.
    fn give_up(
        &mut self,
        id: NotificationId,
        stream: &mut ControlStream,
        cause: &Cause,
    ) -> Option<Settled> {
        let open = self.close(id)?;
        let delivery = match stream.fate(open.first) {
            Fate::Unsent => {
                (open.first..=open.sequence).for_each(|sequence| stream.retract(sequence));
                self.used -= cost(open.len);
                Delivery::NotDelivered(cause.clone())
            }
            // Of a WRITE that failed here, the last acknowledgement may just have been lost.
            Fate::Unknown | Fate::Acknowledged => Delivery::Unknown(cause.clone()),
        };
        Some(Settled { id, delivery, with: open.with })
    }

    /// The one place where a notification leaves: its fate is settled once.
    fn close(&mut self, id: NotificationId) -> Option<Open> {
        let open = self.open.remove(&id)?;
        self.unacknowledged.remove(&open.sequence);
        self.deadlines.remove(open.deadline, id);
        Some(open)
    }
}
