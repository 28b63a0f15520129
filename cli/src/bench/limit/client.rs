//! The side that measures: agrees with a server on what moves, then counts the time. Not what is
//! made of it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use kvx::TransferOp;

use super::super::workload::Blocks;
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
    address: SocketAddr,
    control: TcpStream,
    session: u64,
    party: Party,
    /// Numbers of connections that have moved the right bytes once.
    checked: [bool; MAX_CONNECTIONS + 1],
    /// Open while the server answers pings.
    pings: Option<TcpStream>,
}

impl LimitClient {
    /// Connects to a server and lets both sides prepare their memory. A WRITE goes from here to
    /// the server. The kernel sizes the sockets' buffers, as it does for kvx.
    ///
    /// # Errors
    /// Nobody is there; blocks that do not pair up, are empty, overlap at the target or lie outside
    /// of their memory; not enough memory on either side.
    pub(crate) fn connect(addr: SocketAddr, blocks: &Blocks, op: TransferOp) -> io::Result<Self> {
        let own = match op {
            TransferOp::Write => (blocks.source_len, &blocks.source[..]),
            TransferOp::Read => (blocks.target_len, &blocks.target[..]),
        };
        check_pairs(&blocks.source, &blocks.target)?;
        let party = Party::new(Side::Client, op, own, blocks.source.clone())?;
        let control = TcpStream::connect_timeout(&addr, CONNECTS)?;
        control.set_nodelay(true)?;
        control.set_read_timeout(Some(PATIENCE))?;
        Hello::Session.write(&control)?;
        Setup { op, blocks: blocks.clone() }.write(&control)?;
        let session = read_answer(&control)?;
        let mut client = Self {
            address: addr,
            control,
            session,
            party,
            checked: [false; MAX_CONNECTIONS + 1],
            pings: None,
        };
        let streams = (0..MAX_CONNECTIONS as u64).map(|place| client.open(place));
        let streams = streams.collect::<io::Result<_>>()?;
        client.party.connect(streams);
        read_answer(&client.control)?;
        Ok(client)
    }

    /// One rep over so many connections, 1 to 4. The first of each number is preceded by one that
    /// does not count, whose bytes are compared.
    ///
    /// # Errors
    /// A connection that breaks or stands still for 30 s; bytes that arrived wrong.
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
        let checked = check == Check::Bytes;
        Order::Rep { connections: connections as u8, checked }.write(&self.control)?;
        let control = &self.control;
        let mut begun = false;
        let spent = self.party.rep(connections, check, || {
            read_answer(control)?;
            begun = true;
            Ok(())
        });
        if !begun {
            return spent;
        }
        // The server's answer after the rep: whether the bytes that it got are right.
        let answer = read_answer(control);
        spent.and_then(|spent| answer.map(|_| spent))
    }

    /// One round trip over a connection of its own, at whose other end a thread waits: for a WRITE
    /// the blocks there and a byte back, for a READ a byte there and the blocks back. The first of
    /// a connection is preceded by one that does not count, whose bytes are compared.
    ///
    /// # Errors
    /// The connection breaks or stands still for 30 s; bytes that arrived wrong.
    pub(crate) fn ping(&mut self) -> io::Result<Duration> {
        if self.pings.is_none() {
            Order::Pings.write(&self.control)?;
            let stream = self.open(PINGS)?;
            read_answer(&self.control)?;
            self.party.ping(&stream, Check::Bytes)?;
            // Whether the bytes that the server got are right.
            read_answer(&self.control)?;
            self.pings = Some(stream);
        }
        let Some(stream) = &self.pings else { return Err(io::ErrorKind::NotConnected.into()) };
        self.party.ping(stream, Check::Nothing)
    }

    /// Compares every byte that this side has received.
    #[cfg(test)]
    pub(super) fn check(&self) -> io::Result<()> {
        self.party.check()
    }

    fn open(&self, place: u64) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, CONNECTS)?;
        tune(&stream)?;
        Hello::Data { session: self.session, place }.write(&stream)?;
        Ok(stream)
    }
}
