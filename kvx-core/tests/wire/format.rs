//! Everything that travels, under one roof, so that one test speaks of all formats.

use bytes::Bytes;
use kvx_core::error::HandshakeError;
use kvx_core::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage, Reject};
use kvx_core::wire::message::{MESSAGE_HEADER_LEN, Message, MessageHeader};
use kvx_core::wire::metadata::Metadata;
use kvx_core::wire::{
    FRAME_HEADER_LEN, FRAME_SPAN_LEN, FrameHeader, RawSpan, WireError, WireSpan, decode_table,
};
use zerocopy::{FromBytes, IntoBytes};

/// The four formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Frame,
    Handshake,
    Message,
    Blob,
}

impl Format {
    pub(crate) const ALL: [Self; 4] = [Self::Frame, Self::Handshake, Self::Message, Self::Blob];
}

/// One thing of one format, without a frame's payload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Thing {
    Frame(FrameHeader, Vec<WireSpan>),
    Handshake(HandshakeMessage),
    Message { sequence: u64, acknowledged: u64, message: Message },
    Blob(Metadata),
}

impl Thing {
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Frame(..) => Format::Frame,
            Self::Handshake(_) => Format::Handshake,
            Self::Message { .. } => Format::Message,
            Self::Blob(_) => Format::Blob,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Frame(header, spans) => {
                let table: Vec<RawSpan> = spans.iter().copied().map(RawSpan::from).collect();
                [&header.encode(), table.as_bytes()].concat()
            }
            Self::Handshake(message) => message.encode().unwrap(),
            Self::Message { sequence, acknowledged, message } => {
                let mut body = Vec::new();
                message.encode_body(&mut body).unwrap();
                let header = MessageHeader {
                    body_len: body.len() as u32,
                    kind: message.kind(),
                    sequence: *sequence,
                    acknowledged: *acknowledged,
                };
                [&header.encode()[..], &body].concat()
            }
            Self::Blob(metadata) => metadata.encode().unwrap(),
        }
    }

    /// What the other side holds once it has read this: a Reject is seen from the other end.
    pub(crate) fn as_received(&self) -> Self {
        let Self::Handshake(HandshakeMessage::Reject(reject)) = self else {
            return self.clone();
        };
        let reason = match reject.reason.clone() {
            HandshakeError::Version { ours_min, ours_max, theirs_min, theirs_max } => {
                HandshakeError::Version {
                    ours_min: theirs_min,
                    ours_max: theirs_max,
                    theirs_min: ours_min,
                    theirs_max: ours_max,
                }
            }
            HandshakeError::Method { ours, theirs } => {
                HandshakeError::Method { ours: theirs, theirs: ours }
            }
            HandshakeError::Malformed(_) => HandshakeError::Malformed(WireError::Reported),
            same => same,
        };
        Self::Handshake(HandshakeMessage::Reject(Reject { reason }))
    }
}

/// Reads all of `bytes` as one thing, as a connection's reader would.
pub(crate) fn decode(format: Format, bytes: &[u8]) -> Result<Thing, WireError> {
    let short = WireError::Truncated { what: "test input", need: 0, have: bytes.len() };
    match format {
        Format::Frame => {
            let (header, table) = bytes.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(short)?;
            let header = FrameHeader::decode(header)?;
            if table.len() != header.table_entries() * FRAME_SPAN_LEN {
                return Err(short);
            }
            let table = <[RawSpan]>::ref_from_bytes(table).unwrap();
            let mut spans = Vec::new();
            decode_table(&header, table, &mut spans)?;
            Ok(Thing::Frame(header, spans))
        }
        Format::Handshake => {
            let (prefix, body) = bytes.split_first_chunk::<HANDSHAKE_PREFIX_LEN>().ok_or(short)?;
            let (kind, len) = HandshakeMessage::decode_prefix(prefix)?;
            if body.len() != len {
                return Err(short);
            }
            HandshakeMessage::decode(kind, body).map(Thing::Handshake)
        }
        Format::Message => {
            let (header, body) = bytes.split_first_chunk::<MESSAGE_HEADER_LEN>().ok_or(short)?;
            let header = MessageHeader::decode(header)?;
            if body.len() != header.body_len as usize {
                return Err(short);
            }
            let message = Message::decode(header.kind, Bytes::copy_from_slice(body))?;
            let MessageHeader { sequence, acknowledged, .. } = header;
            Ok(Thing::Message { sequence, acknowledged, message })
        }
        Format::Blob => Metadata::decode(bytes).map(Thing::Blob),
    }
}

/// `bytes` with everything that counts or sums its bytes put right after a change: lengths that
/// stand in prefixes, and checksums.
pub(crate) fn mended(format: Format, mut bytes: Vec<u8>) -> Vec<u8> {
    match format {
        Format::Frame => {}
        Format::Handshake if bytes.len() >= HANDSHAKE_PREFIX_LEN => {
            let len = (bytes.len() - HANDSHAKE_PREFIX_LEN) as u16;
            bytes[6..8].copy_from_slice(&len.to_le_bytes());
        }
        Format::Message if bytes.len() >= MESSAGE_HEADER_LEN => {
            let len = (bytes.len() - MESSAGE_HEADER_LEN) as u32;
            bytes[..4].copy_from_slice(&len.to_le_bytes());
        }
        Format::Blob if bytes.len() >= 4 => {
            let end = bytes.len() - 4;
            let crc = crc32c::crc32c(&bytes[..end]);
            bytes[end..].copy_from_slice(&crc.to_le_bytes());
        }
        _ => {}
    }
    bytes
}
