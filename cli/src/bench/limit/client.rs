//! The side that measures: agrees with a server on what moves, then counts the time. Not what is
//! made of it.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvx::TransferOp;

use super::super::workload::Blocks;
use super::Means;
use super::bells::Bells;
use super::foreign::Foreign;
use super::memory::{check_pairs, invalid};
use super::message::{Hello, Order, Setup, read_answer};
use super::party::{Check, MAX_CONNECTIONS, Party};
use super::server::PINGS;
use super::stream::{Side, tune};

/// How long a connection may take to come about.
const CONNECTS: Duration = Duration::from_secs(5);

/// How long the server may take to answer: it fills, wipes and compares its memory before.
const PATIENCE: Duration = Duration::from_secs(120);

/// Measures the limit for the blocks of one workload. Dropping it frees the server's memory.
pub(crate) struct LimitClient {
    blocks: Blocks,
    op: TransferOp,
    party: Party,
    /// `None` before [`LimitClient::connect`].
    session: Option<Session>,
    /// Numbers of connections that have moved the right bytes once.
    checked: [bool; MAX_CONNECTIONS + 1],
    /// Open while the server answers pings.
    pings: Option<Pings>,
}

/// The server, as this side knows it.
struct Session {
    address: SocketAddr,
    control: TcpStream,
    id: u64,
    /// The server's memory, where blocks are read out of memory.
    foreign: Option<Foreign>,
}

/// Where pings go.
enum Pings {
    Stream(TcpStream),
    Bells(Ringing),
}

impl LimitClient {
    /// Prepares this side's memory. A WRITE goes from here to the server.
    ///
    /// # Errors
    /// Blocks that do not pair up, are empty, overlap at the target or lie outside of their memory;
    /// not enough memory.
    pub(crate) fn new(blocks: &Blocks, op: TransferOp) -> io::Result<Self> {
        let own = match op {
            TransferOp::Write => (blocks.source_len, &blocks.source[..]),
            TransferOp::Read => (blocks.target_len, &blocks.target[..]),
        };
        check_pairs(&blocks.source, &blocks.target)?;
        let party = Party::new(Side::Client, op, own, blocks.source.clone())?;
        let checked = [false; MAX_CONNECTIONS + 1];
        Ok(Self { blocks: blocks.clone(), op, party, session: None, checked, pings: None })
    }

    /// This side's memory, as a server on the same host reaches it.
    pub(crate) fn lend(&self) -> Foreign {
        self.party.lend()
    }

    /// Connects to a server that was started for the same means, and lets it prepare its memory.
    /// The kernel sizes the sockets' buffers, as it does for kvx.
    ///
    /// # Errors
    /// Nobody is there; or it refuses these blocks, for lack of memory for example.
    pub(crate) fn connect(&mut self, address: SocketAddr, means: Means) -> io::Result<()> {
        let control = TcpStream::connect_timeout(&address, CONNECTS)?;
        control.set_nodelay(true)?;
        control.set_read_timeout(Some(PATIENCE))?;
        Hello::Session.write(&control)?;
        Setup { op: self.op, blocks: self.blocks.clone() }.write(&control)?;
        let id = read_answer(&control)?;
        let foreign = match means {
            Means::Streams => None,
            Means::Memory(_) => Some(self.read_foreign(&control)?),
        };
        if let Some(foreign) = foreign {
            self.party.reach(foreign)?;
        }
        let session = Session { address, control, id, foreign };
        let streams = (0..MAX_CONNECTIONS as u64).map(|place| session.open(place));
        self.party.connect(streams.collect::<io::Result<_>>()?);
        read_answer(&session.control)?;
        self.session = Some(session);
        Ok(())
    }

    /// Where the server's memory is.
    fn read_foreign(&self, control: &TcpStream) -> io::Result<Foreign> {
        let pid = read_answer(control)?;
        let pid = i32::try_from(pid).map_err(|_| invalid("no process's id"))?;
        let len = match self.op {
            TransferOp::Write => self.blocks.target_len,
            TransferOp::Read => self.blocks.source_len,
        };
        Ok(Foreign { pid, base: read_answer(control)?, len: len as u64 })
    }

    /// One rep over so many connections, 1 to 4. The first of each number is preceded by one that
    /// does not count, whose bytes are compared.
    ///
    /// # Errors
    /// A connection that breaks or stands still for 30 s; bytes that arrived wrong; memory that the
    /// other side may not read ([`is_refusal`](super::is_refusal)).
    pub(crate) fn rep(&mut self, connections: usize) -> io::Result<Duration> {
        self.pings = None;
        let checked = self.checked.get(connections).copied();
        if !checked.filter(|_| connections > 0).ok_or_else(|| invalid("1 to 4 connections"))? {
            self.rep_checked(connections, Check::Bytes)?;
            self.checked[connections] = true;
        }
        self.rep_checked(connections, Check::Nothing)
    }

    fn rep_checked(&mut self, connections: usize, check: Check) -> io::Result<Duration> {
        let Session { control, foreign, .. } = self.session.as_ref().ok_or_else(not_connected)?;
        if foreign.is_some() && self.op == TransferOp::Read {
            // The server has nothing to do: it need not know.
            return self.party.rep(connections, check, || Ok(()));
        }
        let checked = check == Check::Bytes;
        Order::Rep { connections: connections as u8, checked }.write(control)?;
        let mut begun = false;
        let spent = self.party.rep(connections, check, || {
            read_answer(control)?;
            begun = true;
            Ok(())
        });
        if !begun {
            return spent;
        }
        // The server's answer after the rep: whether the bytes that it got are right. It knows more
        // than the connections do.
        read_answer(control).and(spent)
    }

    /// One round trip, at whose other end a thread waits: over a connection of its own, for a WRITE
    /// the blocks there and a byte back, for a READ a byte there and the blocks back; or, where
    /// blocks are read out of memory, over eventfds and without the blocks. The first is preceded
    /// by one that does not count, whose bytes are compared.
    ///
    /// # Errors
    /// The connection breaks or stands still for 30 s; what arrived is wrong; eventfds that this
    /// process may not take ([`is_refusal`](super::is_refusal)).
    pub(crate) fn ping(&mut self) -> io::Result<Duration> {
        if self.pings.is_none() {
            self.pings = Some(self.begin_pings()?);
        }
        match &mut self.pings {
            Some(Pings::Stream(stream)) => self.party.ping(stream, Check::Nothing),
            Some(Pings::Bells(bells)) => bells.ping(),
            None => Err(not_connected()),
        }
    }

    fn begin_pings(&mut self) -> io::Result<Pings> {
        let session = self.session.as_ref().ok_or_else(not_connected)?;
        Order::Pings.write(&session.control)?;
        let stream = session.open(PINGS)?;
        read_answer(&session.control)?;
        let Some(foreign) = session.foreign else {
            self.party.ping(&stream, Check::Bytes)?;
            // Whether the bytes that the server got are right.
            read_answer(&session.control)?;
            return Ok(Pings::Stream(stream));
        };
        let number = || {
            let number = read_answer(&session.control)?;
            i32::try_from(number).map_err(|_| invalid("no descriptor's number"))
        };
        let numbers = [number()?, number()?];
        let mut bells = Ringing::new(Bells::of(foreign.pid, numbers)?, stream)?;
        bells.ping()?;
        Ok(Pings::Bells(bells))
    }

    /// Compares every byte that this side has received.
    #[cfg(test)]
    pub(super) fn check(&self) -> io::Result<()> {
        self.party.check()
    }
}

impl Session {
    fn open(&self, place: u64) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECTS)?;
        tune(&stream)?;
        Hello::Data { session: self.id, place }.write(&stream)?;
        Ok(stream)
    }
}

/// Eventfds that the server answers on as long as a connection is open.
struct Ringing {
    bells: Arc<Bells>,
    stream: TcpStream,
    /// Pings so far.
    count: u64,
    /// Sees when the server is gone.
    watcher: Option<JoinHandle<()>>,
}

impl Ringing {
    fn new(bells: Bells, stream: TcpStream) -> io::Result<Self> {
        let bells = Arc::new(bells);
        let (watched, end) = (Arc::clone(&bells), stream.try_clone()?);
        let named = thread::Builder::new().name("kvx-limit".to_owned());
        let watcher = Some(named.spawn(move || watched.watch(&end))?);
        Ok(Self { bells, stream, count: 0, watcher })
    }

    fn ping(&mut self) -> io::Result<Duration> {
        self.count += 1;
        let begin = Instant::now();
        self.bells.ping(self.count)?;
        Ok(begin.elapsed())
    }
}

impl Drop for Ringing {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        if let Some(watcher) = self.watcher.take() {
            // One that panicked has printed why.
            let _ = watcher.join();
        }
    }
}

fn not_connected() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
