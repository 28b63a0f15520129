//! What the user of a peer asks for.

use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Cause, Invalid, Side};
use crate::id::{GrantId, NotificationId, RegionId, SessionKey, TransferId};
use crate::proto::grants::GrantPlan;
use crate::proto::outbound::{NewTransfer, Target, TransferOp};
use crate::proto::peer::{Peer, Post};
use crate::region::{Gate, RegionKey};
use crate::time::Time;
use crate::wire::message::{DirectoryEntry, MAX_PAYLOAD, MAX_REASON, Message, RankKey};

impl Peer {
    /// Learns the keys of regions of the peer, from its metadata.
    pub fn learn_regions(&mut self, regions: impl IntoIterator<Item = (RegionId, RegionKey)>) {
        for (id, key) in regions {
            self.remote.learn(id, key);
        }
    }

    /// Shows the keys of these regions now, so that the first transfer need not wait for slots.
    ///
    /// # Errors
    /// A region is unknown, or the owner has refused it.
    pub fn open_remote_regions(&mut self, ids: &[RegionId]) -> Result<(), Cause> {
        self.check_alive()?;
        let stream = &mut self.stream;
        self.remote.open(ids, &mut |message| {
            stream.send(message);
        })?;
        Ok(())
    }

    /// Posts a transfer. [`Event::TransferEnded`](super::Event::TransferEnded) tells its end.
    ///
    /// A plan without runs is done at once: `Ok(None)`, its notification is due at once too.
    ///
    /// # Errors
    /// Nothing was posted then, and no event follows.
    pub fn post(&mut self, now: Time, post: Post) -> Result<Option<TransferId>, Cause> {
        self.check_alive()?;
        // `close_region` fails those that were posted before; no lane could finish a later one.
        if post.local.iter().any(|region| !region.gate.is_open()) {
            return Err(Cause::RegionClosed);
        }
        if let Some(notification) = &post.notification {
            self.check_notification(notification.len())?;
        }
        if post.plan.is_empty() {
            if let Some(bytes) = post.notification {
                self.send_notification(now, bytes, None);
            }
            return Ok(None);
        }
        let stream = &mut self.stream;
        let (slots, grant, regions) = match post.target {
            Target::Regions(ids) => {
                let slots = self.remote.open(&ids, &mut |message| {
                    stream.send(message);
                })?;
                (slots, None, Some(ids))
            }
            Target::Grant(grant) => {
                let slots = self.got.slots_of(grant)?;
                (Some(slots), Some(grant), None)
            }
        };
        let waits = slots.is_none();
        let new = NewTransfer {
            op: post.op,
            plan: post.plan,
            local: post.local,
            slots,
            grant,
            limits: post.deadline,
        };
        let id = self.outbound.post(now, new)?;
        if let Some(regions) = regions.filter(|_| waits) {
            self.remote.wait(id, regions);
        }
        if let (Some(grant), Some(layers)) = (grant, post.layers) {
            let (first, count) = (layers.start, layers.len() as u32);
            self.stream.send(Message::Layers { transfer: id, grant, first, count });
        }
        match (post.op, post.notification) {
            (_, None) => {}
            (TransferOp::Write, Some(bytes)) => {
                self.send_notification(now, bytes, Some(id));
            }
            // The peer does not know when a READ's data is here: it is told then, and not before.
            (TransferOp::Read, Some(bytes)) => self.notify_sender.hold(id, bytes),
        }
        Ok(Some(id))
    }

    /// Gives a transfer up. Its end is told by
    /// [`Event::TransferEnded`](super::Event::TransferEnded): cancelled and fenced, or unfenced at
    /// its deadline, or well if it was complete before.
    pub fn cancel(&mut self, transfer: TransferId) {
        let (ended, tell) = self.outbound.cancel(transfer);
        if tell {
            self.stream.send(Message::Cancel { transfer });
        }
        self.transfers_ended(ended);
    }

    /// Whether an own transfer is still open.
    pub fn is_open(&self, transfer: TransferId) -> bool {
        self.outbound.contains(transfer)
    }

    /// Sends a notification.
    /// [`Event::NotificationSettled`](super::Event::NotificationSettled) tells its fate.
    ///
    /// # Errors
    /// It is too long, or no credit is left; nothing was sent then.
    pub fn notify(&mut self, now: Time, bytes: Bytes) -> Result<NotificationId, Cause> {
        self.check_alive()?;
        self.check_notification(bytes.len())?;
        Ok(self.send_notification(now, bytes, None))
    }

    /// The user has taken a notification of `len` bytes: the peer gets its credit back.
    pub fn notification_taken(&mut self, len: usize) {
        self.notify_receiver.consume(len);
    }

    /// Lets the peer write what `plan` says, for a session whose receiver is here. Returns the
    /// grant and the gate of its bytes.
    ///
    /// # Errors
    /// Too many grants are open, or a region was deregistered.
    pub fn grant(
        &mut self,
        session: SessionKey,
        plan: Arc<GrantPlan>,
    ) -> Result<(GrantId, Arc<Gate>), Cause> {
        self.check_alive()?;
        let (grant, gate, messages) = self.given.give(session, plan, &mut self.slots)?;
        for message in messages {
            self.stream.send(message);
        }
        Ok((grant, gate))
    }

    /// Ends a session whose receiver is here: its gate is closed when this returns, and nothing
    /// lands once it is drained. The sender is told why. `None`: it has ended before.
    pub fn revoke(&mut self, grant: GrantId, reason: &str) -> Option<Arc<Gate>> {
        let (session, gate) = self.given.revoke(grant, &mut self.budget)?;
        self.send_abort(session, Some(grant), true, reason);
        Some(gate)
    }

    /// Whether a grant got from the peer still stands.
    pub fn holds_grant(&self, grant: GrantId) -> bool {
        self.got.slots_of(grant).is_ok()
    }

    /// Says that all of a session whose sender is here has been posted: `writes` transfers.
    /// [`Event::SessionSettled`](super::Event::SessionSettled) tells that the receiver knows.
    ///
    /// # Errors
    /// The payload is too long, or the grant is gone.
    pub fn end_session(
        &mut self,
        grant: GrantId,
        writes: u64,
        payload: Bytes,
    ) -> Result<(), Cause> {
        self.check_alive()?;
        if payload.len() > MAX_PAYLOAD {
            return Err(Cause::Invalid(Invalid::Field {
                field: "payload",
                why: format!("{} bytes are above the bound of {MAX_PAYLOAD}", payload.len()),
            }));
        }
        self.got.slots_of(grant)?;
        let sequence = self.stream.send(Message::SessionEnd { grant, writes, payload });
        self.got.set_ending(grant, sequence);
        Ok(())
    }

    /// Gives up a session whose sender is here; the receiver is told why.
    pub fn abort_session(&mut self, session: SessionKey, grant: GrantId, reason: &str) {
        let by = Side::Sender;
        let cause = Cause::Aborted { by, reason: reason.into() };
        let ended = self.outbound.fail_grant(grant, &cause);
        self.transfers_ended(ended);
        self.got.forget(grant, &mut self.budget);
        self.send_abort(session, Some(grant), false, reason);
    }

    /// Tells the peer's directory where a rank is.
    pub fn directory_put(&mut self, rank: RankKey, entry: DirectoryEntry) {
        self.stream.send(Message::DirectoryPut { rank, entry });
    }

    /// Asks the peer's directory;
    /// [`Event::DirectoryAnswered`](super::Event::DirectoryAnswered) carries `request`.
    pub fn directory_get(&mut self, request: u64, rank: RankKey, wait_ms: u32) {
        self.stream.send(Message::DirectoryGet { request, rank, wait_ms });
    }

    /// Answers the peer's question.
    pub fn directory_answer(&mut self, request: u64, entry: Option<DirectoryEntry>) {
        self.stream.send(Message::DirectoryAnswer { request, entry });
    }

    /// A region is to be deregistered here: own transfers that use it fail, and the peer's slot
    /// for it is gone. Call it before the region's gate is closed, so that no lane is handed a
    /// frame that it cannot finish, and once more after, for what came between.
    pub fn close_region(&mut self, region: RegionId) {
        let ended = self.outbound.fail_region(region);
        self.transfers_ended(ended);
        if let Some(slot) = self.slots.close(region) {
            self.stream.send(Message::SlotsClosed(vec![slot]));
        }
    }

    /// Tells the peer that this engine leaves in good order.
    pub fn goodbye(&mut self) {
        self.stream.send(Message::Goodbye);
    }

    pub(super) fn check_alive(&self) -> Result<(), Cause> {
        self.dead.clone().map_or(Ok(()), Err)
    }

    fn check_notification(&self, len: usize) -> Result<(), Cause> {
        self.notify_sender.check(len)
    }

    fn send_notification(
        &mut self,
        now: Time,
        bytes: Bytes,
        after: Option<TransferId>,
    ) -> NotificationId {
        let limits = self.config.deadline;
        let deadline = now + limits.total.unwrap_or(limits.progress);
        self.notify_sender.send(&mut self.stream, bytes, after, deadline)
    }

    fn send_abort(
        &mut self,
        session: SessionKey,
        grant: Option<GrantId>,
        by_receiver: bool,
        reason: &str,
    ) {
        let end =
            (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end));
        let reason = reason[..end.unwrap_or(0)].to_owned();
        self.stream.send(Message::SessionAbort { session, grant, by_receiver, reason });
    }
}
