//! The control stream: messages exactly once and in order between two associations, over any
//! number of connections (PROTOCOL 4.2). It does not know what the messages mean.

use std::collections::VecDeque;

use crate::error::Violation;
use crate::wire::WireError;
use crate::wire::message::{MESSAGE_HEADER_LEN, Message, MessageHeader};

/// Messages for which room is kept while none waits: a burst is not paid for ever.
const RETAINED_AT_REST: usize = 64;

/// Both directions of the control stream.
#[derive(Debug, Default)]
pub(crate) struct ControlStream {
    /// Sequenced messages that the peer has not acknowledged, oldest first: numbers
    /// `acknowledged + 1 ..= last_queued`. Those below `retained.len() - unsent` were written to the
    /// present connection.
    retained: VecDeque<Message>,
    /// Memory of those in `retained` that answer the peer: how many, it decides.
    answers: u64,
    /// How many at the end of `retained` still have to be written to the present connection.
    unsent: usize,
    /// Messages outside the sequence for the present connection.
    urgent: VecDeque<Message>,
    /// The number of the last sequenced message queued.
    last_queued: u64,
    /// The number of the last one that was written to any connection, so that the peer may have it.
    last_written: u64,
    /// The number up to which the peer has acknowledged: `acknowledged <= last_written`.
    acknowledged: u64,
    /// The number of the last sequenced message from the peer.
    received: u64,
    /// The acknowledgement that the peer was last told on this connection.
    told: u64,
    /// Whether the peer's Resume has come on this connection: nothing sequenced goes out before.
    resumed: bool,
}

/// What became of a message that was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The peer has acknowledged it.
    Acknowledged,
    /// It was on a connection, without an answer.
    Unknown,
    /// It never left.
    Unsent,
}

impl ControlStream {
    /// A new connection is there: begins with `resume`, and holds the rest until the peer's.
    pub(crate) fn connect(&mut self, resume: Message) {
        self.urgent.clear();
        self.urgent.push_back(resume);
        self.unsent = self.retained.len();
        self.resumed = false;
        self.told = 0;
    }

    /// The peer's Resume came: from here on everything flows on this connection.
    pub(crate) fn resume(&mut self) {
        self.resumed = true;
    }

    /// Whether the peer's Resume came on this connection.
    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }

    /// Both sides begin anew: everything in sequence is forgotten.
    pub(crate) fn restart(&mut self) {
        let urgent = std::mem::take(&mut self.urgent);
        *self = Self { urgent, resumed: self.resumed, ..Self::default() };
    }

    /// Queues a message; a sequenced one is kept until acknowledged, and its number returned.
    pub(crate) fn send(&mut self, message: Message) -> u64 {
        if !message.is_sequenced() {
            if matches!(message, Message::HeartbeatReply { .. }) {
                // Only the answer to the last question is of use.
                self.urgent.retain(|urgent| !matches!(urgent, Message::HeartbeatReply { .. }));
            }
            self.urgent.push_back(message);
            return 0;
        }
        self.last_queued += 1;
        self.answers += message.answer_bytes();
        self.retained.push_back(message);
        self.unsent += 1;
        self.last_queued
    }

    /// What is known of the message of this number.
    pub(crate) fn fate(&self, sequence: u64) -> Fate {
        if sequence <= self.acknowledged {
            Fate::Acknowledged
        } else if sequence <= self.last_written {
            Fate::Unknown
        } else {
            Fate::Unsent
        }
    }

    /// Empties a message that was not written yet. Its number stays in the sequence.
    pub(crate) fn retract(&mut self, sequence: u64) {
        debug_assert!(sequence > self.last_written);
        let index = sequence.checked_sub(self.acknowledged + 1).map(|index| index as usize);
        if let Some(message) = index.and_then(|index| self.retained.get_mut(index)) {
            *message = Message::SlotsClosed(Vec::new());
        }
    }

    /// The number up to which the peer has acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Memory that answers take which the peer has not acknowledged.
    pub(crate) fn answers(&self) -> u64 {
        self.answers
    }

    /// Whether nothing waits to be acknowledged or written.
    pub(crate) fn is_flushed(&self) -> bool {
        self.retained.is_empty() && self.urgent.is_empty()
    }

    /// Whether [`Self::poll`] has something.
    pub(crate) fn has_output(&self) -> bool {
        !self.urgent.is_empty() || (self.resumed && (self.unsent > 0 || self.received > self.told))
    }

    /// The next bytes for the connection.
    pub(crate) fn poll(&mut self) -> Option<Result<Vec<u8>, WireError>> {
        if let Some(message) = self.urgent.pop_front() {
            // Until the peer's Resume has come it may be another peer than the one that was heard.
            let known = self.resumed || matches!(message, Message::Resume { .. });
            let acknowledged = if known { self.received } else { 0 };
            self.told = self.told.max(acknowledged);
            return Some(encode(&message, 0, acknowledged));
        }
        if !self.resumed || (self.unsent == 0 && self.received <= self.told) {
            return None;
        }
        self.told = self.received;
        if self.unsent == 0 {
            return Some(encode(&Message::Acknowledge, 0, self.received));
        }
        let index = self.retained.len() - self.unsent;
        let sequence = self.acknowledged + 1 + index as u64;
        self.unsent -= 1;
        self.last_written = self.last_written.max(sequence);
        Some(encode(&self.retained[index], sequence, self.received))
    }

    /// Takes an incoming header in: its acknowledgement, and its place in the sequence. Says
    /// whether the message is to be dealt with (`false`: it was dealt with before).
    pub(crate) fn receive(&mut self, header: &MessageHeader) -> Result<bool, Violation> {
        if header.acknowledged > self.last_written {
            let (sent, got) = (self.last_written, header.acknowledged);
            return Err(Violation::Acknowledged { sent, got });
        }
        while self.acknowledged < header.acknowledged {
            let message = self.retained.pop_front();
            self.answers -= message.map_or(0, |message| message.answer_bytes());
            self.acknowledged += 1;
        }
        self.unsent = self.unsent.min(self.retained.len());
        if self.retained.is_empty() {
            self.retained.shrink_to(RETAINED_AT_REST);
        }
        if header.sequence == 0 || header.sequence <= self.received {
            return Ok(header.sequence == 0);
        }
        if header.sequence != self.received + 1 {
            let expected = self.received + 1;
            return Err(Violation::Sequence { expected, got: header.sequence });
        }
        if !self.resumed {
            return Err(Violation::Unexpected {
                message: "a sequenced message",
                why: "Resume comes first",
            });
        }
        self.received = header.sequence;
        Ok(true)
    }
}

fn encode(message: &Message, sequence: u64, acknowledged: u64) -> Result<Vec<u8>, WireError> {
    let mut bytes = vec![0; MESSAGE_HEADER_LEN];
    message.encode_body(&mut bytes)?;
    let body_len = (bytes.len() - MESSAGE_HEADER_LEN) as u32;
    let header = MessageHeader { body_len, kind: message.kind(), sequence, acknowledged };
    bytes[..MESSAGE_HEADER_LEN].copy_from_slice(&header.encode());
    Ok(bytes)
}
