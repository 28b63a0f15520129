//! The 24 bytes before every control message's body (PROTOCOL 4.1).

use crate::wire::WireError;
use crate::wire::codec::Reader;
use crate::wire::message::MAX_BODY;

/// Bytes of a control message's header.
pub const MESSAGE_HEADER_LEN: usize = 24;

/// The first number of a message type in the sequence.
pub const FIRST_SEQUENCED: u16 = 16;

/// A control message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageHeader {
    /// Bytes that follow the header; at most [`MAX_BODY`].
    pub body_len: u32,
    /// The message's type.
    pub kind: u16,
    /// The message's number, from 1 for each association; 0 for messages outside the sequence.
    pub sequence: u64,
    /// The number up to which the speaker has dealt with the other side's messages.
    pub acknowledged: u64,
}

impl MessageHeader {
    /// The header's bytes.
    pub fn encode(&self) -> [u8; MESSAGE_HEADER_LEN] {
        let mut bytes = [0; MESSAGE_HEADER_LEN];
        bytes[..4].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[4..6].copy_from_slice(&self.kind.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..].copy_from_slice(&self.acknowledged.to_le_bytes());
        bytes
    }

    /// The header of these bytes: the body's length is within its bound, and the message has a
    /// number exactly if its type is of the sequence.
    ///
    /// # Errors
    /// The first rule that is broken. An unknown type is none: [`super::Message::decode`] tells.
    pub fn decode(bytes: &[u8; MESSAGE_HEADER_LEN]) -> Result<Self, WireError> {
        let mut reader = Reader::new("message header", bytes);
        let body_len = reader.u32("message length")?;
        let kind = reader.u16("message type")?;
        reader.reserved::<2>("message header, reserved field")?;
        let sequence = reader.u64("message number")?;
        let acknowledged = reader.u64("message acknowledgement")?;
        reader.finish()?;

        if body_len as usize > MAX_BODY {
            let (value, limit) = (body_len.into(), MAX_BODY as u64);
            return Err(WireError::Limit { what: "message length", value, limit });
        }
        if (kind >= FIRST_SEQUENCED) != (sequence != 0) {
            return Err(WireError::Value { what: "message number", value: sequence });
        }
        Ok(Self { body_len, kind, sequence, acknowledged })
    }
}
