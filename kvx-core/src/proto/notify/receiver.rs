//! Notifications from the peer: put together, kept until their WRITE is complete, and their credit.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{LEAST_WINDOW, cost};
use crate::error::{Resource, Violation};
use crate::id::TransferId;
use crate::proto::budget::Budget;
use crate::proto::inbound::Standing;
use crate::wire::message::Message;
use crate::wire::{MAX_NOTIFICATION, WireError};

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
    partial: Option<(Option<TransferId>, Vec<u8>)>,
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
                let mut held = Vec::new();
                append(&mut held, &bytes)?;
                self.hold(after, held, budget)?;
                return Ok(None);
            }
            Some((first_after, mut held)) => {
                budget.release(held.len() as u64);
                if first_after != after || bytes.is_empty() {
                    return Err(Violation::Unexpected {
                        message: "Notify",
                        why: "it does not continue the one begun",
                    });
                }
                append(&mut held, &bytes)?;
                if held.len() > MAX_NOTIFICATION {
                    return Err(Violation::Overrun(Resource::NotificationCredit));
                }
                if more {
                    self.hold(after, held, budget)?;
                    return Ok(None);
                }
                held.into()
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
        held: Vec<u8>,
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

/// Adds a part. Memory that the peer decides the size of may not be there: then the peer ends, not
/// the process.
fn append(held: &mut Vec<u8>, part: &[u8]) -> Result<(), Violation> {
    let memory = WireError::Memory { what: "notification", bytes: part.len() };
    held.try_reserve(part.len()).map_err(|_| Violation::from(memory))?;
    held.extend_from_slice(part);
    Ok(())
}
