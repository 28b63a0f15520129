//! A TCP stream that never blocks for ever, and what is read from it piece by piece.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use kvx_core::wire::handshake::{HANDSHAKE_PREFIX_LEN, HandshakeMessage, Reject};

use super::{Gone, Result};

/// How long the victim may take for anything it must do, before that counts as a surprise: far
/// longer than it takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a write may make no progress. A victim that reads nothing more is not waited for.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// A connection to the victim.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    /// Bytes that have arrived and were not taken.
    buffer: Vec<u8>,
}

impl Stream {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        Self::new(TcpStream::connect_timeout(&address, PATIENCE)?)
    }

    pub(crate) fn new(tcp: TcpStream) -> Result<Self> {
        tcp.set_nodelay(true)?;
        tcp.set_write_timeout(Some(WRITE_PATIENCE))?;
        Ok(Self { tcp, buffer: Vec::new() })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.tcp.write_all(bytes)?)
    }

    /// Says that nothing more will come, and goes on listening.
    pub(crate) fn finish(&self) -> Result<()> {
        Ok(self.tcp.shutdown(Shutdown::Write)?)
    }

    /// The next `len` bytes, if all of them come within `wait`; else what has come stays.
    pub(crate) fn take(&mut self, len: usize, wait: Duration) -> Result<Option<Vec<u8>>> {
        Ok(self.peek(len, wait)?.then(|| self.buffer.drain(..len).collect()))
    }

    /// The next `N` bytes, which stay.
    pub(crate) fn look<const N: usize>(&mut self, wait: Duration) -> Result<Option<[u8; N]>> {
        self.peek(N, wait)?;
        Ok(self.buffer.first_chunk().copied())
    }

    /// Waits for the end of the stream, and drops what comes before it.
    pub(crate) fn ends(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            self.buffer.clear();
            match self.fill(until) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(_) => return true,
            }
        }
    }

    /// The next handshake message: its bytes, and what they say.
    pub(crate) fn handshake(&mut self) -> Result<(Vec<u8>, HandshakeMessage)> {
        let silent = Gone::Silent("an answer to a handshake");
        let prefix = self.look::<HANDSHAKE_PREFIX_LEN>(PATIENCE)?.ok_or_else(|| silent.clone())?;
        let (kind, len) = HandshakeMessage::decode_prefix(&prefix)?;
        let bytes = self.take(HANDSHAKE_PREFIX_LEN + len, PATIENCE)?.ok_or(silent)?;
        match HandshakeMessage::decode(kind, &bytes[HANDSHAKE_PREFIX_LEN..])? {
            HandshakeMessage::Reject(Reject { reason }) => Err(Gone::Rejected(reason)),
            message => Ok((bytes, message)),
        }
    }

    fn peek(&mut self, len: usize, wait: Duration) -> Result<bool> {
        let until = Instant::now() + wait;
        while self.buffer.len() < len {
            if !self.fill(until)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads once; `false`: nothing came in time.
    fn fill(&mut self, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        // Zero would mean for ever.
        self.tcp.set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
        let mut chunk = [0; 16 << 10];
        loop {
            match self.tcp.read(&mut chunk) {
                Ok(0) => return Err(Gone::Ended),
                Ok(bytes) => {
                    self.buffer.extend_from_slice(&chunk[..bytes]);
                    return Ok(true);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Ok(false);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
