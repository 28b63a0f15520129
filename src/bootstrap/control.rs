//! The tasks of one control connection: one reads, one writes, both end together.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use kvx_core::error::{Cause, Violation};
use kvx_core::proto::Established;
use kvx_core::wire::message::{MESSAGE_HEADER_LEN, MessageHeader};
use socket2::{SockRef, TcpKeepalive};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

use super::near;
use crate::clock;
use crate::engine::Shared;
use crate::peer::Link;

/// Bytes that are gathered before they are written.
const BATCH: usize = 64 << 10;
/// After this long without any acknowledgement the kernel gives a connection up: a peer's host
/// that is gone says nothing at all.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a connection that is over here is still read: what the peer said last, or that it has
/// heard what was said here.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Messages of one connection that are dealt with before others have their turn.
const TURN: u32 = 32;

/// Hands a verified connection to its link and runs it.
pub(super) fn spawn(
    shared: &Arc<Shared>,
    link: Arc<Link>,
    stream: TcpStream,
    established: &Established,
    dialed_here: bool,
    from: SocketAddr,
) {
    tune(&stream);
    let is_near = stream.local_addr().is_ok_and(|own| near::is_near(own, from));
    let (number, stop) = link.connected(established, dialed_here, from, is_near);
    let ended = shared.farewell();
    shared.runtime.spawn(async move {
        let (reader, writer) = stream.into_split();
        let mut reading = std::pin::pin!(read(&link, number, reader));
        let outcome = tokio::select! {
            outcome = &mut reading => outcome,
            written = write(&link, number, writer, &stop) => {
                // A peer that leaves may have said so before it turned down what it was told; and
                // a socket closed over unread bytes resets what is on its way to the peer.
                let read = tokio::time::timeout(LAST_WORDS, reading).await;
                written.and(read.unwrap_or(Ok(())))
            }
        };
        // What woke this connection's writer last may have been meant for the next one's.
        link.output.notify_one();
        match outcome {
            Ok(()) => {}
            Err(Ended::Io(error)) => {
                tracing::debug!(peer = %link.name(), %error, "control connection ended");
            }
            Err(Ended::Violation(violation)) => link.kill(Cause::PeerMisbehaved(violation)),
        }
        link.disconnected(number);
        drop(ended);
    });
}

enum Ended {
    Io(io::Error),
    Violation(Violation),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Violation> for Ended {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

async fn read(link: &Link, number: u64, reader: OwnedReadHalf) -> Result<(), Ended> {
    let mut reader = BufReader::with_capacity(BATCH, reader);
    let mut messages = 0u32;
    loop {
        // What is buffered already is read without a pause: a peer that says much must not keep the
        // others waiting.
        messages = messages.wrapping_add(1);
        if messages.is_multiple_of(TURN) {
            tokio::task::yield_now().await;
        }
        let mut header = [0; MESSAGE_HEADER_LEN];
        reader.read_exact(&mut header).await?;
        let header = MessageHeader::decode(&header).map_err(Violation::from)?;
        // The peer decides how much: without the memory its connection ends, and nothing else. What
        // it says is said again on the next one.
        let mut body = Vec::new();
        body.try_reserve_exact(header.body_len as usize)
            .map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        body.resize(header.body_len as usize, 0);
        reader.read_exact(&mut body).await?;
        let body = Bytes::from(body);
        let spoke = link.with(|core| {
            let speaks = core.speaks(number);
            speaks.then(|| core.protocol.handle_message(clock::now(), &header, body))
        });
        let Some(handled) = spoke else { return Ok(()) };
        handled?;
    }
}

/// Writes what the protocol has to say, until told to stop; then what is queued still goes out, if
/// the peer takes it: one that reads nothing any more holds the connection no longer than that.
async fn write(
    link: &Link,
    number: u64,
    mut writer: OwnedWriteHalf,
    stop: &Notify,
) -> Result<(), Ended> {
    // What was taken from the protocol and not written whole: whoever stops, this comes first.
    let mut batch = BytesMut::new();
    tokio::select! {
        ended = write_on(link, number, &mut writer, &mut batch) => return ended,
        () = stop.notified() => {}
    }
    let last_words = async {
        flush(link, number, &mut writer, &mut batch).await?;
        Ok(writer.shutdown().await?)
    };
    tokio::time::timeout(LAST_WORDS, last_words).await.unwrap_or(Ok(()))
}

async fn write_on(
    link: &Link,
    number: u64,
    writer: &mut OwnedWriteHalf,
    batch: &mut BytesMut,
) -> Result<(), Ended> {
    loop {
        flush(link, number, writer, batch).await?;
        link.output.notified().await;
    }
}

/// Writes all there is. May be dropped half way: `batch` holds what is not written then.
async fn flush(
    link: &Link,
    number: u64,
    writer: &mut OwnedWriteHalf,
    batch: &mut BytesMut,
) -> Result<(), Ended> {
    loop {
        while batch.len() < BATCH {
            let message = {
                let mut core = link.lock();
                if core.speaks(number) { core.protocol.poll_message()? } else { None }
            };
            match message {
                Some(bytes) => batch.extend_from_slice(&bytes),
                None => break,
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        while !batch.is_empty() {
            // By send(2) and MSG_NOSIGNAL. `write_buf` is writev(2), which raises SIGPIPE where the
            // connection has ended, and ends a process that is not made to ignore it.
            let written = writer.write(batch).await?;
            batch.advance(written);
        }
    }
}

fn tune(stream: &TcpStream) {
    let socket = SockRef::from(stream);
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(10))
        .with_interval(Duration::from_secs(5))
        .with_retries(3);
    // Without these a dead host is noticed later, by the heartbeats; nothing else depends on them.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}
