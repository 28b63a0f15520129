//! The bare loop itself: lists of slices over blocking sockets, one thread a connection; or out of
//! the other process's memory, where the sockets say no more than when. Not which slices they are.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::foreign::Pull;
use super::together::together;

/// Entries of one vectored call at most: UIO_MAXIOV of readv(2) and process_vm_readv(2).
pub(super) const VECTOR_LEN: usize = 1024;

/// How long a connection may stand still before the measurement fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one side of a rep moves on each of its connections.
pub(super) enum Load<'a> {
    Send(Vec<Vec<IoSlice<'a>>>),
    Receive(Vec<Vec<IoSliceMut<'a>>>),
    /// The other side reads this one's memory, by so many threads.
    Lend(usize),
    Pull(Vec<Pull<'a>>),
}

/// What one connection moves.
enum Share<'a> {
    Send(Vec<IoSlice<'a>>),
    Receive(Vec<IoSliceMut<'a>>),
    Lend,
    Pull(Pull<'a>),
}

/// Which side begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Begins: sends its blocks, or a byte that asks for them.
    Client,
    /// Is there first.
    Server,
}

/// Sets what kvx sets: no delay. The buffers' sizes are the kernel's choice.
pub(super) fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Reads from a stream until a moment, however slowly the bytes come in before.
#[derive(Debug)]
pub(super) struct ReadUntil<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl<'a> ReadUntil<'a> {
    pub(super) fn new(stream: &'a TcpStream, until: Instant) -> Self {
        Self { stream, until }
    }
}

impl Read for ReadUntil<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(bytes)
    }
}

/// Moves a load over as many streams as it has shares, one thread each, of which the calling
/// thread is the first. `ready` is called when all threads are there. Gives the time from then
/// until the last is done.
pub(super) fn carry(
    streams: &[TcpStream],
    load: Load<'_>,
    side: Side,
    ready: impl FnOnce() -> io::Result<()>,
) -> io::Result<Duration> {
    let shares: Vec<Share<'_>> = match load {
        Load::Send(shares) => shares.into_iter().map(Share::Send).collect(),
        Load::Receive(shares) => shares.into_iter().map(Share::Receive).collect(),
        Load::Lend(threads) => (0..threads).map(|_| Share::Lend).collect(),
        Load::Pull(shares) => shares.into_iter().map(Share::Pull).collect(),
    };
    let pairs = streams.iter().zip(shares);
    let jobs = pairs.map(|(stream, share)| move || share.carry(stream, side));
    // The other threads wait for what will never come.
    let abort = || streams.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    together(jobs, ready, abort)
}

impl Share<'_> {
    /// One rep of one connection: there the blocks, back a byte. A client that wants to receive
    /// asks first; but one that reads out of the other's memory asks nobody.
    fn carry(self, stream: &TcpStream, side: Side) -> io::Result<()> {
        match self {
            Self::Send(mut slices) => {
                if side == Side::Server {
                    read_byte(stream)?;
                }
                send(stream, &mut slices)?;
                read_byte(stream)
            }
            Self::Receive(mut slices) => {
                if side == Side::Client {
                    write_byte(stream)?;
                }
                receive(stream, &mut slices)?;
                write_byte(stream)
            }
            Self::Lend if side == Side::Client => {
                write_byte(stream)?;
                read_byte(stream)
            }
            Self::Lend => Ok(()),
            Self::Pull(pull) if side == Side::Client => pull.run(),
            Self::Pull(pull) => {
                read_byte(stream)?;
                pull.run()?;
                write_byte(stream)
            }
        }
    }
}

/// Sends all slices. None of them is empty.
pub(super) fn send(mut stream: &TcpStream, mut rest: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !rest.is_empty() {
        let vector = rest.get(..VECTOR_LEN).unwrap_or(rest);
        match stream.write_vectored(vector) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => IoSlice::advance_slices(&mut rest, sent),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Receives into all slices. None of them is empty.
pub(super) fn receive(mut stream: &TcpStream, mut rest: &mut [IoSliceMut<'_>]) -> io::Result<()> {
    while !rest.is_empty() {
        let len = rest.len().min(VECTOR_LEN);
        match stream.read_vectored(&mut rest[..len]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => IoSliceMut::advance_slices(&mut rest, received),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

pub(super) fn read_byte(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])
}

pub(super) fn write_byte(mut stream: &TcpStream) -> io::Result<()> {
    stream.write_all(&[1])
}
