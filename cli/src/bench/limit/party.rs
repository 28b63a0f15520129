//! One side of a measurement: its memory, its connections, and what it does in a rep and a ping.
//! Client and server differ in who begins. Not how they agree to begin.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use kvx::TransferOp;

use super::super::workload::Span;
use super::foreign::{Foreign, Pull};
use super::memory::{Memory, check_pairs, invalid, shares};
use super::stream::{self, Load, Side};

/// Connections of a rep at most.
pub(crate) const MAX_CONNECTIONS: usize = 4;

/// One side.
#[derive(Debug)]
pub(super) struct Party {
    side: Side,
    op: TransferOp,
    memory: Memory,
    /// Where the content of each block comes from, in the source's memory.
    sources: Vec<Span>,
    /// Those of the other side's party in the same order, `MAX_CONNECTIONS` of them; none before
    /// [`Party::connect`].
    streams: Vec<TcpStream>,
    /// The other side's memory, if blocks are read out of the source's by the target's process.
    foreign: Option<Foreign>,
}

/// Whether a rep or a ping is looked at afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// The receiver wipes its memory before and compares every byte afterwards.
    Bytes,
    Nothing,
}

impl Party {
    /// A side whose memory is ready.
    ///
    /// # Errors
    /// Lists that do not pair up, empty or overlapping blocks, blocks outside of memory, or not
    /// enough of it.
    pub(super) fn new(
        side: Side,
        op: TransferOp,
        (own_len, own): (usize, &[Span]),
        sources: Vec<Span>,
    ) -> io::Result<Self> {
        check_pairs(&sources, own)?;
        let mut party = Self {
            side,
            op,
            memory: Memory::new(own_len, own)?,
            sources,
            streams: Vec::new(),
            foreign: None,
        };
        if party.sends() {
            party.memory.fill();
        } else {
            party.memory.slices_mut()?;
        }
        Ok(party)
    }

    /// Gives it its connections.
    pub(super) fn connect(&mut self, streams: Vec<TcpStream>) {
        self.streams = streams;
    }

    /// Lets blocks be read out of memory, no longer sent.
    ///
    /// # Errors
    /// Blocks of the source that do not lie in it.
    pub(super) fn reach(&mut self, foreign: Foreign) -> io::Result<()> {
        if !self.sends() {
            foreign.blocks(&self.sources)?;
        }
        self.foreign = Some(foreign);
        Ok(())
    }

    /// This side's memory, as the other reaches it.
    pub(super) fn lend(&self) -> Foreign {
        let pid = std::process::id().cast_signed();
        Foreign { pid, base: self.memory.address(), len: self.memory.len() }
    }

    fn sends(&self) -> bool {
        (self.op == TransferOp::Write) == (self.side == Side::Client)
    }

    /// One rep over so many connections. `ready` is called when this side could begin.
    ///
    /// # Errors
    /// A connection that breaks or stands still; bytes that arrived wrong.
    pub(super) fn rep(
        &mut self,
        connections: usize,
        check: Check,
        ready: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<Duration> {
        self.prepare(check);
        let streams = self.streams.get(..connections).filter(|streams| !streams.is_empty());
        let streams = streams.ok_or_else(|| invalid("a number of connections"))?;
        let shares = shares(&self.sources, connections);
        let load = match (self.sends(), &self.foreign) {
            (true, None) => Load::Send(self.memory.sources(&shares)),
            (false, None) => Load::Receive(self.memory.targets(&shares)?),
            (true, Some(_)) => Load::Lend(shares.len()),
            (false, Some(foreign)) => {
                let mut there = foreign.blocks(&self.sources)?.into_iter();
                let mut pull = |here: Vec<_>| {
                    let there = there.by_ref().take(here.len()).collect();
                    Pull { pid: foreign.pid, here, there }
                };
                let targets = self.memory.targets(&shares)?.into_iter();
                Load::Pull(targets.map(&mut pull).collect())
            }
        };
        let spent = stream::carry(streams, load, self.side, ready)?;
        if check == Check::Bytes {
            self.check()?;
        }
        Ok(spent)
    }

    /// Wipes what will be looked at, so that nothing from before is taken for what arrives.
    pub(super) fn prepare(&mut self, check: Check) {
        if check == Check::Bytes && !self.sends() {
            self.memory.wipe();
        }
    }

    /// The client's side of a ping: all blocks there and a byte back, or a byte there and all
    /// blocks back.
    ///
    /// # Errors
    /// The connection breaks or stands still; bytes that arrived wrong here.
    pub(super) fn ping(&mut self, stream: &TcpStream, check: Check) -> io::Result<Duration> {
        self.prepare(check);
        let begin;
        if self.sends() {
            let mut slices: Vec<_> = self.memory.slices().map(IoSlice::new).collect();
            begin = Instant::now();
            stream::send(stream, &mut slices)?;
            stream::read_byte(stream)?;
        } else {
            let slices = self.memory.slices_mut()?;
            let mut slices: Vec<_> = slices.into_iter().map(IoSliceMut::new).collect();
            begin = Instant::now();
            stream::write_byte(stream)?;
            stream::receive(stream, &mut slices)?;
        }
        let spent = begin.elapsed();
        if check == Check::Bytes {
            self.check()?;
        }
        Ok(spent)
    }

    /// The server's side of pings, until the client ends the stream. `tell` hears after the first,
    /// before which this side was prepared, whether its bytes arrived right.
    pub(super) fn answer_pings(
        &mut self,
        stream: &TcpStream,
        tell: impl FnOnce(io::Result<()>) -> io::Result<()>,
    ) -> io::Result<()> {
        let first = self.answer_some(stream, 1).and_then(|()| tell(self.check()));
        match first.and_then(|()| self.answer_some(stream, u64::MAX)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(()),
            outcome => outcome,
        }
    }

    fn answer_some(&mut self, stream: &TcpStream, pings: u64) -> io::Result<()> {
        if self.sends() {
            self.send_pings(stream, pings)
        } else {
            self.receive_pings(stream, pings)
        }
    }

    fn send_pings(&self, stream: &TcpStream, pings: u64) -> io::Result<()> {
        for _ in 0..pings {
            let mut slices: Vec<_> = self.memory.slices().map(IoSlice::new).collect();
            stream::read_byte(stream)?;
            stream::send(stream, &mut slices)?;
        }
        Ok(())
    }

    fn receive_pings(&mut self, stream: &TcpStream, pings: u64) -> io::Result<()> {
        let mut blocks = self.memory.slices_mut()?;
        for _ in 0..pings {
            let mut slices: Vec<_> =
                blocks.iter_mut().map(|block| IoSliceMut::new(block)).collect();
            stream::receive(stream, &mut slices)?;
            stream::write_byte(stream)?;
        }
        Ok(())
    }

    /// Compares what was received with what was sent; nothing to do for who sends.
    pub(super) fn check(&self) -> io::Result<()> {
        let wrong = if self.sends() { 0 } else { self.memory.count_wrong(&self.sources) };
        if wrong == 0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, format!("{wrong} bytes arrived wrong")))
    }
}
