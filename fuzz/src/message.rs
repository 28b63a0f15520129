//! Control messages (PROTOCOL 4).

use bytes::Bytes;
use kvx_core::wire::message::{MESSAGE_HEADER_LEN, Message, MessageHeader};

/// The first byte chooses the type, the rest is the body; and all of it is a header.
pub fn run(bytes: &[u8]) {
    if let Some(first) = bytes.first_chunk::<MESSAGE_HEADER_LEN>()
        && let Ok(header) = MessageHeader::decode(first)
    {
        assert_eq!(&header.encode(), first);
    }
    let Some((kind, body)) = bytes.split_first() else { return };
    // Numbers beyond the last type name nothing; a few of them are enough.
    let kind = u16::from(*kind % 64);
    let Ok(message) = Message::decode(kind, Bytes::copy_from_slice(body)) else { return };
    assert_eq!(message.kind(), kind);
    assert_eq!(Message::name_of(kind), Some(message.name()));
    let mut again = Vec::new();
    message.encode_body(&mut again).expect("what was read can be written");
    // Extensions that are not known here are not written again.
    assert!(again.len() <= body.len());
    assert_eq!(Message::decode(kind, again.into()), Ok(message));
}
