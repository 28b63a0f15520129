//! A session as the server sees it: from the setup through one order after another to the client's
//! end.

use std::io::{self, BufReader};
use std::net::{Shutdown, TcpStream};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use kvx::TransferOp;

use super::bells::Bells;
use super::memory::invalid;
use super::message::{Order, Setup, answer};
use super::party::{Check, MAX_CONNECTIONS, Party};
use super::server::{Guest, Loan, PINGS};
use super::stream::{ReadUntil, Side, tune};

/// How long the client may take with its setup, and with each of its data connections.
const PATIENCE: Duration = Duration::from_secs(30);

/// Serves a client until it ends. What it cannot be told, it sees from the connection's end.
pub(super) fn serve(control: &Guest) {
    let _ = try_serve(control);
}

/// One client's session.
struct Session<'a> {
    control: &'a TcpStream,
    party: Party,
    arrivals: Receiver<(u64, Guest)>,
    /// The data connections in order, which end with this.
    data: Vec<Guest>,
    /// Whether blocks are read out of memory.
    lends: bool,
    /// Keeps the memory reserved.
    _loan: Loan,
}

fn try_serve(guest: &Guest) -> io::Result<()> {
    let control = &guest.stream;
    control.set_nodelay(true)?;
    let mut session = match Session::open(guest) {
        Ok(session) => session,
        Err(error) => return answer(control, &Err(error)),
    };
    answer(control, &Ok(0))?;
    // Between orders the client may take its time.
    control.set_read_timeout(None)?;
    while let Some(order) = Order::read(control)? {
        let outcome = match order {
            Order::Rep { connections, checked } => session.rep(connections.into(), checked),
            Order::Pings => session.answer_pings(),
        };
        match outcome {
            Ok(()) if order == Order::Pings => {}
            outcome => answer(control, &outcome.map(|()| 0))?,
        }
    }
    Ok(())
}

impl<'a> Session<'a> {
    /// Prepares what the client asks for: memory first, then connections.
    fn open(guest: &'a Guest) -> io::Result<Self> {
        let control = &guest.stream;
        // The client says no more until it is answered: nothing is read beyond the setup.
        let until = Instant::now() + PATIENCE;
        let setup = Setup::read(BufReader::new(ReadUntil::new(control, until)))?;
        let loan = guest.borrow(setup.cost())?;
        let blocks = &setup.blocks;
        let own = match setup.op {
            TransferOp::Write => (blocks.target_len, &blocks.target[..]),
            TransferOp::Read => (blocks.source_len, &blocks.source[..]),
        };
        let mut party = Party::new(Side::Server, setup.op, own, blocks.source.clone())?;
        let lender = guest.lender();
        if let Some(lender) = lender {
            party.reach(lender)?;
        }
        let (id, arrivals) = guest.open_session();
        answer(control, &Ok(id))?;
        let lends = lender.is_some();
        if lends {
            let own = party.lend();
            answer(control, &Ok(own.pid.cast_unsigned().into()))?;
            answer(control, &Ok(own.base))?;
        }
        let mut session = Self { control, party, arrivals, data: Vec::new(), lends, _loan: loan };
        let arrived = (0..MAX_CONNECTIONS).map(|_| session.next_arrival());
        let mut arrived = arrived.collect::<io::Result<Vec<_>>>()?;
        arrived.sort_by_key(|(place, _)| *place);
        if (0..).zip(&arrived).any(|(expected, (place, _))| expected != *place) {
            return Err(invalid("data connections that do not fit"));
        }
        session.data = arrived.into_iter().map(|(_, guest)| guest).collect();
        let streams = session.data.iter().map(|guest| guest.stream.try_clone());
        session.party.connect(streams.collect::<io::Result<_>>()?);
        Ok(session)
    }

    fn rep(&mut self, connections: usize, checked: bool) -> io::Result<()> {
        let check = if checked { Check::Bytes } else { Check::Nothing };
        let control = self.control;
        self.party.rep(connections, check, || answer(control, &Ok(0))).map(drop)
    }

    fn answer_pings(&mut self) -> io::Result<()> {
        let (place, guest) = self.next_arrival()?;
        if place != PINGS {
            return Err(invalid("a data connection that does not fit"));
        }
        // Between pings the client may take its time.
        guest.stream.set_read_timeout(None)?;
        if self.lends {
            return self.answer_bells(&guest.stream);
        }
        self.party.prepare(Check::Bytes);
        let control = self.control;
        answer(control, &Ok(0))?;
        let tell = |outcome: io::Result<()>| answer(control, &outcome.map(|()| 0));
        self.party.answer_pings(&guest.stream, tell)
    }

    /// Answers on eventfds that the client takes, until it ends the stream.
    fn answer_bells(&self, stream: &TcpStream) -> io::Result<()> {
        let (bells, numbers) = Bells::new()?;
        answer(self.control, &Ok(0))?;
        for number in numbers {
            answer(self.control, &Ok(number.cast_unsigned().into()))?;
        }
        thread::scope(|scope| {
            scope.spawn(|| bells.watch(stream));
            let outcome = bells.answer();
            let _ = stream.shutdown(Shutdown::Both);
            outcome
        })
    }

    fn next_arrival(&self) -> io::Result<(u64, Guest)> {
        let arrival = self.arrivals.recv_timeout(PATIENCE);
        let (place, guest) = arrival.map_err(|_| io::ErrorKind::TimedOut)?;
        tune(&guest.stream)?;
        Ok((place, guest))
    }
}
