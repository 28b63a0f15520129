//! Two eventfds between two processes, and the bare round trip over them: each side sleeps in a
//! read of its own, and writes the other's. What passes is a number, no block.

use std::io;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::memory::invalid;

/// One side's pair.
#[derive(Debug)]
pub(super) struct Bells {
    /// What this side sleeps on.
    own: OwnedFd,
    /// What wakes the other.
    other: OwnedFd,
    is_over: AtomicBool,
}

impl Bells {
    /// A new pair, and its numbers in this process.
    pub(super) fn new() -> io::Result<(Self, [i32; 2])> {
        let [own, other] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC));
        let bells = Self { own: own?, other: other?, is_over: AtomicBool::new(false) };
        let numbers = [bells.own.as_raw_fd(), bells.other.as_raw_fd()];
        Ok((bells, numbers))
    }

    /// The pair that has these numbers in the process `pid`, whose side is the other.
    ///
    /// # Errors
    /// `PermissionDenied` or `Unsupported`: this host allows no such thing.
    pub(super) fn of(pid: i32, [theirs, own]: [i32; 2]) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or_else(|| invalid("no process's id"))?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let [own, other] =
            [own, theirs].map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()));
        Ok(Self { own: own?, other: other?, is_over: AtomicBool::new(false) })
    }

    /// There and back.
    ///
    /// # Errors
    /// Another number came back; or all is over.
    pub(super) fn ping(&self, number: u64) -> io::Result<()> {
        ring(&self.other, number)?;
        match self.hear()? {
            back if back == number => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "another number came back")),
        }
    }

    /// Sends back what comes, until all is over.
    pub(super) fn answer(&self) -> io::Result<()> {
        loop {
            match self.hear() {
                Ok(number) => ring(&self.other, number)?,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for the stream's end, which is that of the other side or of all; then wakes whoever
    /// sleeps on this side's, for nobody else would.
    pub(super) fn watch(&self, stream: &TcpStream) {
        let _ = stream.set_read_timeout(None);
        // The other side says nothing on it.
        let _ = io::copy(&mut { stream }, &mut io::sink());
        self.is_over.store(true, Ordering::Release);
        let _ = ring(&self.own, 1);
    }

    fn hear(&self) -> io::Result<u64> {
        let mut number = [0; 8];
        let read = rustix::io::retry_on_intr(|| rustix::io::read(&self.own, &mut number))?;
        if self.is_over.load(Ordering::Acquire) || read != number.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(u64::from_ne_bytes(number))
    }
}

/// An eventfd takes a number that leaves room for it, and the other side has read the last one.
fn ring(bell: &OwnedFd, number: u64) -> io::Result<()> {
    loop {
        match rustix::io::write(bell, &number.to_ne_bytes()) {
            Err(Errno::INTR) => {}
            outcome => return outcome.map(drop).map_err(io::Error::from),
        }
    }
}
