//! Handshake messages (PROTOCOL 3.1 to 3.4 and 3.7).

use kvx_core::wire::handshake::{
    HANDSHAKE_PREFIX_LEN, HandshakeKind, HandshakeMessage, MAX_HANDSHAKE,
};

/// The first byte chooses the type, the rest is the body; and all of it is a prefix.
pub fn run(bytes: &[u8]) {
    if let Some(first) = bytes.first_chunk::<HANDSHAKE_PREFIX_LEN>()
        && let Ok((_, len)) = HandshakeMessage::decode_prefix(first)
    {
        assert!(HANDSHAKE_PREFIX_LEN + len <= MAX_HANDSHAKE);
    }
    let Some((kind, body)) = bytes.split_first() else { return };
    let kind = HandshakeKind::ALL[usize::from(*kind) % HandshakeKind::ALL.len()];
    let Ok(message) = HandshakeMessage::decode(kind, body) else { return };
    assert_eq!(message.kind(), kind);
    let once = reread(&message);
    if kind == HandshakeKind::Reject {
        // It is seen from the other end each time that it is read, and why it did not parse there
        // does not travel.
        assert_eq!(reread(&reread(&once)), once);
    } else {
        assert_eq!(once, message);
    }
}

/// Written, and read as a connection's reader does.
fn reread(message: &HandshakeMessage) -> HandshakeMessage {
    let bytes = message.encode().expect("what was read can be written");
    let (prefix, body) = bytes.split_first_chunk().expect("a prefix");
    let (kind, len) = HandshakeMessage::decode_prefix(prefix).expect("a prefix of ours");
    assert_eq!((kind, len), (message.kind(), body.len()));
    HandshakeMessage::decode(kind, body).expect("a message of ours")
}
