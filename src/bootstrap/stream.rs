//! Handshake messages on a TCP stream, neither a byte more nor less than they have.

use std::io;

use kvx_core::error::HandshakeError;
use kvx_core::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage, Reject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Reads one message: its bytes and what they say.
pub(super) async fn read(
    stream: &mut TcpStream,
) -> Result<(Vec<u8>, HandshakeMessage), HandshakeError> {
    let mut prefix = [0; HANDSHAKE_PREFIX_LEN];
    stream.read_exact(&mut prefix).await.map_err(ended)?;
    let (kind, len) = HandshakeMessage::decode_prefix(&prefix).map_err(not_kvx)?;
    let mut bytes = prefix.to_vec();
    bytes.resize(HANDSHAKE_PREFIX_LEN + len, 0);
    stream.read_exact(&mut bytes[HANDSHAKE_PREFIX_LEN..]).await.map_err(ended)?;
    let message = HandshakeMessage::decode(kind, &bytes[HANDSHAKE_PREFIX_LEN..])?;
    Ok((bytes, message))
}

/// Writes one message.
pub(super) async fn write(stream: &mut TcpStream, bytes: &[u8]) -> Result<(), HandshakeError> {
    stream.write_all(bytes).await.map_err(ended)
}

/// Turns the other side away, with the reason. Whether it hears it is its own affair.
pub(super) async fn reject(stream: &mut TcpStream, reason: &HandshakeError) {
    let message = HandshakeMessage::Reject(Reject { reason: reason.clone() });
    if let Ok(bytes) = message.encode() {
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
    }
}

fn ended(_: io::Error) -> HandshakeError {
    HandshakeError::Ended
}

fn not_kvx(error: kvx_core::wire::WireError) -> HandshakeError {
    match error {
        kvx_core::wire::WireError::Magic { .. } => HandshakeError::NotKvx,
        other => HandshakeError::Malformed(other),
    }
}
